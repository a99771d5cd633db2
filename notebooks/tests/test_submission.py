"""The command: which files it makes, when it refuses, and what it leaves alone."""

import ast
import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pypdf
import pytest
from submission import __main__ as command
from submission import courses
from submission.notebooks import code_cells, read_notebook, record_of, record_run, unfit

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
README = """# Report
`report.pdf`, `palindrome_lstm.ipynb`, `gan.ipynb`, `lstm.py`, `saved/rates.csv`,
`helpers.py`, `requirements.txt`. Not files: `COURSEWORK_DATA`, `data/`, `train()`.
"""


# ------------------------------------------------------- four small assignments to build
def markdown(source):
    return nbformat.v4.new_markdown_cell(source)


def code(source, output):
    outputs = [nbformat.v4.new_output("stream", text=output)]
    return nbformat.v4.new_code_cell(source, outputs=outputs)


def stamp(path, data="none", files=()):
    """Record a run of the notebook in the file `path` as it is now."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.clear()
    for count, cell in enumerate(code_cells(notebook), 1):
        cell.execution_count = count
    record_run(notebook, path.parent, files, data, seconds=1)
    nbformat.write(notebook, path)


def write(path, *cells, **run):
    """Save a notebook as if it had been run."""
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), path)
    stamp(path, **run)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder like this one with small notebooks in it, from which files are made."""
    root = tmp_path / "bundle"
    every = courses.COURSES.items()
    folders = {name: root / "notebooks" / course.folder for name, course in every}
    for folder in folders.values():
        (folder / "saved").mkdir(parents=True)
    ece, cs = folders["ece1508"], folders["cs324"]
    write(ece / "xor_rnn.ipynb", markdown("# XOR"), code("1", "one"))
    write(ece / "tanh_activation.ipynb", code("2", "two"), data="full")
    write(
        ece / "mnist_rnn_gru_lstm.ipynb",
        markdown("the set-up"),
        code("import_statement", "loaded"),
        markdown("## Question 1: RNN"),
        code("first_code", "first output"),
        markdown("## Question 2: GRU\nsee\n## Question 3"),
        code("# Question 9\nsecond_code", "second output"),
        markdown("## Question 3: LSTM"),
        code("third_code", "third output"),
        data="full",
    )
    (cs / "README.md").write_text(README)
    (cs / "lstm.py").write_text('"""An LSTM."""\nimport joblib\n\nx = 1  # one\n')
    (cs / "notes.py").write_text("named_nowhere = 1\n")
    (cs / "saved" / "rates.csv").write_text("a,b\n1,2\n")
    used = ("lstm.py", "saved/rates.csv")
    for name, data in (("palindrome_lstm", "none"), ("gan", "full")):
        first = code("def f():\n    'doc'\n    return 1", f"output of {name}")
        cells = markdown(f"# Part {name}"), first, code("f()", "1")
        write(cs / f"{name}.ipynb", *cells, data=data, files=used)
    for name in ("MLP", "RNN", "LSTM"):
        (folders["tdl211"] / f"{name}.py").write_text(f"class {name}:\n    pass\n")
    write(folders["tdl211"] / "ex2.ipynb", code("print(1 + 1)", "2"), files=["MLP.py"])
    (document,) = courses.COURSES["ee519"].files.values()
    (folders["ee519"] / "mytorch").mkdir()
    for source in document.listing:
        (folders["ee519"] / source).write_text(f'"""The source of {source}."""\n')
    for number, name in enumerate(document.notebooks, 1):
        cells = markdown(f"# Problem {number}"), code("test()", f"result {number}")
        write(folders["ee519"] / name, *cells)
    write(folders["ee519"] / "TrainingTester.ipynb", code("test()", "trained"))
    (root / "helpers.py").write_text("import numpy\n")
    (root / "requirements.txt").write_text(
        "numpy==2.4.6\njoblib==1.6.0\njupyter==1.1.1\npytest==9.2.0\n-e .\n"
    )
    images = root / "data/sample/MNIST/raw/images"
    images.parent.mkdir(parents=True)
    images.write_bytes(b"\0\1")
    monkeypatch.setattr(courses, "ROOT", root)
    return root


@pytest.fixture
def output(tmp_path):
    return tmp_path / "handed in"


def run(output, *arguments):
    return command.main([*arguments, "--output", str(output)])


