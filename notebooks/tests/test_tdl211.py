"""TDL211: the layers equal PyTorch's in outputs, gradients, weights and call signature."""

import ast
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

FOLDER = Path(__file__).resolve().parent.parent / "tdl211_layers"


def load(name):
    """The module in FOLDER/name.py, by its path: another course has an lstm.py."""
    file = FOLDER / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tdl211_{name}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MLP, RNN, LSTM = load("MLP"), load("RNN"), load("LSTM")
LAYERS = {  # ours, PyTorch's, whether it runs along a sequence, the number of its states
    "Linear": (MLP.Linear, nn.Linear, False, 0),
    "RNNCell": (RNN.RNNCell, nn.RNNCell, False, 1),
    "RNN": (RNN.RNN, nn.RNN, True, 1),
    "LSTMCell": (LSTM.LSTMCell, nn.LSTMCell, False, 2),
    "LSTM": (LSTM.LSTM, nn.LSTM, True, 2),
}
TOLERANCE = {
    torch.float64: {"rtol": 1e-9, "atol": 1e-11},
    torch.float32: {"rtol": 1e-4, "atol": 1e-5},
}
every_layer = pytest.mark.parametrize("name", LAYERS)
examples = settings(deadline=None, max_examples=40)


@st.composite
def cases(draw, name):
    """(our layer, PyTorch's with the same weights, input, states or ())."""
    ours, theirs, along_time, count = LAYERS[name]
    sizes = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    dtype = draw(st.sampled_from(list(TOLERANCE)))
    options = {"bias": False, "dtype": dtype}
    batch = draw(st.lists(st.integers(1, 4), max_size=1 if count else 3))
    shape, state_shape = [*batch, sizes[0]], [*batch, sizes[1]]
    if name.startswith("RNN"):
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    if along_time:
        options["batch_first"] = draw(st.booleans())
        time = 1 if options["batch_first"] and batch else 0
        shape.insert(time, draw(st.integers(1, 7)))
        state_shape.insert(0, 1)
    torch.manual_seed(draw(st.integers(0, 2**32)))
    pair = ours(*sizes, **options), theirs(*sizes, **options)
    pair[0].load_state_dict(pair[1].state_dict())
    states = [torch.randn(state_shape, dtype=dtype) for _ in range(count)]
    return *pair, torch.randn(shape, dtype=dtype), states if draw(st.booleans()) else []


def flat(results):
    """The tensors in nested tuples."""
    if isinstance(results, torch.Tensor):
        return [results]
    return [tensor for part in results for tensor in flat(part)]


def call(layer, input, *states):
    """The results of the layer, flat; two states are given to it as one pair."""
    return flat(layer(input, states) if len(states) > 1 else layer(input, *states))


def results_and_gradients(layer, input, states):
    """The results and, for fixed random gradients of these, those of everything else."""
    inputs = [tensor.clone().requires_grad_() for tensor in (input, *states)]
    results = call(layer, *inputs)
    torch.manual_seed(0)
    upstream = [torch.randn(result.shape).to(result) for result in results]
    return results, torch.autograd.grad(
        results, [*inputs, *layer.parameters()], upstream
    )


# ----------------------------------------------------------------- equal to PyTorch's
@every_layer
@examples
@given(data=st.data())
def test_outputs_and_all_gradients_equal_pytorch(name, data):
    ours, theirs, input, states = data.draw(cases(name))
    torch.testing.assert_close(
        results_and_gradients(ours, input, states),
        results_and_gradients(theirs, input, states),
        **TOLERANCE[input.dtype],
    )


@every_layer
@examples
@given(data=st.data())
def test_state_dict_moves_both_ways(name, data):
    ours, theirs, input, _ = data.draw(cases(name))
    fresh = type(ours)(*_sizes(ours), dtype=input.dtype)
    fresh.load_state_dict(theirs.state_dict(), strict=True)
    ours.reset_parameters()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(next(fresh.parameters()), next(ours.parameters()))


def _sizes(layer):
    if isinstance(layer, MLP.Linear):
        return layer.in_features, layer.out_features
    return layer.input_size, layer.hidden_size


