from __future__ import absolute_import
from __future__ import division
from __future__ import print_function

import torch
import torch.nn as nn
import torch.nn.functional as F

EMBED_DIM = 32


class LSTM(nn.Module):

    def __init__(self, seq_length, input_dim, hidden_dim, output_dim, batch_size):
        super(LSTM, self).__init__()
        # input_dim and batch_size are only kept because the skeleton passes them:
        # the digits go through an embedding and the batch size is read from x
        self.seq_length = seq_length
        self.hidden_dim = hidden_dim
        self.embedding = nn.Embedding(10, EMBED_DIM)
        # all four gates at once, the order is g, i, f, o
        self.x2h = nn.Linear(EMBED_DIM, 4 * hidden_dim)
        self.h2h = nn.Linear(hidden_dim, 4 * hidden_dim, bias=False)
        self.h2p = nn.Linear(hidden_dim, output_dim)

    def forward(self, x):
        # x: (batch, seq_length) with the digits 0..9
        emb = self.embedding(x.long())
        h = emb.new_zeros(x.size(0), self.hidden_dim)
        c = emb.new_zeros(x.size(0), self.hidden_dim)
        for t in range(self.seq_length):
            g, i, f, o = (self.x2h(emb[:, t]) + self.h2h(h)).split(self.hidden_dim, dim=1)
            c = torch.tanh(g) * torch.sigmoid(i) + c * torch.sigmoid(f)
            h = torch.tanh(c) * torch.sigmoid(o)
        return F.log_softmax(self.h2p(h), dim=1)
