"""Activation functions (problem 4)."""

import numpy as np

from .checks import check_array, check_forward


class Activation:
    """A = phi(H), element by element; a subclass gives `phi` and its derivative."""

    H = None

    def forward(self, H):
        """A, of H's shape (any), which is kept.

        Raises ValueError for non-finite values.
        """
        self.H = check_array("H", H)
        return self.phi(self.H)

    def backward(self):
        """The element-wise derivative dA/dH, of H's shape.

        Raises RuntimeError before `forward`.
        """
        check_forward(self, self.H)
        return self.derivative(self.H)


class Identity(Activation):
    """phi(h) = h."""

    def phi(self, H):
        return H

    def derivative(self, H):
        return np.ones_like(H)


class Sigmoid(Activation):
    """phi(h) = 1 / (1 + exp(-h)), written with exp(-|h|), which cannot overflow."""

    def phi(self, H):
        E = np.exp(-np.abs(H))
        return np.where(H >= 0, 1, E) / (1 + E)

    def derivative(self, H):
        E = np.exp(-np.abs(H))
        return E / (1 + E) ** 2


class Tanh(Activation):
    """phi(h) = tanh(h)."""

    def phi(self, H):
        return np.tanh(H)

    def derivative(self, H):
        return 1 - np.tanh(H) ** 2


class ReLU(Activation):
    """phi(h) = max(h, 0); the derivative at 0 is taken to be 0, as PyTorch does."""

    def phi(self, H):
        return np.maximum(H, 0)

    def derivative(self, H):
        return (H > 0).astype(H.dtype)
