"""What the testers measure `mytorch` with: numerical gradients, and PyTorch.

`mytorch` itself imports NumPy only; this file is not part of it.
"""

import numpy as np
import torch
from mytorch import Identity, ReLU, Sigmoid, Tanh
from torch import nn

IN_PYTORCH = {
    Identity: nn.Identity,
    Sigmoid: nn.Sigmoid,
    Tanh: nn.Tanh,
    ReLU: nn.ReLU,
}


def numerical_gradient(function, array, step=1e-5):
    """d function() / d array by central differences, of `array`'s shape.

    `function` takes no argument and looks at the float64 `array`, whose elements are
    changed in place one by one and put back. The error is of order `step` squared.
    """
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        before = array[index]
        array[index] = before + step
        above = function()
        array[index] = before - step
        gradient[index] = (above - function()) / (2 * step)
        array[index] = before
    return gradient


def cast(model, dtype):
    """`model`, its parameters turned into `dtype`."""
    for layer in model.layers:
        layer.W, layer.b = layer.W.astype(dtype), layer.b.astype(dtype)
    return model


def in_pytorch(model):
    """An `nn.Sequential` with the layers, activations, parameters and dtype of `model`.

    `nn.Linear.weight` has the shape (out, in), so it is W transposed.
    """
    modules = []
    for layer, f in zip(model.layers, model.f):
        linear = nn.Linear(*layer.W.shape, dtype=torch.from_numpy(layer.W).dtype)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(layer.W.T))
            linear.bias.copy_(torch.from_numpy(layer.b.ravel()))
        modules += [linear, IN_PYTORCH[type(f)]()]
    return nn.Sequential(*modules)


def gradients(model):
    """[dL/dW, dL/db of the first layer, dL/dW of the second, ...] after `backward`."""
    return [g for layer in model.layers for g in (layer.dLdW, layer.dLdb)]


def gradients_in_pytorch(network):
    """The same list for what `in_pytorch` returns, after `backward`."""
    return [p.grad.numpy().T for p in network.parameters()]


def relative_difference(ours, reference):
    """max |ours - reference| / max |reference|; ValueError for unequal shapes."""
    ours, reference = np.asarray(ours), np.asarray(reference)
    if ours.shape != reference.shape:
        raise ValueError(
            f"ours must have the reference's shape {reference.shape}, got {ours.shape}"
        )
    return float(np.abs(ours - reference).max() / max(np.abs(reference).max(), 1e-300))
