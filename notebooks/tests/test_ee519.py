"""mytorch against PyTorch, over shapes, types and activations that hypothesis picks."""

import ast
import subprocess
import sys
import warnings
from pathlib import Path

import mytorch
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from mytorch import (
    MLP0,
    MLP1,
    MLP4,
    SGD,
    CrossEntropyLoss,
    Identity,
    Linear,
    MSELoss,
    ReLU,
    Sigmoid,
    Tanh,
)
from parity import (
    IN_PYTORCH,
    cast,
    gradients,
    gradients_in_pytorch,
    in_pytorch,
    numerical_gradient,
    relative_difference,
)
from torch import nn

MODULES = sorted(Path(mytorch.__file__).parent.glob("*.py"))
LOSSES = {MSELoss: nn.MSELoss, CrossEntropyLoss: nn.CrossEntropyLoss}
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-13}
sizes = st.integers(1, 9)
dtypes = st.sampled_from(list(TOLERANCE))
seeds = st.integers(0, 2**32 - 1)


def agree(ours, reference, dtype):
    """Whether arrays have the same shape and dtype and are equal up to rounding."""
    reference = reference.detach().numpy()
    assert ours.shape == reference.shape and ours.dtype == reference.dtype == dtype
    largest = max(np.abs(reference).max(), 1)
    return np.abs(ours - reference).max() <= TOLERANCE[dtype] * largest


def tensor(array):
    return torch.tensor(array, requires_grad=True)


def targets(loss, generator, rows, columns, dtype, soft=False):
    """Random targets of shape (rows, columns) that suit the class `loss`."""
    if loss is MSELoss:
        return generator.normal(size=(rows, columns)).astype(dtype)
    if soft:
        return generator.dirichlet(np.ones(columns), size=rows).astype(dtype)
    return np.eye(columns, dtype=dtype)[generator.integers(columns, size=rows)]


def lively(model, dtype=np.float64):
    """`model` in `dtype`, its weights larger and its biases not zero.

    Else five layers would shrink everything to rounding error.
    """
    for layer in model.layers:
        layer.W = 5 * layer.W
        layer.b = np.random.normal(size=layer.b.shape)
    return cast(model, dtype)


