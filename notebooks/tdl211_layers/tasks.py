"""The two tasks of ex2.ipynb: data, networks, training, and the search for their settings.

    python tasks.py recall      writes saved/recall.csv, about 15 minutes of one core
    python tasks.py surface     writes saved/surface.csv, about 8 minutes

Every run is one row, by task, network, length of the sequences, rate and seed. A run that
the file already holds is not repeated.
"""

import csv
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from LSTM import LSTM
from MLP import Linear
from RNN import RNN
from torch import nn

SAVED = Path(__file__).resolve().parent / "saved"
WEIGHTS = 2620  # of every network, at most
SYMBOLS, MARKABLE = 4, 10
DELAYS = 5, 50
SEEDS = 1, 2, 3
RATES = [0.004 * 4.0**k for k in range(-3, 5)]  # 0.0000625 to 1.024

# Networks: (model, nonlinearity, initialisation).
RECURRENT = [
    ("RNN", "tanh", "PyTorch"),
    ("RNN", "tanh", "orthogonal"),
    ("RNN", "tanh", "identity"),
    ("RNN", "ReLU", "PyTorch"),
    ("RNN", "ReLU", "orthogonal"),
    ("RNN", "ReLU", "identity"),
    ("LSTM", "", "PyTorch"),
    ("LSTM", "", "open gate"),
]
MORE = [("RNN", "ReLU", "orthogonal × √2"), ("LSTM", "", "W_hh × 3")]  # for recall
LARGE_INPUT = [  # for surface
    ("MLP", "tanh", "W_ih × 4"),
    ("MLP", "ReLU", "W_ih × 4"),
    ("RNN", "tanh", "W_ih × 4"),
    ("RNN", "ReLU", "W_ih × 4"),
    ("LSTM", "", "W_ih × 4"),
    ("LSTM", "", "W_ih × 4, closed gate"),
]
FEEDFORWARD = [("MLP", "tanh", "PyTorch"), ("MLP", "ReLU", "PyTorch")]
WIDE = [("wide MLP", "tanh", "PyTorch"), ("wide MLP", "ReLU", "PyTorch")]
ONE_STEP = [("RNN", "ReLU", "PyTorch"), ("LSTM", "", "open gate")]
VANISHING = [
    k for k in RECURRENT if k[2] == "PyTorch" or k[1:] == ("ReLU", "orthogonal")
]


# ---------------------------------------------------------------------------- the tasks
def recall(count, steps, generator):
    """One of the first 10 of `steps` random symbols is marked: which symbol is it?

    Returns x (steps, count, 6), the symbol one-hot, the mark and a constant 1, and the
    marked symbols y (count,).
    """
    symbols = torch.randint(SYMBOLS, (steps, count), generator=generator)
    place = torch.randint(MARKABLE, (count,), generator=generator)
    mark = F.one_hot(place, steps).T.unsqueeze(-1)
    x = torch.cat([F.one_hot(symbols, SYMBOLS), mark, torch.ones_like(mark)], -1)
    return x.float(), symbols[place, torch.arange(count)]


def surface(count, steps, generator):
    """sin(2πu) sin(2πw) at each step, from that step's u, w in [-1, 1].

    Returns x (steps, n, 3), which is u, w and a constant 1, and y (steps, n, 1), where
    steps * n = 8 * count.
    """
    point = torch.rand(8, count, 2, generator=generator) * 2 - 1
    y = torch.sin(2 * math.pi * point).prod(-1, keepdim=True)
    x = torch.cat([point, torch.ones_like(y)], -1)
    return x.reshape(steps, -1, 3), y.reshape(steps, -1, 1)


# ------------------------------------------------------------------------- the networks
class MLP(nn.Module):
    """Two hidden layers; reads the whole sequence as one vector, or the current step."""

    def __init__(self, inputs, width, outputs, f, window):
        super().__init__()
        self.first, self.second = Linear(inputs, width), Linear(width, width)
        self.readout, self.f, self.window = Linear(width, outputs), f, window

    def forward(self, x):
        x = x.transpose(0, 1).flatten(1) if self.window else x
        return self.readout(self.f(self.second(self.f(self.first(x)))))


class Recurrent(nn.Module):
    """A linear readout of the last state, or of every state."""

    def __init__(self, layer, outputs, last):
        super().__init__()
        self.layer, self.last = layer, last
        self.readout = Linear(layer.hidden_size, outputs)

    def forward(self, x):
        states = self.layer(x)[0]
        return self.readout(states[-1] if self.last else states)


def width(matrices, inputs, outputs):
    """The largest H with matrices * H * (inputs + H) + H * outputs <= WEIGHTS."""
    b = matrices * inputs + outputs
    return int((-b + math.sqrt(b * b + 4 * matrices * WEIGHTS)) / (2 * matrices))


