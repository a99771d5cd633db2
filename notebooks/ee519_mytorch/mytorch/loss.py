"""Loss functions (problem 2)."""

import numpy as np

from .checks import check_array, check_forward


class Loss:
    """What the losses share: O and Y, kept between the two passes."""

    O = Y = None

    def _keep(self, O, Y):
        O = check_array("O", O, ("N", "q"))
        self.Y = check_array("Y", Y, O.shape, O.dtype)
        self.O = O


class MSELoss(Loss):
    """Mean squared error, L = sum (O - Y)^2 / (N q)."""

    def forward(self, O, Y):
        """The loss as a float, for outputs O and targets Y, both of shape (N, q).

        Raises ValueError when the shapes differ, are not two-dimensional, or values are
        not finite.
        """
        self._keep(O, Y)
        return float(np.mean((self.O - self.Y) ** 2))

    def backward(self):
        """dL/dO = 2 (O - Y) / (N q) of shape (N, q).

        Raises RuntimeError before `forward`.
        """
        check_forward(self, self.O)
        return (self.O - self.Y) * (2 / self.O.size)


class CrossEntropyLoss(Loss):
    """Cross entropy of softmax(O) against one-hot Y, L = -sum Y log softmax(O) / N.

    O are logits: the softmax belongs to the loss, as in PyTorch.
    """

    def forward(self, O, Y):
        """The loss as a float, for logits O and one-hot targets Y, both of shape (N,
        q).

        Raises ValueError when the shapes differ or are not two-dimensional, a row of Y
        is not one-hot, or values are not finite.
        """
        _check_one_hot(Y)
        self._keep(O, Y)
        shifted, exponentials = self._shifted()
        log_normaliser = np.log(exponentials.sum(axis=1))
        return float(np.mean(log_normaliser - shifted[self.Y == 1]))

    def backward(self):
        """dL/dO = (softmax(O) - Y) / N of shape (N, q).

        Raises RuntimeError before `forward`.
        """
        check_forward(self, self.O)
        _, exponentials = self._shifted()
        softmax = exponentials / exponentials.sum(axis=1, keepdims=True)
        return (softmax - self.Y) / len(self.O)

    def _shifted(self):
        """O less the maximum of its row, which softmax ignores, and exp of that."""
        shifted = self.O - self.O.max(axis=1, keepdims=True)
        return shifted, np.exp(shifted)


def _check_one_hot(Y):
    Y = np.asarray(Y)
    if Y.ndim != 2:
        raise ValueError(
            f"Y must be one-hot of shape (N, q), got shape {Y.shape}; "
            "np.eye(q)[labels] makes one-hot rows of labels"
        )
    one_hot = (np.count_nonzero(Y, axis=1) == 1) & ((Y == 1).sum(axis=1) == 1)
    if not one_hot.all():
        row = np.argmin(one_hot)
        raise ValueError(
            "Y must be one-hot, a single 1 and else 0 in each row, "
            f"got {Y[row]} in row {row}"
        )
