"""Task 2: the recurrent layer of Elman (1990), without bias.

    h_t = f(x_t W_ihᵀ + h_{t-1} W_hhᵀ)                                           (1)

`RNNCell` is one step, `RNN` a whole sequence. Their forward calls with tensors and their
state_dicts are those of torch.nn.RNNCell and torch.nn.RNN (one layer, one direction), both
with bias=False.
"""

import math

import torch
from torch import nn

NONLINEARITIES = {"tanh": torch.tanh, "relu": torch.relu}


class RNNCell(nn.Module):
    """`input_size` is the sheet's input features, `hidden_size` its output features.

    `nonlinearity` is f: "tanh", "relu" or any callable. Arguments come in PyTorch's order,
    with `bias` third, so give f by name. `weight_ih` (hidden_size, input_size) and
    `weight_hh` (hidden_size, hidden_size) are drawn from U(-k, k) with k = 1/√hidden_size,
    as in PyTorch. Raises ValueError for a size below 1, a bias or an unknown nonlinearity.
    """

    def __init__(
        self,
        input_size,
        hidden_size,
        bias=False,
        nonlinearity="tanh",
        *,
        device=None,
        dtype=None,
    ):
        super().__init__()
        if min(input_size, hidden_size) < 1:
            raise ValueError(f"sizes must be >= 1, got {input_size}, {hidden_size}")
        if bias:
            raise ValueError(f"bias must be False, got {bias!r}")
        if nonlinearity not in NONLINEARITIES and not callable(nonlinearity):
            raise ValueError(f"not tanh, relu or a callable: {nonlinearity=}")
        self.input_size, self.hidden_size = input_size, hidden_size
        self.nonlinearity = nonlinearity
        options = {"device": device, "dtype": dtype}
        self.weight_ih = nn.Parameter(torch.empty(hidden_size, input_size, **options))
        self.weight_hh = nn.Parameter(torch.empty(hidden_size, hidden_size, **options))
        self.reset_parameters()

    def reset_parameters(self):
        """Draw the weights anew."""
        k = 1 / math.sqrt(self.hidden_size)
        for weight in self.parameters(recurse=False):  # not those of a nonlinearity
            nn.init.uniform_(weight, -k, k)

    def forward(self, input, hx=None):
        """x_t (batch, input_size), h_{t-1} (batch, hidden_size) or None for 0 -> h_t.

        The batch dimension may be missing. Raises ValueError for another shape of h_{t-1}.
        """
        f = NONLINEARITIES.get(self.nonlinearity, self.nonlinearity)
        h = _state(hx, (*input.shape[:-1], self.hidden_size), input)
        return f(input @ self.weight_ih.T + h @ self.weight_hh.T)  # (1)

    def extra_repr(self):
        return f"{self.input_size}, {self.hidden_size}, bias=False, {self.nonlinearity}"


class RNN(nn.Module):
    """An `RNNCell` along a sequence; its arguments mean the same.

    `weight_ih_l0` and `weight_hh_l0` are the cell's weights under the names of torch.nn.RNN.
    """

    def __init__(
        self,
        input_size,
        hidden_size,
        *,
        nonlinearity="tanh",
        bias=False,
        batch_first=False,
        device=None,
        dtype=None,
    ):
        super().__init__()
        options = {"device": device, "dtype": dtype}
        cell = RNNCell(input_size, hidden_size, bias, nonlinearity, **options)
        self.input_size, self.hidden_size = input_size, hidden_size
        self.nonlinearity, self.batch_first = cell.nonlinearity, batch_first
        self.weight_ih_l0, self.weight_hh_l0 = cell.weight_ih, cell.weight_hh

    reset_parameters, extra_repr = RNNCell.reset_parameters, RNNCell.extra_repr

    def forward(self, input, hx=None):
        """x (time, batch, input_size), h_0 (1, batch, hidden_size) or None for 0
        -> h_1 ... h_T (time, batch, hidden_size), h_T (1, batch, hidden_size).

        `batch_first` swaps the first two dimensions of x and h_1 ... h_T. The batch
        dimension may be missing. Raises ValueError for another number of dimensions of x,
        an empty sequence or another shape of h_0.
        """
        if input.ndim not in (2, 3):
            raise ValueError(f"input must have 2 or 3 dimensions, got {input.ndim}")
        time = 1 if self.batch_first and input.ndim == 3 else 0
        if input.shape[time] == 0:
            raise ValueError("the sequence must have at least one step, got none")
        f = NONLINEARITIES.get(self.nonlinearity, self.nonlinearity)
        projected = (input @ self.weight_ih_l0.T).unbind(time)  # x_t W_ihᵀ for all t
        shape = (1, *input.select(time, 0).shape[:-1], self.hidden_size)
        (h,) = _state(hx, shape, input)
        outputs = []
        for a_t in projected:
            h = f(a_t + h @ self.weight_hh_l0.T)  # (1)
            outputs.append(h)
        return torch.stack(outputs, time), h.unsqueeze(0)


def _state(state, shape, input):
    """`state`, or zeros; a state of another shape than `shape` would broadcast."""
    if state is None:
        return input.new_zeros(shape)
    if state.shape != shape:
        raise ValueError(f"the state must have shape {shape}, got {(*state.shape,)}")
    return state
