"""Problem 1: a linear layer."""

import numpy as np

from .checks import check_shape, kept


class Linear:
    """O = A W + 1_N b^T (equation 1), with W (d, h) and b (h,) or (h, 1), float64."""

    def __init__(self, in_features, out_features):
        """W from N(0, 0.01), where 0.01 is the variance, by `np.random`; b zero."""
        d, h = in_features, out_features
        self.W = np.random.normal(0, np.sqrt(0.01), size=(d, h))
        self.b = np.zeros(h)

    def forward(self, A):
        """The output O (N, h) for the input A (N, d)."""
        d, h = self.W.shape
        check_shape("A", A, ("N", d))
        self.A = A
        return A @ self.W + self.b.reshape(1, h)

    def backward(self, dLdO):
        """Return dL/dA (N, d) for dL/dO (N, h); store dLdW and dLdb (equation 2)."""
        A = kept(self, "A")
        check_shape("dLdO", dLdO, (len(A), self.W.shape[1]))
        self.dLdW = A.T @ dLdO
        self.dLdb = dLdO.sum(axis=0).reshape(self.b.shape)
        return dLdO @ self.W.T
