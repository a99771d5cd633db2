"""CS324 part I: the palindromes, both networks, the trainer and its command line."""

import dataclasses
import inspect
import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import dataset
import joblib
import lstm
import numpy as np
import pytest
import torch
import train
import vanilla_rnn
from dataset import PalindromeDataset
from hypothesis import given, settings
from hypothesis import strategies as st
from lstm import LSTM
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from train import Config
from vanilla_rnn import VanillaRNN

TINY = {"num_hidden": 8, "batch_size": 16, "train_steps": 6, "eval_every": 2}
PARTS = ("train", "validation", "test")


# ------------------------------------------------------------------------- palindromes
@given(
    input_length=st.integers(1, 210),
    size=st.integers(1, 30),
    index=st.integers(0, 2**60),
    split=st.sampled_from(list(dataset.SPLITS)),
)
@settings(max_examples=50, deadline=None)
def test_batches_hold_palindromes_of_any_length(input_length, size, index, split):
    data = PalindromeDataset(input_length, 10, split=split)
    inputs, targets = data.batch(index, size)
    assert inputs.shape == (size, input_length, 1) and inputs.dtype == torch.float32
    assert targets.shape == (size,) and targets.dtype == torch.int64
    digits = torch.cat([inputs[:, :, 0].long(), targets[:, None]], dim=1)
    assert torch.equal(digits, digits.flip(1))
    assert digits.min() >= 0 and digits.max() <= 9


@pytest.mark.parametrize("input_length", [1, 4, 5, 200])
def test_one_hot_is_the_same_palindrome(input_length):
    values, targets = PalindromeDataset(input_length, 20).batch(3, 20)
    data = PalindromeDataset(input_length, 20, one_hot=True)
    one_hot, same_targets = data.batch(3, 20)
    assert one_hot.shape == (20, input_length, 10) and one_hot.dtype == torch.float32
    assert torch.equal(one_hot.sum(2), torch.ones(20, input_length))
    assert torch.equal(one_hot.argmax(2), values[:, :, 0].long())
    assert torch.equal(targets, same_targets)


def test_seed_and_index_determine_the_palindromes():
    first, again = (PalindromeDataset(20, 9, seed=1) for _ in range(2))
    assert np.array_equal(first.palindromes(5, 50), again.palindromes(5, 50))
    assert np.array_equal(first.palindromes(5, 50), first.palindromes(5, 50))
    other = PalindromeDataset(20, 9, seed=2)
    for palindromes in (first.palindromes(6, 50), other.palindromes(5, 50)):
        assert not np.array_equal(first.palindromes(5, 50), palindromes)


@pytest.mark.parametrize("input_length", [4, 5])
def test_the_parts_partition_the_space(input_length):
    left = np.array(list(itertools.product(range(10), repeat=3)))
    parts = np.array(
        [
            PalindromeDataset(input_length, 9, split=part, seed=seed).in_split(left)
            for seed, part in enumerate(PARTS)
        ]
    )
    assert (parts.sum(0) == 1).all()
    assert [abs(parts[k].mean() - share) < 0.05 for k, share in enumerate((0.8, 0.1))]
    for part in parts:  # every answer is asked for
        assert set(left[part, 0]) == set(range(10))


@pytest.mark.parametrize("input_length", [4, 6, 29, 100])
def test_what_is_drawn_for_the_parts_is_disjoint(input_length):
    drawn = [
        {
            tuple(row)
            for index in range(5)
            for row in PalindromeDataset(
                input_length, 9, split=part, seed=seed
            ).palindromes(index, 1000)
        }
        for part, seed in [("train", 8), ("validation", 0), ("test", 0)]
    ]
    assert not drawn[0] & drawn[1] and not drawn[0] & drawn[2]
    assert not drawn[1] & drawn[2]


@pytest.mark.parametrize("input_length", [8, 50, 200])
def test_a_tenth_is_for_the_test_at_any_length(input_length):
    data = PalindromeDataset(input_length, 9, split="test")
    left = np.random.default_rng(0).integers(10, size=(20_000, data.half))
    assert abs(data.in_split(left).mean() - 0.1) < 0.01  # 4.7 standard deviations


