"""What the notebooks share and no question asks for: data, batches, tables, figures, time.

Images are float32 in [0, 1] of shape (N, 28, 28), labels int64 of shape (N,).
"""

import importlib
import inspect
import io
import os
import random
import shutil
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler
from IPython import get_ipython
from IPython.display import Markdown, display
from torch.utils import data as torch_data
from tqdm import tqdm

DATA = Path(__file__).resolve().parent / "data"
PATIENCE = 10  # seconds to reach a mirror, and without a byte from it
FULL_TRAINING_SET = 60_000
RESULTS_MIME = "application/vnd.coursework.results+json"
IDX_FILES = {  # and the rank of each
    "train-images-idx3-ubyte": 3,
    "train-labels-idx1-ubyte": 1,
    "t10k-images-idx3-ubyte": 3,
    "t10k-labels-idx1-ubyte": 1,
}

# One style per model, in every notebook. The colours keep a contrast of 3:1 on white and
# can be told apart by colour-blind readers; dashes and markers differ too.
_STYLES = [
    ("RNN", "#0072B2", "-", "o"),
    ("GRU", "#00805A", "--", "s"),
    ("LSTM", "#C84E00", "-.", "^"),
    ("MLP", "#666666", ":", "D"),
    ("wide RNN", "#332288", (0, (5, 1, 1, 1, 1, 1)), "v"),
    ("PyTorch", "#AA3377", (0, (1, 1)), "x"),
]
STYLE = {m: {"color": c, "linestyle": s, "marker": k} for m, c, s, k in _STYLES}
plt.rcParams.update(
    {
        "axes.prop_cycle": cycler(
            color=[style["color"] for style in STYLE.values()],
            linestyle=[style["linestyle"] for style in STYLE.values()],
        ),
        "figure.figsize": (4.5, 2.8),
        "figure.dpi": 96,
        "figure.constrained_layout.use": True,
        "font.size": 9,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "lines.markersize": 4,
        "image.cmap": "gray_r",
    }
)
if get_ipython():  # twice as many dots, shown and printed at the figure's own size
    get_ipython().run_line_magic("config", "InlineBackend.figure_format = 'retina'")


# ---------------------------------------------------------------------------- data
@dataclass(frozen=True)
class ImageData:
    """A set of labelled images.

    `train_images`, `test_images`: float32 in [0, 1], shape (N, 28, 28); `train_labels`,
    `test_labels`: int64, shape (N,); `is_sample`: whether this is less than the full set.
    """

    name: str
    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    is_sample: bool


def load_mnist(root=None):
    """MNIST (LeCun et al. 1998) as an `ImageData`; `data_folder` says from where.

    Raises FileNotFoundError when a named folder lacks the set, ValueError for a damaged
    file.
    """
    return _load("MNIST", root)


def load_fashion_mnist(root=None):
    """Fashion-MNIST (Xiao et al. 2017) as an `ImageData`; see `load_mnist`."""
    return _load("FashionMNIST", root)


def _load(name, root):
    raw = data_folder(name, root) / name / "raw"
    arrays = [_read_idx(raw / file, rank) for file, rank in IDX_FILES.items()]
    for images, labels in (arrays[:2], arrays[2:]):
        if len(images) != len(labels) or labels.max() > 9:
            raise ValueError(
                f"{raw} holds {len(images):,} images and {len(labels):,} labels up to "
                f"{labels.max()}: expected as many labels as images, each from 0 to 9."
            )
    tensors = [
        torch.tensor(array).long() if array.ndim == 1 else torch.tensor(array) / 255
        for array in arrays
    ]
    return ImageData(name, *tensors, len(arrays[0]) < FULL_TRAINING_SET)


