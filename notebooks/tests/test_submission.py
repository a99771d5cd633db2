"""submission.courses and the command: what is built, what is refused, what is left alone."""

import ast
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path

import nbformat
import pypdf
import pytest
from submission import __main__ as command
from submission import courses, record

import helpers

ADA = ["--first-name", "Ada", "--last-name", "Lovelace", "--student-number", "12345678"]
FILES = {
    "ece1508/Lovelace_Ada_Assgn4.ipynb",
    "ece1508/Written_Q1.pdf",
    "ece1508/Written_Q2.pdf",
    "ece1508/Programming_Q1.pdf",
    "ece1508/Programming_Q2.pdf",
    "ece1508/Programming_Q3.pdf",
    "cs324/12345678_assignment3.zip",
    "tdl211/MLP.py",
    "tdl211/RNN.py",
    "tdl211/LSTM.py",
    "tdl211/ex2.pdf",
    "ee519/Lovelace_hw1.pdf",
}


# ------------------------------------------------------- four small assignments to build
def markdown(source):
    return nbformat.v4.new_markdown_cell(source)


def code(source, output="", number=1):
    outputs = [nbformat.v4.new_output("stream", text=output)] if output else []
    return nbformat.v4.new_code_cell(source, outputs=outputs, execution_count=number)


def write(path, *cells):
    """Save a notebook whose code cells are numbered in order."""
    notebook = nbformat.v4.new_notebook(cells=list(cells))
    count = 0
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder like this one with small notebooks in it, from which `submission` builds."""
    root = tmp_path / "bundle"
    folders = {
        name: root / "notebooks" / c.folder for name, c in courses.COURSES.items()
    }
    ece = folders["ece1508"]
    for name, file in (("xor", "xor_rnn"), ("tanh", "tanh_activation")):
        titles = [markdown(f"## {n}. {name}{n}") for n in range(1, 6)]
        write(ece / f"{file}.ipynb", *titles, code("1", "1"))
    write(
        ece / "mnist_rnn_gru_lstm.ipynb",
        markdown("# MNIST\nthe set-up"),
        code("import_statement", "loaded"),
        markdown("## Question 1: RNN"),
        code("first_code", "first output"),
        markdown("last of one\n\n## Question 2: GRU\nsee ## Question 3"),
        code("second_code # ## Question 9", "second output"),
        markdown("```\n## Question 7\n```"),
        markdown("## Question 3: LSTM"),
        code("third_code", "third output"),
        markdown("## Summary\nthe summary"),
    )
    for name in ("palindrome_lstm", "gan"):
        write(
            folders["cs324"] / f"{name}.ipynb",
            markdown(f"# Assignment 3, part I: {name}\n## Abstract\nAll of {name}."),
            markdown(
                "## 1. Task 1\n## 2. Task 2\n## 3 Task 3\nas sections 1 and 2 show\n\n"
                f"    python train.py --table \\\n    saved/{name}.csv\n"
            ),
            code("import helpers", f"output of {name}"),
        )
    (folders["cs324"] / "saved").mkdir()
    (folders["cs324"] / "saved" / "table.csv").write_text("a,b\n1,2\n")
    tasks = " ".join(f"\n## Task {n}\nanswer {n}" for n in (1, 2, 3, 4))
    write(folders["tdl211"] / "ex2.ipynb", markdown(tasks), code("print(1 + 1)", "2\n"))
    for number, name in enumerate(courses.COURSES["ee519"].headings, 1):
        path = folders["ee519"] / name
        write(
            path, markdown(f"# Problem {number}: x"), code("test()", f"result {number}")
        )
    write(folders["ee519"] / "TrainingTester.ipynb", code("test()", "trained"))
    for name, course in courses.COURSES.items():
        for source in course.sources:
            path = folders[name] / source
            path.parent.mkdir(exist_ok=True)
            path.write_text(f'"""The source of {source}."""\n')
    (root / "helpers.py").write_text("x = 1\n")
    (root / "requirements.txt").write_text("# pinned\nnumpy==2.4.6\n# this\n-e .\n")
    shutil.copy(courses.ROOT / "pyproject.toml", root)
    raw = root / "data" / "sample" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "images").write_bytes(b"\0\1")
    (root / "data" / "mirrors.txt").write_text("from where\n")
    monkeypatch.setattr(courses, "ROOT", root)
    return root


@pytest.fixture
def output(tmp_path):
    return tmp_path / "handed in"


def run(output, *arguments):
    return command.main([*arguments, "--output", str(output)])


def content(folder):
    """Relative path: bytes, of all files in a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


