import torch
import torch.nn as nn


class LSTM(nn.Module):
    def __init__(self, seq_length, input_dim, hidden_dim, output_dim, batch_size, device='cpu'):
        super().__init__()
        self.seq_length = seq_length
        self.batch_size = batch_size
        self.hidden_dim = hidden_dim
        self.device = device

        # the bias is in the x layers only
        self.gx = nn.Linear(input_dim, hidden_dim)
        self.gh = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.ix = nn.Linear(input_dim, hidden_dim)
        self.ih = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.fx = nn.Linear(input_dim, hidden_dim)
        self.fh = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.ox = nn.Linear(input_dim, hidden_dim)
        self.oh = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.ph = nn.Linear(hidden_dim, output_dim)
        self.to(device)

    def forward(self, x):
        # x is batch_size x seq_length x input_dim
        h_t = torch.zeros(self.batch_size, self.hidden_dim, device=self.device)
        c_t = torch.zeros(self.batch_size, self.hidden_dim, device=self.device)
        for t in range(self.seq_length):
            x_t = x[:, t]
            g_t = torch.tanh(self.gx(x_t) + self.gh(h_t))
            i_t = torch.sigmoid(self.ix(x_t) + self.ih(h_t))
            f_t = torch.sigmoid(self.fx(x_t) + self.fh(h_t))
            o_t = torch.sigmoid(self.ox(x_t) + self.oh(h_t))
            c_t = g_t * i_t + c_t * f_t
            h_t = torch.tanh(c_t) * o_t
        return self.ph(h_t)   # logits
