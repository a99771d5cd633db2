"""MyTorch: multi-layer perceptrons in NumPy, used like PyTorch (EE 519, homework 1).

`forward` keeps its arrays by reference for `backward`: do not change them in between. An
object serves once per pass; to use a layer twice, make two. `backward` before `forward`
is a RuntimeError, an array of another shape than documented a ValueError.
"""

from .activation import Identity, ReLU, Sigmoid, Tanh
from .linear import Linear
from .loss import CrossEntropyLoss, MSELoss
from .mlp import MLP0, MLP1, MLP4
from .sgd import SGD

__all__ = [
    "MLP0",
    "MLP1",
    "MLP4",
    "SGD",
    "CrossEntropyLoss",
    "Identity",
    "Linear",
    "MSELoss",
    "ReLU",
    "Sigmoid",
    "Tanh",
]
