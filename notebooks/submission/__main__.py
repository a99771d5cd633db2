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

from submission import courses
from submission.courses import COURSES, Student, build, wanted_files
from submission.notebooks import (
    is_missing,
    read_notebook,
    record_of,
    unfit,
    used_sample,
)

DESCRIPTION = f"""{__doc__}

With --execute the notebooks are run first, on copies. A run on the bundled sample of the
data is a trial: its pages say so, and its files go to trial/.

"python -m submission check COURSE PATH" holds somebody's own answer against the tests.
"""
NOT_SAVED = (
    "--save is refused: the sample's outputs would replace those of the full data."
)


def main(arguments=None):
    """Run the command; returns the exit status."""
    start = time.perf_counter()
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["check"]:
        from submission import check

        return check.main(arguments[1:])
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
        type=lambda text: Path(text).expanduser(),
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
        raise ValueError(NOT_SAVED)
    runner.run(runs, options.jobs, environment)
    if options.save:
        if any(used_sample(run.notebook) for run in runs):
            raise ValueError(NOT_SAVED)
        edited = [
            p.name for p, content in originals.values() if p.read_bytes() != content
        ]
        if edited:
            raise ValueError(f"{', '.join(edited)} was edited while it ran: not saved.")
        for run, (path, _) in originals.items():
            for name in (path.name, *run.tables()):
                save(run.folder / name, path.parent / name)
    return folders


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
        records = {
            name: [
                record_of(read_notebook(folders[name] / notebook.name))
                for notebook in COURSES[name].notebooks
            ]
            for name in names
        }
        contents = make(folders, student)
    trial = any(
        record["data"] == "sample" for name in names for record in records[name]
    )
    output = options.output or courses.ROOT / ("trial" if trial else "submissions")
    write(contents, output)
    for name in names:
        dates = sorted({record["date"] for record in records[name]})
        data = sorted({record["data"] for record in records[name]} - {"none"})
        when = (
            f"on {dates[0]}" if len(dates) == 1 else f"from {dates[0]} to {dates[-1]}"
        )
        on_data = "".join(f" on the {kind} data" for kind in data)
        print(f"{name}, from notebooks that ran{on_data} {when}:")
        for file, content in contents[name].items():
            print(f"  {len(content) / 1000:8,.0f} kB  {output / name / file}")
    if trial:
        print("A trial run on the bundled sample of the data: not to be handed in.")


def problems(folders, student, options):
    """Sentences on all that keeps the files from being made."""
    for name, folder in folders.items():
        for field in COURSES[name].needs:
            if not getattr(student, field):
                yield f"{name} needs --{field.replace('_', '-')}."
        for file in wanted_files(COURSES[name], folder):
            if is_missing(folder / file):
                yield f"{name}: {file} is missing or empty."
        for notebook in () if options.execute else COURSES[name].notebooks:
            if reason := unfit(folder / notebook.name):
                yield f"{name}: {reason} (--execute runs it anew)."
    output = options.output or courses.ROOT / "submissions"
    for path in (*(output / name for name in folders), output, *output.parents):
        if path.exists() and not path.is_dir():
            yield f"--output {output}: {path} is not a folder."
    existing = next(path for path in (output, *output.parents) if path.exists())
    if not os.access(existing, os.W_OK):
        yield f"--output {output}: {existing} is read-only."


def make(folders, student):
    """{course: {file's name: content}}, made side by side; prints warnings."""
    makers = {
        (name, file): make
        for name, folder in folders.items()
        for file, make in build(COURSES[name], folder, student)
    }
    contents = {name: {} for name in folders}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            made = pool.map(lambda make: make(), makers.values())
            for (name, file), content in zip(makers, made):
                contents[name][file] = content
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    return contents


def write(contents, output):
    """Replace the courses' folders in `output`; other files in them stay."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=output) as aside:
        for name, files in contents.items():
            new = Path(aside, name)
            if (output / name).exists():
                shutil.copytree(output / name, new, symlinks=True)
            new.mkdir(exist_ok=True)
            for file, content in files.items():
                (new / file).write_bytes(content)
        for name in contents:
            replace_folder(Path(aside, name), output / name)


def replace_folder(new, old):
    """Rename the folder `new` to `old`, and what was there away; undone when it fails."""
    away = new.with_name(f"old {new.name}")
    try:
        if old.exists():
            os.rename(old, away)
        os.rename(new, old)
    except BaseException:
        if away.exists() and not old.exists():
            os.rename(away, old)
        raise


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C
    sys.exit(main())
