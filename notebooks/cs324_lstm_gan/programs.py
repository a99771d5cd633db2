"""What the programs share: checked settings, flags, threads, paths, checkpoints.

@dataclass(frozen=True)
class Config(Settings):
    batch_size: int = setting(64, "images per step", least=1)
    lr: float = setting(2e-4, "learning rate of Adam", above=0)
    device: str = setting("cpu", "where to compute", check=usable_device)

parser = argparse.ArgumentParser(description=__doc__)
add_flags(parser, Config)                               # --batch_size, --lr, --device
parser.add_argument("--save", type=output_file)         # refused before any work
config = settings_from(parser, Config, parser.parse_args())
"""

import argparse
import dataclasses
import hashlib
import io
import math
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch


# ---------------------------------------------------------------------------- settings
def setting(default, help, *, least=None, above=None, choices=None, check=None):
    """A field of a `Settings` class: its default, the help of its flag, what it accepts.

    A number must be finite, at least `least` and greater than `above`; a value one of
    `choices`; `check(value)` raises ValueError for any other reason. The default None means
    that the setting may be left out.
    """
    accepts = {"least": least, "above": above, "choices": choices, "check": check}
    return dataclasses.field(default=default, metadata={"help": help, **accepts})


@dataclass(frozen=True)
class Settings:
    """What determines a run; its subclasses are dataclasses whose fields are `setting`s.

    Raises TypeError for a value of another type, ValueError for one that is not accepted.
    """

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None or field.default is not None:
                _check(field.name, value, field.type, **field.metadata)


def _check(name, value, kind, *, help, least, above, choices, check):
    kinds = (int, float) if kind is float else kind
    if not isinstance(value, kinds) or isinstance(value, bool) is not (kind is bool):
        raise TypeError(f"{name} must be of type {kind.__name__}, got {value!r}")
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    if above is not None and value <= above:
        raise ValueError(f"{name} must be above {above}, got {value}")
    if choices is not None and value not in choices:
        raise ValueError(
            f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}"
        )
    if check is not None:
        check(value)


def add_flags(parser, settings, several=False):
    """A flag for each field of the class `settings`, which takes one value or `several`."""
    for field in dataclasses.fields(settings):
        text = field.metadata["help"]
        if field.metadata["choices"] is not None:
            text += f": {', '.join(map(str, field.metadata['choices']))}"
        if field.default is not None:
            text += f" (default: {field.default})"
        parser.add_argument(
            f"--{field.name}",
            type=field.type,
            nargs="+" if several else None,
            default=[field.default] if several else field.default,
            help=text.replace("%", "%%"),
        )


def settings_from(parser, settings, arguments):
    """An instance of `settings` from parsed arguments; `parser.error` for bad ones."""
    names = [field.name for field in dataclasses.fields(settings)]
    try:
        return settings(**{name: getattr(arguments, name) for name in names})
    except (TypeError, ValueError) as error:
        parser.error(str(error))


# ---------------------------------------------------------- device, threads and memory
def usable_device(name):
    """The torch.device of that name; raises ValueError when nothing can be computed there."""
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device must be one that PyTorch can use here, such as cpu, got {name!r} "
            f"({reason})"
        ) from None
    return torch.device(name)


@contextmanager
def threads(count):
    """Run the block with `count` threads in PyTorch's CPU operators."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_memory(needed, device):
    """Raise ValueError when `needed` bytes are more than the device has, if that is known."""
    device = torch.device(device)
    if device.type == "cuda":
        _, memory = torch.cuda.mem_get_info(device)
    elif device.type == "cpu" and hasattr(os, "sysconf"):  # not on Windows
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        return
    if needed > memory:
        raise ValueError(
            f"these sizes need about {needed / 2**30:.3g} GiB of memory, and {device} has "
            f"{memory / 2**30:.3g} GiB: choose smaller ones"
        )


# ------------------------------------------------------------------------------- paths
def output_file(text):
    """An argparse type: a file that can be written, now or later. Links are followed."""
    try:
        path = Path(os.path.realpath(text))
        if path.is_symlink():
            raise OSError("it is a link to itself")
        if path.exists() and not path.is_file():
            raise OSError(f"it is {'a folder' if path.is_dir() else 'no regular file'}")
        if path.exists() and not os.access(path, os.W_OK):
            raise OSError("it is read-only")
        _aside(path).touch()  # the folder is there, the name is possible
        _aside(path).unlink()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise argparse.ArgumentTypeError(
            f"must be a file that can be written, got {text!r} ({reason})"
        ) from None
    return path


def output_folder(text):
    """An argparse type: a folder in which files can be written, made if it is not there."""
    try:
        path = Path(os.path.realpath(text))
        path.mkdir(parents=True, exist_ok=True)
        _aside(path / "file").touch()
        _aside(path / "file").unlink()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise argparse.ArgumentTypeError(
            f"must be a folder that can be written to, got {text!r} ({reason})"
        ) from None
    return path


def _aside(path):
    return path.with_name(f"{path.name}.incomplete")


def write_file(path, content):
    """Write bytes; an interruption leaves the old file or the new one, never a part."""
    aside = _aside(Path(path))
    with open(aside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


# ------------------------------------------------------------------------- checkpoints
def save_checkpoint(path, config, state):
    """Write the dict `state` of a run with these settings, after a digest of the content."""
    buffer = io.BytesIO()
    torch.save({"config": asdict(config), "state": state}, buffer)
    content = buffer.getvalue()
    write_file(path, hashlib.sha256(content).digest() + content)


def load_checkpoint(path, config, may_differ=()):
    """The `state` that `save_checkpoint` wrote, its tensors on the CPU.

    Raises ValueError for a file that cannot be read, is damaged or something else, and for
    other settings than `config` in any field that is not in `may_differ`.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    digest, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError(f"{path} is damaged, or not a checkpoint of this program")
    saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    here, there = asdict(config), saved["config"]
    differing = [
        f"{name} {there.get(name)!r} there, {here.get(name)!r} here"
        for name in here | there
        if name not in may_differ and here.get(name) != there.get(name)
    ]
    if differing:
        raise ValueError(f"{path} is of another run: {'; '.join(differing)}")
    return saved["state"]
