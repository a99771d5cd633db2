"""The LSTM of the assignment, equations (1) to (8), without torch.nn.LSTM."""

from collections import deque
from typing import NamedTuple

import torch
from torch import nn
from vanilla_rnn import add_parameters, check_inputs, check_sizes

FORGET_STARTS = ("chrono", "one", "zero")


class State(NamedTuple):
    """What one time step computes: a column (hidden_dim,) per sequence, (hidden_dim, batch)."""

    g: torch.Tensor  # input modulation
    i: torch.Tensor  # input gate
    f: torch.Tensor  # forget gate
    o: torch.Tensor  # output gate
    c: torch.Tensor  # cell
    h: torch.Tensor  # hidden state


class LSTM(nn.Module):
    """The LSTM of equations (1) to (7); its parameters carry the names of the equations.

    `W_gx`, `W_ix`, `W_fx`, `W_ox` (hidden_dim, input_dim), `W_gh`, `W_ih`, `W_fh`, `W_oh`
    (hidden_dim, hidden_dim), `b_g`, `b_i`, `b_f`, `b_o` (hidden_dim,), `W_ph` (output_dim,
    hidden_dim), `b_p` (output_dim,). All start uniform in +-1/sqrt(hidden_dim), as those of
    torch.nn.LSTM do; then `forget_start` sets how much the cells remember at first:

    - "chrono": b_f = log u with u ~ U(1, seq_length - 1), and b_i = -b_f, so that the memory of
      the cells spans from one step to the whole sequence (Tallec & Ollivier 2018);
    - "one": b_f = 1 (Gers et al. 2000); "zero": b_f = 0, half is forgotten at each step.

    `seq_length`, the number of time steps, matters to that start alone: the network takes
    sequences of any length. Raises TypeError or ValueError for a size that is not a positive
    integer, ValueError for another start.
    """

    def __init__(
        self, seq_length, input_dim, hidden_dim, output_dim, forget_start="chrono"
    ):
        super().__init__()
        check_sizes(
            seq_length=seq_length,
            input_dim=input_dim,
            hidden_dim=hidden_dim,
            output_dim=output_dim,
        )
        if forget_start not in FORGET_STARTS:
            raise ValueError(
                f"forget_start must be one of {FORGET_STARTS}, got {forget_start!r}"
            )
        shapes = {f"W_{gate}x": (hidden_dim, input_dim) for gate in "gifo"}
        shapes |= {f"W_{gate}h": (hidden_dim, hidden_dim) for gate in "gifo"}
        shapes |= {f"b_{gate}": (hidden_dim,) for gate in "gifo"}
        shapes |= {"W_ph": (output_dim, hidden_dim), "b_p": (output_dim,)}
        add_parameters(self, shapes, bound=hidden_dim**-0.5)
        with torch.no_grad():
            if forget_start == "chrono":
                self.b_f.uniform_(1, max(seq_length - 1, 1)).log_()
                self.b_i.copy_(-self.b_f)
            else:
                self.b_f.fill_(1.0 if forget_start == "one" else 0.0)

    def forward(self, x):
        """Logits p(T) (batch, output_dim) of sequences x (batch, time, input_dim)."""
        (last,) = deque(self.unroll(x), maxlen=1)
        return self.logits(last.h)

    def logits(self, h):
        """Logits (batch, output_dim) of a hidden state; the softmax (8) is in the loss."""
        # p(t) = W_ph h(t) + b_p                              (7)
        return (self.W_ph @ h + self.b_p[:, None]).T

    def unroll(self, x):
        """Yield the `State` of each time step; raises ValueError for another shape of x."""
        check_inputs(x, self.W_gx.shape[1])
        # The gates one below the other, so that one matrix product does for all four.
        W_x = torch.cat([self.W_gx, self.W_ix, self.W_fx, self.W_ox])
        W_h = torch.cat([self.W_gh, self.W_ih, self.W_fh, self.W_oh])
        b = torch.cat([self.b_g, self.b_i, self.b_f, self.b_o])
        # W_x x(t) + b does not depend on h: all time steps at once, before the loop. As in the
        # equations, a state is a column (hidden_dim,), here one for each sequence of the batch.
        batch, time, _ = x.shape
        W_x = W_x.expand(time, -1, -1)  # a view: one matrix for all time steps
        inputs = torch.baddbmm(b[:, None], W_x, x.permute(1, 2, 0))
        h = c = x.new_zeros(len(self.b_g), batch)
        # The underscores mean "in place": less memory to fill saves time. Autograd allows it on
        # the parts of an `unsafe` split, provided that the whole is not used again.
        for a in inputs.flatten(0, 1).unsafe_chunk(time):
            # what stands inside the brackets of (1) to (4): W_x x(t) + W_h h(t-1) + b
            a.addmm_(W_h, h)
            a_g, a_ifo = a.unsafe_split_with_sizes([len(h), 3 * len(h)])
            # g(t) = tanh(W_gx x(t) + W_gh h(t-1) + b_g)      (1)
            g = a_g.tanh_()
            # i(t) = sigmoid(W_ix x(t) + W_ih h(t-1) + b_i)   (2)
            # f(t) = sigmoid(W_fx x(t) + W_fh h(t-1) + b_f)   (3)
            # o(t) = sigmoid(W_ox x(t) + W_oh h(t-1) + b_o)   (4)
            i, f, o = a_ifo.sigmoid_().unsafe_chunk(3)
            # c(t) = g(t) * i(t) + c(t-1) * f(t)              (5)
            c = g * i + c * f
            # h(t) = tanh(c(t)) * o(t)                        (6)
            h = torch.tanh(c) * o
            yield State(g, i, f, o, c, h)
