"""EE519, item by item of the sheet: our MyTorch, or somebody's (--answers ee519=PATH).

The sheet gives W (d, h), dLdW, dLdb, layers, f, forward and backward; b may be (h,),
(h, 1) or (1, h), numbers float32, and the constructors of the MLPs are the author's.
"""

import contextlib
import copy
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from items import Finding, attempt, expect, shown

A = np.array([[1.0, 2], [3, 4], [0, -1]])  # N = 3, d = 2
W = np.array([[1.0, 0, -1, 2], [2, 1, 0, -3]])  # h = 4
B = np.array([1.0, -2, 3, 0.5])
DLDO = np.array([[1.0, 2, -1, 0], [0, 1, 2, 3], [4, 0, -2, 1]])
O = np.array([[1.0, -2], [0, 3], [2, 1.5]])
TARGETS = np.array([[0.5, 1], [-1, 2], [0, 0]])
ONE_HOT = np.array([[1.0, 0], [1, 0], [0, 1]])


def item(name, checked):
    return pytest.mark.item(f"ee519 {name}", checked)


# ----------------------------------------------------------------- problem 1: linear.py
def linear(answer):
    """A layer with the W and b above, whichever way round it keeps W; and that."""
    layer = answer.get("mytorch/linear.py", "Linear")(2, 4)
    turned = np.shape(layer.W) == (4, 2)
    layer.W = (W.T if turned else W).astype(layer.W.dtype)
    layer.b = B.reshape(np.shape(layer.b)).astype(layer.b.dtype)
    return layer, turned


@item("1a", "W is (d, h), normal with variance 0.01; b is zero")
def test_1a(answer):
    layer = answer.get("mytorch/linear.py", "Linear")(300, 500)
    call = "Linear(300, 500)"
    expect(f"{call}.W.shape", lambda: layer.W.shape, (300, 500), "problem 1: d × h")
    expect(f"number of elements of {call}.b", lambda: np.size(layer.b), 500, "1a: h")
    expect(f"{call}.b", lambda: np.ravel(layer.b), np.zeros(500), "1a: all zeros")
    by = "1a: a normal distribution with variance 0.01"
    for power, moment, margin in [(1, 0, 13e-4), (2, 1e-2, 2e-4), (4, 3e-4, 13e-6)]:
        value = (layer.W.astype(float) ** power).mean()  # five standard errors
        expect(f"mean of {call}.W ** {power}", value, moment, by, margin)


@item("1b", "Linear.forward: O = A W + 1 bᵀ, equation (1)")
def test_1b(answer):
    layer, _ = linear(answer)
    called = f"Linear(2, 4).forward(A) with A = {shown(A)}, W, b set"
    expect(called, lambda: layer.forward(A), A @ W + B, "(1): A W + 1 bᵀ")


@item("1c", "Linear.backward: returns dL/dA, stores dLdW and dLdb, equation (2)")
def test_1c(answer):
    layer, turned = linear(answer)
    layer.forward(A)
    called = "Linear(2, 4).backward(dLdO) for N = 3"
    expect(called, lambda: layer.backward(DLDO), DLDO @ W.T, "(2): dL/dO Wᵀ")
    by = "(2): Aᵀ dL/dO; a mean over the batch is in dL/dO already"
    expect(
        "dLdW after " + called,
        lambda: layer.dLdW.T if turned else layer.dLdW,
        A.T @ DLDO,
        by,
    )
    by = "(2): dL/dOᵀ 1, a sum over the batch"
    expect("dLdb after " + called, lambda: np.ravel(layer.dLdb), DLDO.sum(0), by)
    called = "number of elements of b − dLdb after " + called
    expect(called, lambda: np.size(layer.b - layer.dLdb), 4, "h: both of b's shape")


# ------------------------------------------------------------------- problem 2: loss.py
P = np.exp(O) / np.exp(O).sum(axis=1, keepdims=True)
LOSSES = {"MSELoss": TARGETS, "CrossEntropyLoss": ONE_HOT}


def check_loss(answer, name, backward, expected, by):
    loss, Y = answer.get("mytorch/loss.py", name)(), LOSSES[name]
    called = f"{name}().forward(O, Y) with O = {shown(O)}, Y = {shown(Y)}"
    if backward:
        loss.forward(O, Y)
        expect(f"backward() after {called}", loss.backward, expected, by)
    else:
        expect(called, lambda: np.squeeze(loss.forward(O, Y)), expected, by)


