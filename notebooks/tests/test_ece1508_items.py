"""ECE1508, item by item of the sheet: our notebook, or somebody's (ece1508=NOTEBOOK).

Only imports, functions, classes and literals of the notebook are taken. The sheet gives
myRNN, myGatedRNN, myLSTM, train(model, loss function, epochs) and the sizes 28, 150, 10.
forward may take the initial state and return all outputs; the function of item 10 may
give the error or the accuracy. Where train uses loaders, data or a device of the
notebook, it gets small ones.
"""

import ast
import builtins
import contextlib
import inspect
import itertools
import re
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from IPython.core.inputtransformer2 import TransformerManager
from items import Finding, attempt, expect, explained
from submission.notebooks import code_cells, read_notebook
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import helpers  # noqa: F401 (lets torchvision be imported beside a CPU-only torch)

UNITS = {"myRNN": nn.RNN, "myGatedRNN": nn.GRU, "myLSTM": nn.LSTM}
QUESTIONS = dict(zip(UNITS, ("P1.7 P1.8 P1.9", "P2.1 P2.2 P2.3", "P3.1 P3.2 P3.3")))
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
B = 4


# ------------------------------------------------------------ definitions of a notebook
class Names(dict):
    """A notebook's names. `stand_ins`: (pattern, value) of those that running it makes."""

    stand_ins = ()

    def __missing__(self, name):
        for pattern, value in () if hasattr(builtins, name) else self.stand_ins:
            if re.search(pattern, name.lower()):
                return value
        raise KeyError(name)


def is_literal(node):
    if not isinstance(node, ast.Assign):
        return False
    with contextlib.suppress(ValueError):
        ast.literal_eval(node.value)
        return True
    return False


def definitions(answer):
    def loader(file):
        names, magics = Names(__name__="notebook"), TransformerManager()
        names.stand_ins = stand_ins(channel=True)
        for number, cell in enumerate(code_cells(read_notebook(answer.path)), 1):
            source = re.sub(r"\A\s*%%.*", "", cell.source)  # a magic of the whole cell
            with contextlib.suppress(SyntaxError):  # it would not run there either
                body = ast.parse(magics.transform_cell(source)).body
                for node in body:
                    if isinstance(node, DEFINITIONS) or is_literal(node):
                        code = compile(
                            ast.Module([node], []), f"{file}, cell {number}", "exec"
                        )
                        with contextlib.suppress(Exception):  # then the name is missing
                            exec(code, names)  # noqa: S102
        return SimpleNamespace(**names, names_=names)

    return answer.load(answer.path.name, loader)


def get(answer, name):
    definitions(answer)
    return answer.get(answer.path.name, name)


