"""What each course wants handed in: its files, and what must be true before they are made."""

import io
import os
import re
import shutil
import tomllib
import unicodedata
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import nbformat
from pypdf import PdfReader

from submission.printer import Page, PrintError, headings, read_notebook, to_pdf
from submission.record import changed_since_run, seconds_taken

ROOT = Path(__file__).resolve().parents[2]
LONGEST = (
    100  # bytes of a name: two of them and an ending fit in the 255 of a file name
)
JOINERS = str.maketrans("", "", "\u200c\u200d")  # in Persian and Indian names
FILLERS = "\u115f\u1160\u3164\uffa0"  # letters that nobody can see
COPIED = (".ipynb", ".py", ".csv", ".json", ".txt", ".md", ".png", ".svg")
EPOCH = (1980, 1, 1, 0, 0, 0)  # the date of every file in an archive


# --------------------------------------------------------------------------- the student
@dataclass(frozen=True)
class Student:
    """Who hands in. Each field is empty or valid as a part of a file name.

    Raises ValueError for path separators, "..", control characters, a text without a letter
    or digit, or one that is too long.
    """

    first_name: str = ""
    last_name: str = ""
    student_number: str = ""

    def __post_init__(self):
        for field, value in vars(self).items():
            if value == "":
                continue
            shown = f"--{field.replace('_', '-')} {value!r}"
            printable = value.translate(JOINERS).isprintable()
            if re.search(r"[/\\]|\.\.", value) or not printable:
                raise ValueError(
                    f"{shown} has a path separator, '..' or a control character in it: "
                    "give it as the course displays it."
                )
            letters = unicodedata.normalize("NFKC", file_name(value))
            if not any(c.isalnum() and c not in FILLERS for c in letters):
                raise ValueError(f"{shown} has no letter or digit in it.")
            if max(len(text.encode()) for text in (value, file_name(value))) > LONGEST:
                raise ValueError(f"{shown} is longer than {LONGEST} bytes in UTF-8.")

    @property
    def name(self):
        """The full name as it stands in a page header."""
        return " ".join(f"{self.first_name} {self.last_name}".split())


def file_name(text):
    """The letters (of any script), digits and hyphens of a text: O'Neil Ñ. gives ONeilÑ."""
    text = unicodedata.normalize("NFC", text)
    kept = (c for c in text if c == "-" or unicodedata.category(c)[0] in "LMN")
    return "".join(kept).strip("-")


# --------------------------------------------------------------------------- the courses
@dataclass(frozen=True)
class Course:
    """An assignment: where its notebooks are, what must be in them, who makes the files.

    `headings` maps each notebook to the words that its Markdown headings must have;
    `sources` are other files that must be there; `needs` are fields of `Student`; `build`
    takes the folder and the student and yields (file name, function that makes its content).
    Notebooks in `also_run` are executed with the others and not handed in.
    """

    folder: str
    headings: dict
    sources: tuple
    needs: tuple
    build: Callable
    also_run: tuple = ()

    @property
    def path(self):
        """The folder with the committed notebooks."""
        return ROOT / "notebooks" / self.folder

    @property
    def notebooks(self):
        """The file names of all notebooks that are run."""
        return (*self.headings, *self.also_run)

    def copy_to(self, folder):
        """A copy in `folder`, a path, of what the course's folder holds.

        Everything is read from there afterwards, so that one build has one state of it.
        What editors, kernels and programs leave (links, pipes, checkpoints) stays behind.
        """
        target = Path(folder) / self.folder
        shutil.copytree(self.path, target, ignore=_of_no_use)
        return target


def _of_no_use(folder, names):
    def useful(name):
        path = Path(folder, name)
        if name.startswith((".", "__pycache__")) or path.is_symlink():
            return False
        return path.is_dir() or path.is_file() and path.suffix in COPIED

    return [name for name in names if not useful(name)]


