"""Helpers shared by the notebooks: data, batches, tables, figures, progress.

Images are float32 in [0, 1] of shape (N, 28, 28), labels int64 of shape (N,).
"""

import inspect
import io
import os
import random
import socket
import statistics
import sys
import tempfile
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython import get_ipython
from IPython.display import Markdown, display
from torch.utils import data as torch_data
from tqdm import tqdm

try:
    from torchvision import datasets
except RuntimeError:  # a CUDA build beside a CPU-only torch: declare what it looks for
    for _name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[_name]
    _operators = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _operators.define(f"{_name}(Tensor dets, Tensor scores, float limit) -> Tensor")
    from torchvision import datasets

BUNDLE = Path(__file__).resolve().parent
DATA = BUNDLE / "data"
FULL_TRAINING_SET = 60_000
RESULTS_MIME = "application/vnd.coursework.results+json"
data_used = {}  # data set: "full" or "sample", as `data_folder` found it

# One style per model, in every notebook. The colours keep a contrast of 3:1 on white and
# can be told apart by colour-blind readers; dashes and markers differ too.
_MODELS = ("RNN", "GRU", "LSTM", "MLP", "wide RNN", "PyTorch")
_LINES = plt.cycler(
    color=["#0072B2", "#00805A", "#C84E00", "#666666", "#332288", "#AA3377"],
    linestyle=["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1))],
)
STYLE = dict(zip(_MODELS, _LINES + plt.cycler(marker=["o", "s", "^", "D", "v", "x"])))
plt.rc("axes", prop_cycle=_LINES, grid=True)
plt.rc("axes.spines", top=False, right=False)
plt.rc("figure", figsize=(4.5, 2.8), dpi=96)
plt.rc("figure.constrained_layout", use=True)
plt.rc("font", size=9)
plt.rc("grid", alpha=0.3)
plt.rc("image", cmap="gray_r")
plt.rc("legend", frameon=False)
plt.rc("lines", markersize=4)
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

    Raises FileNotFoundError when a named folder lacks it, ValueError when it is damaged.
    """
    return _load("MNIST", root)


def load_fashion_mnist(root=None):
    """Fashion-MNIST (Xiao et al. 2017) as an `ImageData`; see `load_mnist`."""
    return _load("FashionMNIST", root)


def _load(name, root):
    folder = data_folder(name, root)
    tensors = []
    for train in (True, False):
        try:
            part = getattr(datasets, name)(folder, train)
            if part.data.shape != (len(part.targets), 28, 28):
                raise ValueError(f"{len(part.targets)} labels for {part.data.shape}")
        except Exception as error:
            raise ValueError(
                f"{folder / name} is damaged ({error!r}). Delete this folder: the next run "
                "downloads it again."
            ) from error
        tensors += [part.data / 255, part.targets]
    return ImageData(name, *tensors, data_used[name] == "sample")


def data_folder(name="MNIST", root=None):
    """The folder to give to torchvision's class `name`: it holds `name`/raw.

    In this order: `root`, else the environment variable COURSEWORK_DATA (relative to the
    current folder, else to the bundle's); data/, once downloaded; a download into data/;
    the bundled sample. Raises FileNotFoundError when a named folder lacks the set.
    """
    given = os.environ.get("COURSEWORK_DATA", "") if root is None else str(root)
    if given:
        folder = _named_folder(name, given, "root" if root else "COURSEWORK_DATA")
    elif (DATA / name / "raw").is_dir():
        folder = DATA
    else:
        folder = _download(name)
    images = folder / name / "raw" / "train-images-idx3-ubyte"
    is_full = images.is_file() and images.stat().st_size >= FULL_TRAINING_SET * 28 * 28
    data_used[name] = "full" if is_full else "sample"
    return folder


def _named_folder(name, given, source):
    path = os.path.expanduser(given.strip().strip("'\""))
    places = [Path.cwd() / path, BUNDLE / path]
    for folder in places:
        if (folder / name / "raw").is_dir():
            return folder
    raise FileNotFoundError(
        f"{source} is {given!r}, and {places[0]} has no folder {name}/raw with the four "
        f"unpacked files of {name}. Give the folder that holds {name}/raw."
    )


def _download(name):
    """Download the set into data/, whole or not at all; without a network, the sample."""
    patience = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(10)  # seconds without an answer
        with tempfile.TemporaryDirectory(prefix=".incomplete-", dir=DATA) as aside:
            getattr(datasets, name)(aside, download=True)
            os.replace(Path(aside) / name, DATA / name)
        return DATA
    except (OSError, RuntimeError, HTTPException):  # no network, a wrong checksum
        if (DATA / name / "raw").is_dir():  # another notebook was faster
            return DATA
        print(
            f"{name} could not be downloaded: a trial run on the bundled sample. "
            "The text describes the full run."
        )
        return DATA / "sample"
    finally:
        socket.setdefaulttimeout(patience)


# ------------------------------------------------------------- seeds, device, batches
def seed_everything(seed=0):
    """Seed the generators of Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def device():
    """An accelerator (CUDA, MPS, ...) that can be used, else the CPU."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")


def minibatches(images, labels, batch_size, shuffle=True):
    """A `DataLoader` over (images, labels) that fetches a whole batch by one indexing.

    The last batch may be short. Shuffling draws from PyTorch's global generator.
    """
    data = torch_data.TensorDataset(images, labels)
    sampler = torch_data.RandomSampler if shuffle else torch_data.SequentialSampler
    batches = torch_data.BatchSampler(sampler(data), batch_size, drop_last=False)
    return torch_data.DataLoader(data, sampler=batches, batch_size=None)


# --------------------------------------------------------------------------- progress
class _NotebookBar(tqdm):
    """A tqdm in one output, updated in place: a saved notebook keeps its last line."""

    def __init__(self, *arguments, **options):
        self.handle = display({"text/plain": ""}, raw=True, display_id=True)
        super().__init__(*arguments, file=io.StringIO(), ncols=88, **options)

    def display(self, msg=None, pos=None):
        self.handle.update({"text/plain": str(self) if msg is None else msg}, raw=True)


def progress(iterable=None, **options):
    """tqdm: `for epoch in progress(range(10), desc="RNN")`, in a notebook or a terminal."""
    in_kernel = getattr(get_ipython(), "kernel", None) is not None
    return (_NotebookBar if in_kernel else tqdm)(iterable, **options)


# ------------------------------------------------------------------ numbers and tables
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def mean_sd(values, format=".2f"):
    """Mean and sample standard deviation as text: 99.17 ± 0.03."""
    values = [float(value) for value in values]
    return f"{statistics.mean(values):{format}} ± {statistics.stdev(values):{format}}"


def median_spread(values, format=".2f"):
    """Median and quartiles as text: 1.02 (0.98 to 1.10)."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:{format}} ({low:{format}} to {high:{format}})"


def _text(value, spec):
    """A table cell: 12,000, −0.25, 4.5 · 10⁻⁷; strings stay as they are."""
    if isinstance(value, (bool, str)) or not isinstance(value, (int, float, np.number)):
        return str(value).replace("|", "\\|")
    text = f"{value:,}" if isinstance(value, (int, np.integer)) else f"{value:{spec}}"
    mantissa, _, exponent = text.partition("e")
    if exponent:
        text = f"{mantissa} · 10{str(int(exponent)).translate(SUPERSCRIPT)}"
    return text.replace("-", "−")


def _table(rows, formats=".4g"):
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if not isinstance(formats, dict):
        formats = dict.fromkeys(columns, formats)
    texts = [
        [_text(row.get(c, ""), formats.get(c, ".4g")) for c in columns] for row in rows
    ]
    right = [all(t.lstrip("*")[:1] in "-+−0123456789" for t in c) for c in zip(*texts)]
    lines = [columns, ["---:" if r else ":---" for r in right], *texts]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def show_table(rows, formats=".4g"):
    """Show a list of dicts (column heading -> value) as a table.

    Integers get separators of thousands; floats the format, one for all or a dict column
    -> format; strings stay as they are. Numbers, also **bold**, are aligned on the right.
    """
    display(Markdown(_table(rows, formats)))


def show_results(results):
    """Show a (nested) dict as a table; the same output holds it as JSON."""

    def flat(value, *path):
        if isinstance(value, dict):
            return [row for key, v in value.items() for row in flat(v, *path, str(key))]
        if isinstance(value, list):
            value = ", ".join(_text(v, ".4g") for v in value)
        return [{"result": ", ".join(path), "value": value}]

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


def show_images(images, titles, columns=10, alt=""):
    """Show images of shape (N, height, width) in rows of `columns`, a title above each."""
    rows = -(-len(images) // columns)
    plt.figure(figsize=(7, 8.75 * rows / columns))
    for place, (image, title) in enumerate(zip(images.numpy(force=True), titles), 1):
        plt.subplot(rows, columns, place)
        plt.imshow(image, vmin=0, vmax=1)
        plt.title(title, fontsize=8)
        plt.axis("off")
    show_figure(alt)
