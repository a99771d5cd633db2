from .linear import Linear
from .activation import Identity, ReLU


class _MLP(object):
    """Subclasses set the layer sizes and the activation of each layer."""
    sizes = ()
    phi = ()

    def __init__(self, sizes=None):
        if sizes is None:
            sizes = self.sizes
        assert len(sizes) == len(self.phi) + 1
        self.layers = [Linear(m, n) for m, n in zip(sizes[:-1], sizes[1:])]
        self.f = [phi() for phi in self.phi]

    def forward(self, X):
        for layer, f in zip(self.layers, self.f):
            X = f.forward(layer.forward(X))
        return X

    def backward(self, grad):
        for layer, f in zip(self.layers[::-1], self.f[::-1]):
            grad = layer.backward(grad * f.backward())
        return grad

    __call__ = forward


class MLP0(_MLP):
    sizes = (2, 3)
    phi = (Identity,)


class MLP1(_MLP):
    sizes = (2, 3, 2)
    phi = (ReLU, ReLU)


class MLP4(_MLP):
    sizes = (2, 4, 8, 8, 4, 2)
    phi = (ReLU, ReLU, ReLU, ReLU, ReLU)
