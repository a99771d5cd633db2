"""What is committed: every notebook executed in order, without errors, and fit for print."""

import re
from pathlib import Path

import nbformat
import pytest

import helpers

FOLDER = Path(__file__).parents[1]
NOTEBOOKS = sorted(FOLDER.glob("[!.]*/*.ipynb"))
INDEX = FOLDER / "index.ipynb"
MACHINE = re.compile(r"(/home|/root|/tmp|/work|/Users|[A-Z]:\\Users)[/\\][\w.-]+")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def results_of(notebook):
    """What `show_results` showed in the last code cell."""
    (output,) = code_cells(notebook)[-1].outputs
    return output.data[helpers.RESULTS_MIME]


def test_every_notebook_is_valid_and_small():
    assert len(NOTEBOOKS) == 12
    for path in [*NOTEBOOKS, INDEX]:
        nbformat.validate(nbformat.read(path, as_version=4))
        assert path.stat().st_size < 1_500_000, path.name


def test_cells_were_executed_in_order_by_the_kernel_python3(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert notebook.metadata.kernelspec.name == "python3"


def test_no_error_stderr_or_machine_path_is_saved(notebook):
    for cell in code_cells(notebook):
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr"
            texts = [v for k, v in output.get("data", {}).items() if "image" not in k]
            assert not MACHINE.search(
                output.get("text", "") + " ".join(map(str, texts))
            )


def test_cells_fit_on_a_printed_page(notebook):
    for cell in code_cells(notebook):
        lines = [  # captions are printed, but not as code
            line for line in cell.source.split("\n") if not line.startswith("#|")
        ]
        assert cell.source.strip() and len(lines) <= 45
        assert max(map(len, lines)) <= 88, cell.source


def test_headings_hold_no_formulas(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for line in cell.source.split("\n"):
                assert not (line.startswith("#") and "$" in line), line


def test_every_figure_says_what_it_shows(notebook):
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                alt = output.metadata.get("image/png", {}).get("alt")
                assert alt or re.search(r"#\| fig-(alt|cap): \w", cell.source)


def test_last_cell_holds_the_results_and_is_not_printed(notebook):
    results = results_of(notebook)
    assert isinstance(results, dict) and results
    assert "remove-cell" in code_cells(notebook)[-1].metadata.tags


def test_the_committed_numbers_come_from_the_full_data():
    path = FOLDER / "ece1508_recurrent_networks" / "mnist_rnn_gru_lstm.ipynb"
    results = results_of(nbformat.read(path, as_version=4))
    assert f"{helpers.FULL_TRAINING_SET:,} training images" in results["data"]
    assert results["test_accuracy"]["RNN"]["mean"] >= 0.98
    assert results["test_accuracy"]["GRU"]["mean"] >= 0.99
    assert results["test_accuracy"]["LSTM"]["mean"] >= 0.99


def test_the_index_links_to_every_notebook_and_to_nothing_that_is_not_there():
    text = "\n".join(c.source for c in nbformat.read(INDEX, as_version=4).cells)
    links = {link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link}
    assert {path.relative_to(FOLDER).as_posix() for path in NOTEBOOKS} <= links
    assert not [link for link in links if not (FOLDER / link).exists()]


def test_the_readme_links_to_what_is_there():
    text = (FOLDER.parent / "README.md").read_text("utf-8")
    links = {link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link}
    assert links and not [link for link in links if not (FOLDER.parent / link).exists()]