def problems(course, folder, executed=True):
    """What is wrong with the notebooks and sources in `folder`: a list of sentences."""
    found = [
        f"{name} is missing."
        for name in course.sources
        if not (folder / name).is_file()
    ]
    for name, wanted in course.headings.items():
        try:
            notebook = read_notebook(folder / name)
        except PrintError as error:
            found.append(str(error).replace(f"{folder}{os.sep}", ""))
            continue
        found += [f"{name}: {problem}" for problem in _missing(notebook, wanted)]
        if executed and changed_since_run(notebook):
            warnings.warn(
                f"{name}: its code has changed and its outputs have not; if they are from "
                "before the change, build with --execute.",
                stacklevel=2,
            )
        if executed:
            found += [f"{name}: {problem}" for problem in _not_executed(notebook)]
    return found


def _missing(notebook, wanted):
    titles = [
        title
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for _, title in headings(cell.source)
    ]
    for words in wanted:
        pattern = re.compile(rf"(?<![\w.]){re.escape(words)}(?!\w)", re.IGNORECASE)
        if not any(map(pattern.search, titles)):
            yield f"no heading says {words!r}."


def _not_executed(notebook):
    """One sentence for each cell that failed, and one for the first that was not run in order."""
    expected, in_order = 0, True
    code = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    if not code:
        yield "it has no code."
    elif all(c.execution_count for c in code) and not any(c.outputs for c in code):
        yield "all outputs were cleared (build with --execute)."
    for position, cell in enumerate(notebook.cells, 1):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        expected += 1
        errors = [o for o in cell.outputs if o.output_type == "error"]
        number = cell.execution_count
        if errors:
            yield f"cell {position} ended with {errors[0].ename}: {errors[0].evalue}"
        elif in_order and number is None:
            in_order = False
            yield f"cell {position} was not executed (build with --execute)."
        elif in_order and number != expected:
            in_order = False
            yield (
                f"cell {position} has the execution number {number} instead of {expected}: "
                "not run in order from a fresh kernel (build with --execute)."
            )


# ------------------------------------------------------------------- what all hand in
def _file(path):
    """A function that reads a file that is handed in as it is."""
    return path.read_bytes


def _document(title, pages, notebooks, page):
    """The PDF of some notebooks, with a warning when it has more than so many `pages`."""
    pdf = to_pdf(notebooks, page)
    length = len(PdfReader(io.BytesIO(pdf)).pages)
    if length > pages:
        warnings.warn(
            f"{title} has {length} pages; at most {pages} are wanted.", stacklevel=2
        )
    return pdf


# --------------------------------------------------------------------------- ECE1508
QUESTION = r"Question (\d+)\b"


def cut_at_questions(notebook):
    """The notebook as one notebook per question; what precedes the first belongs to it.

    Raises PrintError unless there are questions 1, 2 and 3, in this order.
    """
    parts, numbers = [[]], []
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            parts[-1].append(cell)
            continue
        lines = cell.source.split("\n")
        matches = {n: re.match(QUESTION, title) for n, title in headings(cell.source)}
        titles = {n: match[1] for n, match in matches.items() if match}
        numbers += titles.values()
        for start, end in pairwise(sorted({0, *titles, len(lines)})):
            if start in titles:
                parts.append([])
            source = "\n".join(lines[start:end])
            if source.strip():
                parts[-1].append(nbformat.from_dict({**cell, "source": source}))
    if numbers != ["1", "2", "3"]:
        raise PrintError(
            "The programming notebook must have the headings Question 1, Question 2 and "
            f"Question 3 in this order, once each; it has {', '.join(numbers) or 'none'}."
        )
    before, first, *others = parts
    return [
        nbformat.from_dict({**notebook, "cells": cells})
        for cells in (before + first, *others)
    ]


