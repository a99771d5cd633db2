"""programs.py: settings and their flags, devices, output paths, checkpoints."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import programs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from programs import Settings, setting


@dataclass(frozen=True)
class Config(Settings):
    count: int = setting(3, "how many, 100 % of them", least=1)
    rate: float = setting(0.5, "how fast", above=0)
    design: str = setting("plain", "which", choices=("plain", "odd"))
    limit: float = setting(None, "where to stop", least=0)
    device: str = setting("cpu", "where", check=programs.usable_device)


# ---------------------------------------------------------------------------- settings
def parse(*arguments, **options):
    parser = argparse.ArgumentParser()
    programs.add_flags(parser, Config, **options)
    return parser, parser.parse_args(arguments)


def test_flags_make_settings():
    assert programs.settings_from(*[parse()[0], Config, parse()[1]]) == Config()
    parser, arguments = parse("--count", "5", "--rate", "2", "--limit", "0.25")
    config = programs.settings_from(parser, Config, arguments)
    assert config == Config(count=5, rate=2.0, limit=0.25)
    text = " ".join(parser.format_help().split())
    assert "how many, 100 % of them (default: 3)" in text
    assert "which: plain, odd (default: plain)" in text and "where to stop -" in text


def test_flags_of_several_values():
    _, arguments = parse("--count", "5", "6", several=True)
    assert arguments.count == [5, 6] and arguments.rate == [0.5]


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"count": 0}, ValueError, "count must be at least 1, got 0"),
        ({"count": 2.0}, TypeError, "count must be of type int, got 2.0"),
        ({"count": True}, TypeError, "count must be of type int, got True"),
        ({"count": None}, TypeError, "count must be of type int, got None"),
        ({"rate": 0}, ValueError, "rate must be above 0, got 0"),
        ({"rate": float("nan")}, ValueError, "rate must be finite, got nan"),
        ({"limit": -1.0}, ValueError, "limit must be at least 0, got -1.0"),
        ({"design": "big"}, ValueError, "design must be one of plain, odd, got 'big'"),
        ({"device": "abacus"}, ValueError, "device must be .* got 'abacus'"),
        ({"device": "cuda:99"}, ValueError, "device must be .* got 'cuda:99'"),
        ({"device": "meta"}, ValueError, "device must be .* got 'meta'"),
        ({"device": "hpu"}, ValueError, "device must be .* got 'hpu'"),
    ],
)
def test_bad_settings_are_refused(arguments, error, message, capsys):
    with pytest.raises(error, match=message):
        Config(**arguments)
    parser, parsed = parse()
    vars(parsed).update(arguments)
    with pytest.raises(SystemExit):
        programs.settings_from(parser, Config, parsed)
    assert "must be" in capsys.readouterr().err


def test_sizes_that_memory_cannot_hold_are_refused():
    programs.check_memory(2**20, "cpu")
    if hasattr(os, "sysconf"):
        with pytest.raises(ValueError, match="need about 1.05e.06 GiB .* cpu has"):
            programs.check_memory(2**50, "cpu")


# ----------------------------------------------------------------------------- threads
def test_threads_are_restored_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), programs.threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before


# ------------------------------------------------------------------------------- paths
def test_an_output_file_may_be_new_old_or_linked(tmp_path):
    assert programs.output_file(str(tmp_path / "new")) == (tmp_path / "new").resolve()
    (tmp_path / "old").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "old")
    path = programs.output_file(str(tmp_path / "link"))
    assert (tmp_path / "old").read_text() == "kept"
    programs.write_file(path, b"written")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "old").read_bytes() == b"written"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "old"]


@pytest.mark.parametrize("kind", ["folder", "no parent", "long", "loop", "fifo", "nul"])
def test_an_output_file_that_cannot_be_written_is_refused(kind, tmp_path):
    path = tmp_path / {"no parent": "a/b", "long": "x" * 300}.get(kind, kind)
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "fifo":
        os.mkfifo(path)
    text = f"{path}\0" if kind == "nul" else str(path)
    before = list(tmp_path.iterdir())
    with pytest.raises(argparse.ArgumentTypeError, match="must be a file that can"):
        programs.output_file(text)
    assert list(tmp_path.iterdir()) == before


def test_an_output_folder_is_made_or_refused(tmp_path):
    assert programs.output_folder(str(tmp_path / "a" / "b")).is_dir()
    (tmp_path / "file").touch()
    for name in ("file", "file/below", "x" * 300):
        with pytest.raises(argparse.ArgumentTypeError, match="must be a folder that"):
            programs.output_folder(str(tmp_path / name))


# ------------------------------------------------------------------------- checkpoints
def test_a_checkpoint_is_whole_or_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    programs.save_checkpoint(path, Config(), {"weight": torch.arange(3.0)})

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "fsync", interrupted)
        programs.save_checkpoint(path, Config(), {"weight": torch.zeros(3)})
    state = programs.load_checkpoint(path, Config())
    assert torch.equal(state["weight"], torch.arange(3.0))


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    path = tmp_path / "state.pt"
    programs.save_checkpoint(path, Config(count=1, rate=2.0), {"step": 1})
    with pytest.raises(
        ValueError, match="of another run: count 1 there, 3 here; rate 2.0 there"
    ):
        programs.load_checkpoint(path, Config())
    state = programs.load_checkpoint(path, Config(), may_differ=("count", "rate"))
    assert state == {"step": 1}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "state.pt"
    programs.save_checkpoint(path, Config(), {"weight": torch.randn(50, 50)})
    return path, path.read_bytes()


@given(data=st.data(), cut=st.booleans())
def test_a_damaged_checkpoint_is_refused(data, cut, checkpoint):
    path, content = checkpoint
    place = data.draw(st.integers(0, len(content) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    rest = b"" if cut else bytes([content[place] ^ bit]) + content[place + 1 :]
    path.write_bytes(content[:place] + rest)
    with pytest.raises(ValueError, match="state.pt is damaged, or not a checkpoint"):
        programs.load_checkpoint(path, Config())


def test_what_is_no_checkpoint_is_refused(tmp_path):
    torch.save({"step": 1}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="damaged, or not a checkpoint"):
        programs.load_checkpoint(tmp_path / "state.pt", Config())
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        programs.load_checkpoint(Path(tmp_path / "none"), Config())
