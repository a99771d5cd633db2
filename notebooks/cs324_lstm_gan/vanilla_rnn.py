"""The RNN of the previous assignment, without torch.nn.RNN: what the LSTM is compared with."""

from collections import deque
from typing import NamedTuple

import torch
from torch import nn

RECURRENT_STARTS = ("orthogonal", "uniform")


class State(NamedTuple):
    """What one time step computes: a column (hidden_dim,) per sequence, (hidden_dim, batch)."""

    h: torch.Tensor  # hidden state


class VanillaRNN(nn.Module):
    """h(t) = tanh(W_hx x(t) + W_hh h(t-1) + b_h), h(0) = 0; p(T) = W_ph h(T) + b_p.

    The matrices start uniform in +-1/sqrt(hidden_dim), as those of torch.nn.RNN do; then, with
    the `recurrent_start` "orthogonal", W_hh starts as a random orthogonal matrix (Saxe et al.
    2014), which by itself neither grows nor shrinks a gradient: the RNN at its best. With
    "uniform" it stays as it is. The biases start at zero. `seq_length`, the number of time
    steps, is there because both models are built alike; the network takes any length.

    Raises TypeError or ValueError for a size that is not a positive integer, ValueError for
    another start.
    """

    def __init__(
        self,
        seq_length,
        input_dim,
        hidden_dim,
        output_dim,
        recurrent_start="orthogonal",
    ):
        super().__init__()
        check_sizes(
            seq_length=seq_length,
            input_dim=input_dim,
            hidden_dim=hidden_dim,
            output_dim=output_dim,
        )
        if recurrent_start not in RECURRENT_STARTS:
            raise ValueError(
                f"recurrent_start must be one of {RECURRENT_STARTS}, "
                f"got {recurrent_start!r}"
            )
        shapes = {
            "W_hx": (hidden_dim, input_dim),
            "W_hh": (hidden_dim, hidden_dim),
            "W_ph": (output_dim, hidden_dim),
        }
        add_parameters(self, shapes, bound=hidden_dim**-0.5)
        if recurrent_start == "orthogonal":
            nn.init.orthogonal_(self.W_hh)
        self.b_h = nn.Parameter(torch.zeros(hidden_dim))
        self.b_p = nn.Parameter(torch.zeros(output_dim))

    def forward(self, x):
        """Logits p(T) (batch, output_dim) of sequences x (batch, time, input_dim)."""
        (last,) = deque(self.unroll(x), maxlen=1)
        return self.logits(last.h)

    def logits(self, h):
        """Logits (batch, output_dim) of a hidden state; the softmax belongs to the loss."""
        # p(t) = W_ph h(t) + b_p
        return (self.W_ph @ h + self.b_p[:, None]).T

    def unroll(self, x):
        """Yield the `State` of each time step; raises ValueError for another shape of x."""
        check_inputs(x, self.W_hx.shape[1])
        # W_hx x(t) + b_h does not depend on h: all time steps at once, before the loop.
        batch, time, _ = x.shape
        W_hx = self.W_hx.expand(time, -1, -1)  # a view: one matrix for all time steps
        inputs = torch.baddbmm(self.b_h[:, None], W_hx, x.permute(1, 2, 0))
        h = x.new_zeros(len(self.b_h), batch)
        for a in inputs.flatten(0, 1).unsafe_chunk(time):
            # h(t) = tanh(W_hx x(t) + W_hh h(t-1) + b_h), in place as in lstm.py
            h = a.addmm_(self.W_hh, h).tanh_()
            yield State(h)


def add_parameters(model, shapes, bound):
    """Give the model parameters of these names and shapes, uniform in +-bound."""
    for name, shape in shapes.items():
        value = torch.empty(shape).uniform_(-bound, bound)
        model.register_parameter(name, nn.Parameter(value))


def check_sizes(**sizes):
    """Raise unless each named size is a positive integer."""
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def check_inputs(x, input_dim):
    """Raise unless x has shape (batch, time >= 1, input_dim)."""
    if x.ndim != 3 or x.shape[1] < 1 or x.shape[2] != input_dim:
        raise ValueError(
            f"x must have shape (batch, time >= 1, {input_dim}), got {tuple(x.shape)}"
        )
