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


# ------------------------------------------------------------------------- palindromes
@given(
    seq_length=st.integers(2, 210),
    size=st.integers(1, 30),
    index=st.integers(0, 2**60),
    split=st.sampled_from(dataset.SPLITS),
)
@settings(max_examples=50, deadline=None)
def test_batches_hold_palindromes_of_any_length(seq_length, size, index, split):
    data = PalindromeDataset(seq_length, split=split)
    inputs, targets = data.batch(index, size)
    assert inputs.shape == (size, seq_length - 1, 1) and inputs.dtype == torch.float32
    assert targets.shape == (size,) and targets.dtype == torch.int64
    digits = torch.cat([inputs[:, :, 0].long(), targets[:, None]], dim=1)
    assert torch.equal(digits, digits.flip(1))
    assert digits.min() >= 0 and digits.max() <= 9


@pytest.mark.parametrize("seq_length", [2, 5, 6, 201])
def test_one_hot_is_the_same_palindrome(seq_length):
    values, targets = PalindromeDataset(seq_length).batch(3, 20)
    one_hot, same_targets = PalindromeDataset(seq_length, one_hot=True).batch(3, 20)
    assert one_hot.shape == (20, seq_length - 1, 10) and one_hot.dtype == torch.float32
    assert torch.equal(one_hot.sum(2), torch.ones(20, seq_length - 1))
    assert torch.equal(one_hot.argmax(2), values[:, :, 0].long())
    assert torch.equal(targets, same_targets)


def test_seed_and_index_determine_the_palindromes():
    first, again = PalindromeDataset(21, seed=1), PalindromeDataset(21, seed=1)
    assert np.array_equal(first.palindromes(5, 50), again.palindromes(5, 50))
    assert np.array_equal(first.palindromes(5, 50), first.palindromes(5, 50))
    for other in (
        first.palindromes(6, 50),
        PalindromeDataset(21, seed=2).palindromes(5, 50),
    ):
        assert not np.array_equal(first.palindromes(5, 50), other)


@pytest.mark.parametrize("seq_length", [5, 6])
def test_the_parts_partition_the_space(seq_length):
    left = np.array(list(itertools.product(range(10), repeat=3)))
    held_out = PalindromeDataset(seq_length, split="held_out").in_split(left)
    training = PalindromeDataset(seq_length, split="train", seed=8).in_split(left)
    assert np.array_equal(held_out, ~training)
    assert 60 <= held_out.sum() <= 140
    assert set(left[held_out, 0]) == set(range(10))  # every answer is asked for


@pytest.mark.parametrize("seq_length", [5, 7, 30, 101])
def test_training_and_held_out_palindromes_are_disjoint(seq_length):
    parts = [
        {
            tuple(row)
            for index in range(5)
            for row in PalindromeDataset(
                seq_length, split=split, seed=seed
            ).palindromes(index, 1000)
        }
        for split, seed in [("train", 0), ("held_out", 0), ("held_out", 1)]
    ]
    assert not parts[0] & parts[1] and not parts[0] & parts[2]


def test_a_tenth_is_held_out_at_any_length():
    for seq_length in (9, 50, 101, 201):
        left = np.random.default_rng(0).integers(10, size=(20_000, seq_length))
        data = PalindromeDataset(seq_length, split="held_out")
        share = data.in_split(left[:, : data.half]).mean()
        assert abs(share - 0.1) < 0.01  # 4.7 standard deviations


