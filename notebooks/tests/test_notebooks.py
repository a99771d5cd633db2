"""What is committed: every notebook executed in order, without errors, and printable."""

import json
import re
from pathlib import Path

import nbformat
import pytest

import helpers

NOTEBOOKS = sorted(Path(__file__).parents[1].glob("*/*.ipynb"))
MACHINE = re.compile(r"(/home|/root|/tmp|/Users|[A-Z]:\\Users)[/\\][\w.-]+")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_notebook_is_valid_and_small():
    assert NOTEBOOKS
    for path in NOTEBOOKS:
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
        lines = cell.source.split("\n")
        assert cell.source.strip() and len(lines) <= 45
        assert max(map(len, lines)) <= 88, cell.source


def test_last_code_cell_prints_the_results(notebook):
    cell = code_cells(notebook)[-1]
    results = json.loads("".join(output.text for output in cell.outputs))
    assert isinstance(results, dict) and results


def test_the_committed_numbers_come_from_the_full_data():
    path = Path(__file__).parents[1] / "ece1508_recurrent_networks"
    cells = code_cells(nbformat.read(path / "mnist_rnn_gru_lstm.ipynb", as_version=4))
    results = json.loads(cells[-1].outputs[0].text)
    assert f"{helpers.FULL_TRAINING_SET:,} training images" in results["data"]
    assert results["test_accuracy"]["RNN"]["mean"] >= 0.98
    assert results["test_accuracy"]["GRU"]["mean"] >= 0.99
    assert results["test_accuracy"]["LSTM"]["mean"] >= 0.99
