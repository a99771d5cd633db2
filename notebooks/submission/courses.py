"""The four courses: which notebooks they have, and which files they want handed in.

A new course is a folder in notebooks/ and an entry in COURSES.
"""

import io
import re
import warnings
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nbformat
from pypdf import PdfReader

from submission.notebooks import read_notebook, used_sample
from submission.printer import Page, to_pdf

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Notebook:
    """A notebook of a course, and what its run depends on.

    `data`: the sets of images it loads; `tables`: patterns of the saved files it reads.
    All run side by side: only one uses a GPU where there is one (gan.ipynb).
    """

    name: str
    data: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()


@dataclass(frozen=True)
class Document:
    """A PDF of some notebooks, of at most `pages` pages, with `listing` at its end.

    With `question` it is that question's part of one notebook. In `heading` (of every
    page), `title` and `author` stand fields of `Student` in braces.
    """

    notebooks: tuple[str, ...]
    heading: str
    pages: int
    title: str = ""
    author: str = ""
    hide_code: bool = False
    question: int | None = None
    listing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Archive:
    """A ZIP of a report, of the files that the folder's README.md names, of helpers.py and
    the sample of MNIST, and of a requirements.txt with our pins of `packages`."""

    report: Document
    packages: tuple[str, ...]


@dataclass(frozen=True)
class Course:
    """A course: its folder, its notebooks, and the files it wants.

    `needs` are fields of `Student`. `files` maps a file's name, with such fields in braces,
    to a `Document`, an `Archive` or the file in the folder that is handed in as it is.
    """

    folder: str
    needs: tuple[str, ...]
    notebooks: tuple[Notebook, ...]
    files: dict[str, str | Document | Archive]

    @property
    def path(self):
        """The folder with the committed notebooks."""
        return ROOT / "notebooks" / self.folder


def _ece1508(kind, number, notebook, pages, **options):
    heading = f"ECE1508 · Assignment 4 · {kind} question {number}"
    return Document((notebook,), heading, pages, **options)


MNIST_NOTEBOOK = "mnist_rnn_gru_lstm.ipynb"
LAYERS = ("Linear", "Loss", "SGD", "Activation", "MLP")
TESTERS = tuple(f"{name}Tester.ipynb" for name in LAYERS)
PALINDROME_TABLES = ("saved/rates.csv", "saved/seeds.csv", "saved/controls.csv")
COURSES = {
    "ece1508": Course(
        folder="ece1508_recurrent_networks",
        needs=("first_name", "last_name"),
        notebooks=(
            Notebook("xor_rnn.ipynb"),
            Notebook("tanh_activation.ipynb", data=("MNIST",)),
            Notebook(MNIST_NOTEBOOK, data=("MNIST",), tables=("saved/*",)),
        ),
        files={
            "{last_name}_{first_name}_Assgn4.ipynb": MNIST_NOTEBOOK,
            "Written_Q1.pdf": _ece1508("Written", 1, "xor_rnn.ipynb", 4),
            "Written_Q2.pdf": _ece1508("Written", 2, "tanh_activation.ipynb", 4),
            **{
                f"Programming_Q{number}.pdf": _ece1508(
                    "Programming", number, MNIST_NOTEBOOK, pages, question=number
                )
                for number, pages in ((1, 9), (2, 3), (3, 3))
            },
        },
    ),
    "cs324": Course(
        folder="cs324_lstm_gan",
        needs=("first_name", "last_name", "student_number"),
        notebooks=(
            Notebook("palindrome_lstm.ipynb", tables=PALINDROME_TABLES),
            Notebook("gan.ipynb", data=("MNIST",), tables=("saved/gan*",)),
        ),
        files={
            "{student_number}_assignment3.zip": Archive(
                Document(
                    ("palindrome_lstm.ipynb", "gan.ipynb"),
                    heading="CS324 · Assignment 3 · {student_number}",
                    title="Assignment 3: an LSTM and a GAN",
                    author="{name}, student number {student_number}",
                    pages=10,
                    hide_code=True,
                ),
                packages=(
                    *("torch", "torchvision", "numpy", "matplotlib"),
                    *("tqdm", "joblib", "ipython", "jupyter"),
                ),
            )
        },
    ),
    "tdl211": Course(
        folder="tdl211_layers",
        needs=(),
        notebooks=(Notebook("ex2.ipynb", tables=("saved/*",)),),
        files={
            "MLP.py": "MLP.py",
            "RNN.py": "RNN.py",
            "LSTM.py": "LSTM.py",
            "ex2.pdf": Document(
                ("ex2.ipynb",), "TDL211 · Assignment 2", pages=5, hide_code=True
            ),
        },
    ),
    "ee519": Course(
        folder="ee519_mytorch",
        needs=("last_name",),
        notebooks=(
            *map(Notebook, TESTERS),
            Notebook("TrainingTester.ipynb", data=("FashionMNIST",)),
        ),
        files={
            "{last_name}_hw1.pdf": Document(
                TESTERS,
                heading="EE519 · Homework 1",
                title="EE519: Deep Learning Theory & Fundamentals",
                author="Homework 1 · {name} · Instructor: John Lipor",
                pages=12,
                listing=(
                    *(f"mytorch/{name.lower()}.py" for name in LAYERS),
                    "mytorch/__init__.py",
                    "mytorch/checks.py",
                    "parity.py",
                ),
            )
        },
    ),
}