def content(folder):
    """Relative path: bytes, of all files in a folder."""
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def text(pdf):
    """The text of a PDF (bytes or a path), a string per page."""
    pdf = pdf if isinstance(pdf, bytes) else Path(pdf).read_bytes()
    pages = pypdf.PdfReader(io.BytesIO(pdf)).pages
    return [page.extract_text().replace("\xa0", " ") for page in pages]


def change(path, edit):
    notebook = nbformat.read(path, as_version=4)
    edit(notebook)
    nbformat.write(notebook, path)


# ------------------------------------------------------------------------ what is made
def test_all_makes_the_files_of_the_table_and_says_from_which_run(root, output, capsys):
    assert run(output, "all", *ADA) == 0
    assert set(content(output)) == FILES
    said = capsys.readouterr().out
    assert all(str(output / Path(name)) in said for name in FILES)
    record = record_of(read_notebook(root / "notebooks/tdl211_layers/ex2.ipynb"))
    assert (
        f"ece1508, from notebooks that ran on the full data on {record['date']}:"
        in said
    )
    assert f"tdl211, from notebooks that ran on {record['date']}:" in said
    assert run(output.with_name("again"), "all", *ADA) == 0
    assert content(output.with_name("again")) == content(output)  # to the byte


def test_ece1508_is_cut_at_its_questions(root, output):
    assert run(output, "ece1508", *ADA) == 0
    assert set(content(output)) == {name for name in FILES if name.startswith("ece")}
    numbers = (1, 2, 3)
    parts = ["\n".join(text(output / f"ece1508/Programming_Q{n}.pdf")) for n in numbers]
    wanted = [
        ("the set-up", "import_statement", "first_code", "first output"),
        ("Question 2: GRU", "second_code", "second output"),
        ("Question 3: LSTM", "third_code", "third output"),
    ]
    for part, words in zip(parts, wanted):
        assert all(word in part for word in words)
        others = [w for other in wanted if other is not words for w in other]
        assert not [word for word in others if word in part]
    assert "Programming question 2" in parts[1] and "Ada Lovelace" in parts[1]
    notebook = root / "notebooks/ece1508_recurrent_networks/mnist_rnn_gru_lstm.ipynb"
    copy = output / "ece1508/Lovelace_Ada_Assgn4.ipynb"
    assert copy.read_bytes() == notebook.read_bytes()


def test_a_missing_question_is_named(root, output, capsys):
    path = root / "notebooks/ece1508_recurrent_networks/mnist_rnn_gru_lstm.ipynb"
    change(path, lambda nb: nb.cells[6].update(source="## Summary"))
    assert run(output, "ece1508", *ADA) == 1
    assert "it has 1, 2" in capsys.readouterr().err and not output.exists()


def test_cs324_is_an_archive_of_what_its_readme_names(root, output):
    assert run(output, "cs324", *ADA) == 0
    path = output / "cs324/12345678_assignment3.zip"
    with zipfile.ZipFile(path) as archive:
        assert set(archive.namelist()) == {
            *("report.pdf", "README.md", "requirements.txt", "helpers.py", "lstm.py"),
            *("palindrome_lstm.ipynb", "gan.ipynb", "saved/rates.csv"),
            "data/sample/MNIST/raw/images",
        }
        pins = "numpy==2.4.6\njoblib==1.6.0\njupyter==1.1.1\n"
        assert archive.read("requirements.txt").decode() == pins
        report = "\n".join(text(archive.read("report.pdf")))
    assert "def f" not in report and "Ada Lovelace" in report and "12345678" in report
    assert report.index("output of palindrome_lstm") < report.index("output of gan")


@pytest.mark.parametrize("name", ["lstm.py", "saved/rates.csv", "README.md"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("")])
def test_a_file_that_is_missing_or_empty_is_named(name, damage, root, output, capsys):
    damage(root / "notebooks/cs324_lstm_gan" / name)
    assert run(output, "cs324", *ADA) == 1
    assert f"{name} is missing or empty" in capsys.readouterr().err
    assert not output.exists()


def test_ee519_has_the_problems_in_order_and_the_code_at_its_end(root, output):
    assert run(output, "ee519", "--last-name", "Lovelace") == 0
    whole = "\n".join(text(output / "ee519/Lovelace_hw1.pdf"))
    (document,) = courses.COURSES["ee519"].files.values()
    order = [f"{word} {n}" for n in range(1, 6) for word in ("Problem", "result")]
    order += [f"The source of {name}" for name in document.listing]
    places = [whole.index(words) for words in order]
    assert places == sorted(places)
    front = whole.split("Problem 1")[0]
    assert all(w in front for w in ("EE519", "Homework 1", "Lovelace", "John Lipor"))


