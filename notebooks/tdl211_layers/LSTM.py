"""Task 3: the long short-term memory layer, without bias, written from scratch.

    i_t = σ(x_t W_iiᵀ + h_{t-1} W_hiᵀ)       input gate: what to write
    f_t = σ(x_t W_ifᵀ + h_{t-1} W_hfᵀ)       forget gate: what to keep
    g_t = tanh(x_t W_igᵀ + h_{t-1} W_hgᵀ)    candidate
    o_t = σ(x_t W_ioᵀ + h_{t-1} W_hoᵀ)       output gate: what to show
    c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t          cell state
    h_t = o_t ⊙ tanh(c_t)                    hidden state

(Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.) The four matrices
stand one below the other, in the order i, f, g, o, in `weight_ih` and `weight_hh`.

`LSTMCell` is one step, `LSTM` the same step along a sequence. Their parameters have the names
and shapes that PyTorch gives them, so they can stand wherever torch.nn.LSTMCell and torch.nn.LSTM
(one layer, one direction) stood with bias=False, and state_dicts move both ways.
"""

import math

import torch
from torch import nn

GATES = 4


class LSTMCell(nn.Module):
    """One step of an LSTM.

    Parameters: `weight_ih` (4 hidden_size, input_size), `weight_hh` (4 hidden_size,
    hidden_size), drawn in this order from U(-k, k) with k = 1/√hidden_size, as in PyTorch;
    `torch.manual_seed` makes the draw repeatable.

    `bias` can only be False; it is there so that a call written for torch.nn.LSTMCell works.
    Raises ValueError when a size is not a positive integer or `bias` is not False.
    """

    def __init__(self, input_size, hidden_size, bias=False, *, device=None, dtype=None):
        super().__init__()
        for name, size in [("input_size", input_size), ("hidden_size", hidden_size)]:
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} must be a positive integer, got {size!r}")
        if bias:
            raise ValueError(f"bias must be False, got {bias!r}: this layer has none")
        self.input_size, self.hidden_size = input_size, hidden_size
        rows, options = GATES * hidden_size, {"device": device, "dtype": dtype}
        self.weight_ih = nn.Parameter(torch.empty(rows, input_size, **options))
        self.weight_hh = nn.Parameter(torch.empty(rows, hidden_size, **options))
        self.reset_parameters()

    def reset_parameters(self):
        """Draw the weights anew."""
        _draw(self.weight_ih, self.weight_hh)

    def forward(self, input, hx=None):
        """x_t (batch, input_size), (h_{t-1}, c_{t-1}) -> (h_t, c_t).

        Each state has shape (batch, hidden_size). All of them without the batch dimension work
        too. Without `hx` both states are zero. Raises TypeError for anything but tensors of the
        layer's dtype (under autocast: of any floating-point dtype), ValueError for shapes that
        do not fit.
        """
        _check_input(input, self.weight_ih, ["", "batch, "])
        h, c = _states(hx, input.shape[:-1], self.weight_hh, input)
        return _step(input @ self.weight_ih.T, h, c, self.weight_hh)

    def extra_repr(self):
        return f"{self.input_size}, {self.hidden_size}, bias=False"


class LSTM(nn.Module):
    """An LSTM along a sequence: one layer, one direction.

    Parameters: `weight_ih_l0` and `weight_hh_l0`, the weights of an `LSTMCell` under the names
    of torch.nn.LSTM; see there for the arguments. With `batch_first` the batch dimension of the
    input and the output (not of the states) comes first.
    """

    def __init__(
        self,
        input_size,
        hidden_size,
        *,
        bias=False,
        batch_first=False,
        device=None,
        dtype=None,
    ):
        super().__init__()
        cell = LSTMCell(input_size, hidden_size, bias, device=device, dtype=dtype)
        self.input_size, self.hidden_size = input_size, hidden_size
        self.batch_first = batch_first
        self.weight_ih_l0, self.weight_hh_l0 = cell.weight_ih, cell.weight_hh

    def reset_parameters(self):
        """Draw the weights anew."""
        _draw(self.weight_ih_l0, self.weight_hh_l0)

    def forward(self, input, hx=None):
        """x (time, batch, input_size), (h_0, c_0) -> h_1 ... h_T, (h_T, c_T).

        The first result holds all hidden states, (time, batch, hidden_size); each single state
        has shape (1, batch, hidden_size). All of them without the batch dimension work too.
        Without `hx` the first states are zero. Raises as `LSTMCell` does, and ValueError for no
        time step.
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
        h_0, c_0 = _states(hx, (1, *batch), self.weight_hh_l0, input)
        h, c, outputs = h_0[0], c_0[0], []
        for projected_t in projected:
            h, c = _step(projected_t, h, c, self.weight_hh_l0)
            outputs.append(h)
        return torch.stack(outputs, time), (h.unsqueeze(0), c.unsqueeze(0))

    def extra_repr(self):
        return (
            f"{self.input_size}, {self.hidden_size}, bias=False, "
            f"batch_first={self.batch_first}"
        )


def _step(projected, h, c, weight_hh):
    """(h_t, c_t) from the projected input x_t W_ihᵀ and (h_{t-1}, c_{t-1})."""
    i, f, g, o = (projected + h @ weight_hh.T).chunk(GATES, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


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


def _states(hx, leading, weight_hh, input):
    """The initial (h, c), each of shape (*leading, hidden_size): those given, or zeros."""
    shape = (*leading, weight_hh.shape[1])
    if hx is None:
        return input.new_zeros(shape), input.new_zeros(shape)
    if not isinstance(hx, (tuple, list)) or len(hx) != 2:
        raise TypeError(f"hx must be a pair (h, c) of tensors, got {_what(hx)}")
    for name, state in zip(("h of hx", "c of hx"), hx):
        _check_dtype(name, state, weight_hh)
        if state.shape != shape:
            raise ValueError(
                f"{name} must have shape {shape}, got {tuple(state.shape)}"
            )
    return hx


def _what(hx):
    many = isinstance(hx, (tuple, list))
    return f"{type(hx).__name__} of {len(hx)}" if many else type(hx).__name__


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