def text(pdf):
    """The text of a PDF (bytes or a path), a list with a string per page."""
    pdf = pdf if isinstance(pdf, bytes) else Path(pdf).read_bytes()
    pages = pypdf.PdfReader(io.BytesIO(pdf)).pages
    return [page.extract_text().replace("\u200b", "") for page in pages]


# ------------------------------------------------------------------------ what is built
def test_all_builds_exactly_the_files_of_the_table(root, output, capsys):
    assert run(output, "all", *ADA) == 0
    assert set(content(output)) == FILES
    printed = capsys.readouterr().out
    assert all(f"made {name}" in printed for name in FILES)
    assert len(re.findall(r"\d kB  \S", printed)) == len(FILES)


@pytest.mark.parametrize("course", courses.COURSES)
def test_a_course_alone_has_its_files(course, root, output):
    assert run(output, course, *ADA) == 0
    assert set(content(output)) == {f for f in FILES if f.startswith(course)}


def test_two_builds_have_the_same_bytes(root, output, tmp_path):
    assert run(output, "all", *ADA) == 0
    time.sleep(2.1)  # a ZIP would count time in steps of two seconds
    assert run(tmp_path / "again", "all", *ADA) == 0
    assert content(output) == content(tmp_path / "again")


def test_ece1508_is_cut_at_its_questions(root, output):
    run(output, "ece1508", *ADA)
    parts = [
        "\n".join(text(output / f"ece1508/Programming_Q{n}.pdf")) for n in (1, 2, 3)
    ]
    wanted = [
        ("the set-up", "import_statement", "first_code", "first output", "last of one"),
        (
            "Question 2",
            "second_code",
            "second output",
            "see ## Question 3",
            "## Question 7",
        ),
        ("Question 3", "third_code", "third output", "the summary"),
    ]
    for part, words in zip(parts, wanted):
        assert all(word in part for word in words)
        others = [w for other in wanted if other is not words for w in other]
        assert not [w for w in others if w in part and not w.startswith("Question")]
    assert "ECE1508 · Assignment 4 · Programming question 2" in parts[1]
    assert "Ada Lovelace" in parts[1]
    assert "xor1" in text(output / "ece1508/Written_Q1.pdf")[0]
    assert "tanh1" in text(output / "ece1508/Written_Q2.pdf")[0]
    notebook = root / "notebooks/ece1508_recurrent_networks/mnist_rnn_gru_lstm.ipynb"
    copy = output / "ece1508/Lovelace_Ada_Assgn4.ipynb"
    assert copy.read_bytes() == notebook.read_bytes()


@pytest.mark.parametrize(
    "old, new, found",
    [
        ("Question 3", "Summary of Question 3", "it has 1, 2"),
        ("Question 2", "Question 3", "it has 1, 3, 3"),
    ],
)
def test_questions_must_stand_in_order(old, new, found, root, output, capsys):
    path = root / "notebooks/ece1508_recurrent_networks/mnist_rnn_gru_lstm.ipynb"
    path.write_text(path.read_text().replace(f"## {old}", f"## {new}"))
    assert run(output, "ece1508", *ADA) == 1
    message = capsys.readouterr().err
    assert found in message or "no heading says" in message
    assert not content(output)


def test_a_folder_in_the_place_of_a_file_is_refused(root, output, capsys):
    (output / "ece1508/Written_Q2.pdf").mkdir(parents=True)
    assert run(output, "ece1508", *ADA) == 1
    assert "Written_Q2.pdf is in the way" in capsys.readouterr().err
    assert not content(output)


