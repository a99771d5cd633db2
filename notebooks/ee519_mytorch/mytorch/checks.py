"""What every module asks of its arguments, so that mistakes are named at once."""

import numpy as np


def check_array(name, value, shape=None, dtype=None):
    """`value` as a floating-point array, not copied when it already is one.

    `shape` is what it must have, a letter standing for any length from 1 up: ("N", 3)
    is a matrix with rows of 3. `dtype` is what it is converted to; without it,
    floating-point arrays keep theirs and integers become float64.

    Raises TypeError for anything but real numbers, ValueError for another shape and for
    NaN or infinity.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if shape is not None:
        _check_shape(name, array.shape, shape)
    if dtype is None:
        dtype = array.dtype if array.dtype.kind == "f" else np.float64
    array = array.astype(dtype, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        # one number tells nearly always, and is quicker to get than a mask
        suspicious = not np.isfinite(array.sum())
    if suspicious and not np.isfinite(array).all():
        count = np.count_nonzero(~np.isfinite(array))
        raise ValueError(
            f"{name} must be finite, got {count} NaN or infinite values of "
            f"{array.size} in {array.dtype} (diverged? lower the learning rate)"
        )
    return array


def check_size(name, value):
    """Raise ValueError unless `value` is a positive integer."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")


def check_forward(module, kept):
    """Raise RuntimeError if `module` has `kept` nothing to go backward from."""
    if kept is None:
        name = type(module).__name__
        raise RuntimeError(f"{name}.backward was called before {name}.forward")


def _check_shape(name, found, wanted):
    fits = len(found) == len(wanted) and all(
        have >= 1 if isinstance(want, str) else have == want
        for have, want in zip(found, wanted)
    )
    if not fits:
        letters = ", ".join(want for want in wanted if isinstance(want, str))
        raise ValueError(
            f"{name} must have shape ({', '.join(map(str, wanted))})"
            f"{f' with {letters} >= 1' if letters else ''}, got {found}"
        )
