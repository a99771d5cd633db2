"""Problem 1: a linear layer."""

import numpy as np


class Linear:
    """O = A W + 1_N b^T (equation 1).

    W is (d, h) and b is (h,) or (h, 1), for d `in_features` and h `out_features`.
    """

    def __init__(self, in_features, out_features):
        """W from N(0, 0.01), where 0.01 is the variance, by `np.random`; b zero."""
        assert in_features > 0 and out_features > 0, (in_features, out_features)
        d, h = in_features, out_features
        self.W = np.random.normal(0, np.sqrt(0.01), size=(d, h))
        self.b = np.zeros(h)

    def forward(self, A):
        """The output O (N, h) for the input A (N, d)."""
        h = self.W.shape[1]
        assert self.b.shape in [(h,), (h, 1)], f"b has the shape {self.b.shape}"
        self.A = A
        O = A @ self.W + self.b.reshape(1, h)
        return O

    def backward(self, dLdO):
        """Return dL/dA (N, d) for dL/dO (N, h); store dLdW and dLdb (equation 2).

        They have the shapes of W and b. Sums over the batch: 1/N is in dL/dO already.
        """
        N, h = len(self.A), self.W.shape[1]
        assert dLdO.shape == (N, h), f"dLdO has the shape {dLdO.shape}"
        self.dLdW = self.A.T @ dLdO
        self.dLdb = dLdO.sum(axis=0).reshape(self.b.shape)
        dLdA = dLdO @ self.W.T
        return dLdA
