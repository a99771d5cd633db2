"""Run notebooks side by side: a process per core, one thread in each, the longest first."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from tqdm import tqdm

from submission.record import record, seconds_taken

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
LOADERS = {  # data set: what the code that loads it says
    "MNIST": re.compile(r"load_mnist|\bMNIST\("),
    "FashionMNIST": re.compile(r"load_fashion_mnist|FashionMNIST\("),
}
ACCELERATOR = re.compile(r"\bdevice\(\)|accelerator|cuda")


class RunError(Exception):
    """A notebook did not run to its end; the message names it, the cell and the line."""


class Task:
    """A notebook to be run in `folder`; `done` of its `total` code cells have been run."""

    def __init__(self, name, notebook, folder):
        self.name, self.notebook = name, notebook
        self.code = [
            cell
            for cell in notebook.cells
            if cell.cell_type == "code" and cell.source.strip()
        ]
        self.total, self.done, self.start = len(self.code), 0, None
        self.source = "\n".join(cell.source for cell in self.code)
        self.client = NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": str(folder)}},
            on_cell_executed=self._count,
        )

    def _count(self, **_):
        self.done += 1

    @property
    def seconds(self):
        """Since it was started."""
        return time.perf_counter() - self.start

    @property
    def expected(self):
        """Seconds that the notebook took when it was last saved; unknown is long."""
        seconds = seconds_taken(self.notebook)
        return float("inf") if seconds is None else seconds

    def run(self, environment):
        """Execute the notebook in place. Raises RunError."""
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            self.client.execute(env=environment, **silent)
        except CellExecutionError as error:
            raise RunError(f"{self.name}: {self._failure()}") from error
        except DeadKernelError as error:
            raise RunError(
                f"{self.name}: its kernel died in code cell {self.done + 1} of "
                f"{self.total}; a likely reason is that memory ran out."
            ) from error
        record(self.notebook, self.seconds)

    def _failure(self):
        """Where and how a cell failed, with the line of the cell that led to it."""
        for number, cell in enumerate(self.code, 1):
            for output in cell.outputs:
                if output.output_type == "error":
                    where = f"code cell {number}"
                    line = re.search(r"Cell.*?line (\d+)", "".join(output.traceback))
                    if line:
                        text = cell.source.split("\n")[int(line[1]) - 1].strip()
                        where += f", line {line[1]} ({text})"
                    return f"{where} ended with {output.ename}: {output.evalue}"
        return "a cell failed."

    def kill(self):
        """End the kernel and the processes that it started, at once."""
        provisioner = getattr(self.client.km, "provisioner", None)
        process = getattr(provisioner, "process", None)
        if process is None:
            return
        if getattr(provisioner, "pgid", None) and hasattr(os, "killpg"):
            with suppress(ProcessLookupError):
                os.killpg(provisioner.pgid, signal.SIGKILL)
        else:
            process.kill()


def run(tasks, jobs=None):
    """Execute the notebooks of `tasks` in place, `jobs` (one per core) at a time.

    Raises RunError as soon as one fails; the kernels of the others are ended then, as they
    are by an interruption.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    jobs = min(jobs or cores, len(tasks))
    code = "\n".join(task.source for task in tasks)
    environment = {
        **os.environ,
        **dict.fromkeys(ONE_THREAD, "1"),
        # for joblib, which the kernels' own loops run on
        "LOKY_MAX_CPU_COUNT": str(max(1, cores // max(1, jobs))),
        **data_environment([n for n, words in LOADERS.items() if words.search(code)]),
    }
    shared = {task for task in tasks if ACCELERATOR.search(task.source)}
    if not (len(shared) > 1 and _has_accelerator()):
        shared = set()
    waiting = sorted(tasks, key=lambda task: task.expected, reverse=True)
    running, display = {}, _Display(tasks)
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        try:
            while waiting or running:
                for task in list(waiting):
                    crowded = task in shared and shared & set(running.values())
                    if len(running) < jobs and not crowded:
                        waiting.remove(task)
                        task.start = time.perf_counter()
                        running[pool.submit(task.run, environment)] = task
                        display.started(task)
                ended, _ = wait(running, 0.5, FIRST_COMPLETED)
                for future in ended:
                    task = running.pop(future)
                    future.result()
                    display.ended(task)
                display.refresh()
        finally:
            while running:  # also those whose kernel is only now being started
                for task in running.values():
                    task.kill()
                for future in wait(running, 0.1).done:
                    del running[future]
            display.close()


def data_environment(names):
    """COURSEWORK_DATA for the kernels: where the sets `names` are, looked up once for all.

    Raises FileNotFoundError when the folder that COURSEWORK_DATA names lacks one of them.
    """
    if not names:
        return {}
    from helpers import (
        DATA,
        data_folder,
    )  # it takes seconds, and not every run needs it

    folders = {data_folder(name) for name in names}
    if len(folders) > 1:  # one was downloaded, the other could not be
        print("The bundled sample is used for all data sets.")
        folders = {DATA / "sample"}
    return {"COURSEWORK_DATA": str(folders.pop())}


def _has_accelerator():
    from helpers import device

    return device().type != "cpu"


# -------------------------------------------------------------------------- progress
class _Display:
    """A bar per running notebook and one for all; in a log, a line for each that ends."""

    def __init__(self, tasks):
        # tqdm shows nothing where there is no terminal, if disable is None
        self.all = tqdm(
            total=len(tasks),
            bar_format="{n_fmt}/{total_fmt} notebooks [{elapsed}]",
            disable=None,
        )
        self.bars = {}
        self.spoke = time.perf_counter()

    def started(self, task):
        self.bars[task] = tqdm(
            total=task.total,
            desc=f"  {task.name}",
            bar_format="{desc}: {n_fmt}/{total_fmt} cells [{elapsed}]",
            leave=False,
            disable=None,
        )

    def ended(self, task):
        self.bars.pop(task).close()
        self.all.update()
        self.say(f"{task.name}: {task.total} cells in {task.seconds:.0f} s")

    def refresh(self):
        for task, bar in self.bars.items():
            bar.n = task.done
            bar.refresh()
        self.all.refresh()
        if self.all.disable and time.perf_counter() - self.spoke > 60:
            self.say(
                "running: "
                + ", ".join(
                    f"{task.name} {task.done}/{task.total} cells, {task.seconds:.0f} s"
                    for task in self.bars
                )
            )

    def say(self, line):
        self.spoke = time.perf_counter()
        tqdm.write(line, file=sys.stderr)

    def close(self):
        for bar in [*self.bars.values(), self.all]:
            bar.close()