@item("2a", "MSELoss.forward: L = Σ (O − Y)² / (N q)")
def test_2a(answer):
    expected, by = ((O - TARGETS) ** 2).sum() / 6, "2a: Σ (O − Y)² / (N q), N q = 6"
    check_loss(answer, "MSELoss", False, expected, by)


@item("2b", "MSELoss.backward: dL/dO = 2 (O − Y) / (N q)")
def test_2b(answer):
    by = "2b: 2 (O − Y) / (N q), N q = 6"
    check_loss(answer, "MSELoss", True, 2 * (O - TARGETS) / 6, by)


@item("2c", "CrossEntropyLoss.forward: L = −Σ Y log P / N, P the softmax of O by row")
def test_2c(answer):
    expected, by = -(ONE_HOT * np.log(P)).sum() / 3, "2c: −Σ Y log P / N, N = 3"
    check_loss(answer, "CrossEntropyLoss", False, expected, by)


@item("2d", "CrossEntropyLoss.backward: dL/dO = (P − Y) / N")
def test_2d(answer):
    by = "2d: (P − Y) / N, N = 3"
    check_loss(answer, "CrossEntropyLoss", True, (P - ONE_HOT) / 3, by)


# -------------------------------------------------------------------- problem 3: sgd.py
@item("3", "SGD.step: W ← W − lr dL/dW and b ← b − lr dL/db in every layer")
def test_3(answer):
    shapes = [((2, 4), (4,)), ((4, 1), (1, 1))]
    layers = [
        SimpleNamespace(
            W=np.ones(shape),
            dLdW=np.full(shape, 2.0),
            b=np.ones(row),
            dLdb=np.full(row, -4.0),
        )
        for shape, row in shapes
    ]
    optimizer = answer.get("mytorch/sgd.py", "SGD")(SimpleNamespace(layers=layers), 0.1)
    for step, w, b in [(1, 0.8, 1.4), (2, 0.6, 1.8)]:
        attempt("SGD(model, 0.1).step() with two layers", optimizer.step, "an update")
        for number, (layer, (shape, row)) in enumerate(zip(layers, shapes), 1):
            called = (
                f"{step} × SGD(model, 0.1).step(), {{}} = {{}}: {{}} of layer {number}"
            )
            expect(
                called.format("dLdW", 2, "W"),
                partial(getattr, layer, "W"),
                np.full(shape, w),
                "3: W − lr dL/dW, W = 1 at first",
            )
            expect(
                called.format("dLdb", -4, "b"),
                partial(getattr, layer, "b"),
                np.full(row, b),
                "3: b − lr dL/db, b = 1 at first",
            )


# ------------------------------------------------------------- problem 4: activation.py
H = np.array([[-2.0, -0.5, 1], [0.25, 3, -1]])
SIGMOID = 1 / (1 + np.exp(-H))
ACTIVATIONS = {
    "Sigmoid": (SIGMOID, SIGMOID * (1 - SIGMOID), "1 / (1 + e⁻ʰ)", "σ(h) (1 − σ(h))"),
    "Tanh": (np.tanh(H), 1 - np.tanh(H) ** 2, "tanh h", "1 − tanh² h"),
    "ReLU": (np.maximum(H, 0), H > 0, "max(h, 0)", "1 where h > 0, else 0"),
}


def check_activation(answer, name, problem):
    f = answer.get("mytorch/activation.py", name)()
    value, derivative, *by = ACTIVATIONS[name]
    called = f"{name}().forward(H) with H = {shown(H)}"
    expect(called, lambda: f.forward(H), value, f"{problem}: {by[0]}")
    called = f"backward() after {called}"
    expect(called, f.backward, derivative.astype(float), f"{problem}: dA/dH = {by[1]}")


@item("4a", "Sigmoid: forward, and backward as dA/dH at the stored H")
def test_4a(answer):
    check_activation(answer, "Sigmoid", "4a")


@item("4b", "Tanh: forward, and backward as dA/dH at the stored H")
def test_4b(answer):
    check_activation(answer, "Tanh", "4b")


@item("4c", "ReLU: forward, and backward as dA/dH at the stored H")
def test_4c(answer):
    check_activation(answer, "ReLU", "4c")


