"""mytorch against PyTorch: values, gradients, networks, training, bad input."""

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
    MLP,
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


def targets(loss, generator, rows, columns, dtype):
    """Random targets of shape (rows, columns) that suit the class `loss`."""
    if loss is CrossEntropyLoss:
        return np.eye(columns, dtype=dtype)[generator.integers(columns, size=rows)]
    return generator.normal(size=(rows, columns)).astype(dtype)


def network(cls, inputs, outputs, width, **options):
    """MLP0, MLP1 or MLP4 with hidden layers of `width` and biases that are not zero."""
    hidden = {
        MLP0: {},
        MLP1: {"hidden_sizes": [width]},
        MLP4: {"hidden_sizes": [width] * 4},
    }
    model = cls(inputs, outputs, **hidden[cls], **options)
    for layer in model.layers:
        layer.W *= 5  # so that five layers do not shrink everything to rounding error
        layer.b += np.random.normal(size=layer.b.shape).astype(layer.b.dtype)
    return model


# ---------------------------------------------------------------------------- package
def test_the_files_of_the_sheet_are_there():
    assert {"linear.py", "loss.py", "sgd.py", "activation.py", "mlp.py"} <= {
        path.name for path in MODULES
    }


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
    folder = Path(mytorch.__file__).parent.parent
    output = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert output.strip() == "{'mytorch'}"


# ----------------------------------------------------------------------------- linear
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_linear_starts_with_normal_weights_of_variance_001_and_zero_biases(dtype):
    np.random.seed(0)
    layer = Linear(300, 500, dtype=dtype)
    assert layer.W.shape == (300, 500) and layer.b.shape == (500,)
    assert layer.W.dtype == layer.b.dtype == dtype and not layer.b.any()
    standard = layer.W.astype(float).ravel() / 0.1
    # the first four moments of a standard normal, at five standard errors
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        margin = 5 * np.sqrt(variance / standard.size)
        assert abs((standard**power).mean() - moment) < margin
    np.random.seed(0)
    assert np.array_equal(Linear(300, 500, dtype=dtype).W, layer.W)


@given(seed=seeds, rows=sizes, inputs=sizes, outputs=sizes, dtype=dtypes)
def test_linear_equals_pytorch(seed, rows, inputs, outputs, dtype):
    np.random.seed(seed)
    layer = Linear(inputs, outputs, dtype)
    layer.b += np.random.normal(size=outputs).astype(dtype)
    A = np.random.normal(size=(rows, inputs)).astype(dtype)
    dLdO = np.random.normal(size=(rows, outputs)).astype(dtype)
    a, w, b = tensor(A), tensor(layer.W), tensor(layer.b)
    expected = a @ w + b
    expected.backward(torch.from_numpy(dLdO))
    assert agree(layer.forward(A), expected, dtype)
    assert agree(layer.backward(dLdO), a.grad, dtype)
    assert agree(layer.dLdW, w.grad, dtype)
    assert agree(layer.dLdb, b.grad, dtype)
    stored = layer.dLdW
    assert layer.backward(dLdO, input_gradient=False) is None
    assert np.array_equal(layer.dLdW, stored)


def test_linear_takes_the_type_of_its_parameters():
    layer = Linear(2, 2, np.float32)
    assert layer.forward([[1, 2]]).dtype == np.float32
    layer.W = np.array([[1, 0], [0, 1]])  # integers must not cut off the inputs
    assert np.array_equal(layer.forward([[0.5, 1.5]]), [[0.5, 1.5]])
    assert np.array_equal(layer.backward([[0.25, 0.5]]), [[0.25, 0.5]])


# ------------------------------------------------------------------------------- loss
@pytest.mark.parametrize("cls", LOSSES)
@given(seed=seeds, rows=sizes, columns=sizes, dtype=dtypes, scale=st.floats(0, 1000))
def test_loss_equals_pytorch(cls, seed, rows, columns, dtype, scale):
    generator = np.random.default_rng(seed)
    O = (scale * generator.normal(size=(rows, columns))).astype(dtype)
    Y = targets(cls, generator, rows, columns, dtype)
    o = tensor(O)
    expected = LOSSES[cls]()(o, torch.from_numpy(Y))
    expected.backward()
    loss = cls()
    value = loss.forward(O, Y)
    assert isinstance(value, float)
    assert value == pytest.approx(
        expected.item(), rel=TOLERANCE[dtype], abs=TOLERANCE[dtype]
    )
    assert agree(loss.backward(), o.grad, dtype)


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


