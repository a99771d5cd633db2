"""The check itself: correct answers pass, and each mistake fails its own item."""

import json
import shutil
from pathlib import Path

import nbformat
import pytest
from items import ANSWERS, Finding
from submission import check

OTHERS = Path(__file__).parent / "answers"  # correct, by people who saw the sheet alone
LINEAR, LOSS, SGD = (f"mytorch/{name}.py" for name in ("linear", "loss", "sgd"))
ACTIVATION, MLP = "mytorch/activation.py", "mytorch/mlp.py"
TURNED = {  # W as (h, d), right in itself
    "size=(d, h)": "size=(h, d)",
    "d, h = self.W.shape": "h, d = self.W.shape",
    "A @ self.W + ": "A @ self.W.T + ",
    "self.W.shape[1]": "self.W.shape[0]",
    "A.T @ dLdO": "dLdO.T @ A",
    "dLdO @ self.W.T": "dLdO @ self.W",
}
BIAS = "self.reset_parameters()\n        self.bias = nn.Parameter(torch.zeros(4))\n"

# what is wrong: (the items that fail, the file of ours, what is written there instead)
WRONG = {
    "ee519": {
        "nothing: réponse à vérifier": ("", LINEAR, {}),
        "1a: the variance is 0.0001": ("1a", LINEAR, {"np.sqrt(0.01)": "0.01"}),
        "1a: b is one": ("1a", LINEAR, {"np.zeros(h)": "np.ones(h)"}),
        "1a: W is (h, d)": ("1a", LINEAR, TURNED),
        "1b: no bias": ("1b", LINEAR, {"+ self.b.reshape(1, h)": ""}),
        "1c: dLdW by N": ("1c", LINEAR, {"A.T @ dLdO": "A.T @ dLdO / len(A)"}),
        "1c: dLdb a mean": ("1c", LINEAR, {"dLdO.sum(": "dLdO.mean("}),
        "2a: by N": ("2a", LOSS, {"** 2) / (N * q)": "** 2) / N"}),
        "2b: no 2": ("2b", LOSS, {"2 * (O - Y)": "(O - Y)"}),
        "2c: a sum": ("2c", LOSS, {"(Y * logP) / len(O)": "(Y * logP)"}),
        "2c: softmax twice": (
            *("2c", LOSS),
            {"0, log_softmax(O)": "0, log_softmax(np.exp(log_softmax(O)))"},
        ),
        "2d: by N twice": ("2d", LOSS, {"- Y) / len(O)": "- Y) / len(O) ** 2"}),
        "2d: by N never": ("2d", LOSS, {"- Y) / len(O)": "- Y)"}),
        "3: upwards": ("3", SGD, {"layer.W -=": "layer.W +="}),
        "3: b stays": ("3", SGD, {"layer.b -=": "_ ="}),
        "4a: E for phi": ("4a", ACTIVATION, {"E / (1 + E) ** 2": "E / (1 + E)"}),
        "4b: derivative at A": (
            *("4b", ACTIVATION),
            {'1 - np.tanh(kept(self, "H"))': '1 - np.tanh(np.tanh(kept(self, "H")))'},
        ),
        "4c: derivative H": (
            *("4c", ACTIVATION),
            {"(H > 0).astype(H.dtype)": "np.maximum(H, 0)"},
        ),
        "5a: ends in ReLU": (
            *("5a", MLP),
            {"[output_activation()]": "[ReLU()]"},
        ),
        "5b: no dA/dH": ("5b", MLP, {"dLdA1 * self.f[0].backward()": "dLdA1"}),
        "5c: one ReLU for all": (
            *("5c", MLP),
            {"*(activation() for _ in range(4))": "*[activation()] * 4"},
        ),
        "another name": ("2a 2b", LOSS, {"class MSELoss": "class MSE"}),
        "raises": ("3", SGD, {"class SGD": "import numpi\n\n\nclass SGD"}),
        "prints": ("", SGD, {"class SGD": "print('hello')\n\n\nclass SGD"}),
        "trains": ("3", SGD, {"class SGD": "while True:\n    n = 1\n\n\nclass SGD"}),
        "exits": ("3", SGD, {"class SGD": "exit()\n\n\nclass SGD"}),
    },
    "tdl211": {
        "nothing": ("", "MLP.py", {}),
        "1: a bias": ("1", "MLP.py", {"self.reset_parameters()\n": BIAS}),
        "1: ones": (
            "1",
            "MLP.py",
            {"uniform_(self.weight, -k, k)": "ones_(self.weight)"},
        ),
        "1: transposed": ("1", "MLP.py", {"@ self.weight.T": "@ self.weight"}),
        "2: no state": ("2", "RNN.py", {" + h @ self.weight_hh.T": ""}),
        "2: f is tanh": (
            *("2", "RNN.py"),
            {
                "f = NONLINEARITIES.get(self.nonlinearity, ": "f = (lambda *_: torch.tanh)("
            },
        ),
        "3: h without tanh": ("3", "LSTM.py", {"o * torch.tanh(c)": "o * c"}),
        "3: no forget gate": ("3", "LSTM.py", {"f * c + i * g": "c + i * g"}),
        "another order": ("", "LSTM.py", {"a_i, a_f, a_g, a_o": "a_o, a_g, a_f, a_i"}),
    },
    "cs324": {
        "nothing": ("", "lstm.py", {}),
        "no tanh in (6)": ("I.1", "lstm.py", {"torch.tanh(c) * o": "c * o"}),
        "gates": ("I.1", "lstm.py", {"a_g, a_i, a_f, a_o": "a_g, a_f, a_i, a_o"}),
        "no b_f": (
            "I.1",
            "lstm.py",
            {"self.b_f, self.b_o]": "0 * self.b_f, self.b_o]"},
        ),
        "first step": (
            "I.1",
            "lstm.py",
            {"h = state.h\n": "h = state.h\n            break\n"},
        ),
        "state kept": (
            *("I.1 I.2", "lstm.py"),
            {
                "self.unroll(x):": "self.unroll(x, getattr(self, 'kept', None)):",
                "h = state.h\n": "h = self.kept = state.h\n",
            },
        ),
        "no noise": (
            "II.1",
            "my_gan.py",
            {"self.layers(noise)": "self.layers(0 * noise)"},
        ),
        "one score": (
            *("II.1", "my_gan.py"),
            {"self.layers(images).squeeze(1)": "self.layers(images).mean()"},
        ),
    },
    "ece1508": {
        "nothing": ("", "", {}),
        "GRU is an RNN": ("P2.1", "", {"nn.GRU(input_size": "nn.RNN(input_size"}),
        "ones": (
            *("P1.8 P1.9", ""),
            {
                '"""The zero state h[0], of shape (1, batch_size, hidden_size)."""\n'
                "        return self.output.weight.new_zeros(": '"""Ones."""\n'
                "        return self.output.weight.new_ones("
            },
        ),
        "one zero state": (
            *("P3.2 P3.3", ""),
            {"return zeros, zeros.clone()": "return zeros"},
        ),
        "row 1": ("P1.9", "", {"self.output(h[:, -1])": "self.output(h[:, 0])"}),
        "softmax": (
            "P1.9",
            "",
            {"self.output(h[:, -1])": "self.output(h[:, -1]).softmax(1)"},
        ),
        "a sum": ("P1.10", "", {"labels).float().mean()": "labels).float().sum()"}),
        "upwards": ("P1.12", "", {"loss.backward()": "(-loss).backward()"}),
        "always 10": ("P1.12", "", {"range(1, num_epochs + 1)": "range(1, 11)"}),
    },
}
OURS_ONLY = {  # items of other answers that fail, and should
    "cs324_b": {"I.2", "II.1"},  # a fixed batch size, no GAN
    "cs324_c": {"II.1"},  # no GAN
}