@pytest.mark.parametrize("seq_length", [2, 3, 4])
def test_small_spaces_are_not_split(seq_length):
    seen = {
        tuple(row)
        for row in PalindromeDataset(seq_length, split="held_out").palindromes(0, 5000)
    }
    assert (
        len(seen) == len(PalindromeDataset(seq_length)) == 10 ** ((seq_length + 1) // 2)
    )


def test_digits_are_uniform():
    digits = PalindromeDataset(9, split="train").palindromes(0, 20_000)
    for position in range(5):
        counts = np.bincount(digits[:, position], minlength=10)
        assert abs(counts / 20_000 - 0.1).max() < 0.012


def test_length_and_items():
    assert len(PalindromeDataset(5)) == 1000
    assert len(PalindromeDataset(201)) == sys.maxsize
    data = PalindromeDataset(5)
    inputs, target = data[7]
    assert inputs.shape == (4, 1) and target.shape == ()
    assert target == inputs[0, 0] and torch.equal(inputs, data[7][0])
    assert sum(1 for _ in data) == 1000
    with pytest.raises(IndexError, match="0..999, got 1000"):
        data[1000]


def test_data_loader_batches_the_items():
    loader = DataLoader(PalindromeDataset(7, one_hot=True), batch_size=32)
    inputs, targets = next(iter(loader))
    assert inputs.shape == (32, 6, 10) and targets.shape == (32,)
    assert torch.equal(inputs[:, 0].argmax(1), targets)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"seq_length": 1}, ValueError, "seq_length must be at least 2, got 1"),
        ({"seq_length": 5.0}, TypeError, "seq_length must be an integer, got 5.0"),
        (
            {"seq_length": 5, "num_classes": 1},
            ValueError,
            "num_classes must be at least",
        ),
        ({"seq_length": 5, "seed": -1}, ValueError, "seed must be at least 0, got -1"),
        (
            {"seq_length": 5, "split": "test"},
            ValueError,
            "split must be one of .*'test'",
        ),
    ],
)
def test_bad_data_set_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        PalindromeDataset(**arguments)


def test_empty_batch_is_refused():
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        PalindromeDataset(5).batch(0, 0)


# ---------------------------------------------------------------------------- networks
def as_torch_lstm(model):
    """The nn.LSTM with the same weights: PyTorch stacks the gates as i, f, g, o."""
    hidden_dim, input_dim = model.W_gx.shape
    reference = nn.LSTM(input_dim, hidden_dim, batch_first=True)
    with torch.no_grad():
        reference.bias_hh_l0.zero_()
        for parameter, name in [
            (reference.weight_ih_l0, "W_{}x"),
            (reference.weight_hh_l0, "W_{}h"),
            (reference.bias_ih_l0, "b_{}"),
        ]:
            gates = [getattr(model, name.format(gate)) for gate in "ifgo"]
            parameter.copy_(torch.cat(gates))
    return reference


@given(
    batch=st.integers(1, 9),
    time=st.integers(1, 12),
    input_dim=st.integers(1, 5),
    hidden_dim=st.integers(1, 7),
    forget_start=st.sampled_from(lstm.FORGET_STARTS),
)
@settings(max_examples=30, deadline=None)
def test_lstm_equals_torch(batch, time, input_dim, hidden_dim, forget_start):
    torch.manual_seed(batch + 10 * time)
    model = LSTM(time, input_dim, hidden_dim, 4, forget_start).double()
    reference = as_torch_lstm(model).double()
    x = torch.randn(batch, time, input_dim, dtype=torch.double, requires_grad=True)
    same_x = x.detach().clone().requires_grad_()
    weights = torch.randn(batch, time, hidden_dim, dtype=torch.double)

    h = torch.stack([state.h.T for state in model.unroll(x)], dim=1)
    reference_h, (_, reference_c) = reference(same_x)
    torch.testing.assert_close(h, reference_h)
    torch.testing.assert_close(list(model.unroll(x))[-1].c.T, reference_c[0])
    logits = F.linear(reference_h[:, -1], model.W_ph, model.b_p)
    torch.testing.assert_close(model(x), logits)

    (h * weights).sum().backward()
    (reference_h * weights).sum().backward()
    torch.testing.assert_close(x.grad, same_x.grad)
    for name, expected in [
        ("W_{}x", reference.weight_ih_l0),
        ("W_{}h", reference.weight_hh_l0),
        ("b_{}", reference.bias_ih_l0),
    ]:
        gradients = [getattr(model, name.format(gate)).grad for gate in "ifgo"]
        torch.testing.assert_close(torch.cat(gradients), expected.grad)