def test_loss_that_refuses_its_input_keeps_the_last_good_one():
    loss = CrossEntropyLoss()
    loss.forward([[0.0, 0.0]], [[1, 0]])
    with pytest.raises(ValueError):
        loss.forward([[1.0, 2.0, 3.0]], [[1, 0]])
    assert np.array_equal(loss.backward(), [[-0.5, 0.5]])


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
    options = {"output_activation": output_activation, "dtype": dtype}
    if cls is not MLP0:
        options["activation"] = activation
    model, criterion = network(cls, inputs, outputs, width, **options), loss()
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
    model, criterion = network(MLP4, 3, 4, 5, activation=Tanh), loss()
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


@pytest.mark.parametrize("hidden", range(7))
def test_sgd_follows_pytorch_for_any_number_of_layers(hidden):
    np.random.seed(hidden)
    generator = np.random.default_rng(hidden)
    model, loss = MLP([3, *[6] * hidden, 4], activation=Tanh), CrossEntropyLoss()
    for layer in model.layers:
        layer.W *= 5
    start = [layer.W.copy() for layer in model.layers]
    reference = in_pytorch(model)
    optimizer, theirs = SGD(model, 0.1), torch.optim.SGD(reference.parameters(), 0.1)
    for rows in [8, 8, 3, 1, 8, 5] * 5:  # batches need not have one size
        X = generator.normal(size=(rows, 3))
        Y = targets(CrossEntropyLoss, generator, rows, 4, float)
        loss.forward(model.forward(X), Y)
        model.backward(loss.backward(), input_gradient=False)
        optimizer.step()
        theirs.zero_grad()
        nn.CrossEntropyLoss()(reference(torch.tensor(X)), torch.tensor(Y)).backward()
        theirs.step()
    for layer, linear, before in zip(model.layers, reference[::2], start):
        assert np.allclose(
            layer.W, linear.weight.detach().numpy().T, rtol=0, atol=1e-12
        )
        assert np.allclose(layer.b, linear.bias.detach().numpy(), rtol=0, atol=1e-12)
        assert np.abs(layer.W - before).max() > 1e-3


def test_networks_have_the_layers_and_activations_of_the_sheet():
    for cls, hidden in [(MLP0, []), (MLP1, [256]), (MLP4, [128] * 4)]:
        model = cls()
        shapes = [layer.W.shape for layer in model.layers]
        assert shapes == list(zip([784, *hidden], [*hidden, 10]))
        assert [type(f) for f in model.f] == [ReLU] * len(hidden) + [Identity]
    every_layer = MLP4(5, 2, [4, 3, 4, 3], activation=Tanh, output_activation=Tanh)
    assert [type(f) for f in every_layer.f] == [Tanh] * 5
    assert len({id(f) for f in every_layer.f}) == 5  # each keeps its own H


def test_backward_without_input_gradient_leaves_the_others_alone():
    np.random.seed(0)
    model = MLP4(3, 2, [4] * 4, activation=Tanh)
    model.forward(np.ones((5, 3)))
    model.backward(np.ones((5, 2)))
    before = gradients(model)
    assert model.backward(np.ones((5, 2)), input_gradient=False) is None
    assert all(map(np.array_equal, before, gradients(model)))


# -------------------------------------------------------------------------- bad input
@pytest.mark.parametrize("size", [0, -1, 2.0, True, None, "3"])
@pytest.mark.parametrize("name", ["in_features", "out_features"])
def test_sizes_must_be_positive_integers(name, size):
    arguments = {"in_features": 2, "out_features": 2} | {name: size}
    for cls in (Linear, MLP0, MLP1, MLP4):
        with pytest.raises(
            ValueError, match="must be a positive integer, got"
        ) as error:
            cls(**arguments)
        assert repr(size) in str(error.value)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: Linear(2, 2, dtype=int), ValueError, "dtype must be a floating-point"),
        (lambda: MLP([3]), ValueError, "sizes must hold at least two integers"),
        (lambda: MLP(3), ValueError, "sizes must hold at least two integers, got 3"),
        (
            lambda: MLP1(hidden_sizes=9),
            ValueError,
            "hidden_sizes must be a sequence of 1",
        ),
        (
            lambda: MLP1(hidden_sizes=[0]),
            ValueError,
            "must be a positive integer, got 0",
        ),
        (lambda: MLP4(hidden_sizes=[9]), ValueError, "must be a sequence of 4, got"),
        (lambda: MLP1(activation=ReLU()), TypeError, "^activation must be a class"),
        (lambda: MLP1(activation="relu"), TypeError, "must be a class .* got 'relu'"),
        (lambda: MLP0(output_activation=None), TypeError, "^output_activation must be"),
        (lambda: SGD([Linear(2, 2)], 0.1), TypeError, "model must have .* got list"),
        (lambda: SGD(MLP0(), 0), ValueError, "lr must be a positive number, got 0"),
        (lambda: SGD(MLP0(), -0.1), ValueError, "lr must be .* got -0.1"),
        (lambda: SGD(MLP0(), np.nan), ValueError, "lr must be .* got nan"),
        (lambda: SGD(MLP0(), np.inf), ValueError, "lr must be .* got inf"),
        (lambda: SGD(MLP0(), "0.1"), ValueError, "lr must be .* got '0.1'"),
        (lambda: SGD(MLP0(), True), ValueError, "lr must be .* got True"),
    ],
)
def test_bad_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


