"""TDL211, item by item of the sheet: our layers, or somebody's (--answers tdl211=PATH).

The sheet gives the files, "input features", "output features", no bias, random weights
and the layers that may not be used. It leaves open the names, whether a layer is one step
or runs along a sequence, and how it keeps its weights: (in, out) or (out, in), any order
of the gates. Where the weights are found, the layer is compared with its equation.
"""

import inspect
import itertools
import re

import pytest
import torch
from items import Finding, attempt, expect, explained, shown
from torch import nn

F, H, B, T = 3, 4, 2, 3  # features, output features, batch, time
FORBIDDEN = (nn.Linear, nn.RNNBase, nn.RNNCellBase)
NAMES = {"MLP.py": "Linear", "RNN.py": "RNNCell", "LSTM.py": "LSTMCell"}
COUNTS = {"MLP.py": F * H, "RNN.py": (F + H) * H, "LSTM.py": 4 * (F + H) * H}


def item(name, checked):
    return pytest.mark.item(f"tdl211 {name}", checked)


def find(answer, file):
    """The class of the layer: the one with PyTorch's name, else with as many weights."""
    module, name = answer.load(file), NAMES[file]
    classes = [c for c in vars(module).values() if inspect.isclass(c)]
    classes = [c for c in classes if issubclass(c, nn.Module)]
    classes = [c for c in classes if c.__module__ == module.__name__]
    if not classes:
        raise Finding(f"the classes of {file}", "no nn.Module", f"one like nn.{name}")
    made, error = [], None
    for cls in classes:
        try:
            fits = sum(p.numel() for p in cls(F, H).parameters()) == COUNTS[file]
            made.append((cls.__name__ != name, not fits, len(made), cls))
        except Exception as problem:  # noqa: BLE001 (perhaps another class)
            error = f"{cls.__name__}({F}, {H}): {explained(problem)}"
    if not made:
        raise Finding("the layer of two sizes", error, f"one like nn.{name}({F}, {H})")
    return min(made)[-1]


def check_weights(cls, file):
    """A layer, which has all weights that it needs, random ones, and nothing else."""
    torch.manual_seed(0)
    layer, other = cls(F, H), cls(F, H)
    call = f"{cls.__name__}({F}, {H})"
    for module in layer.modules():
        if isinstance(module, FORBIDDEN):
            used = f"nn.{type(module).__name__}"
            raise Finding(
                f"the parts of {call}", used, f"{used} written by hand (tips)"
            )
    shapes = {name: tuple(p.shape) for name, p in layer.named_parameters()}
    called = f"the parameters of {call}: {shapes}"
    by = "weights in nn.Parameter, and the bias ignored"
    expect(called, sum(p.numel() for p in layer.parameters()), COUNTS[file], by)
    for name, p in layer.named_parameters():
        if torch.equal(p, dict(other.named_parameters())[name]) or p.std() == 0:
            raise Finding(f"{name} of {call}, twice", shown(p.data), "random weights")
    return layer, call


def check_gradients(layer, call, result):
    result.sum().backward()
    for name, p in layer.named_parameters():
        if p.grad is None or not p.grad.any():
            called = f"gradient of {name} after {call}(x) and backward()"
            raise Finding(called, "none", "one that trains the weight")


# ---------------------------------------------------------------------------- task 1
@item("1", "linear layer: y = x W, no bias, random, by hand")
def test_linear(answer):
    cls = find(answer, "MLP.py")
    layer, call = check_weights(cls, "MLP.py")
    x = torch.randn(B, F)
    W = next(layer.parameters()).detach()
    W = W if W.shape == (F, H) else W.T
    expect(f"{call}(x) for x (2, 3)", lambda: layer(x), x @ W, "x W, task 1")
    check_gradients(layer, call, layer(x))
    call = f"{cls.__name__}(5, 2)(x) for x (7, 5)"
    shape = attempt(call, lambda: cls(5, 2)(torch.ones(7, 5)).shape, "shape (7, 2)")
    expect(f"shape of {call}", tuple(shape), (7, 2), "other features")


# ------------------------------------------------------------------- recurrent layers
def tensors(result):
    if isinstance(result, torch.Tensor):
        return [result]
    return [t for part in result for t in tensors(part)]


def stepwise(layer, x, count, pack):
    """h[T] of a layer that is one step: layer(x[t], state) -> state."""
    state = [torch.zeros(x.shape[1], H) for _ in range(count)]
    for x_t in x:
        result = layer(x_t, tuple(state)) if pack else layer(x_t, *state)
        state = [t for t in tensors(result) if t.shape == state[0].shape][-count:]
    return state[0]


def along(layer, x, batch_first):
    """h[T] of a layer that runs along a sequence."""
    result = tensors(layer(x.transpose(0, 1) if batch_first else x))
    states = [t for t in result if t.shape[-1] == H]
    if states[0].ndim == 3 and len(states[0]) > 1:
        return states[0][:, -1] if batch_first else states[0][-1]
    return states[0].reshape(x.shape[1], H)


