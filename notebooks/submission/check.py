"""Hold somebody's answer to an assignment against the tests of ours, item by item.

PATH is a folder with mytorch/ (or its files) for ee519; with MLP.py, RNN.py, LSTM.py for
tdl211; with lstm.py and my_gan.py for cs324. For ece1508 it is a notebook, of which the
imports, functions and classes are taken and nothing else is run. The answer's files are
EXECUTED with your rights: check only what you would run. The exit status is 0 when every
item passed, 1 when one did not, 2 for a wrong call.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from submission.courses import COURSES, ROOT

KEYS = ("item", "checked", "passed", "case")  # of --json
STATES = {True: "passed", False: "not passed", None: "not checked"}


def main(arguments):
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m submission check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("course", choices=COURSES, metavar="COURSE")
    parser.add_argument("path", type=Path, metavar="PATH", help="the answer")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="list the items there"
    )
    limit = {"type": float, "default": 10, "metavar": "SECONDS"}
    parser.add_argument("--limit", **limit, help="of processor time per item (10)")
    options = parser.parse_args(arguments)
    path, is_notebook = options.path, options.course == "ece1508"
    if not (path.is_file() if is_notebook else path.is_dir()):
        parser.error(f"PATH {path} is not a {'notebook' if is_notebook else 'folder'}")
    try:
        rows = sorted(run(options.course, [path], options.limit), key=number)
    except RuntimeError as error:
        print(f"submission check: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("submission check: interrupted", file=sys.stderr)
        return 130
    notes = {note for row in rows for note in row.get("notes", [])}
    sys.stdout.reconfigure(errors="replace")  # Windows may lack a sign of the equations
    print(*table(rows), *sorted(notes), sep="\n")
    if options.json:
        items = [{key: row[key] for key in KEYS} for row in rows]
        text = json.dumps(items, indent=1, ensure_ascii=False)
        options.json.write_text(text + "\n", "utf-8")
    return 0 if all(row["passed"] for row in rows) else 1


def run(course, paths, limit=10, *options):
    """Check answers in a process of its own; returns a dict for each item of each.

    `limit`: seconds of processor time per item. `options` go to pytest. The process is
    stopped after sixty times as long for each answer; the rest is then not checked.
    """
    with tempfile.TemporaryDirectory() as folder:  # what the answer writes lands there
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml")]
        command += ["-o", "addopts=", "-p", "no:cacheprovider", "--tb=short"]
        command += [str(ROOT / f"notebooks/tests/test_{course}_items.py"), *options]
        command += [f"--answers={course}={path.resolve()}" for path in paths]
        command += [f"--report={report}", f"--limit={limit}"]
        process = {"cwd": folder, "stdin": subprocess.DEVNULL, "capture_output": True}
        process["env"] = os.environ | {
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUTF8": "1",
        }
        process["env"]["CUDA_VISIBLE_DEVICES"] = ""  # models and data meet on the CPU
        process["timeout"] = 60 * limit * len(paths)
        output, status = "it was stopped", None
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(command, check=False, encoding="utf-8", **process)
            output, status = done.stdout, done.returncode
        if status == pytest.ExitCode.INTERNAL_ERROR or not report.is_file():
            raise RuntimeError(f"the check did not work:\n{output}")
        return json.loads(report.read_text("utf-8"))


def number(row):
    """A key to sort the items as the sheet does: P1.9 before P1.10."""
    return [int(n) if n.isdigit() else n for n in re.split(r"(\d+)", row["item"])]


def table(rows):
    """The lines of the table, and below it the case of each item that did not pass."""
    yield f"{'item':6}{'what is checked':80}outcome"
    for row in rows:
        yield f"{row['item']:6}{row['checked']:80}{STATES[row['passed']]}"
    for row in rows:
        if row["case"]:
            yield f"\n{row['item']}: {row['checked']:.90}"
            yield textwrap.indent(row["case"], "    ")
