"""The long runs of section I.4 and I.5: `python sweep.py rates` completes saved/rates.csv.

One run per core; a finished run is a row, identified by all settings of `train.Config`. A
table that was begun is completed: interrupt at will, and give the same command again.
"""

import argparse
import csv
import itertools
from dataclasses import fields
from pathlib import Path

import joblib
import torch
from train import Config, number, train

from helpers import progress

SAVED = Path(__file__).parent / "saved"
SETTINGS = {field.name: field.type for field in fields(Config)}
RESULTS = {"accuracy": float, "steps": int, "steps_to_99": float}


# ---------------------------------------------------------------------------- the tables
def grid(**values):
    """A `Config` for each combination of the given lists of values."""
    combinations = itertools.product(*values.values())
    return [Config(**dict(zip(values, chosen))) for chosen in combinations]


LONG = {"input_dim": [10], "max_norm": [1.0]}
LSTM = LONG | {"num_hidden": [32], "initialisation": ["chrono"]}
RNN = LONG | {
    "model_type": ["RNN"],
    "num_hidden": [64],
    "initialisation": ["orthogonal"],
}
RELU = RNN | {"initialisation": ["identity"], "nonlinearity": ["relu"]}


def rates():
    """The search for learning rates and more, with seeds that are used for nothing else."""
    two, one, at_101 = {"seed": [10, 11]}, {"seed": [10]}, {"input_length": [100]}
    middle = [3e-4, 1e-3, 3e-3]
    lstm_rates = [0.003, 0.01, 0.03, 0.1]
    return [
        *grid(**LSTM | two, input_length=[10, 20, 50, 100], learning_rate=lstm_rates),
        *grid(**RNN | two, input_length=[10], learning_rate=[*middle, 1e-2]),
        *grid(**RNN | two, input_length=[20], learning_rate=middle),
        *grid(**RNN | two, input_length=[50, 100], learning_rate=[1e-4, 3e-4, 1e-3]),
        *grid(**RNN | one | at_101 | {"initialisation": ["identity"]}, learning_rate=[3e-4]),
        *grid(**RELU | one | at_101, learning_rate=[1e-4, 3e-4]),
    ]  # fmt: skip


def seeds():
    """The best rate of each network and length, with ten other seeds."""
    ten = {"seed": list(range(10)), "train_steps": [5000]}
    return [
        *grid(**LSTM | ten, input_length=[10, 20, 50, 100], learning_rate=[0.03]),
        *grid(**RNN | ten, input_length=[10, 20], learning_rate=[1e-3]),
        *grid(**RNN | ten, input_length=[50, 100], learning_rate=[3e-4]),
    ]


def controls():
    """The LSTM with one part of its initialisation changed at a time."""
    short = LSTM | {"input_length": [50], "train_steps": [1000], "seed": [0]}
    starts = {"initialisation": ["chrono", "chrono_b_f", "chrono_b_i", "uniform"]}
    return [
        *grid(**short | starts, learning_rate=[0.03, 0.1]),
        *grid(**short, learning_rate=[0.03], assumed_length=[10, 200, 1000]),
    ]


TABLES = {"rates": rates, "seeds": seeds, "controls": controls}


# ------------------------------------------------------------------------------ the runs
def run(config):
    """Train on one thread, so that runs side by side do not slow each other down."""
    torch.set_num_threads(1)
    _, result = train(config)
    return vars(config) | {name: result[name] for name in RESULTS}


def complete(path, configs, jobs=-1):
    """Train the configurations that the CSV file lacks, adding a row as each ends.

    Returns the rows of all of them. Within `joblib.parallel_config(backend="dask")` the
    workers of a Dask cluster train instead of this machine's cores.
    """
    done = {config_of(row) for row in read(path)}
    missing = [config for config in configs if config not in done]
    tasks = (joblib.delayed(run)(config) for config in missing)
    rows = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(tasks)
    for row in progress(rows, total=len(missing), desc=path.stem):
        append(path, row)
    return [row for row in read(path) if config_of(row) in configs]


def append(path, row):
    """Add a row to the CSV file, which begins with a line of column names."""
    is_new = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, SETTINGS | RESULTS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def read(path):
    """The rows of the CSV file as dicts; none when there is no file."""
    if not path.exists():
        return []
    types = SETTINGS | RESULTS
    with open(path, newline="") as file:
        return [
            {k: types[k](v) for k, v in row.items()} for row in csv.DictReader(file)
        ]


def config_of(row):
    """The settings that a row was trained with."""
    return Config(**{name: row[name] for name in SETTINGS})


def main(arguments=None):
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=TABLES, help="which of the tables in saved/")
    parser.add_argument(
        "--jobs",
        type=number(int, -1, 1024),
        default=-1,
        help="runs side by side; -1: one per core",
    )
    given = parser.parse_args(arguments)
    complete(SAVED / f"{given.table}.csv", TABLES[given.table](), given.jobs)


if __name__ == "__main__":
    main()
