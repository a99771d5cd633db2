"""mytorch against PyTorch, and what is ours; test_ee519_items.py has the sheet's items."""

import ast
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mytorch.activation import Identity, ReLU, Sigmoid, Tanh
from mytorch.linear import Linear
from mytorch.loss import CrossEntropyLoss, MSELoss
from mytorch.mlp import MLP0, MLP1, MLP4
from mytorch.sgd import SGD
from parity import in_pytorch, parameters
from torch import nn

MODULES = sorted(Path(__file__).parents[1].glob("ee519_mytorch/mytorch/*.py"))
LOSSES = {MSELoss: nn.MSELoss, CrossEntropyLoss: nn.CrossEntropyLoss}
ACTIVATIONS = [Identity, Sigmoid, Tanh, ReLU]
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-13}
sizes = st.integers(1, 9)
dtypes = st.sampled_from(list(TOLERANCE))
seeds = st.integers(0, 2**32 - 1)


def agree(ours, reference, dtype):
    """Whether shape and dtype are the same and the values equal up to rounding."""
    reference = reference.detach().numpy()
    assert ours.shape == reference.shape and ours.dtype == reference.dtype == dtype
    tolerance = TOLERANCE[np.dtype(dtype).type]
    return np.abs(ours - reference).max() <= tolerance * max(np.abs(reference).max(), 1)


def tensor(array):
    return torch.tensor(array, requires_grad=True)


def targets(loss, generator, rows, columns, dtype=float, soft=False):
    """Random targets of shape (rows, columns) that suit the class `loss`."""
    if loss is MSELoss:
        return generator.normal(size=(rows, columns)).astype(dtype)
    if soft:
        return generator.dirichlet(np.ones(columns), size=rows).astype(dtype)
    return np.eye(columns, dtype=dtype)[generator.integers(columns, size=rows)]


def lively(model, dtype=np.float64):
    """`model` in `dtype` with larger weights, so that five layers do not shrink
    everything to rounding error, and biases that are not zero."""
    for layer in model.layers:
        layer.W = (5 * layer.W).astype(dtype)
        layer.b = np.random.normal(size=layer.b.shape).astype(dtype)
    return model


# ------------------------------------------------------------------- problem 2: loss.py
@pytest.mark.parametrize("cls", [MSELoss, CrossEntropyLoss], ids=["2ab_mse", "2cd_ce"])
@given(
    seed=seeds,
    rows=sizes,
    columns=sizes,
    dtype=dtypes,
    scale=st.floats(0, 1000),
    soft=st.booleans(),
)
def test_2_loss(cls, seed, rows, columns, dtype, scale, soft):
    generator = np.random.default_rng(seed)
    O = (scale * generator.normal(size=(rows, columns))).astype(dtype)
    Y = targets(cls, generator, rows, columns, dtype, soft)
    o = tensor(O)
    expected = LOSSES[cls]()(o, torch.from_numpy(Y))
    expected.backward()
    loss = cls()
    assert agree(loss.forward(O, Y), expected, dtype)
    assert agree(loss.backward(), o.grad, dtype)


# -------------------------------------------------------------------- problem 3: sgd.py
@pytest.mark.parametrize("cls", [MLP0, MLP1, MLP4])
@pytest.mark.parametrize("column", [False, True], ids=["b (h,)", "b (h, 1)"])
def test_3_sgd(cls, column):
    np.random.seed(1)
    generator = np.random.default_rng(1)
    options = {} if cls is MLP0 else {"hidden_features": 6, "activation": Tanh}
    model, loss = lively(cls(3, 4, **options)), CrossEntropyLoss()
    reference = in_pytorch(model)
    for layer in model.layers:
        layer.b = layer.b.reshape(-1, 1) if column else layer.b
    ours, theirs = SGD(model, 0.1), torch.optim.SGD(reference.parameters(), 0.1)
    for rows in [8, 8, 3, 1, 8, 5] * 5:  # batches need not have one size
        X = generator.normal(size=(rows, 3))
        Y = targets(CrossEntropyLoss, generator, rows, 4)
        loss.forward(model.forward(X), Y)
        model.backward(loss.backward())
        ours.step()
        theirs.zero_grad()
        nn.CrossEntropyLoss()(reference(torch.tensor(X)), torch.tensor(Y)).backward()
        theirs.step()
    for p, expected in zip(parameters(model), parameters(reference)):
        assert np.allclose(p.ravel(), expected.ravel(), rtol=0, atol=1e-12)
    assert all(layer.b.ndim == 1 + column for layer in model.layers)


# ------------------------------------------------------------- problem 4: activation.py
@pytest.mark.parametrize("cls", ACTIVATIONS, ids=["identity", "4a", "4b", "4c"])
@given(
    values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=12),
    scale=st.sampled_from([1e-3, 1, 1e30]),
    dtype=dtypes,
)
def test_4_activation(cls, values, scale, dtype):
    H = (np.array(values) * scale).astype(dtype).reshape(1, -1)
    h = tensor(H)
    expected = getattr(nn, cls.__name__)()(h)
    expected.sum().backward()
    f = cls()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert agree(f.forward(H), expected, dtype)
        assert agree(f.backward(), h.grad, dtype)