def test_tdl211_has_the_sources_to_the_byte_and_hides_code(root, output):
    assert run(output, "tdl211") == 0  # the sheet asks for no name
    for name in ("MLP.py", "RNN.py", "LSTM.py"):
        source = root / "notebooks/tdl211_layers" / name
        assert (output / "tdl211" / name).read_bytes() == source.read_bytes()
    assert "print" not in "".join(text(output / "tdl211/ex2.pdf"))


def test_too_many_pages_are_named(root, output, capsys):
    path = root / "notebooks/tdl211_layers/ex2.ipynb"
    change(path, lambda nb: nb.cells[0].outputs[0].update(text="line\n" * 700))
    stamp(path)
    assert run(output, "tdl211") == 0
    assert "at most 5 are wanted" in capsys.readouterr().err


# ----------------------------------------------------------------------- names, options
def test_names_give_file_names(root, output):
    names = ["--first-name", "Mary José", "--last-name", "O'Neil-Núñez, Jr."]
    assert run(output, "ece1508", *names) == 0
    (notebook,) = (output / "ece1508").glob("*.ipynb")
    assert notebook.name == "ONeil-NúñezJr_MaryJosé_Assgn4.ipynb"


@pytest.mark.parametrize("option", ["--first-name", "--last-name", "--student-number"])
@pytest.mark.parametrize(
    "value",
    ["a/b", "a\\b", "a:b", "..", "a\nb", "a\0b", "\u202ea", " ", "--", "x" * 101],
)
def test_bad_names_are_refused(option, value, root, output, capsys):
    assert run(output, "all", *ADA, f"{option}={value}") == 1
    assert option in capsys.readouterr().err and not output.exists()


def test_all_that_is_missing_is_said_at_once(root, output, capsys):
    (root / "notebooks/tdl211_layers/RNN.py").unlink()
    (root / "notebooks/ee519_mytorch/LossTester.ipynb").write_text("{")
    assert run(output, "all", *ADA[:2]) == 1
    said = capsys.readouterr().err
    words = ("RNN.py", "LossTester.ipynb", "--last-name", "--student-number")
    assert all(word in said for word in words) and not output.exists()


@pytest.mark.parametrize(
    "options, words",
    [
        (["--jobs", "0", "--execute"], "--jobs 0"),
        (["--save"], "--save needs --execute"),
        (["--exec"], "--exec"),
        (["--output", __file__], "is not a folder"),
        (["--output", f"{__file__}/below"], "is not a folder"),
        (["--execute", "--only", "ex3"], "ex3.ipynb: choose from ex2.ipynb"),
    ],
)
def test_bad_options_are_refused_before_any_work(options, words, root, capsys):
    try:
        status = command.main(["tdl211", *options])
    except SystemExit as stop:
        status = stop.code
    message = capsys.readouterr().err
    assert status and words in message and "Traceback" not in message


# ------------------------------------------------------------ what does not belong together
CS = "notebooks/cs324_lstm_gan"


def edit_file(name, old, new):
    def edit(folder):
        path = folder / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return edit


def edit_notebook(edit):
    return lambda folder: change(folder / "gan.ipynb", edit)


@pytest.mark.parametrize(
    "edit, words",
    [
        (edit_notebook(lambda nb: nb.cells[2].update(source="g()")), "has code that"),
        (edit_notebook(lambda nb: nb.cells.pop()), "has code that changed"),
        (edit_notebook(lambda nb: nb.cells[1].update(outputs=[])), "or cleared"),
        (edit_notebook(lambda nb: nb.cells[2].outputs[0].update(text="3")), "outputs"),
        (edit_notebook(lambda nb: nb.metadata.clear()), "no record of a run"),
        (edit_file("lstm.py", "x = 1", "x = 2"), "before lstm.py changed"),
        (edit_file("lstm.py", "x = 1", "x = ="), "before lstm.py changed"),
        (edit_file("saved/rates.csv", "1,2", "1,3"), "before saved/rates.csv changed"),
    ],
)
def test_outputs_that_are_not_those_of_the_code_are_refused(
    edit, words, root, output, capsys
):
    edit(root / CS)
    assert run(output, "cs324", *ADA) == 1
    said = capsys.readouterr().err
    assert words in said and "gan.ipynb" in said and "--execute" in said
    assert not output.exists()