def stand_ins(channel):
    """40 images with a bar at the place of their class, in loaders and data sets."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 10
    images = 0.1 * torch.rand(40, 28, 28, generator=generator)
    for image, label in zip(images, labels):
        image[:, 2 * label : 2 * label + 3] = 1
    data = TensorDataset(images[:, None] if channel else images, labels)
    return (
        ("batch_?size", 16),
        ("device", torch.device("cpu")),
        ("load|batches|iter", DataLoader(data, 16, shuffle=True)),
        ("set|data|train|valid|test", data),
    )


# --------------------------------------------------------------------------- the models
def item(number, name, checked):
    label = QUESTIONS[name].split()[number]
    return pytest.param(name, marks=pytest.mark.item(f"ece1508 {label}", checked))


def build(answer, name):
    torch.manual_seed(0)
    cls = get(answer, name)
    return attempt(f"{name}()", cls, "a model: model = myRNN() (items 4 and 13)").cpu()


def parts(model, name):
    """The recurrent unit, None where it is made by hand, and the output layer."""
    units = [m for m in model.modules() if isinstance(m, UNITS[name])]
    outputs = [m for m in model.modules() if isinstance(m, nn.Linear)]
    outputs = [m for m in outputs if (m.in_features, m.out_features) == (150, 10)]
    return (units or [None])[0], (outputs or [None])[0]


@pytest.mark.parametrize(
    "name",
    [
        item(0, "myRNN", "myRNN: one nn.RNN (28 to 150), one linear layer (150 to 10)"),
        item(0, "myGatedRNN", "myGatedRNN: one nn.GRU (28 to 150), one linear layer"),
        item(0, "myLSTM", "myLSTM: one nn.LSTM (28 to 150), one linear layer"),
    ],
)
def test_components(answer, name):
    unit, output = parts(build(answer, name), name)
    kind = f"nn.{UNITS[name].__name__}(28, 150, batch_first=True)"
    if unit is None and name != "myRNN":
        raise Finding(f"the parts of {name}()", f"no {kind}", kind)
    if output is None:
        raise Finding(f"the parts of {name}()", "no nn.Linear(150, 10)", "item 4")
    if unit is not None:  # that of the optional item 15 may be in its place
        sizes = (unit.input_size, unit.hidden_size, unit.num_layers, unit.batch_first)
        called = f"sizes, layers, batch_first of the unit of {name}()"
        expect(called, [*map(int, sizes)], [28, 150, 1, 1], kind)


def states(answer, name, batch):
    """The zero state (a tensor, or a pair) by whatever method makes it; how it's called."""
    model, cls = build(answer, name), get(answer, name)
    methods = [n for n in dir(cls) if n not in dir(nn.Module)]
    methods = [n for n in methods if inspect.isfunction(getattr(cls, n))]
    errors = ["no method"]
    for method in sorted(
        methods, key=lambda n: not re.search("init|zero|state|hid", n)
    ):
        for arguments in [(batch,), (batch, torch.device("cpu"))]:
            try:
                state = getattr(model, method)(*arguments)
                both = state if isinstance(state, (tuple, list)) else [state]
                assert all(isinstance(s, torch.Tensor) for s in both)
            except Exception as error:  # noqa: BLE001 (perhaps another method)
                errors.append(f"{method}{arguments}: {explained(error)}")
            else:
                return state, [*both], f"{name}().{method}({batch})"
    raise Finding(f"methods of {name}", errors[-1], f"zeros of shape (1, {batch}, 150)")


@pytest.mark.parametrize(
    "name",
    [
        item(
            1,
            "myRNN",
            "myRNN: a function that makes the zero state (1, batch size, 150)",
        ),
        item(1, "myGatedRNN", "myGatedRNN: the zero state (1, batch size, 150)"),
        item(
            1,
            "myLSTM",
            "myLSTM: the zero hidden state and cell state, (1, batch size, 150)",
        ),
    ],
)
def test_zero_state(answer, name):
    _, both, called = states(answer, name, 5)
    expect(f"number of states of {called}", len(both), 1 + (name == "myLSTM"), "item 8")
    for state in both:
        expect(called, state, torch.zeros(1, 5, 150).numpy(), "zeros")


def forward(answer, model, name, x):
    """The output of the last step for x (B, 28, 28), by whatever call works; the call."""
    errors = []
    for with_state, channel in itertools.product((False, True), repeat=2):
        try:
            arguments = [x[:, None] if channel else x]
            if with_state:
                arguments.append(states(answer, name, len(x))[0])
            result = model(*arguments)
            result = result[0] if isinstance(result, tuple) else result
            result = result[:, -1] if result.ndim == 3 else result
        except Exception as error:  # noqa: BLE001 (perhaps another call)
            errors.append(error)
        else:
            shape = tuple(arguments[0].shape)
            return result, f"{name}()(x{', state' * with_state}) for x {shape}"
    called = f"{name}()(x) for x {tuple(x.shape)}"
    raise Finding(called, explained(errors[0]), f"output of shape ({len(x)}, 10)")


@pytest.mark.parametrize(
    "name",
    [
        item(2, "myRNN", "myRNN.forward: zero state to the logits of step 28"),
        item(
            2,
            "myGatedRNN",
            "myGatedRNN.forward: zero state to the logits of step 28",
        ),
        item(2, "myLSTM", "myLSTM.forward: zero states to the logits of step 28"),
    ],
)
def test_forward(answer, name, record_property):
    model = build(answer, name).eval()
    x = torch.rand(B, 28, 28, generator=torch.Generator().manual_seed(1))
    forward(
        answer, model, name, x
    )  # a state that is kept would show in the second call
    result, called = forward(answer, model, name, x)
    expect(f"shape of {called}", tuple(result.shape), (B, 10), "item 4")
    unit, output = parts(model, name)
    record_property("how", "by equation" if unit and output else "by behaviour")
    if unit and output:
        wanted, by = output(unit(x)[0][:, -1]), "output layer of h[28], from h[0] = 0"
        if torch.allclose(result.sum(1), torch.ones(B)):
            by = "logits: the softmax is in nn.CrossEntropyLoss"
        compared = result.log_softmax(1), wanted.log_softmax(1).detach().numpy()
        expect(f"log softmax of {called}", *compared, by)
    else:
        for row in range(28):
            other = x.clone()
            other[0, row] += 1
            changed = (forward(answer, model, name, other)[0] - result).abs().amax(1)
            changed = (changed > 1e-9).float()
            called = f"images whose output changes with row {row + 1} of the first"
            expect(called, changed, [1.0, 0, 0, 0], "each row counts, for its image")


