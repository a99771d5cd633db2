"""Train the RNN or the LSTM to predict the last digit of a palindrome.

`python train.py` trains the LSTM on T = 5 with the course's sizes, batch, rate and clipping.
Each flag takes one value or several: every combination is then trained, one run per core, and
a table that was begun is completed.
"""

import argparse
import csv
import dataclasses
import itertools
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import joblib
import lstm
import torch
from dataset import PalindromeDataset
from lstm import LSTM
from programs import (
    Settings,
    add_flags,
    check_memory,
    load_checkpoint,
    output_file,
    save_checkpoint,
    setting,
    threads,
    usable_device,
    write_file,
)
from torch import nn
from vanilla_rnn import VanillaRNN

from helpers import progress, seed_everything

VALIDATION_SIZE, TEST_SIZE, EVALUATION_BATCH = 1000, 10_000, 1000


@dataclass(frozen=True)
class Config(Settings):
    """What determines a run."""

    model_type: str = setting("LSTM", "network", choices=("RNN", "LSTM"))
    input_length: int = setting(
        4, "digits that are read: a palindrome has one more", least=1
    )
    input_dim: int = setting(
        1, "inputs per digit: 1 (its value) or num_classes (one-hot)", least=1
    )
    num_classes: int = setting(10, "how many different digits there are", least=2)
    num_hidden: int = setting(128, "size of the hidden state", least=1)
    batch_size: int = setting(128, "palindromes per training step", least=1)
    learning_rate: float = setting(0.001, "learning rate of RMSprop", above=0)
    train_steps: int = setting(3000, "training steps at most", least=1)
    max_norm: float = setting(10.0, "longer gradients are clipped to it", above=0)
    target: float = setting(
        0.999, "stop when validation reaches it twice in a row", above=0
    )
    eval_every: int = setting(25, "training steps between two evaluations", least=1)
    seed: int = setting(0, "seed of the weights and of the training digits", least=0)
    forget_start: str = setting(
        "chrono", "how the LSTM's forget gates start", choices=lstm.STARTS
    )
    device: str = setting(
        "cpu", "where to compute: cpu, cuda, mps, ...", check=usable_device
    )

    def __post_init__(self):
        super().__post_init__()
        if self.input_dim not in (1, self.num_classes):
            raise ValueError(
                f"input_dim must be 1 or num_classes, {self.num_classes}, "
                f"got {self.input_dim}"
            )
        if self.target > 1:
            raise ValueError(f"target must be at most 1, got {self.target}")
        h, kept = self.num_hidden, 4 if self.model_type == "RNN" else 16
        weights = kept * h * (h + self.input_dim + 1)  # with gradients and squares
        digits = self.input_length * max(
            self.batch_size * (kept * h + self.input_dim),
            EVALUATION_BATCH * (kept * h // 4 + self.input_dim),
        )
        check_memory(4 * (weights + digits), self.device)

    def model(self):
        """A new network, on the device."""
        sizes = self.input_length, self.input_dim, self.num_hidden, self.num_classes
        if self.model_type == "RNN":
            return VanillaRNN(*sizes).to(self.device)
        return LSTM(*sizes, self.forget_start).to(self.device)

    def dataset(self, split, total_len):
        """The palindromes of one split."""
        return PalindromeDataset(
            self.input_length,
            total_len,
            one_hot=self.input_dim > 1,
            num_classes=self.num_classes,
            split=split,
            seed=self.seed if split == "train" else 0,
        )


@torch.no_grad()
def accuracy(model, dataset, device="cpu"):
    """Share of right predictions over the data set, in batches of 1,000."""
    right = 0
    for index in range(len(dataset) // EVALUATION_BATCH):
        inputs, targets = dataset.batch(index, EVALUATION_BATCH)
        predictions = model(inputs.to(device)).argmax(1)
        right += (predictions == targets.to(device)).sum().item()
    return right / len(dataset)


def train(config, checkpoint=None, show_progress=False):
    """Train one network; returns (model, result).

    RMSprop on the cross-entropy of the last step. Training stops early when the accuracy on
    1,000 validation palindromes reaches the target at two evaluations in a row. `result` is a
    dict: `accuracy` on 10,000 test palindromes, `validation` at the last evaluation, `steps`,
    `steps_to_99` (the first evaluation at 99 % or more, NaN if none), `history` (a list of
    [step, loss of the batch, validation accuracy]).

    With `checkpoint` (a path) the state is saved there at each evaluation, and a file that is
    there already is resumed from: step s always trains on batch s, so an interruption changes
    nothing in the result. Raises ValueError when that file is damaged, of other settings, or
    further on than `train_steps`.
    """
    seed_everything(config.seed)
    model = config.model()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=config.learning_rate)
    history = []
    if checkpoint is not None and Path(checkpoint).exists():
        history = resume(checkpoint, config, model, optimizer)
    training = config.dataset("train", config.train_steps * config.batch_size)
    validation = config.dataset("validation", VALIDATION_SIZE)
    start = history[-1][0] if history else 0
    bar = progress(
        total=config.train_steps,
        initial=start,
        desc=f"{config.model_type}, T = {config.input_length + 1}",
        disable=not show_progress,
    )
    with threads(1), bar:  # one run per core; another number rounds differently
        for step in range(start + 1, config.train_steps + 1):
            if reached(history, config.target):
                break
            inputs, targets = training.batch(step, config.batch_size)
            logits = model(inputs.to(config.device))
            loss = nn.functional.cross_entropy(logits, targets.to(config.device))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.max_norm)
            optimizer.step()
            bar.update()
            if step % config.eval_every == 0 or step == config.train_steps:
                score = accuracy(model, validation, config.device)
                history.append([step, loss.item(), score])
                bar.set_postfix(loss=f"{loss.item():.4f}", accuracy=f"{score:.1%}")
                if checkpoint is not None:
                    state = {
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "history": history,
                    }
                    save_checkpoint(checkpoint, config, state)
        test = accuracy(model, config.dataset("test", TEST_SIZE), config.device)
    return model, {
        "accuracy": test,
        "validation": history[-1][2],
        "steps": history[-1][0],
        "steps_to_99": next((s for s, _, score in history if score >= 0.99), math.nan),
        "history": history,
    }