@pytest.mark.parametrize(
    "edit",
    [
        edit_file("lstm.py", "x = 1  # one", "\n# the number\nx = (\n    1\n)"),
        edit_file("lstm.py", "An LSTM", "A long short-term memory"),
        edit_notebook(lambda nb: nb.cells[2].update(source="f()  # a call")),
        edit_notebook(lambda nb: nb.cells[0].update(source="# Another title")),
    ],
)
def test_comments_and_text_ask_for_no_new_run(edit, root, output):
    edit(root / CS)
    assert run(output, "cs324", *ADA) == 0


# ------------------------------------------------------------ trial runs on the sample
@pytest.fixture
def sample_run(root, monkeypatch):
    """ece1508's notebooks, quick to run, that say which data `helpers` gave them."""
    folder = root / "notebooks/ece1508_recurrent_networks"
    load = "import helpers\nhelpers.data_folder('MNIST')\nprint('loaded')"
    change(folder / "tanh_activation.ipynb", lambda nb: nb.cells[0].update(source=load))
    path = folder / "mnist_rnn_gru_lstm.ipynb"
    for cell, source in {1: load, 3: "1", 5: "2", 7: "3"}.items():
        change(path, lambda nb, c=cell, s=source: nb.cells[c].update(source=s))
    monkeypatch.setenv("COURSEWORK_DATA", str(helpers.DATA / "sample"))
    return root


def test_a_run_on_the_sample_is_a_trial(sample_run, capsys):
    before = content(sample_run)
    assert command.main(["ece1508", "--execute", *ADA]) == 0
    after = content(sample_run)
    new = {f"trial/{name}" for name in FILES if name.startswith("ece")}
    assert set(after) - set(before) == new
    assert {name: after[name] for name in before} == before
    assert "not to be handed in" in capsys.readouterr().out
    for path in (sample_run / "trial" / "ece1508").glob("*.pdf"):
        marked = ["Trial run on a sample of the data" in page for page in text(path)]
        if path.name == "Written_Q1.pdf":  # it uses no images
            assert not any(marked)
        else:
            assert all(marked)


def test_a_run_on_the_sample_is_not_saved(sample_run, output, capsys):
    before = content(sample_run)
    assert run(output, "ece1508", "--execute", "--save", *ADA) == 1
    said = capsys.readouterr().err
    assert "--save" in said and "sample" in said and "ran " not in said
    only = ["ece1508", "--execute", "--save", "--only"]
    assert command.main([*only, "tanh_activation"]) == 1
    assert content(sample_run) == before and not output.exists()
    assert command.main([*only, "xor_rnn"]) == 0  # it uses no images


def test_outputs_from_the_sample_are_not_handed_in(root, output, capsys):
    stamp(root / CS / "gan.ipynb", data="sample")
    assert run(output, "cs324", *ADA) == 1
    said = capsys.readouterr().err
    assert "gan.ipynb was run on the sample" in said and not output.exists()


# ----------------------------------------------------------------------------- --execute
def test_save_writes_the_executed_notebook_back_and_nothing_else(root, output, capsys):
    path = root / "notebooks/tdl211_layers/ex2.ipynb"
    source = "import MLP\nopen('made.txt', 'w').close()\nprint(6 * 7)"
    change(path, lambda nb: nb.cells[0].update(source=source))
    before = content(root)
    assert run(output, "tdl211") == 1
    assert run(output, "tdl211", "--execute") == 0
    assert "42" in text(output / "tdl211/ex2.pdf")[0] and content(root) == before
    assert command.main(["tdl211", "--execute", "--save", "--only", "ex2"]) == 0
    after = content(root)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"notebooks/tdl211_layers/ex2.ipynb"}
    assert run(output, "tdl211") == 0


def test_a_notebook_that_was_edited_while_it_ran_is_not_overwritten(root, capsys):
    path = root / "notebooks/tdl211_layers/ex2.ipynb"
    source = f"open({str(path)!r}, 'a').write(' ')"
    change(path, lambda nb: nb.cells[0].update(source=source))
    before = path.read_text()
    assert command.main(["tdl211", "--execute", "--save", "--only", "ex2"]) == 1
    assert "ex2.ipynb was edited" in capsys.readouterr().err
    assert path.read_text() == before + " "


