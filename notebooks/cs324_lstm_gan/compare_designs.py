"""Train designs of the GAN and judge what they draw: the saved table that gan.ipynb shows.

    python compare_designs.py --designs ours --seeds 0 1 2
    python compare_designs.py --designs suggested --seeds 0

A run that the table has already is not repeated. All runs use one thread and one judge.
"""

import argparse
import itertools
import json
import sys
import time
from dataclasses import asdict, replace

import judge
import matplotlib.pyplot as plt
import programs
import torch
from my_gan import Config, Discriminator, Generator, Trainer, draw, grid
from torch import nn

import helpers

SAMPLES = 5000  # images that each run is judged on
MEASURES = {"confident_share", "class_kl", "classes_seen", "frechet"}


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
OURS = Config(device="cpu")
SUGGESTED = replace(  # lr, batch_size, latent_dim: the template's; beta1: DCGAN's
    OURS,
    n_epochs=20,
    lr=2e-4,
    beta1=0.5,
    beta2=0.999,
    hold=1.0,
    penalty=0.0,
    ema=0.0,
    latent_dim=100,
)
DESIGNS = {  # name -> settings, networks
    "ours": (OURS, (Generator, Discriminator)),
    "suggested": (SUGGESTED, (MLPGenerator, MLPDiscriminator)),
}


def run(design, config, classifier, images, reference):
    """Train a design and judge its samples: a row of the table, and 25 samples (25, 28, 28)."""
    trainer = Trainer(images, config, DESIGNS[design][1])
    start = time.process_time()
    trainer.train()
    seconds = time.process_time() - start
    networks = trainer.generator, trainer.discriminator
    sizes = [sum(p.numel() for p in network.parameters()) for network in networks]
    samples = draw(trainer.averaged_generator(), trainer.fixed_noise(SAMPLES))
    row = {"design": design, "config": _identity(config)}
    row |= {"steps": trainer.step_count, "parameters": sum(sizes), "seconds": seconds}
    row |= judge.measure(classifier, samples, reference)[0]
    return row, samples[:25]


# ------------------------------------------------------------------------------- table
def _identity(config):
    """The settings that decide what a run gives."""
    return {name: v for name, v in asdict(config).items() if name != "save_interval"}


def read_table(path):
    """The rows in the JSON file; raises ValueError for a file that is no such table."""
    try:
        rows = json.loads(path.read_text("utf-8"))
        wanted = {"design", "config", "images", "steps", "seconds", *MEASURES}
        if type(rows) is not list or not all(wanted <= row.keys() for row in rows):
            raise KeyError("no list of runs")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no table of this program: {error!r}") from None
    return rows


def add_row(path, row):
    """Complete the table, which another process may have completed meanwhile."""
    rows = read_table(path) if path.exists() else []
    text = json.dumps([*rows, row], indent=1, allow_nan=False) + "\n"
    programs.write_file(path, text.encode())


# ------------------------------------------------------------------------ command line
def main(arguments=None):
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--designs", nargs="+", choices=DESIGNS, default=["ours"], help="which")
    add("--seeds", nargs="+", type=int, default=[0], help="a run of each for each")
    add("--n_epochs", type=int, help="passes over the data in place of the design's")
    add(
        "--output",
        type=programs.output_file,
        default="saved/gan_designs.json",
        help="table, completed if it exists; with 25 samples of each run beside it",
    )
    args = parser.parse_args(arguments)
    try:
        images = helpers.load_mnist().train_images
        rows = read_table(args.output) if args.output.exists() else []
        known = [(r["design"], r["config"], r["images"]) for r in rows]
        wanted = {}
        for seed, design in itertools.product(args.seeds, args.designs):
            config = replace(DESIGNS[design][0], seed=seed)
            if args.n_epochs is not None:
                config = replace(config, n_epochs=args.n_epochs)
            if (design, _identity(config), len(images)) not in known:
                wanted[design, seed] = config
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    if not wanted:
        print(f"{args.output} has all of these runs; move it away to make them anew.")
        return 0
    torch.set_num_threads(1)
    classifier = judge.train_judge(images, helpers.load_mnist().train_labels)
    reference, _ = judge.read(classifier, images)
    for (design, seed), config in wanted.items():
        row, samples = run(design, config, classifier, images, reference)
        add_row(args.output, row | {"images": len(images)})
        picture = args.output.with_name(f"{args.output.stem}_{design}_{seed}.png")
        plt.imsave(picture, grid(samples), cmap="gray_r", vmin=0, vmax=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
