"""python -m submission: build what a course wants handed in."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from tqdm import tqdm

from submission.courses import COURSES, ROOT, Student, problems
from submission.printer import PrintError, read_notebook


class BuildError(Exception):
    """Nothing was handed over; the message says why."""


def main(arguments=None):
    """Run the command; returns the exit status."""
    options = _parser().parse_args(arguments)
    names = list(COURSES) if options.course == "all" else [options.course]
    try:
        student = Student(options.first_name, options.last_name, options.student_number)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, *_: print(message, file=sys.stderr)
            build(names, student, Path(options.output), options.execute)
    except (BuildError, PrintError, ValueError, OSError) as error:
        print(f"submission: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("submission: interrupted; no file is half written.", file=sys.stderr)
        return 130
    return 0


def _parser():
    parser = argparse.ArgumentParser(prog="python -m submission", description=__doc__)
    parser.add_argument(
        "course", choices=[*COURSES, "all"], help="whose files to build"
    )
    parser.add_argument("--first-name", default="", help="as the course displays it")
    parser.add_argument("--last-name", default="", help="as the course displays it")
    parser.add_argument("--student-number", default="", help="wanted by cs324")
    parser.add_argument(
        "--output",
        default=ROOT / "submissions",
        help="the folder to write to, a folder per course in it (default: %(default)s)",
    )
    parser.add_argument(
        "--execute",
        action="store_true",
        help="run the notebooks first, on copies (default: print the saved outputs)",
    )
    return parser


def build(names, student, output, execute=False):
    """Build the files of the courses in `names` in `output`, all of them or none.

    Raises BuildError when the notebooks, the student's data or the folder do not allow it.
    """
    start = time.perf_counter()
    _check(names, student, output, execute)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=output) as aside:
        aside = Path(aside)
        finished = []
        for name in names:
            course = COURSES[name]
            folder = _executed(course, aside / "run") if execute else course.path
            for file, content in course.build(folder, student):
                path = aside / name / file
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
                finished.append(path.relative_to(aside))
                print(f"made {finished[-1]}", flush=True)
        for path in finished:
            target = output / path
            if target.is_dir() or target.parent.exists() and not target.parent.is_dir():
                raise BuildError(f"nothing was written: {target} is in the way.")
        for path in finished:
            (output / path).parent.mkdir(exist_ok=True)
            os.replace(aside / path, output / path)
    print(f"\nIn {output}:")
    for path in finished:
        print(f"  {(output / path).stat().st_size / 1000:8,.0f} kB  {path}")
    print(f"{len(finished)} files in {time.perf_counter() - start:.1f} s")


def _check(names, student, output, execute):
    """Raise BuildError with all that is wrong, before anything is written."""
    found = []
    if output.exists() and not output.is_dir():
        found.append(f"--output {output} is not a folder.")
    for name in names:
        course = COURSES[name]
        found += [
            f"{name} wants --{field.replace('_', '-')}."
            for field in course.needs
            if not getattr(student, field)
        ]
        found += [f"{name}: {p}" for p in problems(course, not execute)]
    if found:
        raise BuildError("nothing was written.\n  " + "\n  ".join(found))


def _executed(course, aside):
    """A copy of the course's folder in `aside` with its notebooks run there."""
    folder = aside / course.folder
    shutil.copytree(
        course.path,
        folder,
        ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"),
    )
    environment = dict(os.environ)
    if environment.get("COURSEWORK_DATA"):
        environment["COURSEWORK_DATA"] = os.path.abspath(environment["COURSEWORK_DATA"])
    for name in course.headings:
        notebook = read_notebook(folder / name)
        _run(notebook, name, folder, environment)
        nbformat.write(notebook, folder / name)
    return folder


def _run(notebook, name, folder, environment):
    """Execute a notebook in place, with a progress bar over its cells."""
    code = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    with tqdm(total=len(code), desc=name, unit="cell") as bar:
        client = NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": str(folder)}},
            on_cell_executed=lambda **_: bar.update(),
        )
        try:
            client.execute(env=environment, stderr=subprocess.DEVNULL)
        except CellExecutionError as error:
            raise BuildError(
                f"{name}: cell {bar.n} ended with {error.ename}: {error.evalue}\n"
                "  Nothing was written."
            ) from error
        except (DeadKernelError, AssertionError) as error:
            # on Ctrl-C nbclient stops the kernel, finds it dead and stops it once more
            raise BuildError(
                f"{name}: stopped after {bar.n} of {len(code)} cells. "
                "Nothing was written."
            ) from error


if __name__ == "__main__":
    sys.exit(main())