def _build_ece1508(folder, student):
    last, first = file_name(student.last_name), file_name(student.first_name)
    completed = folder / "mnist_rnn_gru_lstm.ipynb"
    yield f"{last}_{first}_Assgn4.ipynb", _file(completed)
    documents = {
        "Written_Q1": (5, read_notebook(folder / "xor_rnn.ipynb")),
        "Written_Q2": (5, read_notebook(folder / "tanh_activation.ipynb")),
    }
    questions = cut_at_questions(read_notebook(completed))
    for number, (pages, part) in enumerate(zip((11, 3, 4), questions), 1):
        documents[f"Programming_Q{number}"] = pages, part
    for name, (pages, notebook) in documents.items():
        kind, number = name.split("_Q")
        heading = f"ECE1508 · Assignment 4 · {kind} question {number}"
        page = Page(heading, student.name)
        yield f"{name}.pdf", partial(_document, f"{name}.pdf", pages, [notebook], page)


# ----------------------------------------------------------------------------- CS324
README = """\
# CS324, assignment 3

`report.pdf` is the report; it was printed from the two notebooks, without their code.

| task | code | notebook | section of the report |
|---|---|---|---|
{tasks}

`train.py` trains both networks on the palindromes of `dataset.py`, `my_gan.py` trains the GAN,
`judge.py` measures what it draws, `compare_designs.py` compares it with the suggested layers.
`programs.py` has what the command lines share, `helpers.py` what the notebooks share.

## Run it

Python 3.11 or later. In this folder:

    python -m venv .venv
    . .venv/bin/activate            (Windows: .venv\\Scripts\\activate)
    pip install -r requirements.txt
    jupyter lab

Open a notebook and choose Run / Run All Cells.{times} The programs explain their options:

    python train.py --help
    python my_gan.py --help
    python compare_designs.py --help

MNIST is downloaded into `data/` on first use; without a network the sample of 5,000 digits
that lies there is used. To use a copy that you have, name the folder that holds `MNIST/raw` in
the environment variable `COURSEWORK_DATA`.

## Long runs

The notebooks read the results of long runs from saved tables. These commands make them anew, the
longest in about an hour of one core. Both programs complete a table that is there: move it away first.
All runs use one thread. Another processor or version of PyTorch rounds sums differently: step counts and
samples change, and with them the end of single runs that are solved late or not at all.

{commands}

Many runs of `train.py` use all cores. On a Dask cluster the same call runs on all its machines,
see `palindrome_lstm.ipynb`; that needs `pip install "{cluster}"`.
"""
PARTS = {"palindrome_lstm.ipynb": "I", "gan.ipynb": "II"}
ANSWERS = {
    ("I", "1"): ("lstm.py", "train.py"),
    ("I", "2"): ("train.py", "vanilla_rnn.py"),
    ("II", "1"): ("my_gan.py",),
    ("II", "2"): ("my_gan.py", "judge.py"),
    ("II", "3"): ("my_gan.py", "judge.py"),
}  # the code of each task
# what the archive needs of the pinned packages; the others run and test the whole bundle
USED = (
    *("torch", "numpy", "matplotlib", "pooch"),
    *("tqdm", "joblib", "ipython", "jupyter"),
)


def _build_cs324(folder, student):
    notebooks = {name: read_notebook(folder / name) for name in PARTS}
    patterns = (*PARTS, "*.py", "*.csv", "*.json", "saved/*")
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for pattern in patterns
        for path in folder.glob(pattern)
        if path.is_file()
    }
    files["README.md"] = _readme(notebooks).encode()
    files["helpers.py"] = (ROOT / "helpers.py").read_bytes()
    pinned = (ROOT / "requirements.txt").read_text("utf-8").splitlines(keepends=True)
    files["requirements.txt"] = "".join(
        f"{line.split()[0]}\n" for line in pinned if re.split(r"\W", line)[0] in USED
    ).encode()
    data = ROOT / "data"
    for path in (*data.glob("mirrors.txt"), *data.glob("sample/MNIST/**/*")):
        if path.is_file():
            files[path.relative_to(ROOT).as_posix()] = path.read_bytes()

    def archive():
        return _archive({**files, "report.pdf": _report(notebooks, student)})

    yield f"{file_name(student.student_number)}_assignment3.zip", archive


