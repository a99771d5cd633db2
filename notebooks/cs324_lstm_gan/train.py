"""Train the RNN or the LSTM to predict the last digit of a palindrome.

`python train.py` trains the LSTM on length 5, `python train.py --help` explains every flag.
Each flag takes one value or several: every combination is then trained, one run per core.
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
import torch
from dataset import PalindromeDataset
from lstm import FORGET_STARTS, LSTM
from programs import load_checkpoint, save_checkpoint, usable_device
from torch import nn
from vanilla_rnn import RECURRENT_STARTS, VanillaRNN

from helpers import progress, seed_everything, threads

# of the evaluation's draws; it is the split that keeps them from what is trained on
VALIDATION_SEED, TEST_SEED = 2**40, 2**41
VALIDATION_BATCHES, TEST_BATCHES, EVALUATION_BATCH = 1, 10, 1000


def setting(default, help, least=None):
    """A field of `Config`: its default, its flag's help, the least value it may take."""
    metadata = {"help": help, "least": least}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Config:
    """What determines a run. Raises TypeError or ValueError for a value that makes no sense."""

    model_type: str = setting("LSTM", "network: RNN or LSTM")
    input_length: int = setting(
        5, "length T of the palindromes: T-1 digits are read, the T-th is predicted", 2
    )
    input_dim: int = setting(
        10, "inputs per digit: 1 (its value) or num_classes (one-hot)", 1
    )
    num_classes: int = setting(10, "how many different digits there are", 2)
    num_hidden: int = setting(32, "size of the hidden state", 1)
    batch_size: int = setting(128, "palindromes per training step", 1)
    learning_rate: float = setting(0.01, "learning rate of RMSprop")
    train_steps: int = setting(1500, "training steps at most", 1)
    max_norm: float = setting(1.0, "norm to which longer gradients are clipped")
    device: str = setting(
        "cpu",
        "where to compute: cpu, cuda, mps, ...; so small a network fits a CPU core, and "
        "there is one run per core",
    )
    seed: int = setting(0, "seed of the starting weights and of the palindromes", 0)
    forget_start: str = setting(
        "chrono", f"how the LSTM's forget gates start: {', '.join(FORGET_STARTS)}"
    )
    recurrent_start: str = setting(
        "orthogonal", f"how the RNN's W_hh starts: {', '.join(RECURRENT_STARTS)}"
    )
    target: float = setting(
        0.999, "stop when this accuracy is reached at two evaluations in a row"
    )
    eval_every: int = setting(25, "training steps between two evaluations", 1)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), field.metadata["least"]
            kinds = (int, float) if field.type is float else field.type
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise TypeError(
                    f"{field.name} must be of type {field.type.__name__}, got {value!r}"
                )
            if least is not None and value < least:
                raise ValueError(f"{field.name} must be at least {least}, got {value}")
        for name in ("learning_rate", "max_norm", "target"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(
                    f"{name} must be positive and finite, got {getattr(self, name)}"
                )
        for name, accepted in [
            ("model_type", ("RNN", "LSTM")),
            ("forget_start", FORGET_STARTS),
            ("recurrent_start", RECURRENT_STARTS),
            ("input_dim", (1, self.num_classes)),
        ]:
            if getattr(self, name) not in accepted:
                raise ValueError(
                    f"{name} must be one of {accepted}, got {getattr(self, name)!r}"
                )
        usable_device(self.device)

    def model(self):
        """A new network, on the device."""
        sizes = (self.input_length - 1, self.input_dim, self.num_hidden)
        if self.model_type == "RNN":
            model = VanillaRNN(*sizes, self.num_classes, self.recurrent_start)
        else:
            model = LSTM(*sizes, self.num_classes, self.forget_start)
        return model.to(self.device)

    def dataset(self, split, seed):
        """The palindromes of one split."""
        return PalindromeDataset(
            self.input_length,
            one_hot=self.input_dim > 1,
            num_classes=self.num_classes,
            split=split,
            seed=seed,
        )


@torch.no_grad()
def accuracy(model, dataset, batches, device="cpu"):
    """Share of right predictions over `batches` batches of 1,000 palindromes."""
    right = 0
    for index in range(batches):
        inputs, targets = dataset.batch(index, EVALUATION_BATCH)
        predictions = model(inputs.to(device)).argmax(1)
        right += (predictions == targets.to(device)).sum().item()
    return right / (batches * EVALUATION_BATCH)


def train(config, checkpoint=None, show_progress=False):
    """Train one network; returns (model, result).

    RMSprop on the cross-entropy of the last step, gradients clipped to `max_norm`. The held-out
    accuracy is measured every `eval_every` steps, and training stops early when it reaches the
    target twice in a row. `result` is a dict: `accuracy` on 10,000 held-out palindromes other
    than those that decided when to stop, `steps`, `steps_to_99` (the first evaluation at 99 %
    or more, NaN if none), `history` (the evaluations: a list of [step, accuracy]).

    With `checkpoint` (a path) the state is saved there at each evaluation, and a file that is
    there already is resumed from: step s always trains on batch s, so an interruption changes
    nothing in the result. Raises ValueError when that file is damaged, of another configuration
    or further on than `train_steps`.
    """
    seed_everything(config.seed)
    model = config.model()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=config.learning_rate)
    history = []
    if checkpoint is not None and Path(checkpoint).exists():
        history = resume(checkpoint, config, model, optimizer)
    training = config.dataset("train", config.seed)
    validation = config.dataset("held_out", VALIDATION_SEED)
    start = history[-1][0] if history else 0
    bar = progress(
        total=config.train_steps,
        initial=start,
        desc=f"{config.model_type}, length {config.input_length}",
        disable=not show_progress,
    )
    # The operations are so small that a second thread costs more than it brings.
    with threads(1), bar:
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
                score = accuracy(model, validation, VALIDATION_BATCHES, config.device)
                history.append([step, score])
                bar.set_postfix(loss=f"{loss.item():.4f}", accuracy=f"{score:.1%}")
                if checkpoint is not None:
                    state = {
                        "config": asdict(config),
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "history": history,
                    }
                    save_checkpoint(state, checkpoint)
        test = config.dataset("held_out", TEST_SEED)
        test_accuracy = accuracy(model, test, TEST_BATCHES, config.device)
    return model, {
        "accuracy": test_accuracy,
        "steps": history[-1][0],
        "steps_to_99": next((s for s, score in history if score >= 0.99), math.nan),
        "history": history,
    }