def test_cs324_is_an_archive_with_all_that_is_needed(root, output):
    run(output, "cs324", *ADA)
    with zipfile.ZipFile(output / "cs324/12345678_assignment3.zip") as archive:
        assert archive.testzip() is None
        assert set(archive.namelist()) == {
            "report.pdf",
            "README.md",
            "requirements.txt",
            "helpers.py",
            "palindrome_lstm.ipynb",
            "gan.ipynb",
            *courses.COURSES["cs324"].sources,
            "saved/table.csv",
            "data/sample/MNIST/raw/images",
            "data/mirrors.txt",
        }
        readme = archive.read("README.md").decode()
        assert archive.read("requirements.txt") == b"numpy==2.4.6\n"
        report = "\n".join(text(archive.read("report.pdf")))
    assert "import helpers" not in report and "Ada Lovelace" in report
    assert report.index("output of palindrome_lstm") < report.index("output of gan")
    assert "12345678" in report
    for part, name in (("I", "palindrome_lstm"), ("II", "gan")):
        assert report.index(f"All of {name}.") < report.index("Part I:")
        assert f"Part {part}: {name}" in report
        assert f"as sections {part}.1 and {part}.2 show" in report
        row = rf"\| Part {part}, task 2 \| .* \| `{name}.ipynb` \| {part}.2 Task 2 \|"
        assert re.search(row, readme)
        assert f"    python train.py --table saved/{name}.csv\n" in readme


@pytest.mark.parametrize(
    "text, numbered",
    [
        ("section 3", "section II.3"),
        (
            "Sections 2.1, 3 and 4 to 7, of which",
            "Sections II.2.1, II.3 and II.4 to II.7,",
        ),
        ("section\n12.", "section\nII.12."),
        ("section 3\nof that paper", "section 3\nof that paper"),
        ("sections 3.1 and 3.2 of it", "sections 3.1 and 3.2 of it"),
        ("the same paper (its section 3)", "paper (its section 3)"),
        ("(Saxe et al. 2014, section 3)", "2014, section 3)"),
        ("## 2. Part II, Task 1: loss", "## II.2 Task 1: loss"),
        ("## 3 Task 2", "## II.3 Task 2"),
    ],
)
def test_sections_of_the_report_are_numbered_and_those_of_papers_are_not(
    text, numbered
):
    assert numbered in courses._numbered(text, "II")


def test_ee519_has_the_problems_in_order_and_the_code_at_its_end(root, output):
    package = root / "notebooks" / "ee519_mytorch" / "mytorch" / "__init__.py"
    package.write_text("not_asked_for = 1")
    run(output, "ee519", *ADA)
    pages = text(output / "ee519/Lovelace_hw1.pdf")
    assert all(f"Problem {n}" in pages[0] for n in range(1, 6))  # no page for each
    whole = "\n".join(pages)
    assert "not_asked_for" not in whole
    order = [f"Problem {n}" for n in range(1, 6)]
    order += [f"The source of {name}" for name in courses.COURSES["ee519"].sources]
    places = [whole.index(words) for words in order]
    assert places == sorted(places)
    assert all(f"result {n}" in whole for n in range(1, 6))
    assert all(
        words in whole.split("Problem 1")[0]
        for words in ("EE519: Deep Learning", "Homework 1", "Ada Lovelace", "Lipor")
    )
    assert "trained" not in whole


def test_a_document_beyond_its_pages_is_named(root, output, capsys):
    path = root / "notebooks/tdl211_layers/ex2.ipynb"
    change(path, lambda nb: cell(nb, 0).outputs[0].update(text="line\n" * 700))
    assert run(output, "tdl211") == 0
    assert "at most 7 are wanted" in capsys.readouterr().err


def test_tdl211_has_the_sources_to_the_byte(root, output):
    assert run(output, "tdl211") == 0  # the sheet asks for no name
    folder = root / "notebooks" / "tdl211_layers"
    for name in ("MLP.py", "RNN.py", "LSTM.py"):
        assert (output / "tdl211" / name).read_bytes() == (folder / name).read_bytes()
    assert "answer 4" in text(output / "tdl211" / "ex2.pdf")[0]