def reached(history, target):
    """Whether the last two evaluations were both at the target or above."""
    return len(history) > 1 and min(history[-2][2], history[-1][2]) >= target


def resume(path, config, model, optimizer):
    """Restore the state of a run from its checkpoint; returns its history."""
    state = load_checkpoint(path, config, may_differ=("train_steps",))
    steps = state["history"][-1][0]
    if steps > config.train_steps:
        raise ValueError(
            f"train_steps must be at least {steps}, the steps that {path} has, "
            f"got {config.train_steps}"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["history"]


# ------------------------------------------------------------------------------ sweeps
def combinations(**values):
    """A `Config` for each combination of the given lists of values, in nested order."""
    return [
        Config(**dict(zip(values, chosen)))
        for chosen in itertools.product(*values.values())
    ]


def run(config):
    """One run of a sweep: settings, result and trained `model` as one dict."""
    model, result = train(config)
    return asdict(config) | result | {"model": model}


def runs(configs):
    """Train every configuration in parallel; yields the dicts of `run`, in the same order.

    All cores are used or, within `joblib.parallel_config(backend="dask")`, all workers of the
    Dask cluster that a `distributed.Client` is connected to.
    """
    tasks = (joblib.delayed(run)(config) for config in configs)
    rows = joblib.Parallel(n_jobs=-1, return_as="generator")(tasks)
    return progress(rows, total=len(configs), desc="runs")


def sweep(configs):
    """The list of `runs`."""
    return list(runs(configs))


def complete_table(path, configs):
    """Train the configurations that the CSV file lacks, adding each as it ends."""
    rows = read_table(path) if path.exists() else []
    missing = [
        c for c in configs if not any(asdict(c).items() <= r.items() for r in rows)
    ]
    for row in runs(missing):
        rows.append(row)
        write_table(path, rows)
    return [r for c in configs for r in rows if asdict(c).items() <= r.items()]


def write_table(path, rows):
    """Write the rows of a sweep to a CSV file, without their histories and models."""
    columns = [name for name in rows[0] if name not in ("history", "model")]
    lines = [",".join(columns)]
    lines += [",".join(str(row[name]) for name in columns) for row in rows]
    write_file(path, ("\n".join(lines) + "\n").encode())


def read_table(path):
    """The rows that `write_table` wrote, with the types that they had.

    Raises ValueError for a file that is no such table.
    """
    types = {field.name: field.type for field in dataclasses.fields(Config)}
    types |= {"accuracy": float, "validation": float, "steps": int}
    types |= {"steps_to_99": float}
    try:
        with open(path, newline="") as file:
            return [
                {name: kind(row[name]) for name, kind in types.items()}
                for row in csv.DictReader(file)
            ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no table of this program: {error!r}") from None


# ------------------------------------------------------------------------ command line
def main(arguments=None):
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_flags(parser, Config, several=True)
    parser.add_argument(
        "--table",
        type=output_file,
        metavar="PATH",
        help="CSV file, a line per run; one that exists is completed",
    )
    parser.add_argument(
        "--checkpoint",
        type=output_file,
        metavar="PATH",
        help="where the state of a single run is saved, and resumed from if it exists",
    )
    values = vars(parser.parse_args(arguments))
    table, checkpoint = values.pop("table"), values.pop("checkpoint")
    try:
        configs = combinations(**values)
        if checkpoint and (table or len(configs) > 1):
            raise ValueError("checkpoint is for a single run without a table")
        if table:
            rows = complete_table(table, configs)
        elif len(configs) > 1:
            rows = sweep(configs)
        else:
            _, result = train(configs[0], checkpoint, show_progress=True)
            rows = [asdict(configs[0]) | result]
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        again = table or checkpoint
        again = f"; the same command goes on from {again}" if again else ""
        print(f"\ninterrupted{again}", file=sys.stderr)
        return 130
    for row in rows:
        print(
            f"{row['model_type']} {row['num_hidden']}, T = {row['input_length'] + 1}, "
            f"learning rate {row['learning_rate']:g}, seed {row['seed']}: "
            f"test accuracy {row['accuracy']:.2%} after {row['steps']} steps"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