@every_layer
@examples
@given(sizes=st.tuples(*[st.integers(1, 50)] * 2), seed=st.integers(0, 2**32))
def test_same_seed_draws_the_weights_of_pytorch(name, sizes, seed):
    layers = []
    for make in LAYERS[name][:2]:
        torch.manual_seed(seed)
        layers.append(make(*sizes, bias=False))
    for one, other in zip(*(layer.parameters() for layer in layers), strict=True):
        torch.testing.assert_close(one, other)


@every_layer
def test_gradients_pass_gradcheck(name):
    torch.manual_seed(0)
    make, _, along_time, count = LAYERS[name]
    layer = make(3, 4, dtype=torch.float64)
    shape = (2, 3) if not along_time else (5, 2, 3)
    state_shape = (2, 4) if not along_time else (1, 2, 4)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True)]
    for _ in range(count):
        inputs.append(torch.randn(state_shape, dtype=torch.float64, requires_grad=True))

    def results(*tensors):  # the weights are listed so that gradcheck varies them too
        return tuple(call(layer, *tensors[: 1 + count]))

    everything = (*inputs, *layer.parameters())
    assert torch.autograd.gradcheck(results, everything)
    assert torch.autograd.gradgradcheck(results, everything)


# ------------------------------------------------------------ what the layers promise
@pytest.mark.parametrize("name", ["RNN", "LSTM"])
@examples
@given(data=st.data())
def test_layer_is_its_cell_repeated(name, data):
    layer, _, input, states = data.draw(cases(name))
    if layer.batch_first and input.ndim == 3:
        input = input.transpose(0, 1)
    layer.batch_first = False
    options = {"nonlinearity": layer.nonlinearity} if name == "RNN" else {}
    cell = LAYERS[name + "Cell"][0](*_sizes(layer), **options, dtype=input.dtype)
    cell.load_state_dict(
        {key.removesuffix("_l0"): weight for key, weight in layer.state_dict().items()}
    )
    output, *last = call(layer, input, *states)
    states = [state[0] for state in states]
    for input_t, output_t in zip(input, output):
        states = call(cell, input_t, *states)
        torch.testing.assert_close(states[0], output_t)
    for state, expected in zip(states, last, strict=True):
        torch.testing.assert_close(state[None], expected)


@pytest.mark.parametrize("name", ["RNN", "RNNCell"])
@examples
@given(data=st.data())
def test_nonlinearity_may_be_any_callable(name, data):
    named, _, input, states = data.draw(cases(name))
    options = {"batch_first": named.batch_first} if name == "RNN" else {}
    function = {"tanh": torch.tanh, "relu": nn.ReLU()}[named.nonlinearity]
    options |= {"nonlinearity": function, "dtype": input.dtype}
    layer = type(named)(*_sizes(named), **options)
    layer.load_state_dict(named.state_dict())
    torch.testing.assert_close(call(layer, input, *states), call(named, input, *states))


@every_layer
def test_empty_batch(name):
    make, _, along_time, _ = LAYERS[name]
    shape = (5, 0, 3) if along_time else (0, 3)
    assert call(make(3, 4), torch.zeros(shape))[0].shape == (*shape[:-1], 4)


# --------------------------------------------------- calls as PyTorch's, and bad ones
CALLS = [
    ("Linear", (3, 4, False), {}),
    ("Linear", (), {"in_features": 3, "out_features": 4, "bias": False}),
    ("RNNCell", (3, 4, False), {}),
    ("RNNCell", (3, 4, False, "relu"), {}),
    ("RNNCell", (3, 4), {"nonlinearity": "relu", "bias": False}),
    ("LSTMCell", (3, 4, False), {}),
    ("LSTMCell", (), {"input_size": 3, "hidden_size": 4, "bias": False}),
    ("RNN", (3, 4), {"nonlinearity": "relu", "bias": False, "batch_first": True}),
    ("LSTM", (3, 4), {"bias": False, "batch_first": True}),
]


