"""The RNN of the previous assignment, without torch.nn.RNN: the LSTM's rival."""

from typing import NamedTuple

import torch
from torch import nn

INITIALISATIONS = ("uniform", "orthogonal", "identity")


class State(NamedTuple):
    """What one time step computes: (batch, hidden_dim)."""

    h: torch.Tensor  # hidden state


class VanillaRNN(nn.Module):
    """h(t) = tanh(W_hx x(t) + W_hh h(t-1) + b_h), h(0) = 0; p(T) = W_ph h(T) + b_p.

    W_hx (hidden_dim, input_dim) and W_ph (output_dim, hidden_dim) are initialised uniformly
    in +-1/sqrt(hidden_dim). For W_hh (hidden_dim, hidden_dim) `initialisation` is
    "orthogonal" (Saxe et al. 2014), "identity" (Le et al. 2015), both with zero biases, or
    "uniform", which is PyTorch's, for the biases as well. `nonlinearity` is "tanh" or "relu".
    `seq_length`, the number of time steps, is not used.
    """

    def __init__(
        self,
        seq_length,
        input_dim,
        hidden_dim,
        output_dim,
        initialisation="uniform",
        nonlinearity="tanh",
    ):
        super().__init__()
        if initialisation not in INITIALISATIONS:
            raise ValueError(
                f"initialisation must be one of {', '.join(INITIALISATIONS)}, "
                f"got {initialisation!r}"
            )
        self.nonlinearity = {"tanh": torch.tanh, "relu": torch.relu}[nonlinearity]
        self.W_hx = nn.Parameter(torch.empty(hidden_dim, input_dim))
        self.W_hh = nn.Parameter(torch.empty(hidden_dim, hidden_dim))
        self.W_ph = nn.Parameter(torch.empty(output_dim, hidden_dim))
        for W in self.parameters():
            nn.init.uniform_(W, -(hidden_dim**-0.5), hidden_dim**-0.5)
        self.b_h = nn.Parameter(torch.zeros(hidden_dim))
        self.b_p = nn.Parameter(torch.zeros(output_dim))
        if initialisation == "orthogonal":
            nn.init.orthogonal_(self.W_hh)
        elif initialisation == "identity":
            nn.init.eye_(self.W_hh)
        else:
            for b in (self.b_h, self.b_p):
                nn.init.uniform_(b, -(hidden_dim**-0.5), hidden_dim**-0.5)

    def forward(self, x):
        """Logits p(T) (batch, output_dim) of x (batch, time >= 1, input_dim)."""
        for state in self.unroll(x):
            h = state.h
        return self.logits(h)

    def logits(self, h):
        """p = W_ph h + b_p; the softmax is in the loss."""
        return h @ self.W_ph.T + self.b_p

    def unroll(self, x):
        """Yield the `State` of each time step."""
        h = x.new_zeros(len(x), len(self.b_h))
        for a_x in (x @ self.W_hx.T + self.b_h).unbind(
            1
        ):  # W_hx x + b_h, all time steps
            h = self.nonlinearity(a_x + h @ self.W_hh.T)
            yield State(h)
