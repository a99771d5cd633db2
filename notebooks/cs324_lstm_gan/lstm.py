"""The LSTM of the assignment, equations (1) to (7), without torch.nn.LSTM."""

from typing import NamedTuple

import torch
from torch import nn

INITIALISATIONS = ("uniform", "chrono", "chrono_b_f", "chrono_b_i")


class State(NamedTuple):
    """What one time step computes, each (batch, hidden_dim)."""

    g: torch.Tensor  # input modulation
    i: torch.Tensor  # input gate
    f: torch.Tensor  # forget gate
    o: torch.Tensor  # output gate
    c: torch.Tensor  # cell
    h: torch.Tensor  # hidden state


class LSTM(nn.Module):
    """The LSTM whose parameters have the names of the equations.

    `W_gx`, ... (hidden_dim, input_dim), `W_gh`, ... (hidden_dim, hidden_dim), `b_g`, ...
    (hidden_dim,), `W_ph` (output_dim, hidden_dim) and `b_p` (output_dim,) are initialised
    uniformly in +-1/sqrt(hidden_dim), as PyTorch does. With `initialisation` "chrono"
    (Tallec & Ollivier 2018), b_f = log u and b_i = -log u with u ~ U(1, seq_length - 1):
    the memories 1/(1 - f) of the cells then reach from two steps to seq_length.
    "chrono_b_f" and "chrono_b_i" change one of the two biases, "uniform" neither.
    `seq_length`, the number of time steps, matters to these biases alone.
    """

    def __init__(
        self, seq_length, input_dim, hidden_dim, output_dim, initialisation="uniform"
    ):
        super().__init__()
        if initialisation not in INITIALISATIONS:
            raise ValueError(
                f"initialisation must be one of {', '.join(INITIALISATIONS)}, "
                f"got {initialisation!r}"
            )
        shapes = {f"W_{gate}x": (hidden_dim, input_dim) for gate in "gifo"}
        shapes |= {f"W_{gate}h": (hidden_dim, hidden_dim) for gate in "gifo"}
        shapes |= {f"b_{gate}": (hidden_dim,) for gate in "gifo"}
        shapes |= {"W_ph": (output_dim, hidden_dim), "b_p": (output_dim,)}
        for name, shape in shapes.items():
            start = torch.empty(shape).uniform_(-(hidden_dim**-0.5), hidden_dim**-0.5)
            self.register_parameter(name, nn.Parameter(start))
        log_u = torch.empty(hidden_dim).uniform_(1, max(seq_length - 1, 1)).log()
        with torch.no_grad():
            if initialisation in ("chrono", "chrono_b_f"):
                self.b_f.copy_(log_u)
            if initialisation in ("chrono", "chrono_b_i"):
                self.b_i.copy_(-log_u)

    def forward(self, x):
        """Logits p(T) (batch, output_dim) of x (batch, time >= 1, input_dim)."""
        for state in self.unroll(x):
            h = state.h
        return self.logits(h)

    def logits(self, h):
        """Equation (7); the softmax (8) is in the loss."""
        return h @ self.W_ph.T + self.b_p  # (7)

    def unroll(self, x, h=None, c=None):
        """Yield the `State` of each time step, from h(0) = c(0) = 0 or from the given ones."""
        W_x = torch.cat([self.W_gx, self.W_ix, self.W_fx, self.W_ox])
        W_h = torch.cat([self.W_gh, self.W_ih, self.W_fh, self.W_oh])
        b = torch.cat([self.b_g, self.b_i, self.b_f, self.b_o])
        zero = x.new_zeros(len(x), len(self.b_g))
        h = zero if h is None else h
        c = zero if c is None else c
        for a_x in (x @ W_x.T + b).unbind(1):  # W_x x + b for all time steps
            a_g, a_i, a_f, a_o = (a_x + h @ W_h.T).chunk(4, dim=1)
            g = torch.tanh(a_g)  # (1)
            i = torch.sigmoid(a_i)  # (2)
            f = torch.sigmoid(a_f)  # (3)
            o = torch.sigmoid(a_o)  # (4)
            c = g * i + c * f  # (5)
            h = torch.tanh(c) * o  # (6)
            yield State(g, i, f, o, c, h)
