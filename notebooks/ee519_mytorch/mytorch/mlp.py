"""Multi-layer perceptrons with 0, 1, 4 or any number of hidden layers (problem 5)."""

import numpy as np

from .activation import Identity, ReLU
from .checks import check_array
from .linear import Linear


class MLP:
    """A^(0) = X; H^(l) = A^(l-1) W^(l) + 1_N b^(l)^T; A^(l) = phi^(l)(H^(l)).

    Attributes: `layers`, linear layers from `sizes[0]` to `sizes[1]` features and so
    on; `f`, as many activations: `activation` after each hidden layer,
    `output_activation` after the last (both are classes such as ReLU). With Identity
    there, the default, the last A are logits, or any real numbers in regression.

    Raises ValueError unless `sizes` are at least two positive integers, TypeError for
    an activation that is not a class.
    """

    def __init__(
        self, sizes, activation=ReLU, output_activation=Identity, dtype=np.float64
    ):
        if np.ndim(sizes) != 1 or len(sizes) < 2:
            raise ValueError(f"sizes must hold at least two integers, got {sizes!r}")
        pairs = zip(sizes, sizes[1:])  # noqa: RUF007 (this library imports NumPy only)
        self.layers = [Linear(d, h, dtype) for d, h in pairs]
        hidden = [_made("activation", activation) for _ in self.layers[1:]]
        self.f = [*hidden, _made("output_activation", output_activation)]

    def forward(self, X):
        """The last A, of shape (N, out_features), for X of shape (N, in_features).

        Raises ValueError for another shape or non-finite values.
        """
        A = X
        for layer, f in zip(self.layers, self.f):
            A = f.forward(layer.forward(A))
        return A

    def backward(self, dLdA, input_gradient=True):
        """dL/dX of shape (N, in_features) for dL/dA of shape (N, out_features).

        dL/dH = dL/dA * dA/dH (element by element) goes to each linear layer, which
        stores its dLdW and dLdb. `input_gradient=False` leaves out dL/dX and returns
        None.

        Raises RuntimeError before `forward`, ValueError for another shape or non-finite
        values.
        """
        for layer, f in zip(reversed(self.layers), reversed(self.f)):
            dAdH = f.backward()
            dLdH = check_array("dLdA", dLdA, dAdH.shape) * dAdH
            dLdA = layer.backward(dLdH, input_gradient or layer is not self.layers[0])
        return dLdA


class MLP0(MLP):
    """No hidden layer: one linear layer, then `output_activation`."""

    def __init__(self, in_features=784, out_features=10, **options):
        super().__init__([in_features, out_features], **options)


class MLP1(MLP):
    """One hidden layer, of 256 units unless `hidden_sizes` says otherwise."""

    def __init__(
        self, in_features=784, out_features=10, hidden_sizes=(256,), **options
    ):
        _check_hidden(hidden_sizes, 1)
        super().__init__([in_features, *hidden_sizes, out_features], **options)


class MLP4(MLP):
    """Four hidden layers, of 128 units each unless `hidden_sizes` says otherwise."""

    def __init__(
        self, in_features=784, out_features=10, hidden_sizes=(128,) * 4, **options
    ):
        _check_hidden(hidden_sizes, 4)
        super().__init__([in_features, *hidden_sizes, out_features], **options)


def _check_hidden(hidden_sizes, count):
    if np.shape(hidden_sizes) != (count,):
        raise ValueError(
            f"hidden_sizes must be a sequence of {count}, got {hidden_sizes!r}"
        )


def _made(name, activation):
    if not isinstance(activation, type):
        raise TypeError(f"{name} must be a class such as ReLU, got {activation!r}")
    return activation()
