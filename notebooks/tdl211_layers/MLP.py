"""Task 1: a linear layer without bias, the building block of multilayer perceptrons.

    y = x Wᵀ                                                                     (1)

Its forward call and its state_dict are those of torch.nn.Linear with bias=False.
"""

import math

import torch
from torch import nn


class Linear(nn.Module):
    """`in_features` are the sheet's input features, `out_features` its output features.

    `weight` is W, of shape (out_features, in_features), at random from U(-k, k) with
    k = 1/√in_features, as in PyTorch. Raises ValueError for a size below 1 or a bias.
    """

    def __init__(
        self, in_features, out_features, bias=False, *, device=None, dtype=None
    ):
        super().__init__()
        if min(in_features, out_features) < 1:
            raise ValueError(f"sizes must be >= 1, got {in_features}, {out_features}")
        if bias:
            raise ValueError(f"bias must be False, got {bias!r}")
        self.in_features, self.out_features = in_features, out_features
        weight = torch.empty(out_features, in_features, device=device, dtype=dtype)
        self.weight = nn.Parameter(weight)
        self.reset_parameters()

    def reset_parameters(self):
        """Draw the weights anew."""
        k = 1 / math.sqrt(self.in_features)
        nn.init.uniform_(self.weight, -k, k)

    def forward(self, input):
        """x (..., in_features) -> y (..., out_features)."""
        return input @ self.weight.T  # (1)

    def extra_repr(self):
        return f"{self.in_features}, {self.out_features}, bias=False"