def test_lstm_output_gradients_are_those_of_linear():
    torch.manual_seed(0)
    model = LSTM(6, 3, 5, 4)
    x, targets = torch.randn(7, 6, 3), torch.randint(4, (7,))
    F.cross_entropy(model(x), targets).backward()
    h = as_torch_lstm(model)(x)[0][:, -1].detach()
    output = nn.Linear(5, 4)
    output.load_state_dict({"weight": model.W_ph.detach(), "bias": model.b_p.detach()})
    F.cross_entropy(output(h), targets).backward()
    torch.testing.assert_close(model.W_ph.grad, output.weight.grad)
    torch.testing.assert_close(model.b_p.grad, output.bias.grad)


@given(batch=st.integers(1, 9), time=st.integers(1, 12), hidden_dim=st.integers(1, 7))
@settings(max_examples=20, deadline=None)
def test_vanilla_rnn_equals_torch(batch, time, hidden_dim):
    torch.manual_seed(batch + 10 * time)
    model = VanillaRNN(time, 3, hidden_dim, 4).double()
    nn.init.normal_(model.b_h)  # zeros could hide a mistake
    reference = nn.RNN(3, hidden_dim, batch_first=True).double()
    with torch.no_grad():
        reference.weight_ih_l0.copy_(model.W_hx)
        reference.weight_hh_l0.copy_(model.W_hh)
        reference.bias_ih_l0.copy_(model.b_h)
        reference.bias_hh_l0.zero_()
    x = torch.randn(batch, time, 3, dtype=torch.double)
    logits = F.linear(reference(x)[0][:, -1], model.W_ph, model.b_p)
    torch.testing.assert_close(model(x), logits)
    gradients = torch.autograd.grad(
        model(x).square().sum(), [model.W_hx, model.W_hh, model.b_h]
    )
    expected = torch.autograd.grad(
        logits.square().sum(),
        [reference.weight_ih_l0, reference.weight_hh_l0, reference.bias_ih_l0],
    )
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
def test_forward_returns_logits(model_class):
    torch.manual_seed(0)
    model = model_class(4, 10, 8, 10)
    logits = model(torch.randn(7, 4, 10))
    *_, last = model.unroll(torch.zeros(7, 4, 10))
    assert not torch.allclose(logits.exp().sum(1), torch.ones(7))  # no (log-)softmax
    assert not torch.allclose(logits.sum(1), torch.ones(7))
    torch.testing.assert_close(
        model.logits(last.h), F.linear(last.h.T, model.W_ph, model.b_p)
    )


@MODELS
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 9), (3, 0, 10), (1, 3, 4, 10)])
def test_inputs_of_another_shape_are_refused(model_class, shape):
    with pytest.raises(ValueError, match=r"x must have shape \(batch, time >= 1, 10\)"):
        model_class(4, 10, 8, 10)(torch.zeros(shape))


@MODELS
@pytest.mark.parametrize("position, name", [(0, "seq_length"), (1, "input_dim")])
@pytest.mark.parametrize("value, error", [(0, ValueError), (2.5, TypeError)])
def test_bad_sizes_are_refused(model_class, position, name, value, error):
    sizes = [4, 10, 8, 10]
    sizes[position] = value
    with pytest.raises(error, match=f"{name} must be .*{value}"):
        model_class(*sizes)


