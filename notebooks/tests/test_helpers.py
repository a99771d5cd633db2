"""helpers: the data in all its broken forms, batches, seeds, timing, pictures."""

import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.error import URLError

import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import helpers

SAMPLE = helpers.DATA / "sample"
plt.switch_backend("agg")
LOADERS = {"MNIST": helpers.load_mnist, "FashionMNIST": helpers.load_fashion_mnist}


@pytest.fixture
def empty_data(tmp_path, monkeypatch):
    """helpers with an empty data/ that has the sample in it, and no COURSEWORK_DATA."""
    monkeypatch.delenv("COURSEWORK_DATA", raising=False)
    monkeypatch.setattr(helpers, "DATA", tmp_path)
    shutil.copytree(SAMPLE, tmp_path / "sample")
    return tmp_path


@pytest.fixture
def copy(tmp_path):
    """A copy of the sample that a test may damage."""
    shutil.copytree(SAMPLE, tmp_path / "copy")
    return tmp_path / "copy"


def fake_downloads(monkeypatch, *outcomes):
    """Let each call of torchvision's download do the next of `outcomes`."""
    mnist = helpers.import_torchvision().datasets.MNIST
    remaining = list(outcomes)

    def download(self):
        if not self._check_exists():
            remaining.pop(0)(Path(self.raw_folder))

    monkeypatch.setattr(mnist, "download", download)
    return remaining


def succeed(raw):
    shutil.copytree(SAMPLE / "MNIST" / "raw", raw)


def no_network(raw):
    raise URLError("no route to host")


def interrupted(raw):
    raw.mkdir(parents=True)
    for file in helpers.IDX_FILES:
        (raw / file).write_bytes(b"half a file")
    raise KeyboardInterrupt


