"""submission.runner: side by side, recorded, and all kernels end with the run."""

import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from submission import courses, runner
from submission.notebooks import RECORD, record_of

import helpers

v4 = nbformat.v4


def a_run(folder, name, *sources, seconds=None, **declared):
    """A `Run` of a new notebook with these code cells."""
    notebook = v4.new_notebook(cells=[v4.new_code_cell(source) for source in sources])
    if seconds is not None:
        notebook.metadata[RECORD] = {"seconds": seconds}
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return runner.Run(folder, courses.Notebook(f"{name}.ipynb", **declared))


def printed(run):
    """What the notebook's cells printed."""
    notebook = nbformat.read(run.path, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    return "".join(output.get("text", "") for output in outputs)


SPAN = "import time\na = time.time()\ntime.sleep(1.5)\nprint(a, time.time())"


def test_notebooks_run_side_by_side_and_the_longest_first(tmp_path):
    runs = [a_run(tmp_path, f"n{s}", SPAN, seconds=s) for s in (1, 3)]
    runs.append(a_run(tmp_path, "unknown", SPAN))  # counts as long
    runner.run(runs, jobs=2)
    spans = [map(float, printed(run).split()) for run in runs]
    (start_1, _), (start_3, end_3), (start_new, end_new) = spans
    assert max(start_3, start_new) < min(end_3, end_new) <= start_1


def test_a_kernel_has_one_thread_and_joblib_the_cores_that_are_left(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    show = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['LOKY_MAX_CPU_COUNT'])"
    runs = [a_run(tmp_path, name, show) for name in "ab"]
    runner.run(runs)
    assert [printed(run) for run in runs] == ["1 4\n", "1 4\n"]


@pytest.mark.parametrize(
    "sources, words",
    [
        (
            ["x = 1", "def f():\n    1 / 0\n\nf()"],
            "bad.ipynb: code cell 2, line 4 (f()) ended with ZeroDivisionError",
        ),
        (["y = = 2"], "bad.ipynb: code cell 1, line 1 (y = = 2) ended with Syntax"),
        (["import os", "os._exit(3)"], "bad.ipynb: the kernel died"),
    ],
)
def test_a_failure_is_named_and_ends_the_others(sources, words, tmp_path):
    slow = a_run(tmp_path, "slow", "import time", "time.sleep(600)")
    before = slow.path.read_bytes()
    waiting = a_run(tmp_path, "waiting", "1", seconds=1)
    with pytest.raises(runner.RunError) as stop:
        runner.run([slow, a_run(tmp_path, "bad", *sources), waiting], jobs=2)
    assert words in str(stop.value)
    assert slow.path.read_bytes() == before


def test_a_run_records_what_it_used_and_repeats_to_the_byte(tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "a.csv").write_text("1")
    (tmp_path / "mine.py").write_text("x = 1")
    (tmp_path / "unused.py").write_text("x = 1")
    (tmp_path / "helpers.py").write_text("data_used = {'MNIST': 'sample'}")
    sources = (
        "import helpers, mine, time",
        "for i in range(3):\n    print(i, flush=True)\n    time.sleep(0.3)",
    )
    run = a_run(tmp_path, "n", *sources, tables=("saved/*",))
    runner.run([run])
    record = record_of(nbformat.read(run.path, as_version=4))
    assert record["data"] == "sample" and record["seconds"] >= 0
    assert set(record["files"]) == {"helpers.py", "mine.py", "saved/a.csv"}
    assert printed(run) == "0\n1\n2\n"
    notebook = nbformat.read(run.path, as_version=4)
    assert len(notebook.cells) == 2 and len(notebook.cells[1].outputs) == 1

    notebook.metadata[RECORD].update(date="2020-01-01", seconds=1000)
    nbformat.write(notebook, run.path)
    before = run.path.read_bytes()
    runner.run([runner.Run(tmp_path, run.declared)])
    assert run.path.read_bytes() == before


def test_data_is_found_once_and_from_the_current_folder(monkeypatch):
    assert runner.find_data(set()) == ({}, "none")
    monkeypatch.chdir(courses.ROOT / "notebooks")
    monkeypatch.setenv("COURSEWORK_DATA", "../data/sample")
    folder = str((helpers.DATA / "sample").resolve())
    assert runner.find_data({"MNIST"}) == ({"COURSEWORK_DATA": folder}, "sample")


PROGRAM = """
import pathlib, signal, sys
from submission import __main__ as command, courses
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
signal.signal(signal.SIGTERM, signal.default_int_handler)
courses.ROOT = pathlib.Path(sys.argv[1])
notebooks = courses.Notebook("a.ipynb"), courses.Notebook("b.ipynb")
courses.COURSES["tdl211"] = courses.Course("course", (), notebooks, {"a.py": "a.py"})
sys.exit(command.main(["tdl211", "--execute", "--save", "--output", sys.argv[2]]))
"""
CELL = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, os.getpid(), flush=True, file=open({path!r}, "a"))
time.sleep(600)
"""


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_no_kernel_and_everything_as_it_was(number, tmp_path):
    folder, output = tmp_path / "notebooks" / "course", tmp_path / "output"
    pids, temporary = tmp_path / "pids", tmp_path / "temporary"
    for path in (folder, output / "tdl211", temporary):
        path.mkdir(parents=True)
    (folder / "a.py").write_text("new = 1")
    (output / "tdl211" / "a.py").write_text("old = 1")
    for name in "ab":
        a_run(folder, name, CELL.format(path=str(pids)))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(output)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    deadline = time.time() + 240
    while not pids.exists() or len(pids.read_text().split()) < 4:
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors, errors
    time.sleep(0.5)
    assert not [pid for pid in pids.read_text().split() if alive(pid)]
    assert not list(temporary.glob("submission-*"))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert (output / "tdl211" / "a.py").read_text() == "old = 1"
    assert len(list(output.rglob("*"))) == 2
