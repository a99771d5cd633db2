"""What the notebooks share and no question asks for: data, seeds, device, batches, pictures.

Images are float32 in [0, 1] of shape (N, 28, 28), labels int64 of shape (N,), both preloaded
tensors, so that a mini-batch is one indexing operation.
"""

import importlib
import inspect
import io
import math
import os
import random
import socket
import statistics
import struct
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython import get_ipython
from IPython.display import Markdown, display
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

DATA = Path(__file__).resolve().parent / "data"
DOWNLOAD_TIMEOUT = 20  # seconds without an answer after which there is "no network"
FULL_TRAINING_SET = 60_000
IDX_FILES = {  # the magic number says unsigned bytes (8) and the rank (3 or 1)
    "train-images-idx3-ubyte": 0x0803,
    "train-labels-idx1-ubyte": 0x0801,
    "t10k-images-idx3-ubyte": 0x0803,
    "t10k-labels-idx1-ubyte": 0x0801,
}

plt.style.use("petroff10")  # a palette that colour-blind readers can tell apart
plt.rcParams.update(
    {
        "figure.figsize": (4.5, 2.8),
        "figure.dpi": 110,
        "figure.constrained_layout.use": True,
        "font.size": 9,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "image.cmap": "gray_r",
    }
)


# ---------------------------------------------------------------------------- data
@dataclass(frozen=True)
class ImageData:
    """A set of labelled images.

    `train_images`, `test_images`: float32 in [0, 1], shape (N, 28, 28); `train_labels`,
    `test_labels`: int64, shape (N,); `is_sample`: whether this is less than the full set;
    `root`: the folder to give to torchvision's class of that name.
    """

    name: str
    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    is_sample: bool
    root: Path


def load_mnist(root=None):
    """MNIST (LeCun et al. 1998) as an `ImageData`.

    The set is looked for in `root` or, without it, in the folder that the environment variable
    COURSEWORK_DATA names; else in data/, into which it is downloaded when it is not there. With
    no network the bundled sample of 4,000 + 1,000 digits is used, and a printed line says so.

    Raises FileNotFoundError when the named folder lacks the set, ValueError for a damaged file.
    """
    return _load("MNIST", root)


def load_fashion_mnist(root=None):
    """Fashion-MNIST (Xiao et al. 2017) as an `ImageData`; see `load_mnist`."""
    return _load("FashionMNIST", root)


def _load(name, root):
    folder = _folder_with(name, root)
    for file in IDX_FILES:
        _check_idx(folder / name / "raw" / file)
    data_set = getattr(import_torchvision().datasets, name)
    parts = []
    for train in (True, False):
        part = data_set(folder, train=train)
        if len(part.data) != len(part.targets) or part.targets.max() > 9:
            raise ValueError(
                f"{folder / name / 'raw'} holds {len(part.data):,} images and "
                f"{len(part.targets):,} labels up to {part.targets.max()}: expected as many labels "
                "as images, each from 0 to 9. Delete the folder and get the set again."
            )
        parts += [part.data.float() / 255, part.targets.long()]
    return ImageData(name, *parts, len(parts[0]) < FULL_TRAINING_SET, Path(folder))


def _folder_with(name, root):
    """The folder in which the set lies; the order is that of `load_mnist`."""
    given = root or os.environ.get("COURSEWORK_DATA")
    if given:
        raw = Path(given).resolve() / name / "raw"
        if not raw.is_dir():
            source = (
                "the argument root"
                if root
                else "the environment variable COURSEWORK_DATA"
            )
            raise FileNotFoundError(
                f"{name} is not where {source} says: looked for the folder {raw} with the files "
                f"{', '.join(IDX_FILES)} in it."
            )
        return Path(given)
    if not (DATA / name / "raw").is_dir():
        try:
            _download(name)
        except (OSError, RuntimeError) as error:
            if not (DATA / "sample" / name / "raw").is_dir():
                raise FileNotFoundError(
                    f"{name} could not be downloaded into {DATA} ({error}), and there is no "
                    "sample beside it: set COURSEWORK_DATA to a folder that holds the set."
                ) from error
            read_only = isinstance(error, PermissionError)
            why = "the folder data/ cannot be written" if read_only else "no network"
            print(
                f"{name}: {why}, so the bundled sample of 4,000 + 1,000 images is used."
            )
            return DATA / "sample"
    return DATA


def _download(name):
    """Download the set into data/, whole or not at all.

    torchvision takes any file that exists for a finished one, so it works in a folder aside,
    which is moved into place at the end: an interrupted download leaves nothing to trip over.
    """
    DATA.mkdir(exist_ok=True)
    timeout = socket.getdefaulttimeout()
    with tempfile.TemporaryDirectory(prefix=".incomplete-", dir=DATA) as aside:
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
        try:
            getattr(import_torchvision().datasets, name)(aside, download=True)
        finally:
            socket.setdefaulttimeout(timeout)
        try:
            os.replace(Path(aside) / name, DATA / name)
        except OSError:  # another notebook was faster
            if not (DATA / name / "raw").is_dir():
                raise


