"""Problem 5: multi-layer perceptrons with 0, 1 and 4 hidden layers.

`layers` are the linear layers, `f` the activations that follow them. `backward` returns
dL/dX; each layer stores its dLdW and dLdb. `*` is the element-wise product.
"""

from .activation import Identity, ReLU
from .checks import check_shape
from .linear import Linear


class MLP0:
    """No hidden layer."""

    def __init__(self, in_features=784, out_features=10, output_activation=Identity):
        self.layers = [Linear(in_features, out_features)]
        self.f = [output_activation()]

    def forward(self, X):
        """A1 (N, out_features) for X (N, in_features)."""
        H1 = self.layers[0].forward(X)
        A1 = self.f[0].forward(H1)
        return A1

    def backward(self, dLdA1):
        """dL/dX (N, in_features) for dL/dA1 (N, out_features)."""
        dA1dH1 = self.f[0].backward()
        check_shape("dLdA1", dLdA1, dA1dH1.shape)
        dLdH1 = dLdA1 * dA1dH1
        dLdX = self.layers[0].backward(dLdH1)
        return dLdX


class MLP1:
    """One hidden layer, of `hidden_features` units."""

    def __init__(
        self,
        in_features=784,
        out_features=10,
        hidden_features=256,
        activation=ReLU,
        output_activation=Identity,
    ):
        d, h, q = in_features, hidden_features, out_features
        self.layers = [Linear(d, h), Linear(h, q)]
        self.f = [activation(), output_activation()]

    def forward(self, X):
        """A2 (N, out_features) for X (N, in_features)."""
        H1 = self.layers[0].forward(X)
        A1 = self.f[0].forward(H1)
        H2 = self.layers[1].forward(A1)
        A2 = self.f[1].forward(H2)
        return A2

    def backward(self, dLdA2):
        """dL/dX (N, in_features) for dL/dA2 (N, out_features)."""
        dA2dH2 = self.f[1].backward()
        check_shape("dLdA2", dLdA2, dA2dH2.shape)
        dLdH2 = dLdA2 * dA2dH2
        dLdA1 = self.layers[1].backward(dLdH2)
        dLdH1 = dLdA1 * self.f[0].backward()
        dLdX = self.layers[0].backward(dLdH1)
        return dLdX


class MLP4:
    """Four hidden layers, of `hidden_features` units each."""

    def __init__(
        self,
        in_features=784,
        out_features=10,
        hidden_features=128,
        activation=ReLU,
        output_activation=Identity,
    ):
        d, h, q = in_features, hidden_features, out_features
        self.layers = [Linear(d, h), *(Linear(h, h) for _ in range(3)), Linear(h, q)]
        self.f = [*(activation() for _ in range(4)), output_activation()]

    def forward(self, X):
        """A5 (N, out_features) for X (N, in_features)."""
        A = X
        for layer, f in zip(self.layers, self.f):
            H = layer.forward(A)
            A = f.forward(H)
        return A

    def backward(self, dLdA):
        """dL/dX (N, in_features) for dL/dA5 (N, out_features)."""
        for layer, f in zip(reversed(self.layers), reversed(self.f)):
            dAdH = f.backward()
            check_shape("dLdA", dLdA, dAdH.shape)
            dLdH = dLdA * dAdH
            dLdA = layer.backward(dLdH)
        return dLdA
