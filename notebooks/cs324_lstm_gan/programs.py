"""What the programs train.py and my_gan.py share: the choice of a device, checkpoints."""

import os
from pickle import UnpicklingError

import torch


def usable_device(name):
    """The torch.device of that name; raises ValueError when nothing can be computed there."""
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device must be one that PyTorch can use here, such as cpu, got {name!r} ({reason})"
        ) from None
    return torch.device(name)


def save_checkpoint(state, path):
    """torch.save that leaves the old file or the new one, whenever it is interrupted."""
    aside = f"{path}.incomplete"
    torch.save(state, aside)
    os.replace(aside, path)


def load_checkpoint(path, keys):
    """The dict with these keys that `save_checkpoint` wrote to `path`, its tensors on the CPU.

    Raises ValueError for a file that is damaged or something else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {key: state[key] for key in keys}
    except (UnpicklingError, EOFError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a checkpoint of this program: {error}"
        ) from error
