"""helpers: where the data comes from, batches, tables, pictures."""

import functools
import gzip
import hashlib
import re
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import helpers

SAMPLE = helpers.DATA / "sample"
plt.switch_backend("agg")


@pytest.fixture
def copy(tmp_path):
    """A copy of the sample that a test may damage."""
    shutil.copytree(SAMPLE, tmp_path / "copy")
    return tmp_path / "copy"


# ------------------------------------------------------------------------------ data
@pytest.mark.parametrize("load", [helpers.load_mnist, helpers.load_fashion_mnist])
def test_sample_is_balanced_and_in_range(load):
    data = load(SAMPLE)
    assert data.is_sample and helpers.data_used[data.name] == "sample"
    for images, labels, count in [
        (data.train_images, data.train_labels, 4000),
        (data.test_images, data.test_labels, 1000),
    ]:
        assert images.shape == (count, 28, 28) and images.dtype == torch.float32
        assert labels.shape == (count,) and labels.dtype == torch.int64
        assert images.min() == 0 and images.max() == 1
        assert labels.bincount().tolist() == [count // 10] * 10
    train = {image.numpy().tobytes() for image in data.train_images}
    assert not train & {image.numpy().tobytes() for image in data.test_images}


def test_checksums_of_the_sample_are_those_in_the_readme():
    text = (helpers.DATA / "README.md").read_text()
    listed = re.findall(r"^([0-9a-f]{64})  (sample/\S+)$", text, flags=re.MULTILINE)
    assert len(listed) == 8
    for checksum, file in listed:
        content = (helpers.DATA / file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == checksum, file


def test_sixty_thousand_images_are_the_full_set(copy):
    images = copy / "MNIST" / "raw" / "train-images-idx3-ubyte"
    images.write_bytes(bytes(16 + 60_000 * 28 * 28))
    helpers.data_folder("MNIST", copy)
    assert helpers.data_used["MNIST"] == "full"


@pytest.mark.parametrize("given", ["~/copy", " {home}/copy ", '"{home}/copy"', "copy"])
def test_folder_is_understood_as_people_write_it(given, copy, monkeypatch):
    home = copy.parent
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.chdir(home)
    monkeypatch.setenv("COURSEWORK_DATA", given.format(home=home))
    assert helpers.data_folder("MNIST") == copy


def test_relative_folder_also_works_in_a_kernel(monkeypatch):
    """Jupyter starts a kernel in the notebook's folder."""
    monkeypatch.chdir(helpers.BUNDLE / "notebooks" / "ee519_mytorch")
    monkeypatch.setenv("COURSEWORK_DATA", "data/sample")
    assert helpers.data_folder("FashionMNIST") == SAMPLE


def test_root_goes_before_the_environment(copy, monkeypatch):
    monkeypatch.setenv("COURSEWORK_DATA", "nowhere")
    assert helpers.data_folder("MNIST", copy) == copy


@pytest.mark.parametrize("source", ["root", "COURSEWORK_DATA"])
def test_folder_without_the_set_says_what_was_looked_for(source, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSEWORK_DATA", str(tmp_path))
    pattern = rf"{source} is .*no folder FashionMNIST/raw"
    with pytest.raises(FileNotFoundError, match=pattern):
        helpers.load_fashion_mnist(tmp_path if source == "root" else None)


@pytest.mark.parametrize("length", [0, 7, 500])
@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_damaged_file_names_the_folder_to_delete(file, length, copy):
    path = copy / "MNIST" / "raw" / file
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="is damaged .* Delete this folder") as error:
        helpers.load_mnist(copy)
    assert str(copy / "MNIST") in str(error.value)


def test_labels_of_another_set_are_refused(copy):
    raw = copy / "MNIST" / "raw"
    shutil.copy(raw / "t10k-labels-idx1-ubyte", raw / "train-labels-idx1-ubyte")
    with pytest.raises(ValueError, match="1000 labels"):
        helpers.load_mnist(copy)


# -------------------------------------------------------------------------- download
@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A folder that is served over HTTP; an empty data/ downloads the sample from it."""
    folder, data = tmp_path / "mirror", tmp_path / "data"
    folder.mkdir()
    shutil.copytree(SAMPLE, data / "sample")
    monkeypatch.delenv("COURSEWORK_DATA", raising=False)
    monkeypatch.setattr(helpers, "DATA", data)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        resources = []
        for path in sorted((SAMPLE / "MNIST" / "raw").iterdir()):
            packed = gzip.compress(path.read_bytes(), 1)
            (folder / f"{path.name}.gz").write_bytes(packed)
            resources.append((f"{path.name}.gz", hashlib.md5(packed).hexdigest()))
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(helpers.datasets.MNIST, "mirrors", [address])
        monkeypatch.setattr(helpers.datasets.MNIST, "resources", resources)
        yield folder
        server.shutdown()


def test_download_is_kept(mirror, capsys):
    assert helpers.data_folder("MNIST") == helpers.DATA
    shutil.rmtree(mirror)
    assert len(helpers.load_mnist().train_images) == 4000
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [None, b"a page to log in"])
def test_failed_download_gives_the_sample_one_line_and_leaves_nothing(
    content, mirror, capsys
):
    file = mirror / "train-images-idx3-ubyte.gz"  # the last one
    file.unlink() if content is None else file.write_bytes(content)
    assert helpers.load_mnist().is_sample
    assert [path.name for path in helpers.DATA.iterdir()] == ["sample"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith("MNIST could not be downloaded: a trial run")


# ------------------------------------------------------------ batches, seeds, device
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


def test_device_is_one_that_can_be_used(monkeypatch):
    assert torch.zeros(1, device=helpers.device()).sum() == 0

    def cuda_build_without_a_driver(check_available=False):
        return None if check_available else torch.device("cuda")

    monkeypatch.setattr(
        torch.accelerator, "current_accelerator", cuda_build_without_a_driver
    )
    assert helpers.device() == torch.device("cpu")


# ---------------------------------------------------------------- tables and pictures
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
        {"model": "a|b", "n": 12_000, "share": 0.98765, "error": -4.5e-7},
        {"model": "c", "n": "**-1**"},
    ]
    helpers.show_table(rows, {"share": ".2f"})
    assert shown[0][0].data.split("\n") == [
        "| model | n | share | error |",
        "| :--- | ---: | ---: | ---: |",
        "| a\\|b | 12,000 | 0.99 | −4.5 · 10⁻⁷ |",
        "| c | **-1** |  |  |",
    ]


def test_show_results_holds_the_dict_beside_its_table(shown):
    results = {"accuracy": {"RNN": 0.98765, "GRU": [1, 2.5]}, "data": "full"}
    helpers.show_results(results)
    bundle, options = shown[0]
    assert bundle[helpers.RESULTS_MIME] == results and options == {"raw": True}
    assert "| accuracy, RNN | 0.9877 |" in bundle["text/markdown"]
    assert "| accuracy, GRU | 1, 2.5 |" in bundle["text/markdown"]


def test_show_source_of_a_function_and_of_a_file(shown, tmp_path):
    helpers.show_source(helpers.device)
    assert "```python\ndef device():" in shown[0][0].data
    (tmp_path / "code.py").write_text("x = 1\n")
    helpers.show_source(tmp_path / "code.py")
    assert "<code>code.py</code>" in shown[1][0].data
    assert "```python\nx = 1\n```" in shown[1][0].data


def test_show_images_draws_each_image_once_in_rows(shown):
    helpers.show_images(torch.rand(7, 28, 28), range(7), columns=4, alt="seven digits")
    figure, options = shown[0]
    assert [axis.get_title() for axis in figure.axes] == [str(i) for i in range(7)]
    place = figure.axes[6].get_subplotspec()
    assert (place.rowspan.start, place.colspan.start) == (1, 2)
    assert options == {"metadata": {"image/png": {"alt": "seven digits"}}}
    assert not plt.get_fignums()
