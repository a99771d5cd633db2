"""programs.py: devices that cannot be used, checkpoints that are damaged."""

from pathlib import Path

import programs
import pytest
import torch


@pytest.mark.parametrize("name", ["cpu", torch.device("cpu")])
def test_a_device_that_can_be_used(name):
    assert programs.usable_device(name) == torch.device("cpu")


@pytest.mark.parametrize("name", ["abacus", "cuda:99", "meta"])
def test_a_device_that_cannot_be_used_is_refused(name):
    with pytest.raises(ValueError, match=f"device must be .* got '{name}'"):
        programs.usable_device(name)


def test_a_checkpoint_is_whole_or_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    programs.save_checkpoint({"step": 1, "weight": torch.arange(3.0)}, path)

    def interrupted(state, file):
        Path(file).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch, "save", interrupted)
        programs.save_checkpoint({"step": 2}, path)
    state = programs.load_checkpoint(path, ("step", "weight"))
    assert state["step"] == 1 and torch.equal(state["weight"], torch.arange(3.0))


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "other keys", "no dict"])
def test_a_damaged_checkpoint_is_refused(damage, tmp_path):
    path = tmp_path / "state.pt"
    content = {"other keys": {"a": 1}, "no dict": [1, 2]}.get(damage, {"step": 1})
    torch.save(content, path)
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "text":
        path.write_text("not a checkpoint")
    with pytest.raises(
        ValueError, match="state.pt is not a checkpoint of this program"
    ):
        programs.load_checkpoint(path, ("step",))