@pytest.mark.parametrize("input_length", [1, 2, 3])
def test_small_spaces_are_not_split(input_length):
    data = PalindromeDataset(input_length, 9, split="test")
    seen = {tuple(row) for row in data.palindromes(0, 5000)}
    assert len(seen) == 10 ** (input_length // 2 + 1)


def test_digits_are_uniform():
    digits = PalindromeDataset(8, 9, split="train").palindromes(0, 20_000)
    for position in range(5):
        counts = np.bincount(digits[:, position], minlength=10)
        assert abs(counts / 20_000 - 0.1).max() < 0.012


def test_length_and_items():
    data = PalindromeDataset(4, 30)
    inputs, target = data[7]
    assert inputs.shape == (4, 1) and target.shape == ()
    assert target == inputs[0, 0] and torch.equal(inputs, data[7][0])
    assert len(data) == 30 and sum(1 for _ in data) == 30
    with pytest.raises(IndexError, match="0..29, got 30"):
        data[30]


def test_data_loader_batches_the_items():
    loader = DataLoader(PalindromeDataset(6, 50, one_hot=True), batch_size=32)
    inputs, targets = next(iter(loader))
    assert inputs.shape == (32, 6, 10) and targets.shape == (32,)
    assert torch.equal(inputs[:, 0].argmax(1), targets)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"input_length": 0}, "input_length and total_len must be .* got 0, 9, 10"),
        ({"total_len": 0}, "input_length and total_len must be .* got 4, 0, 10"),
        ({"num_classes": 1}, "num_classes at least 2, got 4, 9, 1"),
        ({"split": "held"}, "split must be one of all, train, .* got 'held'"),
    ],
)
def test_bad_data_set_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PalindromeDataset(**{"input_length": 4, "total_len": 9} | arguments)


# ---------------------------------------------------------------------------- networks
class TorchLSTM(nn.Module):
    """nn.LSTM and nn.Linear with the weights of an `LSTM`; PyTorch's order is i, f, g, o."""

    def __init__(self, model):
        super().__init__()
        hidden_dim, input_dim = model.W_gx.shape
        self.lstm = nn.LSTM(input_dim, hidden_dim, batch_first=True)
        self.output = nn.Linear(hidden_dim, len(model.b_p))
        with torch.no_grad():
            self.lstm.bias_hh_l0.zero_()
            for mine, theirs in self.pairs(model):
                theirs.copy_(torch.cat(mine))

    def pairs(self, model):
        """(parameters of `model`, the one of PyTorch that holds them one after another)."""
        for theirs, name in [
            (self.lstm.weight_ih_l0, "W_{}x"),
            (self.lstm.weight_hh_l0, "W_{}h"),
            (self.lstm.bias_ih_l0, "b_{}"),
        ]:
            yield [getattr(model, name.format(gate)) for gate in "ifgo"], theirs
        yield [model.W_ph], self.output.weight
        yield [model.b_p], self.output.bias

    def forward(self, x):
        return self.output(self.lstm(x)[0][:, -1])


@given(
    batch=st.integers(1, 9),
    time=st.integers(1, 12),
    input_dim=st.integers(1, 5),
    hidden_dim=st.integers(1, 7),
    forget_start=st.sampled_from(lstm.STARTS),
)
@settings(max_examples=30, deadline=None)
def test_lstm_equals_torch(batch, time, input_dim, hidden_dim, forget_start):
    torch.manual_seed(batch + 10 * time)
    model = LSTM(time, input_dim, hidden_dim, 4, forget_start).double()
    reference = TorchLSTM(model).double()
    x = torch.randn(batch, time, input_dim, dtype=torch.double, requires_grad=True)
    same_x = x.detach().clone().requires_grad_()
    targets = torch.randint(4, (batch,))

    torch.testing.assert_close(model(x), reference(same_x))
    states = list(model.unroll(x))
    h, (_, c) = reference.lstm(same_x)
    torch.testing.assert_close(torch.stack([state.h for state in states], 1), h)
    torch.testing.assert_close(states[-1].c, c[0])

    losses = [F.cross_entropy(m, targets) for m in (model(x), reference(same_x))]
    torch.testing.assert_close(*losses)
    sum(losses).backward()
    torch.testing.assert_close(x.grad, same_x.grad)
    compared = 0
    for mine, theirs in reference.pairs(model):
        torch.testing.assert_close(torch.cat([p.grad for p in mine]), theirs.grad)
        compared += len(mine)
    assert compared == len(list(model.parameters())) == 14