# --------------------------------------------------------------- whole or not at all
@pytest.mark.parametrize("error, status", [(KeyboardInterrupt, 130), (OSError, 1)])
def test_an_interruption_leaves_the_earlier_files(
    error, status, root, output, monkeypatch
):
    assert run(output, "ece1508", *ADA) == 0
    before = content(output)
    path = root / "notebooks/ece1508_recurrent_networks/xor_rnn.ipynb"
    change(path, lambda nb: nb.cells.append(markdown("new text")))
    rename = os.rename

    def fail(old, new):
        if Path(new).name == "ece1508":
            monkeypatch.setattr(os, "rename", rename)
            raise error("stopped")
        rename(old, new)

    monkeypatch.setattr(os, "rename", fail)
    assert run(output, "ece1508", *ADA) == status
    assert content(output) == before


def test_other_files_and_folders_stay(root, output):
    (output / "ee519").mkdir(parents=True)
    (output / "ee519" / "mine.txt").write_text("mine")
    (output / "mine.txt").write_text("mine")
    assert run(output, "ee519", *ADA) == 0
    assert len(content(output)) == 3


# ------------------------------------------------------------- the assignments themselves
@pytest.fixture(scope="module")
def submissions(tmp_path_factory):
    """What is made of the notebooks of this folder, as if each had just been run."""
    root = tmp_path_factory.mktemp("bundle")
    for name in ("data/sample", "notebooks"):
        ignored = shutil.ignore_patterns(".*", "__pycache__", "tests", "submission")
        shutil.copytree(courses.ROOT / name, root / name, ignore=ignored)
    for name in ("helpers.py", "requirements.txt"):
        shutil.copy(courses.ROOT / name, root)
    for path in root.glob("notebooks/*/*.ipynb"):
        stamp(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(courses, "ROOT", root)
        assert run(root / "made", "all", *ADA) == 0
    return root / "made"


def test_the_submissions_are_whole(submissions):
    assert set(content(submissions)) == FILES
    for number, name in enumerate(("myRNN", "myGatedRNN", "myLSTM"), 1):
        whole = "\n".join(text(submissions / f"ece1508/Programming_Q{number}.pdf"))
        assert f"class {name}" in whole and f"Question {number}" in whole


def run_alone(folder, *arguments):
    """Run Python in `folder`, on the sample; what went wrong."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "COURSEWORK_DATA": str(helpers.DATA / "sample")},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr if done.returncode else ""


def test_the_layers_of_tdl211_stand_alone(submissions):
    assert not run_alone(submissions / "tdl211", "-c", "import MLP, RNN, LSTM")


def test_the_archive_of_cs324_has_all_that_it_needs(submissions, tmp_path):
    with zipfile.ZipFile(submissions / "cs324/12345678_assignment3.zip") as archive:
        archive.extractall(tmp_path)
    sources = [path.read_text("utf-8") for path in tmp_path.glob("*.py")]
    for path in tmp_path.glob("*.ipynb"):
        cells = code_cells(nbformat.read(path, as_version=4))
        sources += [cell.source for cell in cells if cell.source[0] != "%"]
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    statements = [n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
    lines = {ast.unparse(node) for node in statements}
    lines = [line for line in lines if "dask" not in line]  # only on a cluster
    assert not run_alone(tmp_path, "-c", "\n".join(lines))

    modules = {re.split(r"[\s.]", line)[1] for line in lines}
    modules -= {path.stem for path in tmp_path.glob("*.py")} | sys.stdlib_module_names
    packages = {{"PIL": "pillow"}.get(name, name.lower()) for name in modules}
    pins = (tmp_path / "requirements.txt").read_text().split()
    assert {pin.split("==")[0] for pin in pins} == packages | {"jupyter"}

    assert not run_alone(tmp_path, "train.py", "--train_steps", "3")
    gan = ["my_gan.py", "--n_epochs", "1", "--batch_size", "999"]
    assert not run_alone(tmp_path, *gan)


def test_the_committed_notebooks_can_be_handed_in():
    for course in courses.COURSES.values():
        for notebook in course.notebooks:
            path = course.path / notebook.name
            assert unfit(path) is None
            data = "full" if notebook.data else "none"
            assert record_of(read_notebook(path))["data"] == data, notebook.name