def _read_idx(path, rank):
    """The bytes of an IDX file of images (rank 3) or labels (1) as an array."""
    content = path.read_bytes() if path.is_file() else b""
    start = 4 + 4 * rank
    magic, *shape = struct.unpack(f">{1 + rank}I", content[:start].ljust(start, b"\0"))
    sizes_fit = shape[0] > 0 and shape[1:] == [28, 28][: rank - 1]
    whole = len(content) == start + shape[0] * 784 ** (rank == 3)
    if magic != 0x0800 + rank or not sizes_fit or not whole:
        kind = "28 x 28 images" if rank == 3 else "labels"
        packed = path.with_name(path.name + ".gz").is_file()
        advice = f"unpack {path.name}.gz" if packed else "get the data set again"
        raise ValueError(
            f"{path} is missing or not a whole IDX file of {kind}: it has {len(content):,} "
            f"bytes and starts with {content[:start].hex() or 'none'}; {advice}."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def data_folder(name, root=None):
    """The folder that holds `name`/raw, as torchvision's class `name` expects it.

    In this order: `root`; the environment variable COURSEWORK_DATA; data/, if the set is
    there; a download into data/; the bundled sample, and then one printed line says why.
    Raises FileNotFoundError when the folder that was named lacks the set.
    """
    source, given = "the argument root", root
    if given is None:
        source = "the environment variable COURSEWORK_DATA"
        given = os.environ.get("COURSEWORK_DATA", "").strip().strip("'\"") or None
    if given is not None:
        folder = Path(given).expanduser().absolute()
        if (folder / name / "raw").is_dir() and str(given).strip():
            return folder
        likely = [p for p in folder.parents[:2] if (p / name / "raw").is_dir()]
        raise FileNotFoundError(
            f"{name} is not where {source} ({str(given)!r}) says: looked for the folder "
            f"{folder / name / 'raw'} with the files {', '.join(IDX_FILES)}."
            + "".join(f" Did you mean {place}?" for place in likely)
        )
    if (DATA / name / "raw").is_dir():
        return DATA
    try:
        return _download(name)
    except Exception as error:  # whatever it is, there is the sample
        if not (DATA / "sample" / name / "raw").is_dir():
            raise FileNotFoundError(
                f"{name}: {error}, and there is no sample: set COURSEWORK_DATA to a folder "
                "that holds the set."
            ) from error
        print(f"{name}: {error}; the bundled sample of 5,000 images is used.")
        return DATA / "sample"


def _download(name):
    """Download the set into data/, whole or not at all; an error says what failed.

    torchvision takes any file that exists for a finished one, so it works in a folder
    aside, which is moved into place at the end.
    """
    if os.path.lexists(DATA / name):
        raise FileExistsError(f"{DATA / name} is in the way and is no data set")
    for left in DATA.glob(".incomplete-*"):  # by a download that was killed
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > 3600:
                shutil.rmtree(left)
    try:
        DATA.mkdir(exist_ok=True)
        aside = tempfile.TemporaryDirectory(prefix=".incomplete-", dir=DATA)
    except OSError as error:
        raise OSError(f"{DATA} cannot be written ({error.strerror})") from error
    timeout = socket.getdefaulttimeout()
    with aside:
        original = getattr(import_torchvision().datasets, name)
        mirror = _reachable(original.mirrors, original.resources[0][0])
        socket.setdefaulttimeout(PATIENCE)
        try:
            type(name, (original,), {"mirrors": [mirror]})(aside.name, download=True)
        except Exception as error:
            raise OSError(f"the download failed ({error or type(error)})") from error
        finally:
            socket.setdefaulttimeout(timeout)
        with suppress(OSError):  # another notebook may have been faster
            os.replace(Path(aside.name) / name, DATA / name)
    return DATA


def _reachable(mirrors, file):
    """The first mirror that answers; TimeoutError when none does within `PATIENCE`."""
    answered = []

    def ask():
        for mirror in mirrors:
            with suppress(Exception), urllib.request.urlopen(mirror + file):
                answered.append(mirror)
                return

    # a thread, because looking up a name and trying a host's addresses know no time limit
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if not answered:
        raise TimeoutError("no network, or no mirror that answers")
    return answered[0]


def import_torchvision():
    """The package torchvision, also beside a torch for which it was not built.

    PyPI's torchvision is built for CUDA. Beside a CPU-only torch its library does not load
    and the import fails, because it registers shape functions for two operators of that
    library; declaring the two is enough for the data sets, which do not use them.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[module]
    operators = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        operators.define(
            f"{operator}(Tensor dets, Tensor scores, float limit) -> Tensor"
        )
    import_torchvision.operators = operators  # lives as long as we do
    return importlib.import_module("torchvision")


# ------------------------------------------------------------- seeds, device, batches
def seed_everything(seed=0):
    """Seed the generators of Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def device():
    """The accelerator (CUDA, MPS, ...) when there is one, else the CPU."""
    return torch.accelerator.current_accelerator() or torch.device("cpu")


class _WholeBatches(torch_data.TensorDataset):
    def __getitem__(self, indices):
        return super().__getitem__(torch.as_tensor(indices))


def minibatches(images, labels, batch_size, shuffle=True):
    """A `DataLoader` over (images, labels) that fetches a whole batch by one indexing.

    The last batch may be short. Shuffling draws from PyTorch's global generator.
    """
    data = _WholeBatches(images, labels)
    sampler = torch_data.RandomSampler if shuffle else torch_data.SequentialSampler
    batches = torch_data.BatchSampler(sampler(data), batch_size, drop_last=False)
    return torch_data.DataLoader(data, sampler=batches, batch_size=None)


# ------------------------------------------------------------------ time and progress
class _NotebookBar(tqdm):
    """A tqdm whose bar is one output that is updated in place: a saved notebook keeps the
    last line alone."""

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


def seconds_in_turns(functions, repeats=20):
    """Run times in seconds of each of `functions` (a dict), called in turn: name -> list.

    Taking turns spreads a disturbance of the machine evenly; one call of each warms up.
    """
    seconds = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return seconds


# ------------------------------------------------------------------- numbers and tables
def mean_sd(values, format=".2f"):
    """Mean and sample standard deviation as text: 99.17 ± 0.03."""
    values = [float(value) for value in values]
    return f"{statistics.mean(values):{format}} ± {statistics.stdev(values):{format}}"


def median_spread(values, format=".2f"):
    """Median and quartiles as text: 1.02 (0.98 to 1.10)."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:{format}} ({low:{format}} to {high:{format}})"


def _text(value, spec):
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, (float, np.floating)):
        return f"{value:{spec}}"
    return str(value).replace("|", "\\|")


def _table(rows, formats=".4g"):
    columns = list(dict.fromkeys(column for row in rows for column in row))
    formats = formats if isinstance(formats, dict) else dict.fromkeys(columns, formats)
    texts = [
        [_text(row.get(c, ""), formats.get(c, ".4g")) for c in columns] for row in rows
    ]
    numeric = [all(t[:1] in "-+−0123456789" for t in column) for column in zip(*texts)]
    lines = [columns, ["---:" if right else ":---" for right in numeric], *texts]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def show_table(rows, formats=".4g"):
    """Show a list of dicts (column heading -> value) as a table.

    Integers get separators of thousands; floats the format, one for all or a dict column
    -> format; strings stay as they are. Columns of numbers are aligned on the right.
    """
    display(Markdown(_table(rows, formats)))


def show_results(results):
    """Show a (nested) dict as a table; the same output holds it as JSON."""

    def flat(value, *path):
        if isinstance(value, dict):
            return [row for key, v in value.items() for row in flat(v, *path, str(key))]
        listed = (
            ", ".join(_text(v, ".4g") for v in value) if type(value) is list else value
        )
        return [{"result": ", ".join(path), "value": listed}]

    markdown = _table(flat(results))
    display({"text/markdown": markdown, RESULTS_MIME: results}, raw=True)


# --------------------------------------------------------------------------- pictures
def show_source(source):
    """Show the code of a function, class or module, or of the file with that path."""
    is_path = isinstance(source, (str, Path))
    code = Path(source).read_text("utf-8") if is_path else inspect.getsource(source)
    name = Path(source).name if is_path else source.__name__
    fold = f"<details><summary>Code of <code>{name}</code></summary>"
    display(Markdown(f"{fold}\n\n```python\n{code.rstrip()}\n```\n\n</details>"))


def show_figure(alt):
    """Show the current figure, with `alt` as the text for those who cannot see it."""
    figure = plt.gcf()
    display(figure, metadata={"image/png": {"alt": alt}})
    plt.close(figure)


def show_images(images, titles=None, columns=10, width=7.0, vmin=0, vmax=1, alt=None):
    """Draw images of shape (N, height, width) in rows of `columns`, a title above each."""
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
    show_figure(alt or f"{len(images)} images in {rows} rows")
