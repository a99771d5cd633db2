"""Problem 2: two losses. An assertion stops at a loss that is NaN."""

import numpy as np


class MSELoss:
    """Mean squared error, L = sum (O - Y)^2 / (N q)."""

    def forward(self, O, Y):
        """The loss L, a number, for outputs O and targets Y, both (N, q)."""
        assert O.shape == Y.shape, f"O and Y have the shapes {O.shape} and {Y.shape}"
        self.O, self.Y = O, Y
        N, q = O.shape
        L = np.sum((O - Y) ** 2) / (N * q)
        assert not np.isnan(L), "the loss is NaN"
        return L

    def backward(self):
        """dL/dO (N, q)."""
        N, q = self.O.shape
        dLdO = 2 * (self.O - self.Y) / (N * q)
        return dLdO


class CrossEntropyLoss:
    """Cross entropy, L = -sum Y log P / N, where P is the softmax of each row of O.

    O are logits, as in PyTorch. Rows of Y are one-hot or soft labels.
    """

    def forward(self, O, Y):
        """The loss L, a number, for logits O and targets Y, both (N, q)."""
        assert O.shape == Y.shape, f"O and Y have the shapes {O.shape} and {Y.shape}"
        self.O, self.Y = O, Y
        N = len(O)
        L = -np.sum(Y * log_softmax(O)) / N
        assert not np.isnan(L), "the loss is NaN"
        return L

    def backward(self):
        """dL/dO (N, q): (s P - Y) / N for the row sums s of Y, 1 as a rule."""
        N = len(self.O)
        P = np.exp(log_softmax(self.O))
        dLdO = (P * self.Y.sum(axis=1, keepdims=True) - self.Y) / N
        return dLdO


def log_softmax(O):
    """log(exp(O) / sum exp(O)) by row, less the maximum, so that exp can't overflow."""
    O = O - O.max(axis=1, keepdims=True)
    return O - np.log(np.exp(O).sum(axis=1, keepdims=True))