# ---------------------------------------------------------------------------- package
def test_the_files_of_the_sheet_are_there():
    names = {path.name for path in MODULES}
    assert {"linear.py", "loss.py", "sgd.py", "activation.py", "mlp.py"} <= names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_modules_import_numpy_and_each_other_only(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imported.add(node.module)
        elif isinstance(node, ast.Name):
            assert node.id not in {"__import__", "eval", "exec"}
    assert imported <= {"numpy"}


def test_importing_it_loads_nothing_beyond_numpy():
    code = (
        "import sys, numpy; before = set(sys.modules); import mytorch; "
        "print({name.split('.')[0] for name in set(sys.modules) - before})"
    )
    output = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(mytorch.__file__).parent.parent,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert output.strip() == "{'mytorch'}"


@pytest.mark.parametrize(
    "cls",
    [MSELoss, CrossEntropyLoss, Identity, Sigmoid, Tanh, ReLU, MLP0, MLP1, MLP4],
)
def test_forward_and_backward_stand_in_the_class_itself(cls):
    assert {"forward", "backward"} <= set(vars(cls))


# ----------------------------------------------------------------------------- linear
def test_linear_starts_with_normal_weights_of_variance_001_and_zero_biases():
    np.random.seed(0)
    layer = Linear(300, 500)
    assert layer.W.shape == (300, 500) and layer.b.shape == (500,)
    assert not layer.b.any()
    standard = layer.W.ravel() / 0.1
    # the first four moments of a standard normal, at five standard errors
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        margin = 5 * np.sqrt(variance / standard.size)
        assert abs((standard**power).mean() - moment) < margin
    np.random.seed(0)
    assert np.array_equal(Linear(300, 500).W, layer.W)


@given(
    seed=seeds,
    rows=sizes,
    inputs=sizes,
    outputs=sizes,
    dtype=dtypes,
    column=st.booleans(),
)
def test_linear_equals_pytorch(seed, rows, inputs, outputs, dtype, column):
    np.random.seed(seed)
    layer = Linear(inputs, outputs)
    layer.W = layer.W.astype(dtype)
    layer.b = np.random.normal(size=(outputs, 1) if column else outputs).astype(dtype)
    A = np.random.normal(size=(rows, inputs)).astype(dtype)
    dLdO = np.random.normal(size=(rows, outputs)).astype(dtype)
    a, w, b = tensor(A), tensor(layer.W), tensor(layer.b)
    expected = a @ w + b.reshape(1, -1)
    expected.backward(torch.from_numpy(dLdO))
    assert agree(layer.forward(A), expected, dtype)
    assert agree(layer.backward(dLdO), a.grad, dtype)
    assert agree(layer.dLdW, w.grad, dtype)
    assert agree(layer.dLdb, b.grad, dtype)
    assert layer.A is A


# ------------------------------------------------------------------------------- loss
@pytest.mark.parametrize("cls", LOSSES)
@given(
    seed=seeds,
    rows=sizes,
    columns=sizes,
    dtype=dtypes,
    scale=st.floats(0, 1000),
    soft=st.booleans(),
)
def test_loss_equals_pytorch(cls, seed, rows, columns, dtype, scale, soft):
    generator = np.random.default_rng(seed)
    O = (scale * generator.normal(size=(rows, columns))).astype(dtype)
    Y = targets(cls, generator, rows, columns, dtype, soft)
    o = tensor(O)
    expected = LOSSES[cls]()(o, torch.from_numpy(Y))
    expected.backward()
    loss = cls()
    value = loss.forward(O, Y)
    assert np.ndim(value) == 0 and value.dtype == dtype
    assert value == pytest.approx(
        expected.item(), rel=TOLERANCE[dtype], abs=TOLERANCE[dtype]
    )
    assert agree(loss.backward(), o.grad, dtype)


def test_cross_entropy_takes_its_formula_for_rows_that_do_not_sum_to_one():
    O, Y = np.array([[1.0, -2, 0.5], [0, 3, 1]]), np.array([[2.0, -1, 3], [0, 0, 0]])
    o = tensor(O)
    expected = nn.CrossEntropyLoss()(o, torch.from_numpy(Y))
    expected.backward()
    loss = CrossEntropyLoss()
    assert loss.forward(O, Y) == pytest.approx(expected.item(), rel=1e-13)
    assert agree(loss.backward(), o.grad, np.float64)


@pytest.mark.parametrize("cls", LOSSES)
@given(seed=seeds, rows=sizes, columns=sizes, copies=st.integers(2, 5))
def test_loss_is_a_mean_over_the_batch(cls, seed, rows, columns, copies):
    generator = np.random.default_rng(seed)
    O = generator.normal(size=(rows, columns))
    Y = targets(cls, generator, rows, columns, float)
    once, repeated = cls(), cls()
    value = once.forward(O, Y)
    tiled = repeated.forward(np.tile(O, (copies, 1)), np.tile(Y, (copies, 1)))
    assert tiled == pytest.approx(value, rel=1e-12)
    assert np.allclose(copies * repeated.backward()[:rows], once.backward(), rtol=1e-12)


@pytest.mark.parametrize("dtype, large", [(np.float32, 1e37), (np.float64, 1e307)])
def test_cross_entropy_of_huge_logits_is_exact(dtype, large):
    loss = CrossEntropyLoss()
    O = np.array([[large, -large, 0], [large, -large, 0]], dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loss.forward(O, np.eye(3)[[0, 0]]) == 0
        assert not loss.backward().any()
        value = loss.forward(O, np.eye(3)[[1, 1]])
        assert value == pytest.approx(2 * large, rel=1e-6)
        assert np.array_equal(loss.backward(), [[0.5, -0.5, 0]] * 2)


# ------------------------------------------------------------------------- activation
@pytest.mark.parametrize("cls", IN_PYTORCH)
@given(
    values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=12),
    scale=st.sampled_from([1e-3, 1, 1e30]),
    dtype=dtypes,
)
def test_activation_equals_pytorch(cls, values, scale, dtype):
    H = (np.array(values) * scale).astype(dtype).reshape(1, -1)
    h = tensor(H)
    expected = IN_PYTORCH[cls]()(h)
    expected.sum().backward()
    f = cls()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert agree(f.forward(H), expected, dtype)
        assert agree(f.backward(), h.grad, dtype)


@given(h=st.floats(-700, 700))
def test_sigmoid_keeps_relative_precision_in_both_tails(h):
    f = Sigmoid()
    exact = np.exp(-abs(np.longdouble(h)))
    value = f.forward(np.array([h]))[0]
    assert value == pytest.approx(
        float((1 if h >= 0 else exact) / (1 + exact)), rel=1e-14
    )
    assert f.backward()[0] == pytest.approx(float(exact / (1 + exact) ** 2), rel=1e-14)


# --------------------------------------------------------------- networks and training
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("cls", [MLP0, MLP1, MLP4])
@given(
    seed=seeds,
    shape=st.tuples(sizes, sizes, sizes, sizes),
    activation=st.sampled_from(list(IN_PYTORCH)),
    output_activation=st.sampled_from(list(IN_PYTORCH)),
    dtype=dtypes,
)
def test_loss_through_network_equals_autograd(
    cls, loss, seed, shape, activation, output_activation, dtype
):
    rows, inputs, outputs, width = shape
    np.random.seed(seed)
    options = {"output_activation": output_activation}
    if cls is not MLP0:
        options |= {"activation": activation, "hidden_features": width}
    model, criterion = lively(cls(inputs, outputs, **options), dtype), loss()
    reference = in_pytorch(model)
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(rows, inputs)).astype(dtype)
    Y = targets(loss, generator, rows, outputs, dtype)
    x = tensor(X)
    hidden = [m(x) for m in (reference[: 2 * i + 1] for i in range(len(model.layers)))]
    assume(all(h.abs().min() > 1e-5 for h in hidden))  # not beside the kink of ReLU
    expected = LOSSES[loss]()(reference(x), torch.from_numpy(Y))
    expected.backward()
    value = criterion.forward(model.forward(X), Y)
    dLdX = model.backward(criterion.backward())
    close = {"rel": 10 * TOLERANCE[dtype], "abs": TOLERANCE[dtype]}
    assert value == pytest.approx(expected.item(), **close)
    pairs = zip(
        [dLdX, *gradients(model)], [x.grad.numpy(), *gradients_in_pytorch(reference)]
    )
    for ours, theirs in pairs:
        assert ours.shape == theirs.shape and ours.dtype == dtype
        assert np.allclose(
            ours, theirs, rtol=100 * TOLERANCE[dtype], atol=TOLERANCE[dtype]
        )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("rows", [1, 7])
