"""Problem 3: stochastic gradient descent."""


class SGD:
    """W <- W - lr dL/dW and b <- b - lr dL/db for each layer of `model.layers`."""

    def __init__(self, model, lr):
        self.model, self.lr = model, lr

    def step(self):
        """Update W and b of all layers in place by what the last `backward` stored."""
        for layer in self.model.layers:
            layer.W -= self.lr * layer.dLdW
            layer.b -= self.lr * layer.dLdb