# ------------------------------------------------------------------------------ data
@pytest.mark.parametrize("name", LOADERS)
def test_sample_is_balanced_and_in_range(name):
    data = LOADERS[name](SAMPLE)
    assert (data.name, data.is_sample) == (name, True)
    for images, labels, count in [
        (data.train_images, data.train_labels, 4000),
        (data.test_images, data.test_labels, 1000),
    ]:
        assert images.shape == (count, 28, 28) and images.dtype == torch.float32
        assert labels.shape == (count,) and labels.dtype == torch.int64
        assert images.min() == 0 and images.max() == 1
        assert labels.bincount().tolist() == [count // 10] * 10
        assert labels[:20].tolist() == list(range(10)) * 2
    train = {image.numpy().tobytes() for image in data.train_images}
    assert not train & {image.numpy().tobytes() for image in data.test_images}


def test_checksums_of_the_sample_are_those_in_the_readme():
    text = (helpers.DATA / "README.md").read_text()
    listed = re.findall(r"^([0-9a-f]{64})  (sample/\S+)$", text, flags=re.MULTILINE)
    assert len(listed) == 8
    for checksum, file in listed:
        content = (helpers.DATA / file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == checksum, file


def test_environment_variable_names_the_folder_and_root_goes_first(copy, monkeypatch):
    monkeypatch.setenv("COURSEWORK_DATA", str(copy))
    assert helpers.load_mnist().train_images.shape == (4000, 28, 28)
    monkeypatch.setenv("COURSEWORK_DATA", "nowhere")
    assert helpers.load_mnist(copy).is_sample


@pytest.mark.parametrize("by_argument", [True, False])
def test_folder_without_the_set_says_what_was_looked_for(
    by_argument, tmp_path, monkeypatch
):
    monkeypatch.setenv("COURSEWORK_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError) as error:
        helpers.load_fashion_mnist(tmp_path if by_argument else None)
    assert str(tmp_path / "FashionMNIST" / "raw") in str(error.value)
    assert ("root" if by_argument else "COURSEWORK_DATA") in str(error.value)
    assert "t10k-labels-idx1-ubyte" in str(error.value)


def change_header(position, value):
    def change(path):
        content = bytearray(path.read_bytes())
        content[position : position + 4] = struct.pack(">I", value)
        path.write_bytes(content)

    return change


def cut(count):
    return lambda path: path.write_bytes(path.read_bytes()[:count])


@pytest.mark.parametrize(
    "damage, message",
    [
        (cut(0), "starts with"),
        (cut(7), "cut off within its header"),
        (cut(-1), "its header says"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "its header says"),
        (change_header(0, 0x1F8B0808), "starts with the bytes 1f8b0808"),
        (change_header(0, 0x0D03), "starts with"),
        (change_header(4, 4001), "its header says"),
        (lambda path: path.unlink(), "is missing"),
    ],
)
@pytest.mark.parametrize("file", helpers.IDX_FILES)
def test_damaged_file_is_named(file, damage, message, copy):
    path = copy / "MNIST" / "raw" / file
    damage(path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        helpers.load_mnist(copy)
    assert str(path) in str(error.value) and "Delete the folder" in str(error.value)


def test_wrong_image_size_is_refused(copy):
    path = copy / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    change_header(8, 56)(path)
    change_header(12, 14)(path)  # the number of bytes is right all the same
    with pytest.raises(ValueError, match="56 x 14, not 28 x 28"):
        helpers.load_mnist(copy)


def test_labels_that_do_not_fit_the_images_are_refused(copy):
    raw = copy / "MNIST" / "raw"
    shutil.copy(raw / "t10k-labels-idx1-ubyte", raw / "train-labels-idx1-ubyte")
    with pytest.raises(ValueError, match="4,000 images and 1,000 labels"):
        helpers.load_mnist(copy)
    content = bytearray((raw / "t10k-labels-idx1-ubyte").read_bytes())
    content[8] = 10
    (raw / "t10k-labels-idx1-ubyte").write_bytes(content)
    shutil.copy(SAMPLE / "MNIST" / "raw" / "train-labels-idx1-ubyte", raw)
    with pytest.raises(ValueError, match="up to 10"):
        helpers.load_mnist(copy)


# -------------------------------------------------------------------------- download
def test_no_network_gives_the_sample_and_one_line(empty_data, monkeypatch, capsys):
    fake_downloads(monkeypatch, no_network)
    assert helpers.load_mnist().is_sample
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and "no network" in printed and "MNIST" in printed
    assert [path.name for path in empty_data.iterdir()] == ["sample"]


def test_no_network_and_no_sample_is_an_error(empty_data, monkeypatch):
    shutil.rmtree(empty_data / "sample")
    fake_downloads(monkeypatch, no_network)
    with pytest.raises(FileNotFoundError, match="COURSEWORK_DATA"):
        helpers.load_mnist()


def test_download_is_kept(empty_data, monkeypatch, capsys):
    remaining = fake_downloads(monkeypatch, succeed, no_network)
    for _ in range(2):
        assert len(helpers.load_mnist().train_images) == 4000
    assert remaining == [no_network] and capsys.readouterr().out == ""
    assert sorted(path.name for path in empty_data.iterdir()) == ["MNIST", "sample"]


def test_next_call_recovers_from_an_interrupted_download(empty_data, monkeypatch):
    fake_downloads(monkeypatch, interrupted, succeed)
    with pytest.raises(KeyboardInterrupt):
        helpers.load_mnist()
    assert [path.name for path in empty_data.iterdir()] == ["sample"]
    assert len(helpers.load_mnist().train_images) == 4000
    assert (empty_data / "MNIST" / "raw").is_dir()


def test_two_downloads_at_once_leave_one_whole_set(empty_data, monkeypatch):
    def overtaken(raw):
        succeed(raw)
        succeed(empty_data / "MNIST" / "raw")

    fake_downloads(monkeypatch, overtaken)
    assert len(helpers.load_mnist().train_images) == 4000
    assert sorted(path.name for path in empty_data.iterdir()) == ["MNIST", "sample"]


@pytest.fixture
def read_only_folder():
    """A folder with the sample in it that we may not write, even if the tests run as root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(SAMPLE, folder / "sample")
        folder.chmod(0o555)
        if os.getuid() == 0:
            os.seteuid(65534)
        yield folder
        os.seteuid(os.getuid())
        folder.chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="file permissions are POSIX's")
def test_read_only_data_folder_gives_the_sample(read_only_folder, monkeypatch, capsys):
    monkeypatch.delenv("COURSEWORK_DATA", raising=False)
    monkeypatch.setattr(helpers, "DATA", read_only_folder)
    remaining = fake_downloads(monkeypatch, succeed)
    assert helpers.load_mnist().is_sample
    assert "cannot be written" in capsys.readouterr().out
    assert len(remaining) == 1  # no download was tried


def test_helpers_does_not_import_torchvision_before_it_is_needed():
    code = "import helpers, sys; assert 'torchvision' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_torchvision_has_its_transforms_and_data_sets():
    torchvision = helpers.import_torchvision()
    image = torchvision.datasets.MNIST(SAMPLE, train=False)[0][0]
    assert torchvision.transforms.functional.to_tensor(image).shape == (1, 28, 28)


# -------------------------------------------------------------- batches, seeds, time
@given(count=st.integers(1, 50), batch_size=st.integers(1, 60), shuffle=st.booleans())
def test_minibatches_partition_the_data(count, batch_size, shuffle):
    images, labels = torch.rand(count, 2, 3), torch.arange(count)
    batches = helpers.minibatches(images, labels, batch_size, shuffle)
    seen = list(batches)
    assert len(batches) == len(seen) == -(-count // batch_size)
    assert all(len(y) == batch_size for _, y in seen[:-1])
    order = torch.cat([y for _, y in seen])
    assert torch.equal(torch.cat([x for x, _ in seen]), images[order])
    assert torch.equal(order.sort().values, labels)
    assert shuffle or torch.equal(order, labels)


def test_minibatches_shuffle_anew_each_epoch_and_repeat_with_the_seed():
    batches = helpers.minibatches(torch.rand(100, 1), torch.arange(100), 7)
    helpers.seed_everything(1)
    first, second = ([y.tolist() for _, y in batches] for _ in range(2))
    helpers.seed_everything(1)
    assert first != second and first == [y.tolist() for _, y in batches]


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, None])
def test_minibatches_refuse_a_bad_batch_size(batch_size):
    with pytest.raises(ValueError, match="batch_size"):
        helpers.minibatches(torch.rand(3, 1), torch.arange(3), batch_size)


def test_minibatches_refuse_labels_of_another_length():
    with pytest.raises(ValueError, match="3 and 2"):
        helpers.minibatches(torch.rand(3, 1), torch.arange(2), 1)


def test_device_can_hold_a_tensor():
    assert torch.zeros(1, device=helpers.device()).sum() == 0


def test_threads_are_restored_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), helpers.threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before


def test_median_seconds_orders_by_time_and_takes_turns():
    calls = []
    seconds = helpers.median_seconds(
        {
            "slow": lambda: (calls.append("slow"), sum(range(200_000))),
            "fast": lambda: calls.append("fast"),
        },
        repeats=3,
    )
    assert seconds["slow"] > seconds["fast"] > 0
    assert calls == ["slow", "fast"] * 4


def test_progress_passes_the_items_on(capsys):
    assert list(helpers.progress(range(3), desc="steps")) == [0, 1, 2]
    assert "steps" in capsys.readouterr().err


# -------------------------------------------------------------------------- pictures
def test_show_source_of_a_function_and_of_a_file(monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr(helpers, "display", lambda item: shown.append(item.data))
    helpers.show_source(helpers.device)
    assert shown[0].startswith("```python\ndef device():") and shown[0].endswith(
        "\n```"
    )
    (tmp_path / "code.py").write_text("x = 1\n")
    helpers.show_source(tmp_path / "code.py")
    assert shown[1] == "```python\nx = 1\n```"


def test_show_images_draws_each_image_once_in_rows():
    helpers.show_images(torch.rand(7, 28, 28), titles=range(7), columns=3)
    axes = plt.gcf().axes
    assert len(axes) == 9 and sum(len(axis.images) for axis in axes) == 7
    assert [axis.get_title() for axis in axes[:7]] == [str(i) for i in range(7)]
    plt.close("all")


@pytest.mark.parametrize("shape", [(28, 28), (0, 28, 28), (2, 1, 28, 28)])
def test_show_images_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match="images must have shape"):
        helpers.show_images(torch.zeros(shape))