def test_forget_gate_starts():
    torch.manual_seed(0)
    chrono = LSTM(100, 10, 2000, 10)
    assert torch.equal(chrono.b_i, -chrono.b_f)
    spans = chrono.b_f.detach().exp()
    assert 1 <= spans.min() < 2 and 98 < spans.max() <= 99
    assert abs(spans.mean() - 50) < 3  # 4.7 standard errors
    assert torch.equal(LSTM(1, 10, 8, 10).b_f, torch.zeros(8))  # nothing to remember
    for start, value in [("one", 1.0), ("zero", 0.0)]:
        assert torch.equal(LSTM(100, 1, 8, 10, start).b_f, torch.full((8,), value))
    with pytest.raises(ValueError, match="forget_start must be one of .*'two'"):
        LSTM(100, 10, 8, 10, "two")


def test_orthogonal_start_of_the_rnn():
    W = VanillaRNN(4, 10, 8, 10).W_hh
    torch.testing.assert_close(W @ W.T, torch.eye(8))
    W = VanillaRNN(4, 10, 8, 10, "uniform").W_hh
    assert W.abs().max() <= 8**-0.5 and not torch.allclose(W @ W.T, torch.eye(8))
    with pytest.raises(ValueError, match="recurrent_start must be one of .*'zero'"):
        VanillaRNN(4, 10, 8, 10, "zero")


@pytest.mark.parametrize("module", [lstm, vanilla_rnn])
def test_networks_are_made_by_hand(module):
    code = inspect.getsource(module).replace("torch.nn.LSTM do", "").split('"""')
    code = "".join(code[::2])  # without the docstrings
    for word in ("nn.LSTM", "LSTMCell", "nn.RNN", "RNNCell", "nn.Linear", "lstm_cell"):
        assert word not in code


# ---------------------------------------------------------------------------- training
def test_defaults_learn_length_5_on_palindromes_never_trained_on():
    _, result = train.train(Config())
    assert result["accuracy"] >= 0.99 and result["steps_to_99"] <= result["steps"]
    assert result["steps"] < Config().train_steps  # stopped early
    assert min(score for _, score in result["history"][-2:]) >= Config().target


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
    inputs, targets = config.dataset("train", config.seed).batch(1, config.batch_size)
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


def test_budget_is_used_up_when_the_target_is_not_reached():
    _, result = train.train(Config(**TINY | {"train_steps": 5}))
    assert result["steps"] == 5 and math.isnan(result["steps_to_99"])
    assert [step for step, _ in result["history"]] == [2, 4, 5]


def test_accuracy_counts_over_all_batches():
    class FirstDigit(nn.Module):
        def forward(self, x):
            return x[:, 0]

    data = PalindromeDataset(7, one_hot=True)
    assert train.accuracy(FirstDigit(), data, 3) == 1.0

    class Nine(nn.Module):
        def forward(self, x):
            return F.one_hot(torch.full((len(x),), 9), 10)

    assert abs(train.accuracy(Nine(), data, 5) - 0.1) < 0.02


@pytest.mark.parametrize("model_type", ["RNN", "LSTM"])
def test_interrupted_run_resumes_to_the_same_result(model_type, tmp_path, monkeypatch):
    config = Config(model_type, **TINY)
    whole, expected = train.train(config)
    draw = PalindromeDataset.batch

    def interrupted(self, index, size):
        if self.split == "train" and index == 5:
            raise KeyboardInterrupt
        return draw(self, index, size)

    path = tmp_path / "state.pt"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PalindromeDataset, "batch", interrupted)
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
        model_type=["RNN", "LSTM"], input_length=[6, 5], seed=[1], train_steps=[4]
    )


def without_models(rows):
    return str([{k: v for k, v in row.items() if k != "model"} for row in rows])


def test_sweep_returns_each_run_in_order():
    rows = train.sweep(tiny_sweep())
    assert [(row["model_type"], row["input_length"]) for row in rows] == [
        ("RNN", 6),
        ("RNN", 5),
        ("LSTM", 6),
        ("LSTM", 5),
    ]
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


def test_table_keeps_values_and_types(tmp_path):
    rows = [train.run(config) for config in tiny_sweep()]
    train.write_table(tmp_path / "table.csv", rows)
    assert str(train.read_table(tmp_path / "table.csv")) == str(
        [{k: v for k, v in r.items() if k not in ("history", "model")} for r in rows]
    )


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


