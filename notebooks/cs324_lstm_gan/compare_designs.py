"""Train the designs that gan.ipynb compares, and judge what they draw.

    python compare_designs.py    # writes saved/gan_seeds.json; about 35 minutes of one core

It needs the whole of MNIST. Runs that the table has already are not repeated.
"""

import argparse
import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import judge
import torch
from my_gan import Discriminator, Generator, Settings, draw, fixed_noise, train
from torch import nn

import helpers

SAMPLES = 5000  # images that each run is judged on


# ----------------------------------------------------------------------------- modules
class MLPGenerator(nn.Module):
    """The generator that the assignment's template suggests: fully connected.

    Maps noise (N, latent_dim) to images (N, 1, 28, 28) in [-1, 1].
    """

    def __init__(self, latent_dim=100):
        super().__init__()
        layers = [nn.Linear(latent_dim, 128), nn.LeakyReLU(0.2)]
        for inputs, outputs in [(128, 256), (256, 512), (512, 1024)]:
            layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs)]
            layers += [nn.LeakyReLU(0.2)]
        layers += [nn.Linear(1024, 784), nn.Tanh(), nn.Unflatten(1, (1, 28, 28))]
        self.layers = nn.Sequential(*layers)

    def forward(self, noise):
        return self.layers(noise)


class MLPDiscriminator(nn.Module):
    """The discriminator that the template suggests; (N, 1, 28, 28) to logits (N,)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(784, 512),
            nn.LeakyReLU(0.2),
            nn.Linear(512, 256),
            nn.LeakyReLU(0.2),
            nn.Linear(256, 1),
        )

    def forward(self, images):
        return self.layers(images).squeeze(1)


# ----------------------------------------------------------------------------- designs
OURS = Settings()
TEMPLATE = Settings(  # the betas are those of PyTorch's Adam
    lr=2e-4,
    hold=1.0,
    beta1=0.9,
    beta2=0.999,
    penalty=0.0,
    average=False,
    latent_dim=100,
)
CONVOLUTIONS = Generator, Discriminator
SUGGESTED = MLPGenerator, MLPDiscriminator


def runs():
    """The runs of the table, each a tuple: name of the design, settings, networks."""
    name = "suggested layers"
    return [
        *(("ours", replace(OURS, seed=seed), CONVOLUTIONS) for seed in (0, 1, 2)),
        (f"{name}, our training", replace(OURS, lr=1e-3), SUGGESTED),
        (f"{name}, template's training", TEMPLATE, SUGGESTED),
    ]


# -------------------------------------------------------------------------------- table
def run(images, settings, networks, classifier, reference):
    """Train on images (N, 28, 28) in [0, 1] and judge samples: a dict of numbers.

    `reference` (M, 128): the features to which the Fréchet distance is taken.
    """
    start = time.process_time()
    average, history = train(images, settings, networks)
    row = {"seconds": time.process_time() - start, "steps": len(history["loss_d"])}
    samples = draw(average, fixed_noise(SAMPLES, settings.latent_dim))
    return row | judge.measure(classifier, samples, reference)[0]


def read_table(path):
    """The rows of a table, none if it is not there yet."""
    return json.loads(path.read_text("utf-8")) if path.exists() else []


def add_row(path, row):
    """Append a row to the table, which is replaced whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps([*read_table(path), row], indent=1) + "\n")
    os.replace(unfinished, path)


def main(arguments=None):
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    folder = {"type": Path, "default": "saved", "help": "of the table (default: saved)"}
    parser.add_argument("--folder", **folder)
    args = parser.parse_args(arguments)
    if not os.access(args.folder, os.W_OK):
        parser.error(f"--folder {args.folder} cannot be written")
    data = helpers.load_mnist()
    if data.is_sample:
        parser.error("the table needs the whole of MNIST, and there is only the sample")

    torch.set_num_threads(1)  # the networks are small: more threads are slower
    path = args.folder / "gan_seeds.json"
    known = [(row["design"], row["settings"]) for row in read_table(path)]
    todo = [run for run in runs() if (run[0], asdict(run[1])) not in known]
    if todo:
        classifier = judge.train_judge(data.train_images, data.train_labels)
        reference, _ = judge.read(classifier, data.train_images)
    for design, settings, networks in todo:
        row = run(data.train_images, settings, networks, classifier, reference)
        add_row(path, {"design": design, "settings": asdict(settings)} | row)


if __name__ == "__main__":
    main()