def _report(notebooks, student):
    """The report (PDF): the notebooks without code, one abstract, one numbering."""
    abstract, parts = [], []
    for name, notebook in notebooks.items():
        cells = []
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                text, own = _without_abstract(cell.source)
                abstract.append(own)
                cell = nbformat.from_dict(
                    {**cell, "source": _numbered(text, PARTS[name])}
                )
            cells.append(cell)
        parts.append(nbformat.from_dict({**notebook, "cells": cells}))
    text = "\n\n".join(filter(None, abstract))
    if text:
        front = nbformat.v4.new_markdown_cell(f"# Abstract\n\n{text}")
        parts[0].cells.insert(0, front)
    else:
        warnings.warn(
            "report.pdf has no abstract, because no notebook of cs324 has a section "
            "'Abstract'.",
            stacklevel=2,
        )
    page = Page(
        f"CS324 · Assignment 3 · {student.student_number}",
        student.name,
        title="Assignment 3: an LSTM and a GAN",
        authors=(f"{student.name}, student number {student.student_number}",),
        hide_code=True,
    )
    return _document("report.pdf", 12, parts, page)


def _without_abstract(source):
    """A Markdown text without its section "Abstract", and the text of that section."""
    lines = source.split("\n")
    titles = dict(headings(source))
    starts = [n for n, title in titles.items() if title.lower() == "abstract"]
    if not starts:
        return source, ""
    end = min((n for n in titles if n > starts[0]), default=len(lines))
    rest = lines[: starts[0]] + lines[end:]
    return "\n".join(rest), "\n".join(lines[starts[0] + 1 : end]).strip()


def _numbered(source, part):
    """A Markdown text whose title is "Part I" and whose sections are I.1, I.2 and so on."""
    lines = source.split("\n")
    for number, title in headings(source):
        mark = lines[number].split()[0]
        if mark == "#":
            title = re.sub(
                r"^.*?\bpart [IV]+\b[:.]?\s*", "", title, flags=re.IGNORECASE
            )
            title = f"Part {part}: {title}"
        else:
            title = re.sub(
                rf"^(\d+(\.\d+)*)\.?\s(Part {part}, )?", rf"{part}.\1 ", title
            )
        lines[number] = f"{mark} {title}"
    return SECTIONS.sub(
        lambda match: re.sub(r"\d+(\.\d+)*", rf"{part}.\g<0>", match[0]),
        "\n".join(lines),
    )


# Our own sections. Those of a paper stay: "section 3 of that paper", "its section 3",
# "Saxe et al. 2014, section 3". The group is atomic, so that none is renumbered in part.
SECTIONS = re.compile(
    r"(?<!\bits\s)(?<!\d{4},\s)\b"
    r"(?>sections?\s\d+(\.\d+)*((,| to| and|, and|–)\s?\d+(\.\d+)*)*)(?!\sof\b)",
    re.IGNORECASE,
)


def _readme(notebooks):
    """How to find and run everything, in the notebooks' own words."""
    tasks, commands, times = [], [], []
    for name, notebook in notebooks.items():
        text = [c.source for c in notebook.cells if c.cell_type == "markdown"]
        for source in text:
            for _, title in headings(source):
                for task in re.findall(r"\btask (\d)", title, re.IGNORECASE):
                    part = PARTS[name]
                    code = ", ".join(
                        f"`{file}`" for file in ANSWERS.get((part, task), ())
                    )
                    (_, section), *_ = headings(_numbered(f"## {title}", part))
                    tasks.append(
                        f"| Part {part}, task {task} | {code} | `{name}` | {section} |"
                    )
            joined = source.replace("\\\n", " ")
            commands += re.findall(r"\bpython \w+\.py -[^`\n]*", joined)
        seconds = seconds_taken(notebook)
        if seconds is not None:
            minutes = max(1, round(seconds / 60))
            times.append(f"`{name}` takes about {minutes} min")
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (cluster,) = pyproject["project"]["optional-dependencies"]["cluster"]
    lines = [" ".join(command.split()) for command in commands]
    return README.format(
        tasks="\n".join(tasks),
        times=f" On one core {' and '.join(times)} with the full data." * bool(times),
        commands="\n".join(
            f"    {line}" for line in dict.fromkeys(lines) if "--help" not in line
        ),
        cluster=cluster,
    )


