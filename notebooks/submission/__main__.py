"""Make the files that a course wants handed in, from the notebooks' saved outputs."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from submission.courses import COURSES, ROOT, Student, build, wanted_files
from submission.notebooks import (
    is_missing,
    read_notebook,
    record_of,
    stale,
    used_sample,
)

DESCRIPTION = f"""{__doc__}

With --execute the notebooks are run first, on copies. A run on the bundled sample of the
data is a trial: its pages say so, and its files go to trial/.
"""


def main(arguments=None):
    """Run the command; returns the exit status."""
    start = time.perf_counter()
    parser = _parser()
    options = parser.parse_args(arguments)
    for option in ("save", "only", "jobs"):
        if getattr(options, option) and not options.execute:
            parser.error(f"--{option} needs --execute")
    if options.jobs is not None and options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: give a whole number from 1 on")
    names = list(COURSES) if options.course == "all" else [options.course]
    try:
        if options.only:
            run_only(names, options)
        else:
            hand_in(names, options)
            print(f"{time.perf_counter() - start:.1f} s")
    except (ValueError, OSError, RuntimeError) as error:
        print(f"submission: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "submission: interrupted; every course's folder is as it was or new",
            file=sys.stderr,
        )
        return 130
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m submission",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("course", choices=[*COURSES, "all"], help="the course, or all four")
    add("--first-name", default="", help="for ece1508 and cs324")
    add("--last-name", default="", help="for ece1508, cs324 and ee519")
    add("--student-number", default="", help="for cs324")
    add(
        "--output",
        type=Path,
        help="where to write, a folder for each course (default: submissions, or trial)",
    )
    add("--execute", action="store_true", help="run the notebooks first, on copies")
    add(
        "--save", action="store_true", help="write the executed notebooks back in place"
    )
    add("--jobs", type=int, help="notebooks that run at a time (default: one per core)")
    add(
        "--only",
        action="append",
        metavar="NOTEBOOK",
        help="run only this notebook and make no files; can be given several times",
    )
    return parser


# ------------------------------------------------------------------------------- running
def run_only(names, options):
    """Run the notebooks that --only names."""
    known = {n.name for name in names for n in COURSES[name].notebooks}
    wanted = {f"{name.removesuffix('.ipynb')}.ipynb" for name in options.only}
    if unknown := wanted - known:
        given = ", ".join(sorted(unknown))
        raise ValueError(f"--only {given}: choose from {', '.join(sorted(known))}.")
    with tempfile.TemporaryDirectory(prefix="submission-") as copies:
        execute(names, Path(copies), options, wanted)


def execute(names, copies, options, wanted=None):
    """Run the courses' notebooks (all, or those in `wanted`) in copies of their folders.

    Returns the folders. With --save the notebooks are written back when all have run.
    """
    from submission import runner  # nbclient takes a while to import

    folders, runs, originals = {}, [], {}
    ignored = shutil.ignore_patterns(".*", "__pycache__", "images", "*.pt")
    for name in names:
        course, folders[name] = COURSES[name], copies / COURSES[name].folder
        shutil.copytree(course.path, folders[name], ignore=ignored)
        for notebook in course.notebooks:
            if wanted is None or notebook.name in wanted:
                run = runner.Run(folders[name], notebook)
                runs.append(run)
                originals[run] = course.path / notebook.name, run.path.read_bytes()
    environment, data = runner.find_data({d for run in runs for d in run.declared.data})
    if options.save and data == "sample":
        raise ValueError(f"--save: {SAMPLE} Nothing was run.")
    runner.run(runs, options.jobs, environment)
    if options.save:
        if any(used_sample(run.notebook) for run in runs):
            raise ValueError(f"--save: {SAMPLE} Nothing was saved.")
        for run, (path, content) in originals.items():
            if path.read_bytes() != content:
                raise ValueError(f"{path.name} was edited while it ran: not saved.")
            save(run.path, path)
            for table in run.tables():
                save(run.folder / table, path.parent / table)
    return folders


SAMPLE = (
    "the data is the bundled sample, and the saved outputs are those of the full data."
)


def save(new, old):
    """Write the content of the file `new` to the file `old`, whole or not at all."""
    if not old.exists() or new.read_bytes() != old.read_bytes():
        aside = old.with_name(f".{old.name}.new")
        shutil.copyfile(new, aside)
        os.replace(aside, old)


# ---------------------------------------------------------------------- what is handed in
def hand_in(names, options):
    """Make the files of the courses `names`, all of them or none."""
    student = Student(options.first_name, options.last_name, options.student_number)
    folders = {name: COURSES[name].path for name in names}
    if found := list(problems(folders, student, options)):
        raise ValueError("nothing was written:\n  " + "\n  ".join(found))
    with tempfile.TemporaryDirectory(prefix="submission-") as copies:
        if options.execute:
            folders = execute(names, Path(copies), options)
        records = {name: list(_records(name, folders[name])) for name in names}
        contents = make(folders, student)
    data = {record["data"] for of_course in records.values() for record in of_course}
    output = options.output or ROOT / ("trial" if "sample" in data else "submissions")
    write(contents, output)
    for name, of_course in records.items():
        dates = sorted({record["date"] for record in of_course})
        kinds = {record["data"] for record in of_course} - {"none"}
        on = "".join(f" on the {kind} data" for kind in sorted(kinds))
        print(f"{name}: outputs of {' to '.join(dates[:1] + dates[1:][-1:])}{on}")
        for file, content in contents[name].items():
            print(f"  {len(content) / 1000:8,.0f} kB  {output / name / file}")
    if "sample" in data:
        print(
            "This is a trial run on the bundled sample of the data: not to be handed in."
        )


def _notebooks(name, folder):
    """The notebooks that are handed in, in whatever form: name, content."""
    files = dict.fromkeys(wanted_files(COURSES[name], folder))
    for file in files:
        if file.endswith(".ipynb"):
            yield file, read_notebook(folder / file)


def _records(name, folder):
    return (record_of(notebook) for _, notebook in _notebooks(name, folder))


def problems(folders, student, options):
    """Sentences on all that keeps the files from being made."""
    for name, folder in folders.items():
        for field in COURSES[name].needs:
            if not getattr(student, field):
                yield f"{name} needs --{field.replace('_', '-')}."
        missing = [
            f for f in wanted_files(COURSES[name], folder) if is_missing(folder / f)
        ]
        yield from (f"{name}: {file} is missing or empty." for file in missing)
        if missing or options.execute:
            continue
        for file, notebook in _notebooks(name, folder):
            if reason := stale(notebook, folder):
                yield f"{name}: {file} {reason}: run it, with --execute --save."
            elif used_sample(notebook):
                yield f"{name}: {file} was run on the sample: run it on the full data."
    output = options.output or ROOT / "submissions"
    for path in (*(output / name for name in folders), output, *output.parents):
        if path.exists() and not path.is_dir():
            yield f"--output {output}: {path} is not a folder."


def make(folders, student):
    """The files (bytes) of the courses by name, side by side; prints warnings."""
    makers = {
        (name, file): make
        for name, folder in folders.items()
        for file, make in build(COURSES[name], folder, student)
    }
    contents = {name: {} for name in folders}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for (name, file), content in zip(makers, pool.map(_call, makers.values())):
                contents[name][file] = content
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    return contents


def _call(function):
    return function()


def write(contents, output):
    """Replace the courses' folders in `output`, each by one rename; other files stay."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=output) as aside:
        for name, files in contents.items():
            new, old, kept = (
                Path(aside, name),
                output / name,
                Path(aside, f"old {name}"),
            )
            if old.exists():
                shutil.copytree(old, new)
            new.mkdir(exist_ok=True)
            for file, content in files.items():
                (new / file).write_bytes(content)
        for name in contents:
            new, old, kept = (
                Path(aside, name),
                output / name,
                Path(aside, f"old {name}"),
            )
            try:
                if old.exists():
                    os.rename(old, kept)
                os.rename(new, old)
            except BaseException:
                if kept.exists() and not old.exists():
                    os.rename(kept, old)
                raise


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C
    sys.exit(main())
