import torch
from torch import nn


def rand_matrix(rows, cols, scale):
    return nn.Parameter(scale * torch.randn(rows, cols))


class MyLSTM(nn.Module):
    '''
    Runs over a whole batch of sequences X of size (B, T, F).
    Returns all of the hidden states (B, T, H) and the last (h, c).
    '''
    def __init__(self, n_features, n_hidden):
        super(MyLSTM, self).__init__()
        self.n_hidden = n_hidden
        s = n_hidden ** -0.5
        # forget gate
        self.Uf = rand_matrix(n_features, n_hidden, s)
        self.Vf = rand_matrix(n_hidden, n_hidden, s)
        # input gate
        self.Ui = rand_matrix(n_features, n_hidden, s)
        self.Vi = rand_matrix(n_hidden, n_hidden, s)
        # output gate
        self.Uo = rand_matrix(n_features, n_hidden, s)
        self.Vo = rand_matrix(n_hidden, n_hidden, s)
        # candidate memory
        self.Uc = rand_matrix(n_features, n_hidden, s)
        self.Vc = rand_matrix(n_hidden, n_hidden, s)

    def step(self, x, h, c):
        f = torch.sigmoid(x @ self.Uf + h @ self.Vf)
        i = torch.sigmoid(x @ self.Ui + h @ self.Vi)
        o = torch.sigmoid(x @ self.Uo + h @ self.Vo)
        c_new = torch.tanh(x @ self.Uc + h @ self.Vc)
        c = f * c + i * c_new
        h = o * torch.tanh(c)
        return h, c

    def forward(self, X, h0=None, c0=None):
        B, T, F = X.shape
        h = X.new_zeros(B, self.n_hidden) if h0 is None else h0
        c = X.new_zeros(B, self.n_hidden) if c0 is None else c0
        hs = []
        for t in range(T):
            h, c = self.step(X[:, t], h, c)
            hs.append(h)
        return torch.stack(hs, dim=1), (h, c)


if __name__ == '__main__':
    lstm = MyLSTM(5, 8)
    hs, (h, c) = lstm(torch.randn(4, 7, 5))
    print(hs.shape, h.shape, c.shape)   # 4 x 7 x 8, 4 x 8, 4 x 8