def test_help_explains_every_flag():
    completed = command("--help")
    assert completed.returncode == 0
    text = " ".join(completed.stdout.split())
    for field in dataclasses.fields(Config):
        assert f"--{field.name} " in text
        explained = f"{field.metadata['help']} (default: [{field.default!r}])"
        assert explained in text, field.name
    assert "--table" in text and "--checkpoint" in text


def test_program_trains_with_a_progress_bar():
    completed = command(*tiny_flags())
    assert completed.returncode == 0
    assert "held-out accuracy" in completed.stdout and "6 steps" in completed.stdout
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
    draw = PalindromeDataset.batch

    def interrupted(self, index, size):
        if self.split == "train" and index == 5:
            raise KeyboardInterrupt
        return draw(self, index, size)

    arguments = [*tiny_flags(), "--checkpoint", str(path)]
    with monkeypatch.context() as patch:
        patch.setattr(PalindromeDataset, "batch", interrupted)
        assert train.main(arguments) == 130
    assert f"the same command resumes from {path}" in capsys.readouterr().err
    assert train.main(arguments) == 0
    assert "after 6 steps" in capsys.readouterr().out


BAD = [
    ("--input_length 1", "input_length must be at least 2, got 1"),
    ("--input_length 5 0", "input_length must be at least 2, got 0"),
    ("--input_length five", "invalid int value: 'five'"),
    ("--batch_size 0", "batch_size must be at least 1, got 0"),
    ("--num_hidden -3", "num_hidden must be at least 1, got -3"),
    ("--num_classes 1", "num_classes must be at least 2, got 1"),
    ("--input_dim 3", "input_dim must be one of (1, 10), got 3"),
    ("--train_steps 0", "train_steps must be at least 1, got 0"),
    ("--eval_every 0", "eval_every must be at least 1, got 0"),
    ("--learning_rate 0", "learning_rate must be positive and finite, got 0.0"),
    ("--learning_rate nan", "learning_rate must be positive and finite, got nan"),
    ("--max_norm inf", "max_norm must be positive and finite, got inf"),
    ("--target -1", "target must be positive and finite, got -1.0"),
    ("--seed -1", "seed must be at least 0, got -1"),
    ("--model_type GRU", "model_type must be one of ('RNN', 'LSTM'), got 'GRU'"),
    ("--forget_start two", "forget_start must be one of"),
    ("--recurrent_start zero", "recurrent_start must be one of"),
    ("--device quantum", "device must be one that PyTorch can use here"),
    ("--device cuda:99", "device must be one that PyTorch can use here"),
    ("--device meta", "device must be one that PyTorch can use here"),
    ("--table nowhere/table.csv", "table must be in an existing folder"),
    ("--table .", "table must be a file, got the folder ."),
    ("--checkpoint .", "checkpoint must be a file, got the folder ."),
    ("--checkpoint nowhere/state.pt", "checkpoint must be in an existing folder"),
    ("--seed 0 1 --checkpoint state.pt", "checkpoint is for a single run, got 2"),
]


@pytest.mark.parametrize("arguments, message", BAD)
def test_bad_values_are_refused_before_any_work(
    arguments, message, monkeypatch, capsys
):
    def work(*_, **__):
        raise AssertionError("work was done")

    monkeypatch.setattr(train, "train", work)
    monkeypatch.setattr(train, "sweep", work)
    with pytest.raises(SystemExit) as exit_status:
        train.main(arguments.split())
    captured = capsys.readouterr()
    assert exit_status.value.code == 2 and captured.out == ""
    assert message in captured.err and captured.err.startswith("usage:")


@pytest.mark.parametrize("value", [5.5, "5", True])
def test_config_refuses_a_length_of_another_type(value):
    with pytest.raises(TypeError, match="input_length must be of type int"):
        Config(input_length=value)
