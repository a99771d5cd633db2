import torch
from torch import nn


class ElmanRNN(nn.Module):
    '''
    Runs over a whole batch of sequences X of size (B, T, F).
    Returns all of the hidden states (B, T, H) and the last one (B, H).
    '''
    def __init__(self, n_features, n_hidden, activation=torch.tanh):
        super(ElmanRNN, self).__init__()
        self.n_hidden = n_hidden
        self.activation = activation
        self.U = nn.Parameter(torch.randn(n_features, n_hidden) / n_hidden ** 0.5)   # input -> hidden
        self.V = nn.Parameter(torch.randn(n_hidden, n_hidden) / n_hidden ** 0.5)     # hidden -> hidden

    def forward(self, X, h0=None):
        B, T, F = X.shape
        h = X.new_zeros(B, self.n_hidden) if h0 is None else h0
        hs = []
        for t in range(T):
            h = self.activation(X[:, t].matmul(self.U) + h.matmul(self.V))
            hs.append(h)
        return torch.stack(hs, dim=1), h


if __name__ == '__main__':
    rnn = ElmanRNN(5, 8, activation=torch.relu)
    hs, h = rnn(torch.randn(4, 7, 5))
    print(hs.shape, h.shape)   # 4 x 7 x 8, 4 x 8
