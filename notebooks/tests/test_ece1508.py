"""ECE1508: the handed-in notebook on its own, and the units that its explanation rests on."""

import ast
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch
from torch import nn

import helpers

FOLDER = Path(__file__).parents[1] / "ece1508_recurrent_networks"
CELLS = [
    cell.source
    for cell in nbformat.read(FOLDER / "mnist_rnn_gru_lstm.ipynb", as_version=4).cells
    if cell.cell_type == "code"
]


@pytest.fixture(scope="module")
def notebook():
    """The imports, functions and classes of the notebook, without its runs."""
    body = ast.parse("\n".join(CELLS)).body
    kept = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef
    definitions = ast.Module([n for n in body if isinstance(n, kept)], [])
    names = {}
    exec(compile(definitions, "notebook", "exec"), names)  # noqa: S102
    return SimpleNamespace(**names)


def test_the_handed_in_notebook_runs_alone(tmp_path):
    """Its cells up to train() and an epoch of each model, without this bundle."""
    (tmp_path / "data").symlink_to(helpers.DATA / "sample")
    trains = next(k for k, source in enumerate(CELLS) if "def train(" in source)
    classes = [s.split("\n\n\ncheck")[0] for s in CELLS if s.startswith("class my")]
    program = [
        # torchvision is imported by helpers first: beside a CPU-only torch it needs that
        "import sys, helpers\nsys.modules['helpers'] = None",
        *CELLS[: trains + 1],
        *classes,
        "for model in (myRNN(), myGatedRNN(), myLSTM()):",
        "    history = train(model, nn.CrossEntropyLoss(), 1, learning_rate=4e-3)",
        "    assert history['val_accuracy'][-1] > 0.2  # guessing: 0.1",
    ]
    (tmp_path / "cells.py").write_text("\n".join(program), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "cells.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "3,667 images in 37 mini-batches" in done.stdout


def test_the_update_gate_alone_is_a_gru_without_reset_gate(notebook):
    """Question 2, item 5: with r = 1, `nn.GRU` computes the same states."""
    ours = notebook.UpdateGateRNN(3, 5).double()
    gru = nn.GRU(3, 5, batch_first=True).double()
    with torch.no_grad():
        for weight in gru.parameters():
            weight.zero_()
        gru.bias_ih_l0[:5] = 100  # r = sigmoid(100) = 1
        gru.weight_ih_l0[5:], gru.bias_ih_l0[5:] = ours.W.weight, ours.W.bias
        gru.weight_hh_l0[5:] = ours.U.weight
    x, h_0 = torch.randn(2, 7, 3).double(), torch.randn(1, 2, 5).double()
    for mine, theirs in zip(ours(x, h_0), gru(x, h_0)):
        torch.testing.assert_close(mine, theirs)


def test_the_leaky_unit_that_keeps_nothing_is_the_basic_one(notebook):
    """Question 2, item 5: with z = 0, `nn.RNN` computes the same states; with 1, none."""
    ours = notebook.LeakyRNN(3, 5).double()
    rnn = nn.RNN(3, 5, batch_first=True).double()
    with torch.no_grad():
        rnn.weight_ih_l0[:], rnn.bias_ih_l0[:] = ours.W.weight, ours.W.bias
        rnn.weight_hh_l0[:] = ours.U.weight
        rnn.bias_hh_l0.zero_()
    x, h_0 = torch.randn(2, 7, 3).double(), torch.randn(1, 2, 5).double()
    nn.init.constant_(ours.b_z, -100)
    for mine, theirs in zip(ours(x, h_0), rnn(x, h_0)):
        torch.testing.assert_close(mine, theirs)
    nn.init.constant_(ours.b_z, 100)
    torch.testing.assert_close(ours(x, h_0)[1], h_0)


def test_the_other_units_start_as_those_of_pytorch_and_orthogonally(notebook):
    for build in (
        notebook.myRNN,
        notebook.myGatedRNN,
        notebook.myLSTM,
        lambda: notebook.with_unit(notebook.LeakyRNN),
        lambda: notebook.with_unit(notebook.UpdateGateRNN),
    ):
        recurrent = dict(build().recurrent.named_parameters())
        for name, weight in recurrent.items():
            if weight.shape[-1] == 150 and weight.ndim == 2:
                for block in weight.split(150):
                    torch.testing.assert_close(
                        block @ block.T, torch.eye(150), atol=1e-4, rtol=0
                    )
            else:
                assert 0.07 < weight.abs().max() <= 150**-0.5, name
