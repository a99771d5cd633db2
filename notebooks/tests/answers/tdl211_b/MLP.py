import torch
from torch import nn


class MyLinear(nn.Module):
    def __init__(self, n_in, n_out):
        super(MyLinear, self).__init__()
        self.n_in, self.n_out = n_in, n_out
        self.w = nn.Parameter(torch.randn(n_in, n_out) / n_in ** 0.5)

    def forward(self, X):
        return X.matmul(self.w)


if __name__ == '__main__':
    layer = MyLinear(5, 3)
    print(layer(torch.randn(4, 5)).shape)   # 4 x 3
