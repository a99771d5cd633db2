"""Run notebooks side by side: a process for each, one thread in each, the longest first."""

import atexit
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from copy import deepcopy

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from tqdm import tqdm

from submission.notebooks import code_cells, read_notebook, record_of, record_run

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# run after a notebook's last cell: the modules of its folder that it used, and the data
WHAT_WAS_USED = """
import json, pathlib, sys
folder = pathlib.Path({folder!r})
modules = [vars(module) for module in [*sys.modules.values()] if hasattr(module, "__dict__")]
paths = [pathlib.Path(module["__file__"]) for module in modules if module.get("__file__")]
names = {{p.relative_to(folder).as_posix() for p in paths if p.is_relative_to(folder)}}
data = getattr(sys.modules.get("helpers"), "data_used", {{}})
print()
print(json.dumps([sorted(names), [*data.values()]]))
"""


class RunError(RuntimeError):
    """A notebook did not run to its end; the message names it, the cell and the line."""


class Run:
    """The run of a notebook (`declared` in courses.py) in `folder`, where it is replaced."""

    def __init__(self, folder, declared):
        self.folder, self.declared = folder.resolve(), declared
        self.path = self.folder / declared.name
        self.notebook = read_notebook(self.path)
        self.start = None
        self.client = NotebookClient(
            self.notebook,
            timeout=None,
            startup_timeout=600,  # a busy machine may be slow
            iopub_timeout=600,
            kernel_name="python3",
            record_timing=False,
            store_widget_state=False,
            resources={"metadata": {"path": str(folder)}},
        )

    @property
    def expected(self):
        """Seconds of the last recorded run; without one the longest."""
        return record_of(self.notebook).get("seconds", float("inf"))

    def tables(self):
        """The relative paths of the saved files that the notebook reads."""
        found = [
            p for pattern in self.declared.tables for p in self.folder.glob(pattern)
        ]
        return [path.relative_to(self.folder).as_posix() for path in found]

    def execute(self, environment):
        """Run all cells, record what they used, write the notebook; the seconds it took.

        Raises RunError when a cell fails.
        """
        self.start = time.perf_counter()
        metadata = deepcopy(self.notebook.metadata)
        modules, data = self._execute(environment)
        seconds = time.perf_counter() - self.start
        CoalesceStreamsPreprocessor().preprocess(self.notebook, {})
        self.notebook.metadata = metadata  # not what differs between versions of Python
        data = next((kind for kind in ("sample", "full") if kind in data), "none")
        files = modules + self.tables()
        record_run(self.notebook, self.folder, files, data, seconds)
        nbformat.write(self.notebook, self.path)
        return seconds

    def _execute(self, environment):
        """Run the cells, and one that tells what they imported and on which data they ran."""
        last = nbformat.v4.new_code_cell(WHAT_WAS_USED.format(folder=str(self.folder)))
        self.notebook.cells.append(last)
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            self.client.execute(env=environment, **silent)
        except CellExecutionError as error:
            raise RunError(f"{self.path.name}: {self._failure(error)}") from error
        except DeadKernelError as error:
            raise RunError(
                f"{self.path.name}: the kernel died; a likely reason is too little memory."
            ) from error
        finally:
            self.notebook.cells.remove(last)
        text = "".join(output.get("text", "") for output in last.outputs)
        return json.loads(text.strip().splitlines()[-1])

    def _failure(self, error):
        """Which cell failed and how, with the line of the cell that led to it."""
        cells = enumerate(code_cells(self.notebook), 1)
        failed = [(n, c) for n, c in cells if any("ename" in out for out in c.outputs)]
        number, cell = failed[0]
        where = f"code cell {number}"
        if line := re.search(r"Cell.*?line (\d+)", error.traceback):
            text = cell.source.split("\n")[int(line[1]) - 1].strip()
            where += f", line {line[1]} ({text})"
        return f"{where} ended with {error.ename}: {error.evalue}"

    def kill(self):
        """End the kernel and the processes that it started, at once."""
        provisioner = getattr(self.client.km, "provisioner", None)
        process = getattr(provisioner, "process", None)
        if process is None:
            return
        atexit.unregister(self.client._cleanup_kernel)  # nothing is left for it to do
        if provisioner.pgid and hasattr(os, "killpg"):
            with suppress(ProcessLookupError):
                os.killpg(provisioner.pgid, signal.SIGKILL)
        else:
            process.kill()


def find_data(sets):
    """Find the sets of images, or download them, once for all runs.

    Returns variables for their environment, and "full", "sample" or "none" of the data.
    """
    if not sets:
        return {}, "none"
    import helpers  # PyTorch takes seconds to import, and not every run needs it

    folders = {}
    for name in sorted(sets):
        folder = helpers.data_folder(name)
        folders[helpers.data_used[name]] = folder.resolve()
    data = "sample" if "sample" in folders else "full"
    return {"COURSEWORK_DATA": str(folders[data])}, data


def run(runs, jobs=None, environment=None):
    """Execute `runs`, `jobs` (one per core) at a time, with variables for the environment.

    Raises RunError as soon as one fails. Then, and after an interruption, no kernel is left.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    jobs = min(jobs or cores, len(runs))
    environment = {
        **os.environ,
        **dict.fromkeys(ONE_THREAD, "1"),
        "LOKY_MAX_CPU_COUNT": str(max(1, cores // jobs)),  # for joblib in the notebooks
        **(environment or {}),
    }
    spoke, form = (
        time.perf_counter(),
        "{n_fmt}/{total_fmt} notebooks [{elapsed}]{postfix}",
    )
    bar = tqdm(total=len(runs), bar_format=form, disable=None)  # only in a terminal
    pool = ThreadPoolExecutor(jobs)
    longest_first = sorted(runs, key=lambda run: run.expected, reverse=True)
    pending = {pool.submit(run.execute, environment): run for run in longest_first}
    try:
        while pending:
            for future in wait(pending, 0.5, FIRST_COMPLETED).done:
                run = pending.pop(future)
                seconds = future.result()
                bar.update()
                tqdm.write(f"ran {run.path.name} in {seconds:.0f} s", sys.stderr)
            names = ", ".join(run.path.stem for run in pending.values() if run.start)
            bar.set_postfix_str(names)
            if bar.disable and time.perf_counter() - spoke > 60:  # in a log
                spoke = time.perf_counter()
                print(
                    f"{bar.n}/{len(runs)} notebooks, running {names}", file=sys.stderr
                )
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        while not all(future.done() for future in pending):
            for run in pending.values():  # some of their kernels are only being started
                run.kill()
            time.sleep(0.1)
        bar.close()