# -------------------------------------------------------------------- problem 5: mlp.py
def test_5_networks_have_the_layers_and_activations_that_are_promised():
    for cls, hidden in [(MLP0, []), (MLP1, [256]), (MLP4, [128] * 4)]:
        model = cls()
        shapes = [layer.W.shape for layer in model.layers]
        assert shapes == list(zip([784, *hidden], [*hidden, 10]))
        assert [type(f) for f in model.f] == [ReLU] * len(hidden) + [Identity]


# ----------------------------------------------- what the sheet leaves open, and we keep
@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_modules_use_numpy_only_and_no_assert_that_python_drops(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    imports = [node for node in nodes if isinstance(node, ast.Import)]
    absolute = [n for n in nodes if isinstance(n, ast.ImportFrom) and n.level == 0]
    assert {alias.name for node in imports for alias in node.names} <= {"numpy"}
    assert not absolute and not any(isinstance(node, ast.Assert) for node in nodes)


@pytest.mark.parametrize("shape", [(1, 3), (4, 1), (3,), (1,), ()])
def test_gradients_and_targets_of_another_shape_are_refused(shape):
    wrong, X = np.ones(shape), np.ones((4, 2))
    for model in (Linear(2, 3), MLP0(2, 3), MLP1(2, 3), MLP4(2, 3)):
        model.forward(X)
        with pytest.raises(
            ValueError, match=r"dLd.+ must have the shape \(4, 3\), got"
        ):
            model.backward(wrong)
    for loss in LOSSES:
        with pytest.raises(ValueError, match=r"Y must have the shape \(4, 3\), got"):
            loss().forward(np.ones((4, 3)), wrong)


@pytest.mark.parametrize("shape", [(2,), (4, 3), (4, 2, 1)])
def test_inputs_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"A must have the shape \(N, 2\), got"):
        Linear(2, 3).forward(np.ones(shape))


@pytest.mark.parametrize("cls", LOSSES)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3,)])
def test_losses_need_a_batch(cls, shape):
    with pytest.raises(ValueError, match=r"O must have a shape \(N, q\)"):
        cls().forward(np.ones(shape), np.ones(shape))


@pytest.mark.parametrize("cls", [*ACTIVATIONS, *LOSSES, MLP0, MLP1, MLP4])
def test_backward_needs_forward(cls):
    gradient = [np.ones((1, 10))] if cls in (MLP0, MLP1, MLP4) else []
    with pytest.raises(RuntimeError, match="call forward before backward"):
        cls().backward(*gradient)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_integers_count_as_float64(dtype):
    H, Y = np.array([[0, 1, 2], [5, 0, 1]], dtype), np.eye(3, dtype=dtype)[:2]
    for cls in (Sigmoid, Tanh):
        f, reference = cls(), cls()
        assert np.array_equal(f.forward(H), reference.forward(H.astype(float)))
        assert np.array_equal(f.backward(), reference.backward())
    for cls in LOSSES:
        loss, reference = cls(), cls()
        value = reference.forward(H.astype(float), Y.astype(float))
        assert loss.forward(H, Y) == value
        assert np.array_equal(loss.backward(), reference.backward())


@pytest.mark.parametrize("dtype, large", [(np.float32, 3e38), (np.float64, 1.5e308)])
def test_cross_entropy_of_the_largest_logits(dtype, large):
    loss, O = CrossEntropyLoss(), np.array([[large, -large, 0]], dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for true_class, value in enumerate([0, np.inf, O[0, 0]]):
            assert loss.forward(O, np.eye(3)[[true_class]]) == value
            assert np.array_equal(
                loss.backward(), np.eye(3)[[0]] - np.eye(3)[[true_class]]
            )


def test_cross_entropy_takes_its_formula_for_rows_that_do_not_sum_to_one():
    O, Y = np.array([[1.0, -2, 0.5], [0, 3, 1]]), np.array([[2.0, -1, 3], [0, 0, 0]])
    o = tensor(O)
    expected = nn.CrossEntropyLoss()(o, torch.from_numpy(Y))
    expected.backward()
    loss = CrossEntropyLoss()
    assert loss.forward(O, Y) == pytest.approx(expected.item(), rel=1e-13)
    assert agree(loss.backward(), o.grad, np.float64)


@given(h=st.floats(-700, 700))
def test_sigmoid_keeps_relative_precision_in_both_tails(h):
    f, exact = Sigmoid(), np.exp(-abs(np.longdouble(h)))
    value = float((1 if h >= 0 else exact) / (1 + exact))
    assert f.forward(np.array([h]))[0] == pytest.approx(value, rel=1e-14)
    assert f.backward()[0] == pytest.approx(float(exact / (1 + exact) ** 2), rel=1e-14)
