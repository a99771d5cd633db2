"""What the notebooks share and no question asks for: data, batches, tables, figures, time.

Images are float32 in [0, 1] of shape (N, 28, 28), labels int64 of shape (N,).
"""

import inspect
import io
import math
import os
import random
import shutil
import statistics
import struct
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pooch
import torch
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

    Raises FileNotFoundError when a named folder lacks it, ValueError for a broken file.
    """
    return _load("MNIST", root)


def load_fashion_mnist(root=None):
    """Fashion-MNIST (Xiao et al. 2017) as an `ImageData`; see `load_mnist`."""
    return _load("FashionMNIST", root)


def _load(name, root):
    raw = data_folder(name, root) / name / "raw"
    arrays = [_read_idx(raw / file, rank) for file, rank in IDX_FILES.items()]
    tensors = []
    for images, labels in (arrays[:2], arrays[2:]):
        if len(images) != len(labels) or labels.max() > 9:
            raise ValueError(
                f"{raw} holds {len(images):,} images and {len(labels):,} labels up to "
                f"{labels.max()}: expected as many labels as images, each from 0 to 9."
            )
        tensors += [torch.tensor(images) / 255, torch.tensor(labels).long()]
    return ImageData(name, *tensors, len(arrays[0]) < FULL_TRAINING_SET)


def _read_idx(path, rank):
    """The bytes of an IDX file of images (rank 3) or labels (1) as an array."""
    content = path.read_bytes() if path.is_file() else b""
    start = 4 + 4 * rank
    magic, *shape = struct.unpack(f">{1 + rank}I", content[:start].ljust(start, b"\0"))
    header_fits = magic == 0x0800 + rank and shape[1:] == [28, 28][: rank - 1]
    if not header_fits or not 0 < math.prod(shape) == len(content) - start:
        kind = "28 x 28 images" if rank == 3 else "labels"
        raise ValueError(
            f"{path} is missing or not a whole IDX file of {kind} ({len(content):,} bytes, "
            f"first {content[:start].hex() or 'none'}): unpack its .gz or get it again."
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
    except Exception as error:  # noqa: BLE001 - whatever it is, there is the sample
        why = str(error) or repr(error)  # TimeoutError()
        print(f"{name}: no download ({why}); the sample of 5,000 images is used.")
        return DATA / "sample"


def _download(name):
    """Download the set into data/, whole or not at all, from where data/mirrors.txt says.

    In a folder aside, because pooch takes a half unpacked file for a finished one.
    """
    if os.path.lexists(DATA / name):
        raise FileExistsError(f"{DATA / name} is in the way and is no data set")
    for left in DATA.glob(".incomplete-*"):  # by a download that was killed
        if time.time() - left.stat().st_mtime > 3600:
            shutil.rmtree(left, ignore_errors=True)
    downloader = pooch.HTTPDownloader(progressbar=True, timeout=PATIENCE)
    with tempfile.TemporaryDirectory(prefix=".incomplete-", dir=DATA) as aside:
        mirrors = pooch.create(aside, base_url="")
        mirrors.load_registry(DATA / "mirrors.txt")
        files = [f"{name}/raw/{file}.gz" for file in IDX_FILES]
        # in a thread: looking up a name and trying a host's addresses know no time limit
        with ThreadPool(1) as pool:
            pool.apply_async(mirrors.is_available, (files[0], downloader)).get(PATIENCE)
        for file in files:
            mirrors.fetch(file, pooch.Decompress(name=Path(file).stem), downloader)
        with suppress(OSError):  # another notebook may have been faster
            os.replace(Path(aside) / name, DATA / name)
    return DATA


# ------------------------------------------------------------- seeds, device, batches
def seed_everything(seed=0):
    """Seed the generators of Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def device():
    """The accelerator (CUDA, MPS, ...) when there is one, else the CPU."""
    return torch.accelerator.current_accelerator() or torch.device("cpu")


def minibatches(images, labels, batch_size, shuffle=True):
    """A `DataLoader` over (images, labels) that fetches a whole batch by one indexing.

    The last batch may be short. Shuffling draws from PyTorch's global generator.
    """
    data = torch_data.TensorDataset(images, labels)
    sampler = torch_data.RandomSampler if shuffle else torch_data.SequentialSampler
    batches = torch_data.BatchSampler(sampler(data), batch_size, drop_last=False)
    return torch_data.DataLoader(data, sampler=batches, batch_size=None)


# ------------------------------------------------------------------ time and progress
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