# -------------------------------------------------------------------- error and training
def rate(answer, outputs, labels):
    """The share of wrong or right answers by a function of item 10, and its call."""
    functions = vars(definitions(answer))["names_"]
    names = [n for n, f in functions.items() if inspect.isfunction(f)]
    names = [n for n in names if re.search("err|acc", n.lower())]
    wanted, errors = "item 10: the average error, or accuracy", ["no such function"]
    for name in sorted(names, key=lambda n: "err" not in n.lower()):
        try:
            return float(functions[name](outputs, labels)), f"{name}(z, labels)"
        except Exception as error:  # noqa: BLE001 (perhaps another function)
            errors.append(f"{name}(z, labels): {explained(error)}")
    raise Finding("functions with err or acc in their names", errors[-1], wanted)


@pytest.mark.item("ece1508 P1.10", "the average error (or accuracy) of a mini-batch")
def test_error(answer):
    labels = torch.tensor([3, 0, 9, 1, 1, 7, 2, 5])
    outputs = nn.functional.one_hot(labels, 10) + 0.1 * torch.rand(8, 10)
    outputs[1] = outputs[1].roll(1)
    value, called = rate(answer, outputs, labels)
    near = min((1 / 8, 7 / 8, 12.5, 87.5), key=lambda v: abs(v - value))
    expect(f"{called}, one of 8 wrong", value, near, "1/8 are wrong, 7/8 right")


@pytest.mark.item(
    "ece1508 P1.11", "dimensions for a mini-batch of 16 and for one image"
)
def test_dimensions(answer):
    for size in (16, 1):
        _, both, called = states(answer, "myRNN", size)
        expect(f"shape of {called}", tuple(both[0].shape), (1, size, 150), "item 8")
        x, model = torch.rand(size, 28, 28), build(answer, "myRNN")
        result, called = forward(answer, model, "myRNN", x)
        expect(f"shape of {called}", tuple(result.shape), (size, 10), "item 9")
        rate(answer, result, torch.zeros(size, dtype=torch.long))


class Counted(nn.CrossEntropyLoss):
    calls = 0

    def forward(self, outputs, labels):
        self.calls += torch.is_grad_enabled()
        return super().forward(outputs, labels)


@pytest.mark.item(
    "ece1508 P1.12", "train(model, loss function, epochs): counts, lowers the loss"
)
def test_train(answer):
    train, names = get(answer, "train"), definitions(answer).names_
    called = "train(model, nn.CrossEntropyLoss(), {})"
    for channel in (True, False):
        names.stand_ins = stand_ins(channel)
        try:
            train(build(answer, "myRNN"), Counted(), 1)
            break
        except NameError as error:
            pytest.skip(f"train needs what the notebook makes when run: {error}")
        except Exception as error:  # noqa: BLE001 (perhaps without the channel)
            problem = error
    else:
        raise Finding(called.format(1), explained(problem), "item 12: trains the model")
    counts = []
    for epochs in (1, 2, 3):
        model, loss = build(answer, "myRNN"), Counted()
        attempt(called.format(epochs), partial(train, model, loss, epochs), "item 12")
        counts.append(loss.calls)
    done = f"calls of the loss function in {called.format('1, 2, 3')}"
    each = max(counts[1] - counts[0], 3)  # three mini-batches
    wanted = [counts[2] - 2 * each, counts[2] - each, counts[2]]
    expect(done, counts, wanted, "as many more in each epoch")
    images, labels = stand_ins(False)[-1][1].tensors
    untrained = build(answer, "myRNN")
    before, after = (
        nn.functional.cross_entropy(forward(answer, m, "myRNN", images)[0], labels)
        for m in (untrained, model)
    )
    if not after < before:
        done = f"loss before and after {called.format(3)}"
        raise Finding(done, f"{before:.4f}, {after:.4f}", "item 12: training lowers it")
