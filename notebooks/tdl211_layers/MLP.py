"""Task 1: the linear layer of multilayer perceptrons, without bias, written from scratch.

    y = x Wᵀ

Its parameter has the name and the shape that PyTorch gives it, so `Linear(3, 4)` can stand
wherever `torch.nn.Linear(3, 4, bias=False)` stood, and state_dicts move both ways.
"""

import math

import torch
from torch import nn


class Linear(nn.Module):
    """A linear map of the last dimension, from `in_features` to `out_features`.

    Parameter: `weight` (out_features, in_features), drawn from U(-k, k) with
    k = 1/√in_features, as in PyTorch: features of variance 1 give outputs of variance 1/3,
    whatever their number. `torch.manual_seed` makes the draw repeatable.

    `bias` can only be False; it is there so that a call written for torch.nn.Linear works.
    Raises ValueError when a size is not a positive integer or `bias` is not False.
    """

    def __init__(
        self, in_features, out_features, bias=False, *, device=None, dtype=None
    ):
        super().__init__()
        for name, size in [
            ("in_features", in_features),
            ("out_features", out_features),
        ]:
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} must be a positive integer, got {size!r}")
        if bias:
            raise ValueError(f"bias must be False, got {bias!r}: this layer has none")
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(
            torch.empty(out_features, in_features, device=device, dtype=dtype)
        )
        self.reset_parameters()

    def reset_parameters(self):
        """Draw the weights anew."""
        bound = 1 / math.sqrt(self.in_features)
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, input):
        """(..., in_features) -> (..., out_features).

        Raises TypeError for anything but a tensor of the layer's dtype (under autocast: of any
        floating-point dtype), ValueError when the last dimension is not in_features.
        """
        _check_dtype("input", input, self.weight)
        if input.ndim == 0 or input.shape[-1] != self.in_features:
            raise ValueError(
                f"input must have shape (..., {self.in_features}), got {tuple(input.shape)}"
            )
        return input @ self.weight.T

    def extra_repr(self):
        return f"{self.in_features}, {self.out_features}, bias=False"


def _check_dtype(name, tensor, weight):
    """Raise TypeError unless `tensor` is a tensor that can be multiplied with `weight`."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    device = tensor.device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(
        device
    )
    if tensor.dtype != weight.dtype and not (autocast and tensor.is_floating_point()):
        raise TypeError(
            f"{name} must have the dtype {weight.dtype} of the weights, got {tensor.dtype}"
        )