def results(layer, x, count):
    """[(how it was called, h[T])] for all ways to call the layer that work, or Finding."""
    ways = {
        "(x[t], state) step by step": lambda: stepwise(layer, x, count, count > 1),
        "(x[t], h, c) step by step": lambda: stepwise(layer, x, count, False),
        "(x), batch first": lambda: along(layer, x, True),
        "(x), time first": lambda: along(layer, x, False),
    }
    found, errors = [], []
    for how, way in ways.items():
        try:
            way()  # twice, as a state that is kept would show
            found.append((how, way()))
        except Exception as error:  # noqa: BLE001 (perhaps another way)
            errors.append(error)
    if not found:
        called = f"{type(layer).__name__} on x[t] ({B}, {F}) and a state, or a sequence"
        raise Finding(called, explained(errors[0]), f"states ({B}, {H})")
    return found


def decoded(layer, gates):
    """All readings of the weights: lists of (F, H) and of (H, H) matrices by gate."""
    for turned, swapped in itertools.product((False, True), repeat=2):
        W, U = [], []
        for p in layer.parameters():
            p = p.detach()
            fits = len(p) in (F, H, F + H) and p.shape[1] % H == 0
            p = p.T if turned and p.shape == (H, H) or not fits else p
            for block in p.split(H, dim=1):
                if len(block) == F + H:
                    parts = block.split((H, F) if swapped else (F, H))
                    W.append(parts[swapped])
                    U.append(parts[not swapped])
                else:
                    (W if len(block) == F else U).append(block)
        if len(W) == len(U) == gates:
            for order in itertools.permutations(range(gates)):
                yield [W[k] for k in order], [U[k] for k in order]


def elman(x, W, U, f=torch.tanh):
    h = torch.zeros(B, H)
    for x_t in x:
        h = f(x_t @ W[0] + h @ U[0])
    return h


def relu(x, W, U):
    return elman(x, W, U, torch.relu)


def lstm(x, W, U):
    h = c = torch.zeros(B, H)
    for x_t in x:
        i, f, g, o = (x_t @ w + h @ u for w, u in zip(W, U))
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
    return h


def check_recurrent(layer, call, gates, reference, equation, record_property):
    """Compare h[T], for any way to call the layer and any reading of its weights."""
    x = torch.randn(T, B, F)
    found = results(layer, x, 1 if gates == 1 else 2)
    wanted = [reference(x, *reading) for reading in decoded(layer, gates)]
    pairs = [(how, h, w) for how, h in found for w in wanted if h.shape == w.shape]
    good = [h for _, h, w in pairs if torch.allclose(h, w, 1e-4, 1e-4)]
    record_property("how", "by equation" if wanted else "by behaviour")
    if pairs and not good:
        how, h, w = pairs[0]
        expect(f"{call}{how}, h after {T} steps", h, w.numpy(), equation)
    if not pairs:
        zero = results(layer, torch.zeros(T, B, F), 1 if gates == 1 else 2)
        called = f"{call} for x = 0"
        expect(called, zero[0][1], torch.zeros(B, H).numpy(), "no bias, no state left")
    check_gradients(layer, call, good[0] if good else found[0][1])


# ----------------------------------------------------------------------- tasks 2 and 3
ELMAN, RELUS = "h ← f(x W + h U), task 2", ("relu", torch.relu, nn.ReLU(), nn.ReLU)


@item("2", "Elman layer: h ← tanh(x W + h U), no bias, random, by hand")
def test_elman(answer, record_property):
    layer, call = check_weights(find(answer, "RNN.py"), "RNN.py")

    check_recurrent(layer, call, 1, elman, ELMAN, record_property)


@item("2", "Elman layer: another nonlinearity, here ReLU, can be chosen")
def test_nonlinearity(answer, record_property):
    cls = find(answer, "RNN.py")
    names = [*inspect.signature(cls).parameters][2:]
    fits = [name for name in names if re.search("nonlin|act|func|phi|^f$", name)]
    if not names:
        called = f"arguments of {cls.__name__}{inspect.signature(cls)}"
        raise Finding(called, "the sizes only", "a nonlinearity that can be changed")
    name = [*fits, *names][0]
    call, wrong = f"{cls.__name__}({F}, {H}, {name}=relu)", None
    for value in RELUS:
        torch.manual_seed(0)
        try:
            layer = cls(F, H, **{name: value})
            check_recurrent(layer, call, 1, relu, ELMAN, record_property)
            return
        except Finding as finding:
            wrong = finding
        except Exception as error:  # noqa: BLE001 (perhaps another form)
            wrong = wrong or Finding(call, explained(error), ELMAN)
    raise wrong


@item("3", "LSTM layer as nn.LSTMCell: no bias, random, by hand")
def test_lstm(answer, record_property):
    layer, call = check_weights(find(answer, "LSTM.py"), "LSTM.py")
    by = "c ← f c + i g, h ← o tanh(c), task 3"
    check_recurrent(layer, call, 4, lstm, by, record_property)