def test_loss_through_mlp4_to_the_first_weight_equals_finite_differences(loss, rows):
    np.random.seed(rows)
    generator = np.random.default_rng(rows)
    model = lively(MLP4(3, 4, hidden_features=5, activation=Tanh))
    criterion = loss()
    X = generator.normal(size=(rows, 3))
    Y = targets(loss, generator, rows, 4, float)
    criterion.forward(model.forward(X), Y)
    model.backward(criterion.backward())
    first = model.layers[0]
    by_differences = numerical_gradient(
        lambda: criterion.forward(model.forward(X), Y), first.W
    )
    assert np.abs(first.dLdW).max() > 1e-4
    assert relative_difference(first.dLdW, by_differences) < 1e-6


@pytest.mark.parametrize("cls", [MLP0, MLP1, MLP4])
@pytest.mark.parametrize("column", [False, True])
def test_sgd_follows_pytorch(cls, column):
    np.random.seed(1)
    generator = np.random.default_rng(1)
    options = {} if cls is MLP0 else {"hidden_features": 6, "activation": Tanh}
    model, loss = lively(cls(3, 4, **options)), CrossEntropyLoss()
    reference = in_pytorch(model)
    for layer in model.layers:
        layer.b = layer.b.reshape(-1, 1) if column else layer.b
    start = [layer.W.copy() for layer in model.layers]
    optimizer, theirs = SGD(model, 0.1), torch.optim.SGD(reference.parameters(), 0.1)
    for rows in [8, 8, 3, 1, 8, 5] * 5:  # batches need not have one size
        X = generator.normal(size=(rows, 3))
        Y = targets(CrossEntropyLoss, generator, rows, 4, float)
        loss.forward(model.forward(X), Y)
        model.backward(loss.backward())
        optimizer.step()
        theirs.zero_grad()
        nn.CrossEntropyLoss()(reference(torch.tensor(X)), torch.tensor(Y)).backward()
        theirs.step()
    for layer, linear, before in zip(model.layers, reference[::2], start):
        W, b = (p.detach().numpy() for p in (linear.weight.T, linear.bias))
        assert np.allclose(layer.W, W, rtol=0, atol=1e-12)
        assert np.allclose(layer.b.ravel(), b, rtol=0, atol=1e-12)
        assert layer.b.ndim == 1 + column
        assert np.abs(layer.W - before).max() > 1e-3