def _archive(files):
    """A ZIP (bytes) of a dict, the same for the same files: sorted, dated 1980."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, EPOCH)
            archive.writestr(entry, files[name], zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


# ---------------------------------------------------------------------------- TDL211
def _build_tdl211(folder, student):
    for name in COURSES["tdl211"].sources:
        yield name, _file(folder / name)
    page = Page("TDL211 · Assignment 2", student.name, hide_code=True)
    analysis = read_notebook(folder / "ex2.ipynb")
    yield "ex2.pdf", partial(_document, "ex2.pdf", 7, [analysis], page)


# ----------------------------------------------------------------------------- EE519
def _build_ee519(folder, student):
    course = COURSES["ee519"]
    testers, *others = [read_notebook(folder / name) for name in course.headings]
    for notebook in others:  # one after the other, without a new page for each
        testers.cells += notebook.cells
    notebooks = [testers, _listing(folder, course.sources)]
    page = Page(
        "EE519 · Homework 1",
        student.name,
        title="EE519: Deep Learning Theory & Fundamentals",
        authors=(f"Homework 1 · {student.name} · Instructor: John Lipor",),
    )
    name = f"{file_name(student.last_name)}_hw1.pdf"
    yield name, partial(_document, name, 20, notebooks, page)


def _listing(folder, names):
    """A notebook that shows the files that the sheet asks for."""
    cells = [nbformat.v4.new_markdown_cell("# Code")]
    for name in names:
        cells.append(nbformat.v4.new_markdown_cell(f"## `{name}`"))
        cells.append(nbformat.v4.new_code_cell((folder / name).read_text("utf-8")))
    return nbformat.v4.new_notebook(cells=cells)


COURSES = {
    "ece1508": Course(
        folder="ece1508_recurrent_networks",
        headings={
            "xor_rnn.ipynb": ("1.", "2.", "3."),
            "tanh_activation.ipynb": ("1.", "2.", "3.", "4."),
            "mnist_rnn_gru_lstm.ipynb": ("Question 1", "Question 2", "Question 3"),
        },
        sources=(),
        needs=("first_name", "last_name"),
        build=_build_ece1508,
    ),
    "cs324": Course(
        folder="cs324_lstm_gan",
        headings={
            "palindrome_lstm.ipynb": ("Task 1", "Task 2"),
            "gan.ipynb": ("Task 1", "Task 2", "Task 3"),
        },
        sources=(
            *("dataset.py", "vanilla_rnn.py", "lstm.py", "train.py"),
            *("my_gan.py", "judge.py", "compare_designs.py", "programs.py"),
        ),
        needs=("first_name", "last_name", "student_number"),
        build=_build_cs324,
    ),
    "tdl211": Course(
        folder="tdl211_layers",
        headings={"ex2.ipynb": ("Task 1", "Task 2", "Task 3", "Task 4")},
        sources=("MLP.py", "RNN.py", "LSTM.py"),
        needs=(),
        build=_build_tdl211,
    ),
    "ee519": Course(
        folder="ee519_mytorch",
        headings={
            f"{name}Tester.ipynb": (f"Problem {number}",)
            for number, name in enumerate(
                ("Linear", "Loss", "SGD", "Activation", "MLP"), 1
            )
        },
        sources=tuple(
            f"mytorch/{name}.py"
            for name in ("linear", "loss", "sgd", "activation", "mlp")
        ),
        needs=("last_name",),
        build=_build_ee519,
        also_run=("TrainingTester.ipynb",),
    ),
}
