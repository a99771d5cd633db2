"""Task 3: the long short-term memory layer, without bias.

    i_t = σ(x_t W_iiᵀ + h_{t-1} W_hiᵀ)         input gate: what to write         (1)
    f_t = σ(x_t W_ifᵀ + h_{t-1} W_hfᵀ)         forget gate: what to keep         (2)
    g_t = tanh(x_t W_igᵀ + h_{t-1} W_hgᵀ)      candidate                         (3)
    o_t = σ(x_t W_ioᵀ + h_{t-1} W_hoᵀ)         output gate: what to show         (4)
    c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t            cell state                        (5)
    h_t = o_t ⊙ tanh(c_t)                      hidden state, the output          (6)

(Hochreiter & Schmidhuber 1997; forget gate of Gers et al. 2000.) `LSTMCell` is one step,
`LSTM` a whole sequence. Their forward calls with tensors and their state_dicts are those of
torch.nn.LSTMCell and torch.nn.LSTM (one layer, one direction), both with bias=False.
"""

import math

import torch
from torch import nn


def _step(a, c):
    """a = x_t W_iᵀ + h_{t-1} W_hᵀ (batch, 4 hidden_size), c_{t-1} -> (h_t, c_t)."""
    a_i, a_f, a_g, a_o = a.chunk(4, dim=-1)
    i = torch.sigmoid(a_i)  # (1)
    f = torch.sigmoid(a_f)  # (2)
    g = torch.tanh(a_g)  # (3)
    o = torch.sigmoid(a_o)  # (4)
    c = f * c + i * g  # (5)
    h = o * torch.tanh(c)  # (6)
    return h, c


class LSTMCell(nn.Module):
    """`input_size` is the sheet's input features, `hidden_size` its output features.

    `weight_ih` (4 hidden_size, input_size) and `weight_hh` (4 hidden_size, hidden_size) hold
    the matrices of i, f, g, o, one below the other. They are drawn from U(-k, k) with
    k = 1/√hidden_size, as in PyTorch. Raises ValueError for a size below 1 or a bias.
    """

    def __init__(self, input_size, hidden_size, bias=False, *, device=None, dtype=None):
        super().__init__()
        if min(input_size, hidden_size) < 1:
            raise ValueError(f"sizes must be >= 1, got {input_size}, {hidden_size}")
        if bias:
            raise ValueError(f"bias must be False, got {bias!r}")
        self.input_size, self.hidden_size = input_size, hidden_size
        rows, options = 4 * hidden_size, {"device": device, "dtype": dtype}
        self.weight_ih = nn.Parameter(torch.empty(rows, input_size, **options))
        self.weight_hh = nn.Parameter(torch.empty(rows, hidden_size, **options))
        self.reset_parameters()

    def reset_parameters(self):
        """Draw the weights anew."""
        k = 1 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            nn.init.uniform_(weight, -k, k)

    def forward(self, input, hx=None):
        """x_t (batch, input_size), (h_{t-1}, c_{t-1}) or None for 0 -> (h_t, c_t).

        States have shape (batch, hidden_size). The batch dimension may be missing. Raises
        ValueError for another shape of a state.
        """
        h, c = _states(hx, (*input.shape[:-1], self.hidden_size), input)
        return _step(input @ self.weight_ih.T + h @ self.weight_hh.T, c)

    def extra_repr(self):
        return f"{self.input_size}, {self.hidden_size}, bias=False"


class LSTM(nn.Module):
    """An `LSTMCell` along a sequence; its arguments mean the same.

    `weight_ih_l0` and `weight_hh_l0` are the cell's weights under the names of torch.nn.LSTM.
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

    reset_parameters, extra_repr = LSTMCell.reset_parameters, LSTMCell.extra_repr

    def forward(self, input, hx=None):
        """x (time, batch, input_size), (h_0, c_0) or None for 0
        -> h_1 ... h_T (time, batch, hidden_size), (h_T, c_T).

        States have shape (1, batch, hidden_size). `batch_first` swaps the first two
        dimensions of x and h_1 ... h_T. The batch dimension may be missing. Raises
        ValueError for another number of dimensions of x, an empty sequence or another
        shape of a state.
        """
        if input.ndim not in (2, 3):
            raise ValueError(f"input must have 2 or 3 dimensions, got {input.ndim}")
        time = 1 if self.batch_first and input.ndim == 3 else 0
        if input.shape[time] == 0:
            raise ValueError("the sequence must have at least one step, got none")
        projected = (input @ self.weight_ih_l0.T).unbind(time)  # x_t W_iᵀ for all t
        shape = (1, *input.select(time, 0).shape[:-1], self.hidden_size)
        (h,), (c,) = _states(hx, shape, input)
        outputs = []
        for a_t in projected:
            h, c = _step(a_t + h @ self.weight_hh_l0.T, c)
            outputs.append(h)
        return torch.stack(outputs, time), (h.unsqueeze(0), c.unsqueeze(0))


def _states(states, shape, input):
    """(h, c), or zeros; a state of another shape than `shape` would broadcast."""
    if states is None:
        return input.new_zeros(shape), input.new_zeros(shape)
    for state in states:
        if state.shape != shape:
            raise ValueError(f"states must have shape {shape}, got {(*state.shape,)}")
    return states
