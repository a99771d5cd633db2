"""Train the LSTM or the RNN to predict the last digit of a palindrome.

`python train.py` trains the LSTM on T = 5 with the course's defaults.
"""

import argparse
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from dataset import PalindromeDataset
from lstm import LSTM
from torch import nn
from vanilla_rnn import VanillaRNN

import helpers

EVALUATION_BATCH = 250


@dataclass(frozen=True)
class Config:
    """What determines a run. A palindrome has T = input_length + 1 digits."""

    model_type: str = "LSTM"  # or RNN
    input_length: int = 4  # digits that are read
    input_dim: int = 1  # a digit's value, or 10: one-hot
    num_classes: int = 10
    num_hidden: int = 128
    batch_size: int = 128
    learning_rate: float = 0.001
    train_steps: int = 3000  # at most
    max_norm: float = 10.0  # gradients are clipped to this norm
    eval_every: int = 25  # steps between two evaluations
    initialisation: str = "uniform"  # see LSTM and VanillaRNN
    nonlinearity: str = "tanh"  # of the RNN, or relu
    assumed_length: int = 0  # for chrono, in place of input_length if not 0
    seed: int = 0

    def model(self):
        """A new network."""
        sizes = self.input_dim, self.num_hidden, self.num_classes
        if self.model_type == "RNN":
            return VanillaRNN(
                self.input_length, *sizes, self.initialisation, self.nonlinearity
            )
        return LSTM(
            self.assumed_length or self.input_length, *sizes, self.initialisation
        )

    def dataset(self, split, total_len):
        """The palindromes of one split; the seed changes those for training alone."""
        return PalindromeDataset(
            self.input_length,
            total_len,
            one_hot=self.input_dim > 1,
            num_classes=self.num_classes,
            split=split,
            seed=self.seed if split == "train" else 0,
        )


@torch.no_grad()
def accuracy(model, dataset):
    """Share of correct predictions over the whole data set."""
    correct = 0
    for index in range(math.ceil(len(dataset) / EVALUATION_BATCH)):
        size = min(EVALUATION_BATCH, len(dataset) - index * EVALUATION_BATCH)
        inputs, targets = dataset.batch(index, size)
        predictions = model(inputs).argmax(dim=1)
        correct += (predictions == targets).sum().item()
    return correct / len(dataset)


def train(config, show_progress=False):
    """Train one network with RMSprop; returns (model, result).

    Training stops when the accuracy on 1,000 validation palindromes reaches 99.9 % at two
    evaluations in a row, or after `train_steps`. `result` is a dict: `accuracy` on 10,000
    test palindromes, `steps` trained, `steps_to_99` (the first evaluation at 99 % or more,
    NaN if none) and `history`, a list of (step, loss of the batch, validation accuracy).
    """
    helpers.seed_everything(config.seed)
    model = config.model()
    criterion = nn.CrossEntropyLoss()  # with the softmax (8)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=config.learning_rate)
    training = config.dataset("train", config.train_steps * config.batch_size)
    validation = config.dataset("validation", 1000)
    history = []

    for step in range(1, config.train_steps + 1):
        inputs, targets = training.batch(step, config.batch_size)
        loss = criterion(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.max_norm)
        optimizer.step()

        if step % config.eval_every == 0 or step == config.train_steps:
            score = accuracy(model, validation)
            history.append((step, loss.item(), score))
            if show_progress:
                print(f"step {step}: loss {loss:.4f}, validation accuracy {score:.1%}")
            if len(history) > 1 and min(history[-2][2], score) >= 0.999:
                break

    reached = [step for step, _, score in history if score >= 0.99]
    return model, {
        "accuracy": accuracy(model, config.dataset("test", 10_000)),
        "steps": step,
        "steps_to_99": reached[0] if reached else math.nan,
        "history": history,
    }


# ------------------------------------------------------------------------ command line
def number(kind, low, high=math.inf):
    """An argparse type: a finite int or float from `low` to `high`."""

    def parse(text):
        value = kind(text)
        if not (low <= value <= high and math.isfinite(value)):
            raise argparse.ArgumentTypeError(f"{text} is not from {low} to {high}")
        return value

    parse.__name__ = kind.__name__  # argparse: "invalid int value"
    return parse


def output_file(text):
    """An argparse type: a path that can be written; nothing is changed on disk."""
    path = Path(text)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot write {text}")
    return path


def save(path, content):
    """`torch.save` that replaces an existing file completely or leaves it untouched."""
    unfinished = path.with_name(path.name + ".unfinished")
    torch.save(content, unfinished)
    os.replace(unfinished, path)


def parse(arguments=None):
    """The command line as (Config, path for the weights or None)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    positive, rate = number(int, 1), number(float, 1e-9)
    add("--model_type", choices=("LSTM", "RNN"), help="network")
    add("--input_length", type=positive, help="digits that are read, T - 1")
    add("--input_dim", type=positive, help="1: a digit's value; num_classes: one-hot")
    add("--num_classes", type=number(int, 2), help="different digits")
    add("--num_hidden", type=positive, help="hidden units")
    add("--batch_size", type=positive, help="palindromes per step")
    add("--learning_rate", type=rate, help="of RMSprop")
    add("--train_steps", type=positive, help="training steps at most")
    add("--max_norm", type=rate, help="longer gradients are clipped to it")
    add("--eval_every", type=positive, help="steps between two evaluations")
    add("--initialisation", help="see LSTM and VanillaRNN")
    add("--nonlinearity", choices=("tanh", "relu"), help="of the RNN")
    add("--assumed_length", type=number(int, 0), help="for chrono; 0: input_length")
    add("--seed", type=number(int, 0, 2**63 - 1), help="of weights and training data")
    add("--save", type=output_file, metavar="PATH", help="file for the weights")
    parser.set_defaults(**vars(Config()))
    settings = vars(parser.parse_args(arguments))
    path, config = settings.pop("save"), Config(**settings)
    if config.input_dim not in (1, config.num_classes):
        parser.error(f"--input_dim must be 1 or num_classes, got {config.input_dim}")
    try:
        config.model()
    except ValueError as error:  # an initialisation of the other network
        parser.error(str(error))
    return config, path


def main(arguments=None):
    """Run the program."""
    config, path = parse(arguments)
    model, result = train(config, show_progress=True)
    print(f"test accuracy {result['accuracy']:.2%} after {result['steps']} steps")
    if path:
        save(path, model.state_dict())


if __name__ == "__main__":
    main()
