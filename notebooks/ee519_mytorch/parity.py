"""The testers' comparison with PyTorch. `mytorch` itself imports NumPy only."""

import numpy as np
import torch
from torch import nn


def relative_difference(ours, reference):
    """max |ours - reference| / max |reference|; ValueError for unequal shapes."""
    ours, reference = np.asarray(ours), np.asarray(reference)
    if ours.shape != reference.shape:
        raise ValueError(f"the shapes differ: {ours.shape} and {reference.shape}")
    return float(np.abs(ours - reference).max() / max(np.abs(reference).max(), 1e-300))


def in_pytorch(model):
    """An `nn.Sequential` with the layers, activations, parameters and dtype of `model`."""
    modules = []
    for layer, f in zip(model.layers, model.f):
        linear = nn.Linear(*layer.W.shape, dtype=torch.from_numpy(layer.W).dtype)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(layer.W.T))  # (out, in)
            linear.bias.copy_(torch.from_numpy(layer.b.ravel()))
        modules += [linear, getattr(nn, type(f).__name__)()]
    return nn.Sequential(*modules)


def parameters(model):
    """[W, b of the first layer, W of the second, ...], of `mytorch` or `in_pytorch`."""
    if isinstance(model, nn.Sequential):
        return [p.detach().numpy().T for p in model.parameters()]
    return [p for layer in model.layers for p in (layer.W, layer.b)]


def gradients(model):
    """The same list of dL/dW and dL/db, after `backward`."""
    if isinstance(model, nn.Sequential):
        return [p.grad.numpy().T for p in model.parameters()]
    return [g for layer in model.layers for g in (layer.dLdW, layer.dLdb)]