def network(task, kind, steps):
    """A new network for `recall` or `surface` of a (model, nonlinearity, initialisation)."""
    model, nonlinearity, initialisation = kind
    last = task is recall
    inputs, outputs = (SYMBOLS + 2, SYMBOLS) if last else (3, 1)
    if "MLP" in model:
        inputs *= steps if last else 1
        H = 64 if model == "wide MLP" else width(1, inputs, outputs)
        f = {"tanh": torch.tanh, "ReLU": torch.relu}[nonlinearity]
        model = MLP(inputs, H, outputs, f, window=last)
        if "W_ih × 4" in initialisation:
            model.first.weight.data *= 4
        return model
    if model == "RNN":
        H = width(1, inputs, outputs)
        layer = RNN(inputs, H, nonlinearity=nonlinearity.lower())
    else:
        H = width(4, inputs, outputs)
        layer = LSTM(inputs, H)
    W_ih, W_hh = layer.weight_ih_l0.data, layer.weight_hh_l0.data
    if "orthogonal" in initialisation:
        nn.init.orthogonal_(W_hh, gain=math.sqrt(2) if "√2" in initialisation else 1)
    elif "identity" in initialisation:
        nn.init.eye_(W_hh)
    elif "W_hh × 3" in initialisation:
        W_hh *= 3
    if "W_ih × 4" in initialisation:
        W_ih *= 4
    if "gate" in initialisation:  # rows of f, column of the constant input
        W_ih[H : 2 * H, -1] = 4.0 if "open" in initialisation else -4.0
    return Recurrent(layer, outputs, last)


# ------------------------------------------------------------------------- the training
LOSS = {recall: F.cross_entropy, surface: F.mse_loss}


@torch.no_grad()
def evaluate(task, model, steps, seed, count=2000):
    """(loss, score): the accuracy on recall; the squared error over the variance of y."""
    x, y = task(count, steps, torch.Generator().manual_seed(seed))
    output = model(x)
    loss = LOSS[task](output, y).item()
    if task is surface:
        error = loss / y.var().item()
        return error, error
    return loss, (output.argmax(-1) == y).float().mean().item()


def train(task, kind, steps, rate, seed, updates):
    """A trained network, and its validation score after every 5% of the updates.

    Adam with PyTorch's OneCycleLR, batches of 64 new sequences, gradients clipped to 1.
    """
    torch.manual_seed(seed)
    model = network(task, kind, steps)
    generator = torch.Generator().manual_seed(1000 + seed)
    adam = torch.optim.Adam(model.parameters(), rate, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        adam, rate, total_steps=updates, pct_start=0.1
    )
    scores = []
    for update in range(1, updates + 1):
        x, y = task(64, steps, generator)
        adam.zero_grad()
        LOSS[task](model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        schedule.step()
        if update % (updates // 20) == 0:
            scores.append(evaluate(task, model, steps, 2000, count=500)[1])
    return model, scores


# --------------------------------------------------------------------------- the search
FIELDS = "model nonlinearity initialisation steps rate seed updates loss test curve"


class Table:
    """The saved runs of a task, {(kind, steps, rate, seed, updates): row}."""

    def __init__(self, task):
        self.task, self.path = task, SAVED / f"{task.__name__}.csv"
        self.rows = {}
        if self.path.exists():
            with self.path.open(newline="") as file:
                for row in csv.DictReader(file):
                    kind = row["model"], row["nonlinearity"], row["initialisation"]
                    steps, rate, seed = row["steps"], row["rate"], row["seed"]
                    setting = int(steps), float(rate), int(seed), int(row["updates"])
                    self.rows[kind, *setting] = row

    def run(self, kind, steps, rate, seed, updates):
        """The row of this run, which is trained and saved when it is missing."""
        key = kind, steps, rate, seed, updates
        if key not in self.rows:
            model, curve = train(self.task, kind, steps, rate, seed, updates)
            loss, _ = evaluate(self.task, model, steps, 2000)
            _, test = evaluate(self.task, model, steps, 3000)
            curve = " ".join(f"{score:.4g}" for score in curve)
            values = (
                *kind,
                steps,
                rate,
                seed,
                updates,
                f"{loss:.5g}",
                f"{test:.5g}",
                curve,
            )
            self.rows[key] = dict(zip(FIELDS.split(), map(str, values)))
            self.save()
            print(*values[:-1], flush=True)
        return self.rows[key]

    def save(self):
        SAVED.mkdir(exist_ok=True)
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS.split(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows.values())


def search(table, kind, steps, updates):
    """Train three seeds at a rate whose validation loss both its neighbours exceed."""
    best, losses = RATES.index(0.004), {}
    while True:
        for near in (best, best - 1, best + 1):
            if near not in losses and 0 <= near < len(RATES):
                row = table.run(kind, steps, RATES[near], SEEDS[0], updates)
                losses[near] = float(row["loss"])
        if min(losses, key=losses.get) == best:
            break
        best = min(losses, key=losses.get)
    for seed in SEEDS[1:]:
        table.run(kind, steps, RATES[best], seed, updates)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if sys.argv[1] == "surface":
        table = Table(surface)
        for kind in FEEDFORWARD + RECURRENT + LARGE_INPUT:
            search(table, kind, 8, 2000)
        # A control: sequences of one step, so that no state is used.
        for kind in ONE_STEP:
            search(table, kind, 1, 2000)
    else:
        table = Table(recall)
        for steps in (MARKABLE + delay for delay in DELAYS):
            for kind in RECURRENT + MORE:
                search(table, kind, steps, 1000)
        for kind in VANISHING:  # a control: four times the updates
            table.run(kind, 60, 0.004, 1, 4000)
        for kind in FEEDFORWARD + WIDE:  # cheaper updates, so more of them
            search(table, kind, 60, 8000)
