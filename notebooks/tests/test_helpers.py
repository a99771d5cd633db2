"""helpers: the data in all its broken forms, batches, tables, timing, pictures."""

import functools
import gzip
import hashlib
import os
import re
import shutil
import socket
import struct
import tempfile
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import matplotlib.pyplot as plt
import pooch
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

import helpers

SAMPLE = helpers.DATA / "sample"
plt.switch_backend("agg")
LOADERS = {"MNIST": helpers.load_mnist, "FashionMNIST": helpers.load_fashion_mnist}


@pytest.fixture
def copy(tmp_path):
    """A copy of the sample that a test may damage."""
    shutil.copytree(SAMPLE, tmp_path / "copy")
    return tmp_path / "copy"


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


@pytest.mark.parametrize("given", ["~/copy", " {home}/copy ", '"{home}/copy"', "copy"])
def test_folder_is_understood_as_people_write_it(given, copy, monkeypatch):
    home = copy.parent
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.chdir(home)
    monkeypatch.setenv("COURSEWORK_DATA", given.format(home=home))
    assert helpers.data_folder("MNIST") == copy


@pytest.mark.parametrize("below", ["MNIST", "MNIST/raw"])
def test_a_folder_too_deep_is_named_as_the_likely_mistake(below, copy):
    with pytest.raises(FileNotFoundError, match=f"Did you mean {re.escape(str(copy))}"):
        helpers.load_mnist(copy / below)


def test_an_empty_root_is_not_taken_for_none(copy, monkeypatch):
    monkeypatch.setenv("COURSEWORK_DATA", str(copy))
    monkeypatch.chdir(copy)
    with pytest.raises(FileNotFoundError, match="the argument root"):
        helpers.load_mnist("")


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
    "damage",
    [
        cut(0),
        cut(7),
        cut(-1),
        lambda path: path.write_bytes(path.read_bytes() + b"\0"),
        change_header(0, 0x1F8B0808),
        change_header(0, 0x0D03),
        change_header(4, 4001),
        change_header(4, 0),
        lambda path: path.unlink(),
    ],
)
@pytest.mark.parametrize("file", helpers.IDX_FILES)
def test_damaged_file_is_named(file, damage, copy):
    path = copy / "MNIST" / "raw" / file
    damage(path)
    with pytest.raises(ValueError, match="missing or not a whole IDX file") as error:
        helpers.load_mnist(copy)
    assert str(path) in str(error.value)


def test_wrong_image_size_is_refused(copy):
    path = copy / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    change_header(8, 56)(path)
    change_header(12, 14)(path)  # the number of bytes is right all the same
    with pytest.raises(ValueError, match="not a whole IDX file of 28 x 28 images"):
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
@pytest.fixture
def empty_data(tmp_path, monkeypatch):
    """helpers with an empty data/ that has the sample in it, and no COURSEWORK_DATA."""
    monkeypatch.delenv("COURSEWORK_DATA", raising=False)
    monkeypatch.setattr(helpers, "DATA", tmp_path / "data")
    shutil.copytree(SAMPLE, tmp_path / "data" / "sample")
    return tmp_path / "data"