@given(batch=st.integers(1, 9), time=st.integers(1, 12), hidden_dim=st.integers(1, 7))
@settings(max_examples=20, deadline=None)
def test_vanilla_rnn_equals_torch(batch, time, hidden_dim):
    torch.manual_seed(batch + 10 * time)
    model = VanillaRNN(time, 3, hidden_dim, 4).double()
    nn.init.normal_(model.b_h)  # zeros could hide a mistake
    nn.init.normal_(model.b_p)
    reference = nn.RNN(3, hidden_dim, batch_first=True).double()
    with torch.no_grad():
        reference.weight_ih_l0.copy_(model.W_hx)
        reference.weight_hh_l0.copy_(model.W_hh)
        reference.bias_ih_l0.copy_(model.b_h)
        reference.bias_hh_l0.zero_()
    x = torch.randn(batch, time, 3, dtype=torch.double)
    logits = F.linear(reference(x)[0][:, -1], model.W_ph, model.b_p)
    torch.testing.assert_close(model(x), logits)
    output = [model.W_ph, model.b_p]
    gradients = torch.autograd.grad(
        model(x).square().sum(), [model.W_hx, model.W_hh, model.b_h, *output]
    )
    recurrent = [reference.weight_ih_l0, reference.weight_hh_l0, reference.bias_ih_l0]
    expected = torch.autograd.grad(logits.square().sum(), [*recurrent, *output])
    for gradient, reference_gradient in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, reference_gradient)


MODELS = pytest.mark.parametrize("model_class", [VanillaRNN, LSTM])


@MODELS
def test_any_batch_size_and_length_with_the_same_answers(model_class):
    torch.manual_seed(0)
    model = model_class(4, 10, 8, 10)
    x = torch.randn(7, 4, 10)
    logits = model(x)
    for size in (1, 3):
        torch.testing.assert_close(model(x[:size]), logits[:size])
    assert model(torch.randn(2, 9, 10)).shape == (2, 10)
    assert model(x[:0]).shape == (0, 10)


@MODELS
@pytest.mark.parametrize("position", [1, 2, 3])
def test_sizes_of_zero_are_refused(model_class, position):
    sizes = [4, 10, 8, 10]
    sizes[position] = 0
    with pytest.raises(ValueError, match="sizes must be at least 1.* got .*0"):
        model_class(*sizes)


def test_forget_gate_starts():
    torch.manual_seed(0)
    chrono = LSTM(100, 10, 2000, 10)
    assert torch.equal(chrono.b_i, -chrono.b_f)
    spans = chrono.b_f.detach().exp()
    assert 1 <= spans.min() < 2 and 98 < spans.max() <= 99
    assert abs(spans.mean() - 50) < 3  # 4.7 standard errors
    for nothing_to_remember in (LSTM(1, 10, 8, 10), LSTM(100, 1, 8, 10, "zero")):
        assert torch.equal(nothing_to_remember.b_f, torch.zeros(8))
    with pytest.raises(ValueError, match="forget_start one of .*'two'"):
        LSTM(100, 10, 8, 10, "two")


def test_orthogonal_start_of_the_rnn():
    W = VanillaRNN(4, 10, 8, 10).W_hh
    torch.testing.assert_close(W @ W.T, torch.eye(8))


@pytest.mark.parametrize("module", [lstm, vanilla_rnn])
def test_networks_are_made_by_hand(module):
    code = "".join(inspect.getsource(module).split('"""')[::2])  # without docstrings
    for word in ("nn.LSTM", "LSTMCell", "nn.RNN", "RNNCell", "nn.Linear", "lstm_cell"):
        assert word not in code


# ---------------------------------------------------------------------------- training
def test_the_seed_determines_the_result():
    results = [train.train(Config(**TINY, seed=seed)) for seed in (3, 3, 4)]
    weights = [model.state_dict() for model, _ in results]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["W_ph"], weights[2]["W_ph"])
    assert str(results[0][1]) == str(results[1][1])


def test_one_step_is_rmsprop_on_the_clipped_gradient():
    config = Config(**TINY | {"train_steps": 1, "max_norm": 0.01})
    model, result = train.train(config)
    torch.manual_seed(config.seed)
    expected = config.model()
    inputs, targets = config.dataset("train", 16).batch(1, config.batch_size)
    F.cross_entropy(expected(inputs), targets).backward()
    norm = torch.cat([p.grad.flatten() for p in expected.parameters()]).norm()
    assert norm > 0.02 and result["steps"] == 1
    for parameter, trained in zip(
        expected.parameters(), model.parameters(), strict=True
    ):
        gradient = parameter.grad * config.max_norm / norm
        step = gradient / ((0.01 * gradient**2).sqrt() + 1e-8)  # RMSprop, alpha = 0.99
        torch.testing.assert_close(
            trained, parameter - config.learning_rate * step, rtol=1e-3, atol=1e-4
        )


