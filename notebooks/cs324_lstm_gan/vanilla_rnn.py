"""The RNN of the previous assignment, without torch.nn.RNN: what the LSTM is compared with."""

from collections import deque
from typing import NamedTuple

import torch
from torch import nn


class State(NamedTuple):
    """What one time step computes."""

    h: torch.Tensor  # hidden state (batch, hidden_dim)


class VanillaRNN(nn.Module):
    """h(t) = tanh(W_hx x(t) + W_hh h(t-1) + b_h), h(0) = 0; p(T) = W_ph h(T) + b_p.

    The matrices start uniform in +-1/sqrt(hidden_dim), except that W_hh starts orthogonal
    (Saxe et al. 2014), which neither grows nor shrinks a gradient: the RNN at its best. The
    biases start at zero. `seq_length`, the number of time steps, is there because both models
    are built alike; the network takes sequences of any length.

    Raises TypeError or ValueError for a size that is not a positive integer.
    """

    def __init__(self, seq_length, input_dim, hidden_dim, output_dim):
        super().__init__()
        check_sizes(
            seq_length=seq_length,
            input_dim=input_dim,
            hidden_dim=hidden_dim,
            output_dim=output_dim,
        )
        bound = hidden_dim**-0.5
        self.W_hx = nn.Parameter(
            torch.empty(hidden_dim, input_dim).uniform_(-bound, bound)
        )
        self.W_hh = nn.Parameter(
            nn.init.orthogonal_(torch.empty(hidden_dim, hidden_dim))
        )
        self.b_h = nn.Parameter(torch.zeros(hidden_dim))
        self.W_ph = nn.Parameter(
            torch.empty(output_dim, hidden_dim).uniform_(-bound, bound)
        )
        self.b_p = nn.Parameter(torch.zeros(output_dim))

    def forward(self, x):
        """Logits p(T) (batch, output_dim) of sequences x (batch, time, input_dim)."""
        (last,) = deque(self.unroll(x), maxlen=1)
        return self.logits(last.h)

    def logits(self, h):
        """p = W_ph h + b_p, shape (batch, output_dim); the softmax belongs to the loss."""
        return h @ self.W_ph.T + self.b_p

    def unroll(self, x):
        """Yield the `State` of each time step; raises ValueError for another shape of x."""
        check_inputs(x, self.W_hx.shape[1])
        # W_hx x(t) + b_h of all time steps at once: only the recurrence needs the loop
        inputs = (x.transpose(0, 1) @ self.W_hx.T + self.b_h).unbind()
        h = x.new_zeros(len(x), len(self.W_hh))
        for input_t in inputs:
            h = torch.tanh(input_t + h @ self.W_hh.T)
            yield State(h)


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