BAD_ARRAYS = [  # in the place of a float array of shape (4, 3)
    (np.ones((4, 2)), ValueError, r"must have shape .*3\).*, got \(4, 2\)"),
    (np.ones((3, 4)), ValueError, r"got \(3, 4\)"),
    (np.ones(3), ValueError, r"got \(3,\)"),
    (np.ones((4, 3, 1)), ValueError, r"got \(4, 3, 1\)"),
    (np.ones((0, 3)), ValueError, r"got \(0, 3\)"),
    (1.0, ValueError, r"got \(\)"),
    (np.array([[1.0, np.nan, 1]] * 4), ValueError, "must be finite, got 4 NaN"),
    (np.array([[1.0, np.inf, -np.inf]] * 4), ValueError, "must be finite, got 8 NaN"),
    (np.full((4, 3), 1j), TypeError, "must hold real numbers, got dtype complex128"),
    (np.full((4, 3), "1"), TypeError, "must hold real numbers, got dtype <U1"),
]


@pytest.mark.parametrize("value, error, message", BAD_ARRAYS)
def test_bad_arrays_are_refused_by_name(value, error, message):
    layer, mlp, mse = Linear(3, 3), MLP4(3, 3, [5] * 4), MSELoss()
    layer.forward(np.ones((4, 3)))
    mlp.forward(np.ones((4, 3)))
    calls = {
        "dLdO": lambda: layer.backward(value),
        "dLdA": lambda: mlp.backward(value),
        "Y": lambda: mse.forward(np.ones((4, 3)), value),
        "A": lambda: layer.forward(value),
    }
    if error is TypeError or "finite" in message:
        calls["H"] = lambda: Tanh().forward(value)
        calls["O"] = lambda: CrossEntropyLoss().forward(value, np.eye(3)[[0, 1, 2, 0]])
    for name, call in calls.items():
        with pytest.raises(error, match=message) as caught:
            call()
        assert str(caught.value).startswith(name + " must")


@pytest.mark.parametrize(
    "Y",
    [
        [[0.5, 0.5], [1, 0]],
        [[1, 0], [1, 1]],
        [[0, 0], [1, 0]],
        [[2, 0], [1, 0]],
        [[2, -1], [1, 0]],
        [[np.nan, 1], [1, 0]],
        [0, 1],
    ],
)
def test_cross_entropy_refuses_targets_that_are_not_one_hot(Y):
    loss = CrossEntropyLoss()
    with pytest.raises(ValueError, match="Y must be one-hot.* got "):
        loss.forward(np.zeros((2, 2)), Y)
    assert loss.O is None


@pytest.mark.parametrize(
    "cls", [Identity, Sigmoid, Tanh, ReLU, MSELoss, CrossEntropyLoss]
)
def test_backward_before_forward_is_refused(cls):
    with pytest.raises(
        RuntimeError, match=f"{cls.__name__}.backward was called before"
    ):
        cls().backward()


def test_layers_networks_and_sgd_refuse_steps_out_of_order():
    with pytest.raises(RuntimeError, match="Linear.backward was called before"):
        Linear(2, 2).backward(np.ones((1, 2)))
    model = MLP1(2, 2, [3])
    with pytest.raises(RuntimeError, match="Identity.backward was called before"):
        model.backward(np.ones((1, 2)))
    model.layers[0].dLdW, model.layers[0].dLdb = np.ones((2, 3)), np.ones(3)
    before = model.layers[0].W.copy()
    with pytest.raises(RuntimeError, match="layer 1 has no gradient"):
        SGD(model, 0.1).step()
    assert np.array_equal(model.layers[0].W, before)


def test_a_gradient_that_would_broadcast_is_refused():
    model = MLP1(2, 2, [3])
    model.forward(np.ones((4, 2)))
    with pytest.raises(
        ValueError, match=r"dLdA must have shape \(4, 2\), got \(1, 2\)"
    ):
        model.backward(np.ones((1, 2)))


def test_numbers_whose_sum_overflows_are_still_finite():
    assert np.array_equal(ReLU().forward([1e308] * 3), [1e308] * 3)


def test_divergence_is_reported_where_it_happens():
    model, loss = MLP0(1, 1), MSELoss()
    optimizer = SGD(model, 1e6)
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(ValueError, match="lower the learning rate"),
    ):
        for _ in range(1000):
            loss.forward(model.forward([[1.0]]), [[1.0]])
            model.backward(loss.backward())
            optimizer.step()
