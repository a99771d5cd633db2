"""Problem 2: two losses. Integers become float64; an empty batch is a ValueError."""

import numpy as np

from .checks import as_floats, check_shape, kept


class MSELoss:
    """Mean squared error, L = sum (O - Y)^2 / (N q)."""

    def forward(self, O, Y):
        """The loss L, a number, for outputs O and targets Y, both (N, q)."""
        O, Y = self.O, self.Y = checked(O, Y)
        N, q = O.shape
        return np.sum((O - Y) ** 2) / (N * q)

    def backward(self):
        """dL/dO (N, q)."""
        O, Y = kept(self, "O"), self.Y
        N, q = O.shape
        return 2 * (O - Y) / (N * q)


class CrossEntropyLoss:
    """Cross entropy, L = -sum Y log P / N, where P is the softmax of each row of O."""

    def forward(self, O, Y):
        """The loss L, a number, for logits O and one-hot or soft labels Y, both (N, q)."""
        O, Y = self.O, self.Y = checked(O, Y)
        logP = np.where(Y == 0, 0, log_softmax(O))  # 0 log P = 0, also for P = 0
        return -np.sum(Y * logP) / len(O)

    def backward(self):
        """dL/dO (N, q): (s P - Y) / N for the row sums s of Y, 1 as a rule."""
        O, Y = kept(self, "O"), self.Y
        P = np.exp(log_softmax(O))
        return (P * Y.sum(axis=1, keepdims=True) - Y) / len(O)


def log_softmax(O):
    """log(exp(O) / sum exp(O)) by row, less the maximum, so that exp can't overflow."""
    with np.errstate(over="ignore"):  # a difference may be -inf: its exp is 0
        O = O - O.max(axis=1, keepdims=True)
    return O - np.log(np.exp(O).sum(axis=1, keepdims=True))


def checked(O, Y):
    """O and Y as floating-point arrays of the same shape (N, q), with N, q >= 1."""
    O, Y = as_floats(O), as_floats(Y)
    if O.ndim != 2 or O.size == 0:
        raise ValueError(f"O must have a shape (N, q) with N, q >= 1, got {O.shape}")
    check_shape("Y", Y, O.shape)
    return O, Y
