import numpy as np


def _sigmoid(z):
    # sigmoid(z) = (1 + tanh(z/2)) / 2, doesn't overflow
    return 0.5 * (1.0 + np.tanh(0.5 * z))


class Activation(object):
    H = None

    def forward(self, H):
        self.H = np.asarray(H, dtype=np.float32)
        return self.phi(self.H)

    def backward(self):
        return self.dphi(self.H)

    __call__ = forward


class Identity(Activation):
    phi = staticmethod(lambda h: h)
    dphi = staticmethod(lambda h: np.ones_like(h))


class Sigmoid(Activation):
    phi = staticmethod(_sigmoid)
    dphi = staticmethod(lambda h: _sigmoid(h) * _sigmoid(-h))


class Tanh(Activation):
    phi = staticmethod(np.tanh)
    dphi = staticmethod(lambda h: 1.0 - np.square(np.tanh(h)))


class ReLU(Activation):
    phi = staticmethod(lambda h: h * (h > 0))
    dphi = staticmethod(lambda h: (h > 0).astype(h.dtype))
