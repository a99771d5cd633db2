"""A linear layer (problem 1)."""

import numpy as np

from .checks import check_array, check_forward, check_size

WEIGHT_VARIANCE = 0.01


class Linear:
    """O = A W + 1_N b^T (equation 1).

    Attributes: `W` (d, h), drawn from a normal distribution of mean 0 and variance 0.01
    by NumPy's global generator (reproducible with `np.random.seed`); `b` (h,), zero at
    the start; after `backward`, `dLdW` (d, h) and `dLdb` (h,). The layer computes in
    `dtype`, the floating-point type of W and b.

    Raises ValueError unless `in_features` (d) and `out_features` (h) are positive
    integers and `dtype` is a floating-point type.
    """

    def __init__(self, in_features, out_features, dtype=np.float64):
        check_size("in_features", in_features)
        check_size("out_features", out_features)
        if np.dtype(dtype).kind != "f":
            raise ValueError(f"dtype must be a floating-point type, got {dtype!r}")
        shape = (in_features, out_features)
        self.W = np.random.normal(0, np.sqrt(WEIGHT_VARIANCE), shape).astype(dtype)
        self.b = np.zeros(out_features, dtype)
        self.A = self.dLdW = self.dLdb = None

    def forward(self, A):
        """O of shape (N, h) for the inputs A of shape (N, d), which are kept.

        Raises ValueError for another shape or non-finite values.
        """
        self.A = check_array("A", A, ("N", len(self.W)), self._dtype())
        O = self.A @ self.W
        O += self.b
        return O

    def backward(self, dLdO, input_gradient=True):
        """dL/dA (N, d) for dL/dO (N, h); stores dLdW and dLdb (equation 2).

        The loss has its 1/N already: here gradients are summed over the batch, not
        averaged. `input_gradient=False` leaves out dL/dA (and returns None), which
        nobody needs from a network's first layer in training.

        Raises RuntimeError before `forward`, ValueError for another shape or non-finite
        values.
        """
        check_forward(self, self.A)
        shape = (len(self.A), len(self.b))
        dLdO = check_array("dLdO", dLdO, shape, self._dtype())
        self.dLdW = self.A.T @ dLdO
        self.dLdb = dLdO.sum(axis=0)
        return dLdO @ self.W.T if input_gradient else None

    def _dtype(self):
        """The type of W, or float64 where someone has put integers into it."""
        return np.result_type(self.W, np.float16)