# -------------------------------------------------------------------- problem 5: mlp.py
CALLS = {  # of constructors, the smallest first; the last takes the author's own sizes
    1: [(2, 3), ([2, 3],), ()],
    2: [(2, 4, 3), (2, 3), ([2, 4, 3],), (2, [4], 3), ()],
    5: [
        (2, [4, 5, 4, 3], 3),
        (2, 4, 5, 4, 3, 3),
        (2, 4, 3),
        (2, 3),
        ([2, 4, 5, 4, 3, 3],),
        (2, 3, [4, 5, 4, 3]),
        (),
    ],
}


def network(answer, name, depth):
    """A network, and the call that made it."""
    cls = answer.get("mytorch/mlp.py", name)
    relu = answer.get("mytorch/activation.py", "ReLU")
    for arguments in [*CALLS[depth], *((*call, relu) for call in CALLS[depth])]:
        with contextlib.suppress(Exception):
            model = cls(*arguments)
            assert all(np.ndim(layer.W) == 2 for layer in model.layers)
            break
    else:
        call = f"{name}{CALLS[depth][0]}, and with the sizes given in other ways"
        model = attempt(call, partial(cls, *arguments), "an object")
        attempt(
            f"{call}.layers",
            partial(getattr, model, "layers"),
            "5: the list of linear layers",
        )
        raise Finding(f"W of {call}.layers", "no matrices", "5: linear layers")
    called = f"{name}{arguments}"
    expect(
        f"len({called}.layers)", lambda: len(model.layers), depth, "5: linear layers"
    )
    expect(f"len({called}.f)", lambda: len(model.f), depth, "5: one after each layer")
    return model, called


def forward(model, X, generator):
    """Copies of the layers and activations after a pass with new weights; the output."""
    steps = []
    for layer, f in zip(model.layers, model.f):
        layer.W = generator.normal(size=layer.W.shape).astype(layer.W.dtype)
        layer.b = generator.normal(size=layer.b.shape).astype(layer.b.dtype)
        steps.append((copy.deepcopy(layer), copy.deepcopy(f)))
        X = steps[-1][1].forward(steps[-1][0].forward(X))
    return steps, X


def check_network(answer, name, depth):
    """One pass, compared with copies of the network's own layers and activations.

    So a mistake of an earlier problem is not counted here again.
    """
    model, call = network(answer, name, depth)
    turned = linear(answer)[1]  # W is (h, d): a mistake of 1a
    for seed in range(50):  # until every hidden layer has active and inactive units
        generator = np.random.default_rng(seed)
        X = generator.normal(size=(5, model.layers[0].W.shape[turned]))
        steps, out = forward(model, X, generator)
        slopes = [np.asarray(f.backward()) for _, f in steps]
        if all(np.ptp(slope) for slope in slopes[:-1]) and slopes[-1].any():
            break
    if depth == 1:
        called, by = "f[0].forward(X) of MLP0", "5a: f holds a single Identity"
        expect(called, lambda: copy.deepcopy(model.f[0]).forward(X), X, by)
    equation = "5: H = A W + 1 bᵀ, A = φ(H), layer by layer"
    expect(f"{call}.forward(X) for N = 5", lambda: model.forward(X), out, equation)
    gradient = back = generator.normal(size=out.shape)
    for layer, f in reversed(steps):
        back = layer.backward(back * f.backward())
    called = f"{call}.backward(dLdA) after forward(X)"
    by = "5: dL/dX = dL/dH Wᵀ with dL/dH = dL/dA ⊙ dA/dH"
    result = attempt(called, lambda: model.backward(gradient), by)
    if result is not None:  # the sheet asks for the gradients, not to return one
        expect(called, lambda: result, back, by)
    for number, (layer, (own, _)) in enumerate(zip(model.layers, steps), 1):
        for key in ("dLdW", "dLdb"):
            by = f"5: from dL/dH({number}) = dL/dA ⊙ dA/dH"
            expect(
                f"layer {number}'s {key} after {called}",
                partial(getattr, layer, key),
                getattr(own, key),
                by,
            )


@item("5a", "MLP0: layers and f, forward, backward")
def test_5a(answer):
    check_network(answer, "MLP0", 1)


@item("5b", "MLP1: layers and f, forward, backward")
def test_5b(answer):
    check_network(answer, "MLP1", 2)


@item("5c", "MLP4: layers and f, forward, backward")
def test_5c(answer):
    check_network(answer, "MLP4", 5)