# ------------------------------------------------------------------------------- names
@pytest.mark.parametrize(
    "first, last, file",
    [
        ("Ada", "Lovelace", "Lovelace_Ada"),
        ("Mary Ann", "O'Neil", "ONeil_MaryAnn"),
        ("José", "Núñez-Ångström", "Núñez-Ångström_José"),
        ("Jose\u0301", "N", "N_José"),  # a combining accent gives the same name
        ("小明", "王", "王_小明"),
        ("Мария", "Иванова", "Иванова_Мария"),
        ("नीलम", "संजीव", "संजीव_नीलम"),
        ("Sammy", "Davis, Jr.", "DavisJr_Sammy"),
        ("علی\u200cرضا", "نوری", "نوری_علیرضا"),
        ("姓" * 33, "名" * 33, "名" * 33 + "_" + "姓" * 33),
        ("#x", '"$y$"', "y_x"),
    ],
)
def test_names_give_valid_file_names_and_stand_in_the_header(
    first, last, file, root, output, capfd
):
    assert run(output, "ece1508", "--first-name", first, "--last-name", last) == 0
    said = capfd.readouterr().err
    (notebook,) = (output / "ece1508").glob("*.ipynb")
    assert notebook.name == f"{file}_Assgn4.ipynb"
    page = text(output / "ece1508/Written_Q1.pdf")[0]
    if first.isascii() or "é" in first or first == "Мария":  # Typst's own fonts do
        assert "No font has" not in said
    if "No font has" not in said:  # otherwise a box says which script is missing
        assert last[0] in page and last[-1] in page


@pytest.mark.parametrize("option", ["--first-name", "--last-name", "--student-number"])
@pytest.mark.parametrize(
    "value",
    [
        "a/b",
        "a\\b",
        "..",
        "a..b",
        "a\nb",
        "a\0b",
        "\x1b[31m",
        "\u202ea",
        " ",
        "'",
        "\u3164",
        "\u0301",
        "x" * 101,
    ],
)
def test_bad_names_are_refused(option, value, root, output, capsys):
    assert run(output, "all", *ADA, option, value) == 1
    message = capsys.readouterr().err
    assert option in message and "Traceback" not in message
    assert not output.exists()


@pytest.mark.parametrize(
    "course, options, missing",
    [
        ("ece1508", ["--first-name", "Ada"], ["--last-name"]),
        ("ece1508", [], ["--first-name", "--last-name"]),
        ("cs324", ADA[:4], ["--student-number"]),
        ("cs324", [*ADA, "--student-number", ""], ["--student-number"]),
        ("ee519", ["--last-name", ""], ["--last-name"]),
        ("all", [], ["--first-name", "--last-name", "--student-number"]),
    ],
)
def test_a_missing_name_is_asked_for(course, options, missing, root, output, capsys):
    assert run(output, course, *options) == 1
    message = capsys.readouterr().err
    assert all(option in message for option in missing) and not output.exists()


# ------------------------------------------------------------------------------ checks
def change(path, edit):
    notebook = nbformat.read(path, as_version=4)
    edit(notebook)
    nbformat.write(notebook, path)


def cell(notebook, number=1):
    return [c for c in notebook.cells if c.cell_type == "code"][number]


