"""Fully connected layer, O = A W + 1 b^T."""
import numpy as np

DTYPE = np.float32


def _as_float(x):
    return np.asarray(x, dtype=DTYPE)


class Linear(object):
    sigma = 0.1   # sqrt of the variance 0.01

    W = None      # (d, h)
    b = None      # (h, 1)
    dLdW = None
    dLdb = None

    def __init__(self, in_size, out_size):
        rng = np.random.default_rng()
        self.W = _as_float(self.sigma * rng.standard_normal((in_size, out_size)))
        self.b = np.zeros((out_size, 1), dtype=DTYPE)

    def forward(self, A):
        self.A = _as_float(A)
        self.ones = np.ones((self.A.shape[0], 1), dtype=DTYPE)
        return self.A.dot(self.W) + self.ones.dot(self.b.T)

    def backward(self, dLdO):
        dLdO = _as_float(dLdO)
        self.dLdW = np.dot(dLdO.T, self.A).T
        self.dLdb = np.dot(dLdO.T, self.ones)     # (h, 1)
        return np.dot(dLdO, self.W.T)

    __call__ = forward