@pytest.mark.parametrize("name, arguments, options", CALLS)
def test_call_means_the_same_as_in_pytorch(name, arguments, options):
    ours, theirs = (make(*arguments, **options) for make in LAYERS[name][:2])
    ours.load_state_dict(theirs.state_dict())
    input = torch.randn((5, 2, 3) if LAYERS[name][2] else (2, 3))
    torch.testing.assert_close(call(ours, input), call(theirs, input))


@every_layer
@pytest.mark.parametrize("sizes", [(0, 4), (3, 0), (-3, 4)])
def test_sizes_below_1(name, sizes):
    with pytest.raises(ValueError, match=f"got {sizes[0]}, {sizes[1]}"):
        LAYERS[name][0](*sizes)


@every_layer
@pytest.mark.parametrize("bias", [True, "relu"])  # the third argument, as in PyTorch
def test_bias_is_refused(name, bias):
    with pytest.raises(ValueError, match=f"bias must be False, got {bias!r}"):
        LAYERS[name][0](3, 4, bias=bias)


@pytest.mark.parametrize("name", ["RNNCell", "RNN"])
@pytest.mark.parametrize("nonlinearity", ["sigmoid", "Tanh", None, 1])
def test_unknown_nonlinearity(name, nonlinearity):
    with pytest.raises(ValueError, match=f"nonlinearity={nonlinearity!r}"):
        LAYERS[name][0](3, 4, nonlinearity=nonlinearity)


@pytest.mark.parametrize("name", ["RNN", "LSTM"])
@pytest.mark.parametrize("shape", [(3,), (1, 5, 2, 3)])
def test_input_whose_first_dimension_would_be_taken_for_time(name, shape):
    with pytest.raises(ValueError, match="input must have 2 or 3 dimensions"):
        LAYERS[name][0](3, 4)(torch.zeros(shape))


@every_layer
@pytest.mark.parametrize("option", ["num_layers", "requires_grad", "nonlinearty"])
def test_unknown_option_is_named_with_its_layer(name, option):
    with pytest.raises(TypeError, match=rf"^{name}\..*'{option}'"):
        LAYERS[name][0](3, 4, **{option: 1})


@pytest.mark.parametrize("name", ["RNN", "LSTM"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_empty_sequence(name, batch_first):
    empty = torch.zeros((2, 0, 3) if batch_first else (0, 2, 3))
    with pytest.raises(ValueError, match="at least one step"):
        LAYERS[name][0](3, 4, batch_first=batch_first)(empty)


@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "RNN", "LSTM"])
@pytest.mark.parametrize("shape", [(), (4,), (2, 1), (1, 4), (3, 4), (1, 1, 2, 4)])
@pytest.mark.parametrize("position", [0, 1])
def test_state_that_would_broadcast(name, shape, position):
    make, _, along_time, count = LAYERS[name]
    right = (1, 2, 4) if along_time else (2, 4)
    states = [torch.zeros(right) for _ in range(count)]
    states[min(position, count - 1)] = torch.zeros(shape)
    with pytest.raises(ValueError, match="must have shape") as error:
        call(make(3, 4), torch.zeros((5, 2, 3) if along_time else (2, 3)), *states)
    assert str(right) in str(error.value) and str(shape) in str(error.value)


# ------------------------------------------------------------------- what is handed in
@pytest.mark.parametrize("name", ["MLP", "RNN", "LSTM"])
def test_file_uses_none_of_the_layers_it_rebuilds(name):
    tree = ast.parse((FOLDER / f"{name}.py").read_text())
    imports = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assert imports == {"math", "torch", "nn"}
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    layers = ("linear", "bilinear", "rnn", "lstm", "gru")
    assert not [word for word in used if word.lower().startswith(layers)]


@pytest.mark.parametrize("name", ["MLP", "RNN", "LSTM"])
def test_file_stands_alone(name, tmp_path):
    shutil.copy(FOLDER / f"{name}.py", tmp_path)
    layer = {"MLP": "Linear"}.get(name, name)
    code = f"import sys, torch; sys.path.insert(0, '.'); import {name}; "
    code += f"{name}.{layer}(3, 4)(torch.zeros(5, 2, 3))"
    subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, check=True)
