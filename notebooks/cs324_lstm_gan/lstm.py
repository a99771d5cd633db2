"""The LSTM of the assignment, equations (1) to (7), without torch.nn.LSTM."""

from typing import NamedTuple

import torch
from torch import nn

STARTS = ("chrono", "zero")


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
    (hidden_dim,), `W_ph` (output_dim, hidden_dim), `b_p` (output_dim,) start uniform in
    +-1/sqrt(hidden_dim). Then, with `forget_start` "chrono" (Tallec & Ollivier 2018),
    b_f = log u with u ~ U(1, seq_length - 1) and b_i = -b_f: the memory 1/(1 - f) of the
    cells spans from two steps to the whole sequence; with "zero" b_f = 0, so that half is
    forgotten at each step, and b_i stays uniform. `seq_length`, the number of time steps,
    matters to the chrono start alone.
    """

    def __init__(
        self, seq_length, input_dim, hidden_dim, output_dim, forget_start="chrono"
    ):
        super().__init__()
        sizes = input_dim, hidden_dim, output_dim
        if min(sizes) < 1 or forget_start not in STARTS:
            raise ValueError(
                f"sizes must be at least 1, forget_start one of {STARTS}: "
                f"got {sizes}, {forget_start!r}"
            )
        shapes = {f"W_{gate}x": (hidden_dim, input_dim) for gate in "gifo"}
        shapes |= {f"W_{gate}h": (hidden_dim, hidden_dim) for gate in "gifo"}
        shapes |= {f"b_{gate}": (hidden_dim,) for gate in "gifo"}
        shapes |= {"W_ph": (output_dim, hidden_dim), "b_p": (output_dim,)}
        for name, shape in shapes.items():
            start = torch.empty(shape).uniform_(-(hidden_dim**-0.5), hidden_dim**-0.5)
            self.register_parameter(name, nn.Parameter(start))
        with torch.no_grad():
            self.b_f.zero_()
            if forget_start == "chrono" and seq_length > 2:
                self.b_f.uniform_(1, seq_length - 1).log_()
                self.b_i.copy_(-self.b_f)

    def forward(self, x):
        """Logits p(T) (batch, output_dim) of x (batch, time >= 1, input_dim)."""
        *_, last = self.unroll(x)
        return self.logits(last.h)

    def logits(self, h):
        """Equation (7); the softmax (8) is in the loss."""
        return h @ self.W_ph.T + self.b_p

    def unroll(self, x):
        """Yield the `State` of each time step."""
        W_x = torch.cat([self.W_gx, self.W_ix, self.W_fx, self.W_ox])
        W_h = torch.cat([self.W_gh, self.W_ih, self.W_fh, self.W_oh])
        b = torch.cat([self.b_g, self.b_i, self.b_f, self.b_o])
        h = c = x.new_zeros(len(x), len(self.b_g))
        for a_x in (x @ W_x.T + b).unbind(1):  # all time steps at once
            a_g, a_i, a_f, a_o = torch.addmm(a_x, h, W_h.T).chunk(4, dim=1)
            g = torch.tanh(a_g)  # (1)
            i = torch.sigmoid(a_i)  # (2)
            f = torch.sigmoid(a_f)  # (3)
            o = torch.sigmoid(a_o)  # (4)
            c = g * i + c * f  # (5)
            h = torch.tanh(c) * o  # (6)
            yield State(g, i, f, o, c, h)
