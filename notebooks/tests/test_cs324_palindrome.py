"""CS324 part I: the palindromes, both networks, the trainer, the saved tables."""

import itertools
import math

import dataset
import joblib
import numpy as np
import pytest
import sweep
import torch
import train
import vanilla_rnn
from dataset import PalindromeDataset
from lstm import LSTM
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from train import Config
from vanilla_rnn import VanillaRNN

TINY = {"num_hidden": 8, "batch_size": 16, "train_steps": 6, "eval_every": 2}


# ------------------------------------------------------------------------- palindromes
@pytest.mark.parametrize("split", dataset.SPLITS)
@pytest.mark.parametrize("input_length", [1, 4, 5, 200])
def test_batches_hold_palindromes(input_length, split):
    inputs, targets = PalindromeDataset(input_length, 9, split=split).batch(3, 50)
    assert inputs.shape == (50, input_length, 1) and inputs.dtype == torch.float32
    digits = torch.cat([inputs[:, :, 0].long(), targets[:, None]], dim=1)
    assert torch.equal(digits, digits.flip(1))
    assert digits.min() >= 0 and digits.max() <= 9
    one_hot, same = PalindromeDataset(input_length, 9, True, split=split).batch(3, 50)
    assert torch.equal(one_hot.argmax(2), digits[:, :-1]) and torch.equal(same, targets)
    assert torch.equal(one_hot.sum(2), torch.ones(50, input_length))


@pytest.mark.parametrize("input_length", [4, 5])
def test_training_validation_and_test_share_no_palindrome(input_length):
    left = np.array(list(itertools.product(range(10), repeat=3)))
    parts = np.array(
        [
            PalindromeDataset(input_length, 9, split=split, seed=seed).in_split(left)
            for seed, split in enumerate(("train", "validation", "test"))
        ]
    )
    assert (parts.sum(axis=0) == 1).all()
    assert np.allclose(parts.mean(axis=1), [0.8, 0.1, 0.1], atol=0.05)
    for part in parts:  # every answer is asked for
        assert set(left[part, 0]) == set(range(10))


def test_items_work_in_a_data_loader():
    data = PalindromeDataset(6, 50, one_hot=True)
    assert len(data) == 50 and sum(1 for _ in data) == 50
    inputs, targets = next(iter(DataLoader(data, batch_size=32)))
    assert inputs.shape == (32, 6, 10) and targets.shape == (32,)
    assert torch.equal(inputs[:, 0].argmax(1), targets)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"input_length": 0}, "input_length and total_len must be .* got 0, 9, 10"),
        ({"total_len": 0}, "input_length and total_len must be .* got 4, 0, 10"),
        ({"split": "held"}, "split must be one of all, train, .* got 'held'"),
    ],
)
def test_bad_data_set_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PalindromeDataset(**{"input_length": 4, "total_len": 9} | arguments)


# ---------------------------------------------------------------------------- networks
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("initialisation", vanilla_rnn.INITIALISATIONS)
def test_vanilla_rnn_equals_torch(initialisation, nonlinearity):
    torch.manual_seed(0)
    model = VanillaRNN(9, 3, 5, 4, initialisation, nonlinearity).double()
    nn.init.normal_(model.b_h)  # zeros could hide a mistake
    reference = nn.RNN(3, 5, nonlinearity=nonlinearity, batch_first=True).double()
    with torch.no_grad():
        reference.weight_ih_l0.copy_(model.W_hx)
        reference.weight_hh_l0.copy_(model.W_hh)
        reference.bias_ih_l0.copy_(model.b_h)
        reference.bias_hh_l0.zero_()
    x = torch.randn(7, 9, 3).double()
    expected = F.linear(reference(x)[0][:, -1], model.W_ph, model.b_p)
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("model_class", [VanillaRNN, LSTM])
def test_any_batch_size_and_length_with_the_same_answers(model_class):
    torch.manual_seed(0)
    model = model_class(4, 10, 8, 10)
    x = torch.randn(7, 4, 10)
    for size in (0, 1, 3):
        torch.testing.assert_close(model(x[:size]), model(x)[:size])
    assert model(torch.randn(2, 9, 10)).shape == (2, 10)
    with pytest.raises(ValueError, match="initialisation must be one of .* got 'two'"):
        model_class(4, 10, 8, 10, "two")


def test_chrono_initialisation_spans_the_sequence():
    torch.manual_seed(0)
    model = LSTM(100, 10, 2000, 10, "chrono")
    assert torch.equal(model.b_i, -model.b_f)
    spans = model.b_f.detach().exp()
    assert 1 <= spans.min() < 2 and 98 < spans.max() <= 99
    one = LSTM(100, 10, 2000, 10, "chrono_b_f")
    assert one.b_f.max() > 4 and one.b_i.abs().max() < 0.03
    assert LSTM(1, 1, 8, 10, "chrono").b_f.abs().max() == 0  # nothing to remember


# ---------------------------------------------------------------------------- training
def test_the_seed_determines_the_result():
    results = [train.train(Config(**TINY, seed=seed)) for seed in (3, 3, 4)]
    weights = [model.state_dict() for model, _ in results]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["W_ph"], weights[2]["W_ph"])
    assert str(results[0][1]) == str(results[1][1])


