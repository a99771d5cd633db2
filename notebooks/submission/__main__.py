"""python -m submission: run the notebooks, and build what a course wants handed in."""

import argparse
import os
import signal
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat

from submission import exchange
from submission.courses import COURSES, ROOT, Student, problems
from submission.printer import PrintError, read_notebook


class BuildError(Exception):
    """Nothing was handed over; the message says why."""


def main(arguments=None):
    """Run the command; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    for option in ("save", "only", "jobs"):
        if getattr(options, option) and not options.execute:
            parser.error(f"--{option} needs --execute")
    names = list(COURSES) if options.course == "all" else [options.course]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # clean up, then end
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, *_: print(message, file=sys.stderr)
            if options.only:
                run_only(names, options.only, options.save, options.jobs)
                return 0
            student = Student(
                options.first_name, options.last_name, options.student_number
            )
            build(
                names,
                student,
                options.output,
                options.execute,
                options.save,
                options.jobs,
            )
    except (BuildError, PrintError, ValueError, OSError) as error:
        print(f"submission: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "submission: interrupted. What lies in the output folder is whole: the earlier "
            "submission, or the new one.",
            file=sys.stderr,
        )
        return 130
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m submission", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    add("course", choices=[*COURSES, "all"], help="whose files to build")
    add("--first-name", default="", help="as the course displays it")
    add("--last-name", default="", help="as the course displays it")
    add("--student-number", default="", help="wanted by cs324")
    add(
        "--output",
        type=_folder,
        default=ROOT / "submissions",
        help="the folder to write to, a folder per course in it (default: %(default)s)",
    )
    add(
        "--execute",
        action="store_true",
        help="run the notebooks first, on copies, one thread in each "
        "(default: print the saved outputs)",
    )
    add(
        "--jobs", type=_count, help="notebooks that run at a time (default: one a core)"
    )
    add(
        "--save", action="store_true", help="write the executed notebooks back in place"
    )
    add(
        "--only",
        action="append",
        metavar="NOTEBOOK",
        help="run just this notebook and build nothing; may be given several times",
    )
    return parser


def _count(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _folder(text):
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} names no folder")
    return Path(text).expanduser()


# ---------------------------------------------------------------------------- running
def run_only(names, wanted, save, jobs):
    """Run the notebooks `wanted` (file names, with or without ending) of some courses."""
    known = {n.removesuffix(".ipynb"): n for c in names for n in COURSES[c].notebooks}
    wanted = {name.removesuffix(".ipynb") for name in wanted}
    if wanted - set(known):
        raise BuildError(
            f"--only {min(wanted - set(known))!r} is none of {', '.join(known)}."
        )
    with tempfile.TemporaryDirectory(prefix="submission-") as copies:
        folders = {name: COURSES[name].copy_to(copies) for name in names}
        _execute(folders, jobs, save, {known[name] for name in wanted})
    print("saved" if save else "run, and not saved (--save writes them back)")


def _execute(folders, jobs, save, wanted=None):
    """Run the notebooks in the copied `folders`; with `save` also write them back."""
    from submission import runner  # nbclient takes a while to import

    paths = [
        folder / notebook
        for name, folder in folders.items()
        for notebook in COURSES[name].notebooks
        if wanted is None or notebook in wanted
    ]
    tasks = [runner.Task(path.name, read_notebook(path), path.parent) for path in paths]
    try:
        runner.run(tasks, jobs)
    except runner.RunError as error:
        raise BuildError(f"{error}\n  Nothing was written.") from error
    for path, task in zip(paths, tasks):
        nbformat.write(task.notebook, path)
    if save:
        originals = {folder: COURSES[name].path for name, folder in folders.items()}
        for path in paths:
            target = originals[path.parent] / path.name
            aside = target.with_name(f".{target.name}.incomplete")
            aside.write_bytes(path.read_bytes())
            os.replace(aside, target)


# --------------------------------------------------------------------------- building
def build(names, student, output, execute=False, save=False, jobs=None):
    """Build the files of the courses in `names` in `output`, all of them or none.

    Raises BuildError when the notebooks, the student's data or the folder do not allow it.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="submission-") as copies:
        folders = {name: COURSES[name].copy_to(copies) for name in names}
        _check(folders, student, output, execute)
        with exchange.workspace(output) as new:
            if execute:
                _execute(folders, jobs, save)
            finished = _print(folders, student, new)
            exchange.hand_over(new, output)
    print(f"\nIn {output}:")
    for path in finished:
        print(f"  {(output / path).stat().st_size / 1000:8,.0f} kB  {path}")
    print(f"{len(finished)} files in {time.perf_counter() - start:.1f} s")


def _check(folders, student, output, execute):
    """Raise BuildError with all that is wrong, before anything is written."""
    found = exchange.problems(output, folders)
    for name, folder in folders.items():
        course = COURSES[name]
        found += [
            f"{name} wants --{field.replace('_', '-')}."
            for field in course.needs
            if not getattr(student, field)
        ]
        found += [f"{name}: {p}" for p in problems(course, folder, not execute)]
    if found:
        raise BuildError("nothing was written.\n  " + "\n  ".join(found))


def _print(folders, student, new):
    """Write the courses' files to the folder `new`, side by side; their relative paths."""
    makers = {
        Path(name, file): make
        for name, folder in folders.items()
        for file, make in COURSES[name].build(folder, student)
    }
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        contents = {path: pool.submit(make) for path, make in makers.items()}
        for path, content in contents.items():
            (new / path.parent).mkdir(exist_ok=True)
            (new / path).write_bytes(content.result())
            print(f"made {path.as_posix()}", flush=True)
    return list(makers)


if __name__ == "__main__":
    sys.exit(main())
