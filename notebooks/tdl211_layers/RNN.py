"""Task 2: the recurrent layer of Elman (1990), without bias, written from scratch.

    h_t = f(x_t W_ihᵀ + h_{t-1} W_hhᵀ)

`RNNCell` is one step, `RNN` the same step along a sequence. Their parameters have the names and
shapes that PyTorch gives them, so they can stand wherever torch.nn.RNNCell and torch.nn.RNN (one
layer, one direction) stood with bias=False, and state_dicts move both ways.
"""

import math

import torch
from torch import nn

NONLINEARITIES = {"tanh": torch.tanh, "relu": torch.relu}


class RNNCell(nn.Module):
    """One step of an Elman network.

    Parameters: `weight_ih` (hidden_size, input_size), `weight_hh` (hidden_size, hidden_size),
    drawn in this order from U(-k, k) with k = 1/√hidden_size, as in PyTorch;
    `torch.manual_seed` makes the draw repeatable. `nonlinearity` is "tanh", "relu" or any
    callable that maps a tensor to one of the same shape; a module's parameters are trained too.

    `bias` can only be False; it is there so that a call written for torch.nn.RNNCell works.
    Raises ValueError for a size that is not a positive integer, an unknown nonlinearity, a bias.
    """

    def __init__(
        self,
        input_size,
        hidden_size,
        nonlinearity="tanh",
        *,
        bias=False,
        device=None,
        dtype=None,
    ):
        super().__init__()
        _check_sizes(input_size, hidden_size, bias)
        _function(nonlinearity)
        self.input_size, self.hidden_size = input_size, hidden_size
        self.nonlinearity = nonlinearity
        options = {"device": device, "dtype": dtype}
        self.weight_ih = nn.Parameter(torch.empty(hidden_size, input_size, **options))
        self.weight_hh = nn.Parameter(torch.empty(hidden_size, hidden_size, **options))
        self.reset_parameters()

    def reset_parameters(self):
        """Draw the weights anew."""
        _draw(self.weight_ih, self.weight_hh)

    def forward(self, input, hx=None):
        """x_t (batch, input_size), h_{t-1} (batch, hidden_size) -> h_t (batch, hidden_size).

        All of them without the batch dimension work too. Without `hx` the state is zero.
        Raises TypeError for anything but tensors of the layer's dtype (under autocast: of any
        floating-point dtype), ValueError for shapes that do not fit.
        """
        _check_input(input, self.weight_ih, ["", "batch, "])
        hx = _state("hx", hx, input.shape[:-1], self.weight_hh, input)
        f = _function(self.nonlinearity)
        return f(input @ self.weight_ih.T + hx @ self.weight_hh.T)

    def extra_repr(self):
        return _describe(self)


class RNN(nn.Module):
    """An Elman network along a sequence: one layer, one direction.

    Parameters: `weight_ih_l0` and `weight_hh_l0`, the weights of an `RNNCell` under the names of
    torch.nn.RNN; see there for the arguments. With `batch_first` the batch dimension of the
    input and the output (not of the states) comes first.
    """

    def __init__(
        self,
        input_size,
        hidden_size,
        nonlinearity="tanh",
        *,
        bias=False,
        batch_first=False,
        device=None,
        dtype=None,
    ):
        super().__init__()
        cell = RNNCell(
            input_size, hidden_size, nonlinearity, bias=bias, device=device, dtype=dtype
        )
        self.input_size, self.hidden_size = input_size, hidden_size
        self.nonlinearity, self.batch_first = nonlinearity, batch_first
        self.weight_ih_l0, self.weight_hh_l0 = cell.weight_ih, cell.weight_hh

    def reset_parameters(self):
        """Draw the weights anew."""
        _draw(self.weight_ih_l0, self.weight_hh_l0)

    def forward(self, input, hx=None):
        """x (time, batch, input_size), h_0 (1, batch, hidden_size) -> h_1 ... h_T, h_T.

        The first result holds all states, (time, batch, hidden_size), the second the last one,
        (1, batch, hidden_size). All of them without the batch dimension work too. Without `hx`
        the first state is zero. Raises as `RNNCell` does, and ValueError for no time step.
        """
        layouts = ["time, ", "batch, time, " if self.batch_first else "time, batch, "]
        _check_input(input, self.weight_ih_l0, layouts)
        time = 1 if self.batch_first and input.ndim == 3 else 0
        # x_t does not depend on h, so one product projects the inputs of all steps
        projected = (input @ self.weight_ih_l0.T).unbind(time)
        if not projected:
            raise ValueError(
                f"input must have at least one time step, got {tuple(input.shape)}"
            )
        batch = projected[0].shape[:-1]
        h = _state("hx", hx, (1, *batch), self.weight_hh_l0, input)[0]
        f, states = _function(self.nonlinearity), []
        for projected_t in projected:
            h = f(projected_t + h @ self.weight_hh_l0.T)
            states.append(h)
        return torch.stack(states, time), h.unsqueeze(0)

    def extra_repr(self):
        return f"{_describe(self)}, batch_first={self.batch_first}"


def _check_sizes(input_size, hidden_size, bias):
    for name, size in [("input_size", input_size), ("hidden_size", hidden_size)]:
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} must be a positive integer, got {size!r}")
    if bias:
        raise ValueError(f"bias must be False, got {bias!r}: this layer has none")


def _function(nonlinearity):
    """The function that `nonlinearity` names or is."""
    if callable(nonlinearity):
        return nonlinearity
    if nonlinearity not in list(NONLINEARITIES):
        raise ValueError(
            f'nonlinearity must be "tanh", "relu" or a callable, got {nonlinearity!r}'
        )
    return NONLINEARITIES[nonlinearity]


def _draw(weight_ih, weight_hh):
    bound = 1 / math.sqrt(weight_hh.shape[1])
    for weight in (weight_ih, weight_hh):
        nn.init.uniform_(weight, -bound, bound)


def _check_input(input, weight_ih, layouts):
    """Raise unless `input` has one of the layouts (dimensions before the features)."""
    _check_dtype("input", input, weight_ih)
    size = weight_ih.shape[1]
    dimensions = [layout.count(",") + 1 for layout in layouts]
    if input.ndim not in dimensions or input.shape[-1] != size:
        shapes = " or ".join(f"({layout}{size})" for layout in layouts)
        raise ValueError(f"input must have shape {shapes}, got {tuple(input.shape)}")


def _state(name, state, leading, weight_hh, input):
    """The initial state of shape (*leading, hidden_size): the one given, or zeros."""
    shape = (*leading, weight_hh.shape[1])
    if state is None:
        return input.new_zeros(shape)
    _check_dtype(name, state, weight_hh)
    if state.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(state.shape)}")
    return state


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


def _describe(layer):
    return (
        f"{layer.input_size}, {layer.hidden_size}, nonlinearity={layer.nonlinearity!r}, "
        "bias=False"
    )