def test_training_ends_at_the_target_or_with_the_budget():
    _, result = train.train(Config(**TINY | {"train_steps": 5}))
    assert result["steps"] == 5 and math.isnan(result["steps_to_99"])
    assert [step for step, _, _ in result["history"]] == [2, 4, 5]
    _, result = train.train(Config(**TINY, target=0.01))
    assert result["steps"] == 4  # twice in a row


def test_accuracy_counts_over_all_batches():
    class FirstDigit(nn.Module):
        def forward(self, x):
            return x[:, 0]

    data = PalindromeDataset(6, 3000, one_hot=True)
    assert train.accuracy(FirstDigit(), data) == 1.0

    class Nine(nn.Module):
        def forward(self, x):
            return F.one_hot(torch.full((len(x),), 9), 10)

    assert abs(train.accuracy(Nine(), data) - 0.1) < 0.03


@pytest.mark.parametrize("model_type", ["RNN", "LSTM"])
def test_interrupted_run_resumes_to_the_same_result(model_type, tmp_path, monkeypatch):
    config = Config(model_type, **TINY)
    whole, expected = train.train(config)
    path = tmp_path / "state.pt"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at_step_5(patch)
        train.train(config, path)
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]
    resumed, result = train.train(config, path)
    assert str(result) == str(expected)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])
    _, finished = train.train(config, path)  # nothing is left to do
    assert str(finished) == str(expected)
    _, longer = train.train(dataclasses.replace(config, train_steps=8), path)
    assert longer["steps"] == 8


def interrupt_at_step_5(patch):
    draw = PalindromeDataset.batch

    def interrupted(self, index, size):
        if size == TINY["batch_size"] and index == 5:
            raise KeyboardInterrupt
        return draw(self, index, size)

    patch.setattr(PalindromeDataset, "batch", interrupted)


def test_checkpoint_of_another_run_is_refused(tmp_path):
    train.train(Config(**TINY), tmp_path / "state.pt")
    with pytest.raises(ValueError, match="of another run: seed 0 there, 1 here"):
        train.train(Config(**TINY, seed=1), tmp_path / "state.pt")
    shorter = Config(**TINY | {"train_steps": 2})
    with pytest.raises(ValueError, match="train_steps must be at least 6.* got 2"):
        train.train(shorter, tmp_path / "state.pt")


# ------------------------------------------------------------------------------ sweeps
def tiny_sweep():
    return train.combinations(
        model_type=["RNN", "LSTM"],
        input_length=[5, 4],
        num_hidden=[8],
        seed=[1],
        train_steps=[4],
    )


def without_models(rows):
    return str([{k: v for k, v in row.items() if k != "model"} for row in rows])


def test_sweep_returns_each_run_in_order():
    rows = train.sweep(tiny_sweep())
    wanted = [("RNN", 5), ("RNN", 4), ("LSTM", 5), ("LSTM", 4)]
    assert [(row["model_type"], row["input_length"]) for row in rows] == wanted
    with joblib.parallel_config(backend="sequential"):
        assert without_models(train.sweep(tiny_sweep())) == without_models(rows)


def test_sweep_runs_unchanged_on_a_dask_cluster():
    distributed = pytest.importorskip(
        "distributed", reason="the optional extra `cluster` is not installed"
    )
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
        distributed.get_task_stream(client) as stream,
        joblib.parallel_config(backend="dask"),
    ):
        rows = train.sweep(tiny_sweep())
        workers = set(client.scheduler_info()["workers"])
    assert {task["worker"] for task in stream.data} == workers and len(workers) == 2
    with joblib.parallel_config(backend="sequential"):
        assert without_models(rows) == without_models(train.sweep(tiny_sweep()))


def test_table_is_completed_and_keeps_values_and_types(tmp_path, monkeypatch):
    path, trained = tmp_path / "table.csv", []
    run = train.run
    monkeypatch.setattr(train, "run", lambda c: trained.append(c) or run(c))
    with joblib.parallel_config(backend="sequential"):
        train.complete_table(path, tiny_sweep()[1:3])
        rows = train.complete_table(path, tiny_sweep())
    assert trained == [*tiny_sweep()[1:3], tiny_sweep()[0], tiny_sweep()[3]]
    expected = [run(config) for config in tiny_sweep()]
    for row in (*rows, *expected):
        row.pop("model", None), row.pop("history", None)
    assert str(rows) == str(expected)
    assert sorted(map(str, train.read_table(path))) == sorted(map(str, expected))


