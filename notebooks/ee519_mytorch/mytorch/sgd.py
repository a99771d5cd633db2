"""Stochastic gradient descent (problem 3)."""

import numpy as np


class SGD:
    """W <- W - lr dL/dW and b <- b - lr dL/db for each of `model.layers`.

    Raises TypeError when `model` has no list `layers` (wrap a single layer, or use
    MLP0), ValueError unless `lr` is a positive number.
    """

    def __init__(self, model, lr):
        if not hasattr(model, "layers"):
            raise TypeError(
                "model must have a list of layers as its attribute layers, "
                f"got {type(model).__name__}"
            )
        number = isinstance(lr, int | float | np.integer | np.floating)
        if isinstance(lr, bool) or not number or not 0 < lr < np.inf:
            raise ValueError(f"lr must be a positive number, got {lr!r}")
        self.model = model
        self.lr = float(lr)

    def step(self):
        """Update all layers in place from the gradients of the last `backward`.

        Raises RuntimeError, before any layer is changed, when one has no gradient yet.
        """
        for index, layer in enumerate(self.model.layers):
            if layer.dLdW is None:
                raise RuntimeError(
                    "SGD.step was called before backward: "
                    f"layer {index} has no gradient"
                )
        for layer in self.model.layers:
            layer.W -= self.lr * layer.dLdW
            layer.b -= self.lr * layer.dLdb