ERROR = nbformat.v4.new_output("error", ename="ValueError", evalue="bad", traceback=[])


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda nb: cell(nb).update(execution_count=None), "cell 4 was not executed"),
        (
            lambda nb: cell(nb).update(execution_count=7),
            "execution number 7 instead of 2",
        ),
        (
            lambda nb: cell(nb).update(execution_count=1),
            "execution number 1 instead of 2",
        ),
        (lambda nb: cell(nb).update(outputs=[ERROR]), "ended with ValueError: bad"),
        (
            lambda nb: [c.update(outputs=[]) for c in nb.cells if "outputs" in c],
            "all outputs were cleared",
        ),
        (
            lambda nb: nb.update(cells=[c for c in nb.cells if "outputs" not in c]),
            "it has no code",
        ),
        (lambda nb: nb.cells.pop(2), "no heading says 'Question 1'"),
        (lambda nb: nb.cells[4].update(source="## Questions 2"), "no heading says"),
        (lambda nb: nb.cells[7].update(source="## Question 30"), "no heading says"),
    ],
)
def test_a_notebook_that_is_not_ready_is_refused(edit, message, root, output, capsys):
    name = "mnist_rnn_gru_lstm.ipynb"
    change(root / "notebooks/ece1508_recurrent_networks" / name, edit)
    assert run(output, "all", *ADA) == 1
    printed = capsys.readouterr().err
    assert name in printed and message in printed
    assert not output.exists()


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("{")])
def test_a_missing_or_damaged_notebook_is_named(damage, root, output, capsys):
    damage(root / "notebooks/ee519_mytorch/LossTester.ipynb")
    assert run(output, "ee519", *ADA) == 1
    printed = capsys.readouterr().err
    assert "LossTester.ipynb" in printed and "Traceback" not in printed
    assert not output.exists()


def test_a_missing_source_is_named(root, output, capsys):
    (root / "notebooks/tdl211_layers/RNN.py").unlink()
    assert run(output, "tdl211") == 1
    assert "RNN.py is missing" in capsys.readouterr().err and not output.exists()


def test_all_that_is_wrong_is_said_at_once(root, output, capsys):
    (root / "notebooks/tdl211_layers/RNN.py").unlink()
    (root / "notebooks/cs324_lstm_gan/gan.ipynb").unlink()
    assert run(output, "all") == 1
    printed = capsys.readouterr().err
    assert all(word in printed for word in ("RNN.py", "gan.ipynb", "--last-name"))


def test_an_unknown_course_is_refused(output, capsys):
    with pytest.raises(SystemExit) as stop:
        run(output, "ece1509")
    assert (
        stop.value.code == 2 and "invalid choice: 'ece1509'" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "options, words",
    [
        (["--jobs", "0", "--execute"], "'0'"),
        (["--save"], "--save needs --execute"),
        (["--exec"], "--exec"),
        (["--output", ""], "--output"),
        (["--output", "x\0"], "--output"),
        (["--output", __file__], "is not a folder"),
        (["--output", f"{__file__}/below"], "is not a folder"),
        (["--execute", "--only", "ex3"], "'ex3' is none of ex2"),
    ],
)
def test_bad_options_are_refused_before_any_work(options, words, root, capsys):
    try:
        status = command.main(["tdl211", *options])
    except SystemExit as stop:
        status = stop.code
    message = capsys.readouterr().err
    assert status and words in message and "Traceback" not in message


def test_code_that_changed_after_it_ran_is_warned_of(root, output, capsys):
    path = root / "notebooks/tdl211_layers/ex2.ipynb"
    change(path, lambda nb: record.record(nb, 1))
    assert run(output, "tdl211") == 0 and not capsys.readouterr().err
    change(path, lambda nb: cell(nb, 0).update(source="print(3)"))
    assert run(output, "tdl211") == 0
    assert "its code has changed" in capsys.readouterr().err


# --------------------------------------------------------- whole or not at all, nowhere else
@pytest.mark.parametrize(
    "error, status", [(KeyboardInterrupt, 130), (OSError("disk full"), 1)]
)
def test_an_interruption_leaves_the_earlier_submission(
    error, status, root, output, monkeypatch, capsys
):
    assert run(output, "all", *ADA) == 0
    before = content(output)
    path = root / "notebooks/ece1508_recurrent_networks/xor_rnn.ipynb"
    change(path, lambda nb: nb.cells.append(markdown("new text")))
    calls = []

    def stop_at_the_fourth(notebooks, page):
        calls.append(page)
        if len(calls) == 4:
            raise error
        return to_pdf(notebooks, page)

    to_pdf = courses.to_pdf
    monkeypatch.setattr(courses, "to_pdf", stop_at_the_fourth)
    assert run(output, "all", *ADA) == status
    assert content(output) == before
    assert [p.name for p in output.parent.glob("*") if "submission" in p.name] == []
    assert "Traceback" not in capsys.readouterr().err


