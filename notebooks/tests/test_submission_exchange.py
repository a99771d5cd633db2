"""submission.exchange: the old submission or the new one, wherever a build is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from submission import exchange

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills processes by SIGKILL")
STEPS = {"os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "ctypes.dlsym"}
STEPS |= {"os.chmod", "open"}
COURSES = ("a", "b", "c")
NEW = {f"{course}/{file}": "new" for course in COURSES for file in "xyz"}
OLD = {f"{course}/{file}": "old" for course in COURSES for file in "wxy"}
OTHER = {"b/mine/notes.txt": "mine"}


def write(folder, files):
    for name, text in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def read(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in Path(folder).rglob("*")
        if path.is_file() and exchange.PREFIX not in str(path.relative_to(folder))
    }


def build(output, files=None):
    with exchange.workspace(output) as new:
        write(new, files or NEW)
        exchange.hand_over(new, output)


def killed(output, step):
    """Build in a process that is killed before its step number `step`; False if it ends."""
    child = os.fork()
    if child == 0:
        count = 0

        def hook(event, _):
            nonlocal count
            if event in STEPS and (count := count + 1) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            with exchange.workspace(output) as new:
                write(new, NEW)
                sys.addaudithook(hook)
                exchange.hand_over(new, output)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFSIGNALED(status)


AFTER = {
    **OLD,
    **OTHER,
    **NEW,
}  # files that the new submission has not stay as they are
BEFORE = {**OLD, **OTHER}


@pytest.mark.parametrize("one_call", [True, False])
def test_a_build_killed_at_any_step_leaves_the_old_or_the_new(
    one_call, tmp_path, monkeypatch
):
    if not one_call:  # as on a system without a call that exchanges two folders
        monkeypatch.setattr(exchange, "_rename_exchange", lambda *_: False)
    seen, step = set(), 0
    while True:
        step += 1
        output = tmp_path / str(step) / "submissions"
        write(output, BEFORE)
        if not killed(output, step):
            break
        found = read(output)
        assert found in (BEFORE, AFTER) or not one_call and found == {}, step
        with exchange.workspace(output):  # the next build, of whatever
            found = read(output)
            assert found in (BEFORE, AFTER), step
            left = [p for p in output.parent.glob(".*") if any(p.iterdir())]
            assert len(left) == 1  # this build's, and no file of the killed one
        seen.add(found == AFTER)
    assert read(output) == AFTER
    assert seen == {True, False} and step > 20


def test_courses_are_whole_where_the_output_folder_cannot_be_swapped(tmp_path):
    step = 0
    while True:
        step += 1
        output = tmp_path / str(step) / "submissions"
        write(output, {**BEFORE, "else.txt": "mine"})  # so it is not ours alone
        if not killed(output, step):
            break
        found = read(output)
        assert found.pop("else.txt") == "mine"
        for course in COURSES:
            mine = {n: t for n, t in found.items() if n.startswith(course)}
            wanted = [
                {n: t for n, t in whole.items() if n.startswith(course)}
                for whole in (BEFORE, AFTER)
            ]
            assert mine in wanted, (step, course)
    assert read(output) == {**AFTER, "else.txt": "mine"}


def test_a_failure_in_the_middle_takes_back_what_was_done(tmp_path, monkeypatch):
    output = tmp_path / "submissions"
    write(output, {**BEFORE, "else.txt": "mine"})
    swap, calls = exchange._swap, []

    def fail_at_the_third(new, old):
        calls.append(old)
        if len(calls) == 3:
            raise OSError("no space left")
        swap(new, old)

    monkeypatch.setattr(exchange, "_swap", fail_at_the_third)
    with pytest.raises(OSError, match="no space left"):
        build(output)
    assert read(output) == {**BEFORE, "else.txt": "mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["submissions"]


def test_the_folder_that_someone_stands_in_stays_the_same(tmp_path, monkeypatch):
    output = tmp_path / "submissions"
    write(output, BEFORE)
    monkeypatch.chdir(output)
    build(output)
    assert read(Path.cwd()) == AFTER and not list(output.glob(".*"))


def test_two_builds_at_once_do_not_disturb_each_other(tmp_path):
    output = tmp_path / "submissions"
    with exchange.workspace(output) as first:
        write(first, {"a/x": "first"})
        build(output, {"b/x": "second"})
        exchange.hand_over(first, output)
    assert read(output) == {"a/x": "first", "b/x": "second"}


def test_a_workspace_is_removed_only_when_its_build_is_gone(tmp_path):
    output = tmp_path / "submissions"
    program = (
        "import sys, pathlib; from submission import exchange\n"
        f"with exchange.workspace(pathlib.Path({str(output)!r})):\n"
        "    print('in', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    other.stdout.readline()
    build(output)
    (left,) = tmp_path.glob(".submission-*")
    other.kill()
    other.communicate()
    assert left.exists()
    build(output)
    assert [path.name for path in tmp_path.iterdir()] == ["submissions"]


def test_what_is_in_the_way_is_refused_and_stays(tmp_path):
    output = tmp_path / "submissions"
    write(output, {"a/x/inside": "old", "b/x": "old"})  # a folder where a file is to be
    with pytest.raises(FileExistsError, match="in the way"):
        build(output)
    assert read(output) == {"a/x/inside": "old", "b/x": "old"}


@pytest.mark.parametrize("make", [lambda p: p.symlink_to("nowhere"), Path.touch])
def test_a_dangling_link_or_a_file_in_the_place_of_a_folder_is_named(make, tmp_path):
    output = tmp_path / "submissions"
    output.mkdir()
    make(output / "a")
    (found,) = exchange.problems(output, COURSES)
    assert str(output / "a") in found and "in the way" in found
    make(tmp_path / "file")
    assert exchange.problems(tmp_path / "file" / "below", COURSES)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_read_only_folder_is_named_before_any_work(tmp_path):
    output = tmp_path / "submissions"
    write(output, BEFORE)
    (output / "b").chmod(0o500)
    (found,) = exchange.problems(output, COURSES)
    assert "read-only" in found and str(output / "b") in found
    (output / "b").chmod(0o700)