# ------------------------------------------------------------------------ command line
def command(*arguments):
    """Run `python train.py` in a process of its own."""
    program = Path(train.__file__)
    return subprocess.run(
        [sys.executable, program.name, *map(str, arguments)],
        cwd=program.parent,
        capture_output=True,
        check=False,
        env=os.environ | {"COLUMNS": "500"},  # help text is not broken at hyphens
        text=True,
    )


def tiny_flags(**settings):
    return [
        part
        for name, value in (TINY | settings).items()
        for part in (f"--{name}", str(value))
    ]


def test_defaults_are_those_of_the_course_and_explained():
    completed = command("--help")
    assert completed.returncode == 0
    text = " ".join(completed.stdout.split())
    for name, default in {
        "input_length": 4,
        "input_dim": 1,
        "num_classes": 10,
        "num_hidden": 128,
        "batch_size": 128,
        "learning_rate": 0.001,
        "max_norm": 10.0,
    }.items():
        help = Config.__dataclass_fields__[name].metadata["help"]
        assert f"--{name} " in text and f"{help} (default: {default})" in text


def test_program_trains_with_a_progress_bar():
    completed = command(*tiny_flags())
    assert completed.returncode == 0
    assert "test accuracy" in completed.stdout and "6 steps" in completed.stdout
    assert "6/6" in completed.stderr and "accuracy=" in completed.stderr


def test_program_sweeps_and_writes_a_table(tmp_path):
    path = tmp_path / "table.csv"
    arguments = tiny_flags(seed=0) + ["--model_type", "RNN", "LSTM", "--table", path]
    completed = command(*arguments)
    assert completed.returncode == 0, completed.stderr
    assert [row["model_type"] for row in train.read_table(path)] == ["RNN", "LSTM"]
    assert completed.stdout.count("\n") == 2


def test_interrupted_program_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    path = tmp_path / "state.pt"
    arguments = [*tiny_flags(), "--checkpoint", str(path)]
    with monkeypatch.context() as patch:
        interrupt_at_step_5(patch)
        assert train.main(arguments) == 130
    assert f"the same command goes on from {path}" in capsys.readouterr().err
    assert train.main(arguments) == 0
    assert "after 6 steps" in capsys.readouterr().out


BAD = [
    ("--input_length 5 0", "input_length must be at least 1, got 0"),
    ("--input_length five", "invalid int value: 'five'"),
    ("--num_hidden -3", "num_hidden must be at least 1, got -3"),
    ("--num_hidden 1000000000", "need about"),
    ("--input_length 100000000", "need about"),
    ("--num_classes 1", "num_classes must be at least 2, got 1"),
    ("--input_dim 3", "input_dim must be 1 or num_classes, 10, got 3"),
    ("--learning_rate 0", "learning_rate must be above 0, got 0.0"),
    ("--learning_rate nan", "learning_rate must be finite, got nan"),
    ("--max_norm inf", "max_norm must be finite, got inf"),
    ("--target 99", "target must be at most 1, got 99"),
    ("--model_type GRU", "model_type must be one of RNN, LSTM, got 'GRU'"),
    ("--forget_start two", "forget_start must be one of chrono, zero, got 'two'"),
    ("--device quantum", "device must be one that PyTorch can use here"),
    ("--table nowhere/table.csv", "must be a file that can be written"),
    ("--checkpoint .", "must be a file that can be written, got '.'"),
    ("--seed 0 1 --checkpoint state.pt", "checkpoint is for a single run"),
    ("--table s --checkpoint s", "checkpoint is for a single run without a table"),
]


@pytest.mark.parametrize("arguments, message", BAD)
def test_bad_values_are_refused_before_any_work(
    arguments, message, monkeypatch, capsys, tmp_path
):
    def work(*_, **__):
        raise AssertionError("work was done")

    monkeypatch.chdir(tmp_path)
    for name in ("train", "sweep", "complete_table"):
        monkeypatch.setattr(train, name, work)
    with pytest.raises(SystemExit) as exit_status:
        train.main(arguments.split())
    captured = capsys.readouterr()
    assert exit_status.value.code == 2 and captured.out == ""
    assert message in captured.err and captured.err.startswith("usage:")
    assert not list(tmp_path.iterdir())


def test_a_table_of_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SystemExit):
        train.main([*tiny_flags(), "--table", str(tmp_path / "table.csv")])
    assert "is no table of this program" in capsys.readouterr().err
    assert (tmp_path / "table.csv").read_text() == "a,b\n1,2\n"