# --------------------------------------------------------------------------- the student
@dataclass(frozen=True)
class Student:
    """Who hands in. Raises ValueError for a text that can't be part of a file's name."""

    first_name: str = ""
    last_name: str = ""
    student_number: str = ""

    def __post_init__(self):
        for field, value in vars(self).items():
            if value == "":
                continue
            shown = f"--{field.replace('_', '-')} {value!r}"
            if not isinstance(value, str) or not re.search(r"\w", value):
                raise ValueError(f"{shown} has no letter or digit.")
            if not value.isprintable() or re.search(r'[/\\:*?"<>|]', value):
                raise ValueError(
                    f'{shown} has a control character or one of / \\ : * ? " < > |, which '
                    "can't be part of a file's name."
                )
            if len(value.encode()) > 100:
                raise ValueError(f"{shown} is longer than 100 bytes.")

    @property
    def name(self):
        """The name as it stands on a page."""
        return f"{self.first_name} {self.last_name}".strip()

    def fill(self, text):
        """`text` with fields in braces, such as {name}, filled in."""
        return text.format(**vars(self), name=self.name)

    def file_name(self, text):
        """`fill`, without the blanks, dots, commas and apostrophes of names."""
        parts = {k: re.sub(r"[\s.,'’]", "", value) for k, value in vars(self).items()}
        return text.format(**parts)


# ----------------------------------------------------------------------- making the files
def build(course, folder, student):
    """Yield (file's name, function that makes its content) for all that `course` wants.

    `folder` holds the notebooks and sources, the course's own or a copy that was executed.
    """
    for name, made_from in course.files.items():
        name = student.file_name(name)
        if isinstance(made_from, Document):
            yield name, partial(print_document, made_from, folder, student)
        elif isinstance(made_from, Archive):
            yield name, partial(make_archive, made_from, folder, student)
        else:
            yield name, (folder / made_from).read_bytes


def wanted_files(course, folder):
    """The files in `folder` that are handed in or listed, besides the notebooks."""
    files = []
    for made_from in course.files.values():
        if isinstance(made_from, Document):
            files += made_from.listing
        elif isinstance(made_from, Archive):
            files += ["README.md", *files_named_in_readme(folder)]
        else:
            files.append(made_from)
    notebooks = {notebook.name for notebook in course.notebooks}
    return [file for file in files if file not in notebooks]


def print_document(document, folder, student):
    """The PDF (bytes); warns when it has too many pages."""
    notebooks = [read_notebook(folder / name) for name in document.notebooks]
    trial = any(map(used_sample, notebooks))
    if document.question:
        notebooks = [questions(notebooks[0])[document.question - 1]]
    if document.listing:  # one after the other, without new pages
        cells = [cell for notebook in notebooks for cell in notebook.cells]
        cells += _listing(folder, document.listing)
        notebooks = [nbformat.from_dict({**notebooks[0], "cells": cells})]
    page = Page(
        student.fill(document.heading),
        student.name,
        title=document.title,
        authors=(student.fill(document.author),) if document.author else (),
        hide_code=document.hide_code,
        trial=trial,
    )
    pdf = to_pdf(notebooks, page, folder)
    length = len(PdfReader(io.BytesIO(pdf)).pages)
    if length > document.pages:
        warnings.warn(
            f"{page.heading}: {length} pages; at most {document.pages} are wanted.",
            stacklevel=2,
        )
    return pdf


def _listing(folder, names):
    """Cells that show the files `names`."""
    yield nbformat.v4.new_markdown_cell("# Code")
    for name in names:
        code = re.sub(r"\n{3,}", "\n\n", (folder / name).read_text("utf-8"))
        yield nbformat.v4.new_markdown_cell(f"## `{name}`")
        yield nbformat.v4.new_code_cell(code)


def questions(notebook):
    """The notebook cut before each cell that starts with a heading "Question …".

    What precedes the first belongs to it. Raises ValueError unless there are three.
    """
    parts, found = [[]], []
    for cell in notebook.cells:
        question = re.match(r"#+ Question (\d+)\b", cell.source)
        if question and cell.cell_type == "markdown":
            parts.append([])
            found.append(question[1])
        parts[-1].append(cell)
    if found != ["1", "2", "3"]:
        raise ValueError(
            f"{MNIST_NOTEBOOK} must have cells that start with the headings Question 1, "
            f"Question 2 and Question 3; it has {', '.join(found) or 'none'}."
        )
    before, first, *others = parts
    return [
        nbformat.from_dict({**notebook, "cells": cells})
        for cells in (before + first, *others)
    ]


# ----------------------------------------------------------------------------- an archive
FILE = re.compile(r"`([\w./-]+\.(?:py|ipynb|csv|json|png|txt))`")
GENERATED = {"report.pdf", "helpers.py", "requirements.txt"}


def files_named_in_readme(folder):
    """The files in backticks in the folder's README.md, without those that are generated."""
    readme = folder / "README.md"
    text = readme.read_text("utf-8") if readme.is_file() else ""
    return sorted(set(FILE.findall(text)) - GENERATED)


def make_archive(archive, folder, student):
    """A ZIP (bytes), the same for the same files: sorted, dated 1980."""
    names = ["README.md", *files_named_in_readme(folder)]
    files = {name: (folder / name).read_bytes() for name in names}
    files["helpers.py"] = (ROOT / "helpers.py").read_bytes()
    pins = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    pins = [pin.split()[0] for pin in pins if pin.split("==")[0] in archive.packages]
    files["requirements.txt"] = "\n".join([*pins, ""]).encode()
    files["report.pdf"] = print_document(archive.report, folder, student)
    for path in (ROOT / "data/sample/MNIST").rglob("*"):
        if path.is_file():
            files[path.relative_to(ROOT).as_posix()] = path.read_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            file.writestr(entry, files[name], zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