def reached(history, target):
    """Whether the last two evaluations were both at the target or above."""
    return len(history) > 1 and min(history[-2][1], history[-1][1]) >= target


def resume(path, config, model, optimizer):
    """Restore the state of a run from its checkpoint; returns its history."""
    state = load_checkpoint(path, ("config", "model", "optimizer", "history"))
    differing = [
        f"{name} {state['config'].get(name)!r} there, {value!r} here"
        for name, value in asdict(config).items()
        if name != "train_steps" and state["config"].get(name) != value
    ]
    if differing:
        raise ValueError(f"checkpoint {path} is of another run: {'; '.join(differing)}")
    history = state["history"]
    if history[-1][0] > config.train_steps:
        raise ValueError(
            f"train_steps must be at least {history[-1][0]}, the steps that checkpoint {path} "
            f"has, got {config.train_steps}"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return history


# ------------------------------------------------------------------------------ sweeps
def combinations(**values):
    """A `Config` for each combination of the given lists of values, in nested order."""
    return [
        Config(**dict(zip(values, chosen)))
        for chosen in itertools.product(*values.values())
    ]


def run(config):
    """One run of a sweep: configuration, result and trained `model` as one dict."""
    model, result = train(config)
    return asdict(config) | result | {"model": model}


def sweep(configs):
    """Train every configuration in parallel; returns the dicts of `run`, in the same order.

    All cores are used or, within `joblib.parallel_config(backend="dask")`, all workers of the
    Dask cluster that a `distributed.Client` is connected to.
    """
    tasks = (joblib.delayed(run)(config) for config in configs)
    rows = joblib.Parallel(n_jobs=-1, return_as="generator")(tasks)
    return list(progress(rows, total=len(configs), desc="runs"))


def write_table(path, rows):
    """Write the rows of a sweep to a CSV file, without their histories and models."""
    columns = [name for name in rows[0] if name not in ("history", "model")]
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(
            file, columns, extrasaction="ignore", lineterminator="\n"
        )
        table.writeheader()
        table.writerows(rows)


def read_table(path):
    """The rows that `write_table` wrote, with the types that they had."""
    types = {field.name: field.type for field in dataclasses.fields(Config)}
    types |= {"accuracy": float, "steps": int, "steps_to_99": float}
    with open(path, newline="") as file:
        return [
            {name: types[name](value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


# ------------------------------------------------------------------------ command line
def parser():
    """The command line: a flag for each field of `Config`, and where to write."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for field in dataclasses.fields(Config):
        parser.add_argument(
            f"--{field.name}",
            type=field.type,
            nargs="+",
            default=[field.default],
            help=field.metadata["help"],
        )
    parser.add_argument(
        "--table", metavar="PATH", help="CSV file to write, a line per run"
    )
    parser.add_argument(
        "--checkpoint",
        metavar="PATH",
        help="file to save the state of a single run in, and to resume from if it exists",
    )
    return parser


def main(arguments=None):
    """Run the program; returns its exit status."""
    command = parser()
    values = vars(command.parse_args(arguments))
    table, checkpoint = values.pop("table"), values.pop("checkpoint")
    for name, path in [("table", table), ("checkpoint", checkpoint)]:
        if path is not None and not Path(path).parent.is_dir():
            command.error(f"{name} must be in an existing folder, got {path}")
        if path is not None and Path(path).is_dir():
            command.error(f"{name} must be a file, got the folder {path}")
    try:
        configs = combinations(**values)
        if len(configs) > 1 and checkpoint is not None:
            raise ValueError(
                f"checkpoint is for a single run, got {len(configs)} combinations"
            )
        if len(configs) > 1:
            rows = sweep(configs)
        else:
            _, result = train(configs[0], checkpoint, show_progress=True)
            rows = [asdict(configs[0]) | result]
    except (TypeError, ValueError) as error:
        command.error(str(error))
    except KeyboardInterrupt:
        again = f"; the same command resumes from {checkpoint}" if checkpoint else ""
        print(f"\ninterrupted{again}", file=sys.stderr)
        return 130
    for row in rows:
        print(
            f"{row['model_type']}, length {row['input_length']}, "
            f"learning rate {row['learning_rate']:g}, seed {row['seed']}: "
            f"held-out accuracy {row['accuracy']:.2%} after {row['steps']} steps"
        )
    if table:
        write_table(table, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