def test_other_files_in_the_output_folder_stay(root, output):
    (output / "ee519").mkdir(parents=True)
    (output / "ee519" / "mine.txt").write_text("mine")
    assert run(output, "ee519", *ADA) == 0
    assert set(content(output)) == {"ee519/mine.txt", "ee519/Lovelace_hw1.pdf"}


def test_nothing_is_written_outside_the_output_folder(
    root, output, tmp_path, monkeypatch
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    monkeypatch.setenv("HOME", str(elsewhere))
    monkeypatch.setattr("tempfile.tempdir", None)
    before = content(root)
    assert run(output, "all", *ADA) == 0
    assert content(root) == before and not list(elsewhere.iterdir())


# ----------------------------------------------------------------------------- --execute
def test_execute_runs_copies(root, output, capsys):
    folder = root / "notebooks" / "tdl211_layers"
    (folder / ".#ex2.ipynb").symlink_to("ada@host.1")  # an editor's lock
    os.mkfifo(folder / "pipe.ipynb")
    (folder / ".ipynb_checkpoints").mkdir()
    change(folder / "ex2.ipynb", lambda nb: nb.cells[1].update(source="print(6 * 7)"))
    local = nbformat.v4.new_code_cell(
        "import MLP\nopen('made.txt', 'w').write(MLP.__doc__)"
    )
    change(folder / "ex2.ipynb", lambda nb: nb.cells.append(local))
    before = content(root)
    assert run(output, "tdl211", "--execute") == 0
    assert content(root) == before
    page = text(output / "tdl211" / "ex2.pdf")[0]
    assert "42" in page.replace("6 * 7", "")
    assert "ex2.ipynb: 2 cells" in capsys.readouterr().err
    assert set(content(output)) == {f for f in FILES if f.startswith("tdl211")}


def test_save_writes_the_executed_notebook_back_and_nothing_else(root, output, capsys):
    path = root / "notebooks/tdl211_layers/ex2.ipynb"
    change(path, lambda nb: nb.cells[1].update(source="print(6 * 7)"))
    before = content(root)
    assert courses.COURSES["tdl211"].path == path.parent  # and not the committed ones
    assert run(output, "tdl211", "--execute", "--save", "--only", "ex2") == 0
    after = content(root)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"notebooks/tdl211_layers/ex2.ipynb"} and not output.exists()
    notebook = nbformat.read(path, as_version=4)
    assert cell(notebook, 0).outputs[0].text == "42\n"
    assert record.seconds_taken(notebook) is not None
    assert run(output, "tdl211") == 0


def test_execute_runs_notebooks_that_were_never_run(root, output):
    change(
        root / "notebooks/tdl211_layers/ex2.ipynb",
        lambda nb: cell(nb, 0).update(execution_count=None),
    )
    assert run(output, "tdl211") == 1
    assert run(output, "tdl211", "--execute") == 0


def test_execute_checks_the_headings_before_it_runs(root, output, capsys):
    def edit(notebook):
        notebook.cells[0].source = "# no tasks"
        notebook.cells[1].source = "raise SystemExit"

    change(root / "notebooks/tdl211_layers/ex2.ipynb", edit)
    assert run(output, "tdl211", "--execute") == 1
    printed = capsys.readouterr().err
    assert "no heading says" in printed and "cell" not in printed


def test_a_failing_cell_leaves_everything_as_it_was(root, output, capsys):
    assert run(output, "tdl211") == 0
    path = root / "notebooks/tdl211_layers/ex2.ipynb"
    change(path, lambda nb: nb.cells[1].update(source="1 / 0"))
    before = content(root), content(output)
    assert run(output, "tdl211", "--execute") == 1
    assert (content(root), content(output)) == before
    message = capsys.readouterr().err
    assert "ex2.ipynb" in message and "ZeroDivisionError" in message


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
def test_ctrl_c_while_cells_run_leaves_everything_as_it_was(root, output):
    path = root / "notebooks/tdl211_layers/ex2.ipynb"
    started = output.with_name("started")
    slow = f"import time\nopen({str(started)!r}, 'w').close()\ntime.sleep(600)"
    change(path, lambda nb: nb.cells[1].update(source=slow))
    before = content(root)
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "import sys, pathlib; from submission import courses, __main__ as command;"
        f"courses.ROOT = pathlib.Path({str(root)!r});"
        f"sys.exit(command.main(['tdl211', '--execute', '--output', {str(output)!r}]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True
    )
    deadline = time.time() + 120
    while not started.exists() and process.poll() is None:
        assert time.time() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (1, 130) and "Traceback" not in errors, errors
    assert content(root) == before and not output.exists()


