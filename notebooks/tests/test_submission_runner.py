"""submission.runner: side by side, one thread each, and all kernels end with the run."""

import os
import re
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from submission import record, runner

v4 = nbformat.v4


def task(name, *sources, seconds=None, folder="."):
    notebook = v4.new_notebook(cells=[v4.new_code_cell(source) for source in sources])
    if seconds is not None:
        notebook.metadata[record.KEY] = {"seconds": seconds}
    return runner.Task(name, notebook, folder)


def printed(task):
    """What the notebook's cells printed."""
    outputs = [o for cell in task.notebook.cells for o in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


SPAN = "import time\na = time.time()\ntime.sleep(1.5)\nprint(a, time.time())"


def test_notebooks_run_side_by_side_and_the_longest_first():
    tasks = [task(f"{s}", SPAN, seconds=s) for s in (1, 3, 2)]
    runner.run(tasks, jobs=2)
    (start_1, _), (start_3, end_3), (start_2, end_2) = [
        map(float, printed(t).split()) for t in tasks
    ]
    assert max(start_3, start_2) < min(end_3, end_2) <= start_1


def test_a_notebook_that_was_never_timed_counts_as_long(capsys):
    runner.run([task("short", "1", seconds=5), task("new", "1")], jobs=1)
    order = re.findall(r"(\w+): 1 cells", capsys.readouterr().err)
    assert order == ["new", "short"]


def test_notebooks_that_share_an_accelerator_take_turns(monkeypatch):
    monkeypatch.setattr(runner, "_has_accelerator", lambda: True)
    tasks = [task(name, SPAN + "  # device()") for name in "ab"]
    tasks.append(task("c", SPAN))
    runner.run(tasks, jobs=3)
    (start_a, end_a), (start_b, end_b), (start_c, _) = [
        map(float, printed(t).split()) for t in tasks
    ]
    assert end_a <= start_b or end_b <= start_a
    assert start_c < max(start_a, start_b)  # which no other notebook waits for


def test_kernels_have_one_thread_and_the_cores_that_are_left(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    show = (
        "import os, torch, joblib\nprint(torch.get_num_threads(), joblib.cpu_count())"
    )
    tasks = [task("a", show), task("b", show)]
    monkeypatch.delenv("LOKY_MAX_CPU_COUNT", raising=False)
    runner.run(tasks, jobs=2)
    cores = min(2, os.cpu_count() // 2 or 1)
    assert [printed(t).split()[0] for t in tasks] == ["1", "1"]
    assert all(int(printed(t).split()[1]) <= cores for t in tasks)


def test_the_data_is_looked_for_once(monkeypatch):
    import helpers

    asked = []

    def data_folder(name):
        asked.append(name)
        return helpers.DATA / "sample"

    monkeypatch.setattr(helpers, "data_folder", data_folder)
    show = "# helpers.load_mnist()\nimport os; print(os.environ['COURSEWORK_DATA'])"
    tasks = [task(name, show) for name in "ab"]
    runner.run(tasks)
    assert asked == ["MNIST"]
    assert all(printed(t).strip() == str(helpers.DATA / "sample") for t in tasks)


@pytest.mark.parametrize(
    "sources, words",
    [
        (
            ["x = 1", "def f():\n    1 / 0\n\nf()"],
            "cell 2, line 4 (f()) ended with Zero",
        ),
        (["x = 1\ny = = 2"], "cell 1, line 2 (y = = 2) ended with SyntaxError"),
        (["import os", "os._exit(3)"], "its kernel died in code cell 2 of 2"),
    ],
)
def test_a_failure_ends_the_others_and_is_named(sources, words):
    slow = task("slow", "import time", "time.sleep(600)")
    start = time.perf_counter()
    with pytest.raises(runner.RunError) as stop:
        runner.run([slow, task("bad.ipynb", *sources)], jobs=2)
    assert "bad.ipynb: " in str(stop.value) and words in str(stop.value)
    assert time.perf_counter() - start < 60


PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a script's background
import nbformat
from submission import record, runner
source = '''
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, os.getpid(), flush=True, file=open({path!r}, "a"))
time.sleep(600)
'''
cells = [nbformat.v4.new_code_cell(source)]
new = nbformat.v4.new_notebook
runner.run([runner.Task(n, new(cells=cells), ".") for n in "ab"], 2)
"""


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interruption_ends_every_kernel(number, tmp_path):
    path = tmp_path / "pids"
    program = PROGRAM.replace("{path!r}", repr(str(path)))
    process = subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.DEVNULL
    )
    deadline = time.time() + 120
    while not path.exists() or len(path.read_text().split()) < 4:
        assert time.time() < deadline
        time.sleep(0.1)
    pids = path.read_text().split()
    process.send_signal(number)
    process.wait(30)
    # kernels whose runner was killed notice it within seconds; only they can
    mine = pids if number == signal.SIGINT else pids[1::2]
    deadline = time.time() + (2 if number == signal.SIGINT else 30)
    while any(map(alive, mine)):
        assert time.time() < deadline
        time.sleep(0.1)


def test_code_that_changed_after_the_run_is_noticed():
    tasks = [task("a", "print(1)")]
    runner.run(tasks)
    notebook = tasks[0].notebook
    assert not record.changed_since_run(notebook)
    notebook.cells[0].source = "print(2)"
    assert record.changed_since_run(notebook)
    notebook.cells[0].outputs[0].text = "2\n"  # run anew, by Jupyter
    assert not record.changed_since_run(notebook)