def _check_idx(path):
    """Raise if `path` is not a whole IDX file of the kind that its name says."""
    advice = f"Delete the folder {path.parent} and get the set again."
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. {advice}")
    magic = IDX_FILES[path.name]
    rank = magic & 0xFF
    with path.open("rb") as file:
        header = file.read(4 + 4 * rank)
    if header[:4] != struct.pack(">I", magic):
        raise ValueError(
            f"{path} is not an IDX file of rank {rank}: it starts with the bytes "
            f"{header[:4].hex()}, not {magic:08x}. {advice}"
        )
    if len(header) < 4 + 4 * rank:
        raise ValueError(f"{path} is cut off within its header. {advice}")
    shape = struct.unpack(f">{rank}I", header[4:])
    if rank == 3 and shape[1:] != (28, 28):
        raise ValueError(
            f"{path} holds images of {shape[1]} x {shape[2]}, not 28 x 28. {advice}"
        )
    expected, found = len(header) + int(np.prod(shape)), path.stat().st_size
    if found != expected:
        raise ValueError(
            f"{path} has {found:,} bytes, its header says {expected:,}. {advice}"
        )


def import_torchvision():
    """The package torchvision, also beside a torch for which it was not built.

    PyPI's torchvision is built for CUDA. Beside a CPU-only torch its library does not load and
    the import fails, because it registers shape functions for two operators of that library;
    declaring the two is enough for the data sets, which do not use them.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[module]
    import_torchvision.operators = torch.library.Library(
        "torchvision", "DEF"
    )  # lives as long as we do
    import_torchvision.operators.define(
        "nms(Tensor dets, Tensor scores, float threshold) -> Tensor"
    )
    import_torchvision.operators.define(
        "qnms(Tensor dets, Tensor scores, float threshold) -> Tensor"
    )
    return importlib.import_module("torchvision")


# ------------------------------------------------------------- seeds, device, batches
def seed_everything(seed=0):
    """Seed the generators of Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def device():
    """The accelerator (CUDA, MPS, ...) when there is one, else the CPU."""
    if torch.accelerator.is_available():
        return torch.accelerator.current_accelerator()
    return torch.device("cpu")


class _BatchOfIndices(Sampler):
    """Yields the indices of each mini-batch of an epoch as a tensor."""

    def __init__(self, count, batch_size, shuffle):
        self.count, self.batch_size, self.shuffle = count, batch_size, shuffle

    def __len__(self):
        return math.ceil(self.count / self.batch_size)

    def __iter__(self):
        order = torch.randperm(self.count) if self.shuffle else torch.arange(self.count)
        return iter(order.split(self.batch_size))


class _Preloaded(Dataset):
    """A data set of tensors that is asked for a whole mini-batch at once."""

    def __init__(self, *tensors):
        self.tensors = tensors

    def __getitem__(self, indices):
        indices = indices.to(self.tensors[0].device)
        return [tensor.index_select(0, indices) for tensor in self.tensors]


def minibatches(images, labels, batch_size, shuffle=True):
    """A `DataLoader` over (images, labels) that fetches a whole batch by one indexing operation.

    It works on whichever device the tensors are; the last batch may be short. Shuffling draws
    from PyTorch's global generator. Raises ValueError for a batch size below 1 or when images
    and labels differ in number.
    """
    if len(images) != len(labels):
        raise ValueError(
            f"images and labels must have the same length, got {len(images)} and {len(labels)}"
        )
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a positive integer, got {batch_size!r}")
    sampler = _BatchOfIndices(len(images), batch_size, shuffle)
    return DataLoader(_Preloaded(images, labels), sampler=sampler, batch_size=None)


# ------------------------------------------------------------------ time and progress
class _NotebookBar(tqdm):
    """A tqdm whose bar is one output that is updated in place.

    A saved notebook then keeps the last line alone, not a trail of carriage returns.
    """

    def __init__(self, *arguments, **options):
        self.handle = display({"text/plain": ""}, raw=True, display_id=True)
        super().__init__(*arguments, file=io.StringIO(), ncols=88, **options)

    def display(self, msg=None, pos=None):
        self.handle.update({"text/plain": str(self) if msg is None else msg}, raw=True)


def progress(iterable=None, **options):
    """tqdm: `for epoch in progress(range(10), desc="RNN")`, in a notebook or a terminal."""
    in_kernel = getattr(get_ipython(), "kernel", None) is not None
    return (_NotebookBar if in_kernel else tqdm)(iterable, **options)


@contextmanager
def threads(count):
    """Run the block with `count` threads in PyTorch's CPU operators."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def median_seconds(functions, repeats=20):
    """Median run time in seconds of each of `functions` (a dict), called in turn.

    Taking turns spreads a disturbance of the machine evenly; one call of each warms up.
    """
    seconds = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


# --------------------------------------------------------------------------- pictures
def show_source(source):
    """Display the code of a function, class or module, or of the file with that path."""
    is_path = isinstance(source, (str, Path))
    code = Path(source).read_text() if is_path else inspect.getsource(source)
    display(Markdown(f"```python\n{code.rstrip()}\n```"))


def show_images(images, titles=None, columns=10, width=7.0, vmin=0, vmax=1):
    """Draw images of shape (N, height, width) in rows of `columns`, with a title above each."""
    images = torch.as_tensor(images).detach().cpu().numpy()
    if images.ndim != 3 or len(images) == 0:
        raise ValueError(
            f"images must have shape (N, height, width), got {images.shape}"
        )
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    height = width / columns * rows * (1.25 if titles is not None else 1.0)
    _, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image in zip(axes.flat, images):
        axis.imshow(image, vmin=vmin, vmax=vmax)
    for axis, title in zip(axes.flat, titles if titles is not None else []):
        axis.set_title(title, fontsize=8)
    plt.show()