def test_networks_have_the_layers_and_activations_of_the_sheet():
    for cls, hidden in [(MLP0, []), (MLP1, [256]), (MLP4, [128] * 4)]:
        model = cls()
        shapes = [layer.W.shape for layer in model.layers]
        assert shapes == list(zip([784, *hidden], [*hidden, 10]))
        assert [type(f) for f in model.f] == [ReLU] * len(hidden) + [Identity]
    model = MLP4(5, 2, hidden_features=3, activation=Tanh, output_activation=Tanh)
    assert [type(f) for f in model.f] == [Tanh] * 5
    assert len({id(f) for f in model.f}) == 5  # each keeps its own H


# ----------------------------------------------- what NumPy would broadcast in silence
@pytest.mark.parametrize(
    "b",
    [np.ones((1, 1)), np.ones((1, 3)), np.ones((3, 3)), np.ones(1), np.array(1.0)],
    ids=lambda b: str(b.shape),
)
def test_linear_refuses_a_bias_of_another_shape(b):
    layer = Linear(2, 3)
    layer.b = b
    with pytest.raises(AssertionError, match="b has the shape"):
        layer.forward(np.ones((3, 2)))


@pytest.mark.parametrize("shape", [(1, 3), (4, 1), (3,), (1,), ()])
def test_gradients_and_targets_of_another_shape_are_refused(shape):
    wrong, X = np.ones(shape), np.ones((4, 2))
    layer = Linear(2, 3)
    layer.forward(X)
    with pytest.raises(AssertionError, match="dLdO has the shape"):
        layer.backward(wrong)
    for model in (MLP0(2, 3), MLP1(2, 3), MLP4(2, 3)):
        model.forward(X)
        with pytest.raises(AssertionError, match="dLdA.? has the shape"):
            model.backward(wrong)
    for loss in (MSELoss(), CrossEntropyLoss()):
        with pytest.raises(AssertionError, match="O and Y have the shapes"):
            loss.forward(np.ones((4, 3)), wrong)


@pytest.mark.parametrize("size", [(0, 2), (2, 0), (-1, 2)])
def test_a_layer_needs_inputs_and_outputs(size):
    with pytest.raises(AssertionError):
        Linear(*size)


@pytest.mark.parametrize("cls", LOSSES)
@pytest.mark.parametrize("place", ["O", "Y"])
def test_losses_refuse_nan(cls, place):
    arrays = {"O": np.ones((2, 2)), "Y": np.eye(2)}
    arrays[place][0, 1] = np.nan
    with pytest.raises(AssertionError, match="NaN"):
        cls().forward(**arrays)


def test_divergence_is_reported_where_it_happens():
    model, loss = MLP0(1, 1), MSELoss()
    optimizer = SGD(model, 1e6)
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(AssertionError, match="the loss is NaN"),
    ):
        for _ in range(1000):
            loss.forward(model.forward(np.ones((1, 1))), np.ones((1, 1)))
            model.backward(loss.backward())
            optimizer.step()