# ------------------------------------------------------------- the assignments themselves
@pytest.fixture(scope="module")
def real_submissions(tmp_path_factory):
    """The folder with the real submissions."""
    output = tmp_path_factory.mktemp("submissions")
    assert run(output, "all", *ADA) == 0
    return output


def test_the_real_submissions_are_all_there(real_submissions):
    assert set(content(real_submissions)) == FILES


def test_every_page_of_the_real_submissions_is_whole(real_submissions):
    from test_submission_printer import assert_on_the_page, fonts

    files = {
        name: data
        for name, data in content(real_submissions).items()
        if name.endswith("pdf")
    }
    archive = zipfile.ZipFile(real_submissions / "cs324/12345678_assignment3.zip")
    files["report.pdf"] = archive.read("report.pdf")
    assert len(files) == 8
    for name, pdf in files.items():
        # a glyph that no other font has comes from the font of last resort
        assert not [font for font in fonts(pdf) if "LastResort" in font], name
        assert_on_the_page(pdf)
        pages = text(pdf)
        for number, page in enumerate(pages, 1):
            assert f"page {number} of {len(pages)}" in page
            assert "it/s]" not in page and "Traceback" not in page


def test_the_real_programming_questions_have_their_code_and_results(real_submissions):
    for number, name in enumerate(("myRNN", "myGatedRNN", "myLSTM"), 1):
        whole = "\n".join(text(real_submissions / f"ece1508/Programming_Q{number}.pdf"))
        assert f"class {name}" in whole and f"Question {number}" in whole


@pytest.mark.parametrize("name", ["MLP", "RNN", "LSTM"])
def test_the_real_layers_stand_alone(name, real_submissions, tmp_path):
    shutil.copy(real_submissions / f"tdl211/{name}.py", tmp_path)
    check = f"import {name}; print({name}.__file__)"
    arguments = [sys.executable, "-c", check]
    shown = subprocess.run(arguments, cwd=tmp_path, check=True, capture_output=True)
    assert str(tmp_path) in shown.stdout.decode()


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A Python that has the pinned packages and nothing of this folder."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False)
    # packages are found, but not this folder's: a .pth file in a .pth's folder is not read
    (site,) = environment.glob("[Ll]ib/**/site-packages")
    packages = [path for path in sys.path if path.endswith("site-packages")]
    (site / "packages.pth").write_text("\n".join(packages))
    return environment / ("Scripts" if os.name == "nt" else "bin") / "python"


def run_isolated(python, folder, *arguments, data):
    """Run the isolated Python in `folder`, with the images in the folder `data`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        [python, *arguments],
        cwd=folder,
        env={**environment, "COURSEWORK_DATA": str(data)},
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )


def test_the_handed_in_notebook_of_ece1508_runs_alone(
    real_submissions, python, tmp_path
):
    """Its cells up to train() and one epoch of each model, in an empty folder."""
    (path,) = (real_submissions / "ece1508").glob("*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    cells = [c.source for c in cells if c.cell_type == "code"]
    trains = next(i for i, source in enumerate(cells) if "def train(" in source)
    classes = [s.split("\n\n\ncheck")[0] for s in cells if s.startswith("class my")]
    assert len(classes) == 3
    (tmp_path / "cells.py").write_text(
        "\n\n".join([*cells[: trains + 1], *classes])
        + """
for model in (myRNN(), myGatedRNN(), myLSTM()):
    history = train(model, nn.CrossEntropyLoss(), 1)
    assert history["val_accuracy"][-1] > 0.2  # guessing: 0.1; 18 runs: 0.26 to 0.45
