"""Checks of what would otherwise go wrong in silence."""

import numpy as np


def check_shape(name, array, expected):
    """ValueError unless `array` has the `expected` shape; "N" in it is any number."""
    shape = np.shape(array)
    same = [size == wanted or wanted == "N" for size, wanted in zip(shape, expected)]
    if len(shape) != len(expected) or not all(same):
        accepted = ", ".join(map(str, expected))
        raise ValueError(f"{name} must have the shape ({accepted}), got {shape}")


def as_floats(array):
    """`array` itself if its dtype is floating, else a float64 copy (uint8 wraps)."""
    array = np.asarray(array)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(float)


def kept(layer, name):
    """The array `layer.name`, which `forward` keeps; RuntimeError before `forward`."""
    if not hasattr(layer, name):
        raise RuntimeError(f"{type(layer).__name__}: call forward before backward")
    return getattr(layer, name)