def write(course, folder, file, changes):
    """A copy of our answer with the changes, each at its first place; its path."""
    ours = ANSWERS[course]
    if course == "ece1508":
        notebook = nbformat.read(ours, as_version=4)
        for old, new in changes.items():
            cell = next(
                c for c in notebook.cells if c.cell_type == "code" and old in c.source
            )
            cell.source = cell.source.replace(old, new, 1)
        folder.mkdir()
        nbformat.write(notebook, folder / "Assgn4 déjà.ipynb")
        return folder / "Assgn4 déjà.ipynb"
    ignored = shutil.ignore_patterns("saved", "*.ipynb", "__pycache__", "*.pt")
    shutil.copytree(ours, folder, ignore=ignored)
    text = (folder / file).read_text("utf-8")
    for old, new in changes.items():
        assert old in text, f"{file} of ours has no {old!r} any more: change WRONG"
        text = (
            text.replace(old, new) if course == "tdl211" else text.replace(old, new, 1)
        )
    (folder / file).write_text(text, "utf-8")
    return folder


@pytest.mark.parametrize("course", WRONG)
def test_mistakes_fail_their_items_and_no_other(course, tmp_path):
    expected, what = {}, {}
    for number, (name, (items, *change)) in enumerate(WRONG[course].items()):
        path = write(course, tmp_path / f"{number} {name.replace('/', '')}", *change)
        expected[str(path)], what[str(path)] = set(items.split()), name
    for path in OTHERS.glob(f"{course}_*"):
        expected[str(path)], what[str(path)] = (
            OURS_ONLY.get(path.name, set()),
            path.name,
        )
    # training at T = 5 takes seconds: of our answer it is a test of its own
    rows = check.run(course, [*map(Path, expected)], 2, "-k", "not learned")
    failed = {name: set() for name in what.values()}
    for row in rows:
        if not row["passed"]:
            failed[what[row["answer"]]].add(row["item"])
            assert [line[:9].strip() for line in row["case"].splitlines()] == [
                "called",
                "came out",
                "expected",
            ], row
    assert failed == {what[path]: items for path, items in expected.items()}
    assert max(len(row["checked"]) for row in rows) < 79  # is not cut in the table
    lines = [line for line in check.table(rows) if line]
    assert max(len(part) for line in lines for part in line.splitlines()) <= 100
    if course == "ee519":
        notes = {note for row in rows for note in row["notes"]}
        assert notes == {"mytorch/sgd.py prints when it is imported: hello"}
        cases = "\n".join(row["case"] for row in rows)
        for text in (
            "No module named 'numpi'",
            "no end: training",
            "SystemExit",
            "no such name",
        ):
            assert text in cases


ROWS = [
    {"item": "P1.10", "checked": "rate", "passed": True, "case": "", "answer": "x"},
    {
        "item": "P1.9",
        "checked": "forward",
        "passed": False,
        "case": str(Finding(1, 2, 3)),
    },
]


@pytest.mark.parametrize("rows, status", [(ROWS, 1), (ROWS[:1], 0)])
def test_command(rows, status, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(check, "run", lambda *_: rows)
    report = tmp_path / "report.json"
    assert check.main(["cs324", str(tmp_path), "--json", str(report)]) == status
    items = json.loads(report.read_text("utf-8"))
    assert [item["item"] for item in items] == ["P1.9", "P1.10"][2 - len(rows) :]
    assert set(items[0]) == {"item", "checked", "passed", "case"}
    assert ("called    1\n" in capsys.readouterr().out) == bool(status)


@pytest.mark.parametrize("arguments", [["ee519"], ["ee518", "."], ["ee519", "nowhere"]])
def test_a_wrong_call_has_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit_status:
        check.main(arguments)
    assert exit_status.value.code == 2 and "usage" in capsys.readouterr().err