assert helpers is None
""",
        encoding="utf-8",
    )
    done = run_isolated(python, tmp_path, "cells.py", data=helpers.DATA / "sample")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def unpacked(real_submissions, tmp_path_factory, python):
    """The CS324 archive in an empty folder, and a Python without this one."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(
        real_submissions / "cs324/12345678_assignment3.zip"
    ) as archive:
        archive.extractall(folder)
    return folder, python


def run_unpacked(unpacked, *arguments):
    """Run the isolated Python in the unpacked folder, with the data that came along."""
    folder, python = unpacked
    return run_isolated(python, folder, *arguments, data=folder / "data" / "sample")


def imports(source):
    """The import statements of some Python code or of a notebook's cells."""
    lines = [line for line in source.split("\n") if line[:1] != "%"]
    nodes = ast.walk(ast.parse("\n".join(lines)))
    return [n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]


def code_of(path):
    """All code of a notebook."""
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(c.source for c in cells if c.cell_type == "code")


def test_the_archive_requires_what_it_imports_and_jupyter(unpacked):
    folder, _ = unpacked
    sources = [path.read_text() for path in folder.glob("*.py")]
    sources += map(code_of, folder.glob("*.ipynb"))
    modules = set()
    for node in [node for source in sources for node in imports(source)]:
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        modules |= {name.split(".")[0] for name in names or [node.module]}
    own = {path.stem for path in folder.glob("*.py")} | set(sys.stdlib_module_names)
    third_party = {module.split(".")[0].lower() for module in modules - own}
    required = (folder / "requirements.txt").read_text().splitlines()
    opener = {"jupyter"}  # of the notebooks
    assert {line.split("==")[0] for line in required} == third_party | opener


def test_the_unpacked_archive_finds_all_it_imports(unpacked):
    folder, _ = unpacked
    statements = []
    for path in sorted(folder.glob("*.ipynb")):
        statements += map(ast.unparse, imports(code_of(path)))
    done = run_unpacked(
        unpacked, "-c", "\n".join([*statements, "print(helpers.__file__)"])
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(folder / "helpers.py")


@pytest.mark.parametrize(
    "arguments",
    [
        ["train.py", "--train_steps", "3"],
        ["my_gan.py", "--n_epochs", "1", "--batch_size", "999"],
    ],
)
def test_the_unpacked_programs_run(arguments, unpacked):
    done = run_unpacked(unpacked, *arguments)
    assert done.returncode == 0, done.stderr


def test_the_unpacked_folder_has_every_file_that_its_code_names(unpacked):
    folder, _ = unpacked
    sources = [path.read_text() for path in folder.iterdir() if path.suffix == ".py"]
    sources += [path.read_text() for path in folder.glob("*.ipynb")]
    for path in courses.COURSES["cs324"].path.iterdir():
        if path.is_file() and any(path.name in source for source in sources):
            assert (folder / path.name).read_bytes() == path.read_bytes()


@pytest.mark.skipif(
    "RUN_UNPACKED" not in os.environ,
    reason="takes minutes, and nbval runs the same notebooks: set RUN_UNPACKED=1",
)
@pytest.mark.parametrize("name", ["palindrome_lstm", "gan"])
def test_the_unpacked_notebooks_run(name, unpacked):
    # not nbconvert, which looks for the exporter of a package that is not there
    source = (
        "import nbformat, nbclient; "
        f"nbclient.NotebookClient(nbformat.read('{name}.ipynb', 4)).execute()"
    )
    done = run_unpacked(unpacked, "-c", source)
    assert done.returncode == 0, done.stderr


def test_the_unpacked_notebooks_start(unpacked):
    """Their first cells; nbval runs the same notebooks whole."""
    folder, _ = unpacked
    for name in ("palindrome_lstm", "gan"):
        notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
        code_cells = [c for c in notebook.cells if c.cell_type == "code"][:2]
        source = "\n\n".join(c.source for c in code_cells)
        done = run_unpacked(unpacked, "-m", "IPython", "-c", source)
        assert done.returncode == 0, done.stderr + done.stdout