@pytest.fixture
def mirror(tmp_path, empty_data):
    """A folder that is served over HTTP, and is where data/ downloads the sample from."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        registry = []
        for file in helpers.IDX_FILES:
            packed = gzip.compress((SAMPLE / "MNIST" / "raw" / file).read_bytes(), 1)
            (folder / f"{file}.gz").write_bytes(packed)
            address = f"http://127.0.0.1:{server.server_port}/{file}.gz"
            digest = f"md5:{hashlib.md5(packed).hexdigest()}"
            registry.append(f"MNIST/raw/{file}.gz {digest} {address}")
        (empty_data / "mirrors.txt").write_text("\n".join(registry))
        yield folder
        server.shutdown()


def left_in(folder):
    return {path.name for path in folder.iterdir()} - {"sample", "mirrors.txt"}


def test_all_files_of_both_sets_have_a_mirror():
    mirrors = pooch.create("", base_url="")
    mirrors.load_registry(helpers.DATA / "mirrors.txt")
    files = {f"{s}/raw/{file}.gz" for s in LOADERS for file in helpers.IDX_FILES}
    assert set(mirrors.registry) == set(mirrors.urls) == files
    assert all(mirrors.get_url(file).endswith(Path(file).name) for file in files)


def test_download_is_kept(mirror, empty_data, capsys):
    assert len(helpers.load_mnist().train_images) == 4000
    shutil.rmtree(mirror)
    assert len(helpers.load_mnist().train_images) == 4000
    printed = capsys.readouterr()
    assert printed.out == "" and "100%" in printed.err  # the bar
    assert left_in(empty_data) == {"MNIST"}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda file: file.unlink(), "404"),
        (lambda file: file.write_bytes(b"a page to log in"), "hash"),
        (lambda file: cut(-1)(file), "hash"),
    ],
)
@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_any_failure_gives_the_sample_and_one_line(
    file, spoil, reason, mirror, empty_data, capsys
):
    spoil(mirror / f"{file}.gz")
    assert helpers.load_mnist().is_sample
    printed = capsys.readouterr().out
    assert re.fullmatch(rf"MNIST: no download \(.*{reason}.*\).* sample .*\n", printed)
    assert not left_in(empty_data)


def test_what_stands_in_the_way_is_named(mirror, empty_data, capsys):
    (empty_data / "MNIST").symlink_to("nowhere")
    assert helpers.load_mnist().is_sample
    assert "is in the way" in capsys.readouterr().out


def test_a_name_server_that_never_answers_is_given_up(mirror, monkeypatch, capsys):
    monkeypatch.setattr(helpers, "PATIENCE", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(2))
    assert helpers.load_mnist().is_sample
    assert "TimeoutError" in capsys.readouterr().out


def test_leftovers_of_killed_downloads_are_removed_when_old(mirror, empty_data):
    for name, age in [("old", 10_000), ("new", 0)]:
        folder = empty_data / f".incomplete-{name}"
        folder.mkdir()
        for path in (folder / "file", folder):
            path.touch()
            os.utime(path, (time.time() - age,) * 2)
    helpers.load_mnist()
    assert left_in(empty_data) == {".incomplete-new", "MNIST"}


def test_next_call_recovers_from_an_interrupted_download(
    mirror, empty_data, monkeypatch
):
    def interrupted(self, packed, *_):
        Path(packed).with_suffix("").write_bytes(b"half a file")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pooch.Decompress, "__call__", interrupted)
        helpers.load_mnist()
    assert not left_in(empty_data)
    assert len(helpers.load_mnist().train_images) == 4000
    assert left_in(empty_data) == {"MNIST"}


def test_two_downloads_at_once_leave_one_whole_set(mirror, empty_data, monkeypatch):
    move = os.replace

    def overtaken(source, target):
        shutil.copytree(SAMPLE / "MNIST", target)
        move(source, target)

    monkeypatch.setattr(os, "replace", overtaken)
    assert helpers.data_folder("MNIST") == empty_data
    assert left_in(empty_data) == {"MNIST"}


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
    assert helpers.load_mnist().is_sample
    assert "Permission denied" in capsys.readouterr().out


# -------------------------------------------------------------- batches, seeds, time
@given(count=st.integers(1, 50), batch_size=st.integers(1, 60), shuffle=st.booleans())
def test_minibatches_partition_the_data(count, batch_size, shuffle):
    """And fast: a pass over MNIST's 60,000 images in batches of 100 took 1/29 of the time
    of `DataLoader(MNIST(transform=ToTensor()), 100, shuffle=True)` (median of five in
    turns on a busy machine, quartiles 1/29 and 1/36)."""
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


def test_minibatches_refuse_labels_of_another_length():
    with pytest.raises(AssertionError, match="Size mismatch"):
        helpers.minibatches(torch.rand(3, 1), torch.arange(2), 1)


def test_device_can_hold_a_tensor():
    assert torch.zeros(1, device=helpers.device()).sum() == 0


def test_progress_passes_the_items_on(capsys):
    assert list(helpers.progress(range(3), desc="steps")) == [0, 1, 2]
    assert "steps" in capsys.readouterr().err


# ------------------------------------------------------------------- numbers and tables
@pytest.fixture
def shown(monkeypatch):
    """What is displayed: (object, keyword arguments)."""
    outputs = []
    monkeypatch.setattr(helpers, "display", lambda x, **kw: outputs.append((x, kw)))
    return outputs


def test_mean_sd_and_median_spread():
    assert helpers.mean_sd([1, 2, 3]) == "2.00 ± 1.00"
    assert helpers.median_spread([5, 1, 2, 3, 4], ".1f") == "3.0 (2.0 to 4.0)"


def test_show_table_formats_and_aligns(shown):
    rows = [
        {"model": "a|b", "n": 12_000, "share": 0.98765},
        {"model": "c", "n": "**-1**"},
    ]
    helpers.show_table(rows, {"share": ".2f"})
    assert shown[0][0].data.split("\n") == [
        "| model | n | share |",
        "| :--- | ---: | ---: |",
        "| a\\|b | 12,000 | 0.99 |",
        "| c | **-1** |  |",
    ]


def test_show_results_holds_the_dict_beside_its_table(shown):
    results = {"accuracy": {"RNN": 0.98765, "GRU": [1, 2.5]}, "data": "full"}
    helpers.show_results(results)
    bundle, options = shown[0]
    assert bundle[helpers.RESULTS_MIME] == results and options == {"raw": True}
    assert "| accuracy, RNN | 0.9877 |" in bundle["text/markdown"]
    assert "| accuracy, GRU | 1, 2.5 |" in bundle["text/markdown"]


def test_styles_keep_their_contrast_and_differ_in_dashes_and_markers():
    def luminance(colour):
        parts = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in to_rgb(colour)
        ]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    styles = list(helpers.STYLE.values())
    assert all(1.05 / (luminance(s["color"]) + 0.05) >= 3 for s in styles)  # WCAG 2.2
    assert len({str(s["linestyle"]) for s in styles}) == len(styles)
    assert len({s["marker"] for s in styles}) == len(styles)


# -------------------------------------------------------------------------- pictures
def test_show_source_of_a_function_and_of_a_file(shown, tmp_path):
    helpers.show_source(helpers.device)
    assert "```python\ndef device():" in shown[0][0].data
    (tmp_path / "code.py").write_text("x = 1\n")
    helpers.show_source(tmp_path / "code.py")
    assert "<code>code.py</code>" in shown[1][0].data
    assert "```python\nx = 1\n```" in shown[1][0].data


def test_show_figure_gives_the_picture_its_text_and_closes_it(shown):
    plt.plot([1, 2])
    helpers.show_figure("a rising line")
    assert shown[0][1] == {"metadata": {"image/png": {"alt": "a rising line"}}}
    assert not plt.get_fignums()


def test_show_images_draws_each_image_once_in_rows(shown):
    helpers.show_images(torch.rand(7, 28, 28), titles=range(7), columns=4)
    axes = shown[0][0].axes
    assert [axis.get_title() for axis in axes] == [str(i) for i in range(7)]
    assert all(len(axis.images) == 1 for axis in axes)
    place = axes[6].get_subplotspec()
    assert (place.rowspan.start, place.colspan.start) == (1, 2)