def test_one_step_is_rmsprop_on_the_clipped_gradient():
    config = Config(**TINY | {"train_steps": 1, "max_norm": 0.01})
    model, _ = train.train(config)
    torch.manual_seed(config.seed)
    expected = config.model()
    inputs, targets = config.dataset("train", 16).batch(1, config.batch_size)
    F.cross_entropy(expected(inputs), targets).backward()
    norm = torch.cat([p.grad.flatten() for p in expected.parameters()]).norm()
    assert norm > 0.02
    for before, after in zip(expected.parameters(), model.parameters(), strict=True):
        gradient = before.grad * config.max_norm / norm
        step = gradient / ((0.01 * gradient**2).sqrt() + 1e-8)  # RMSprop, alpha = 0.99
        expected_after = before - config.learning_rate * step
        torch.testing.assert_close(after, expected_after, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "scores, steps, first",
    [
        ([0.2, 1.0, 0.5, 0.995, 1.0, 1.0], 12, 4),
        ([0.2, 1.0, 0.999], 6, 4),  # twice in a row: solved
        ([0.9, 0.9, 0.9, 0.9, 0.9, 0.9], 12, math.nan),
    ],
)
def test_training_ends_when_solved_or_with_the_budget(
    scores, steps, first, monkeypatch
):
    left = iter([*scores, 0.75])  # the last is of the test
    monkeypatch.setattr(train, "accuracy", lambda model, data: next(left))
    _, result = train.train(Config(**TINY | {"train_steps": 12}))
    assert result["steps"] == steps and result["accuracy"] == 0.75
    assert str(result["steps_to_99"]) == str(first)
    assert [score for _, _, score in result["history"]] == scores


@pytest.mark.parametrize("size", [1, 250, 400, 1500])
def test_accuracy_counts_every_palindrome(size):
    data = PalindromeDataset(6, size, one_hot=True)
    assert train.accuracy(lambda x: x[:, 0], data) == 1.0
    assert train.accuracy(lambda x: -x[:, 0], data) == 0.0


def test_a_saved_network_is_whole_or_the_old_one(tmp_path, monkeypatch, capsys):
    path = tmp_path / "weights.pt"
    train.main([*flags(), "--save", str(path)])
    assert "after 6 steps" in capsys.readouterr().out
    weights = torch.load(path)
    LSTM(4, 1, 8, 10).load_state_dict(weights)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch, "save", interrupt)
        train.save(path, {})
    assert torch.equal(torch.load(path)["W_ph"], weights["W_ph"])


def interrupt(*_):
    raise KeyboardInterrupt


# ------------------------------------------------------------------------ saved tables
def tiny_table():
    return sweep.grid(
        model_type=["RNN", "LSTM"],
        input_length=[5, 4],
        num_hidden=[8],
        learning_rate=[1e-4 / 3],
        train_steps=[4],
    )


def test_a_table_is_completed(tmp_path, monkeypatch):
    path, trained, run = tmp_path / "table.csv", [], sweep.run
    monkeypatch.setattr(sweep, "run", lambda c: trained.append(c) or run(c))
    sweep.complete(path, tiny_table()[1:3], jobs=1)
    rows = sweep.complete(path, tiny_table(), jobs=1)
    assert trained == [*tiny_table()[1:3], tiny_table()[0], tiny_table()[3]]
    assert str(sorted(map(str, rows))) == str(sorted(str(run(c)) for c in tiny_table()))
    sweep.complete(path, tiny_table(), jobs=1)
    assert len(trained) == 4 and path.read_text().count("\n") == 5


def test_the_saved_tables_are_those_of_the_sweeps():
    for name, configs in sweep.TABLES.items():
        rows = sweep.read(sweep.SAVED / f"{name}.csv")
        assert {sweep.config_of(row) for row in rows} == set(configs())


def test_a_dask_cluster_may_take_over(tmp_path):
    distributed = pytest.importorskip(
        "distributed", reason="the optional extra `cluster` is not installed"
    )
    with (
        distributed.LocalCluster(n_workers=2, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
        distributed.get_task_stream(client) as stream,
        joblib.parallel_config(backend="dask"),
    ):
        rows = sweep.complete(tmp_path / "table.csv", tiny_table())
    assert len(rows) == 4 and stream.data


# ------------------------------------------------------------------------ command line
def flags():
    return [part for name, value in TINY.items() for part in (f"--{name}", str(value))]


def test_defaults_are_those_of_the_course():
    assert (
        vars(Config()).items()
        >= {
            "input_length": 4,
            "input_dim": 1,
            "num_classes": 10,
            "num_hidden": 128,
            "batch_size": 128,
            "learning_rate": 0.001,
            "max_norm": 10.0,
        }.items()
    )


@pytest.mark.parametrize(
    "arguments",
    [
        "--input_length 0",
        "--input_length five",
        "--num_hidden -3",
        "--num_classes 1",
        "--input_dim 3",
        "--learning_rate 0",
        "--learning_rate nan",
        "--max_norm inf",
        "--model_type GRU",
        "--initialisation two",
        "--model_type RNN --initialisation chrono",
        f"--seed {2**64}",
        "--seed -1",
        "--save nowhere/weights.pt",
        "--save .",
    ],
)
def test_bad_values_are_refused_before_any_work(
    arguments, monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "train", interrupt)
    with pytest.raises(SystemExit) as exit_status:
        train.main(arguments.split())
    message = capsys.readouterr().err.splitlines()[-1]
    assert exit_status.value.code == 2 and arguments.split()[-2].strip("-") in message
    assert not list(tmp_path.iterdir())
