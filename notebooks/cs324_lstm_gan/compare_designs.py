"""Train each design of my_gan.py for the same time and judge what it draws.

    python compare_designs.py --seconds 60 --seeds 0 1 --output designs.json

makes designs.json, the table that gan.ipynb shows. How long a step takes is measured first,
the designs taking turns on one core; the steps that fit into `--seconds` follow from it, and so
does the schedule of a run. The runs themselves then depend on the seed alone.
"""

import argparse
import itertools
import json
from pathlib import Path

from judge import measure, read, train_judge
from my_gan import DESIGNS, Trainer, draw, number

import helpers

SAMPLES = 5000  # images that each run is judged on
REPEATS = 100  # of a step, when it is timed


def step_milliseconds(images):
    """The median time of one step of each design, on one core."""
    trainers = {
        name: Trainer(images, name, n_epochs=0, min_steps=10**6) for name in DESIGNS
    }
    steps = {name: trainer.step for name, trainer in trainers.items()}
    with helpers.threads(1):
        seconds = helpers.median_seconds(steps, repeats=REPEATS)
    return {name: 1000 * value for name, value in seconds.items()}


def judged(design, seed, steps, data, judge, reference):
    """One row of the table: a design trained for `steps` steps from `seed`."""
    trainer = Trainer(data.train_images, design, n_epochs=0, min_steps=steps, seed=seed)
    with helpers.threads(1):
        trainer.train()
    modules = trainer.generator, trainer.discriminator
    row = {"design": design, "seed": seed, "steps": steps}
    row["parameters"] = sum(
        p.numel() for module in modules for p in module.parameters()
    )
    noise = trainer.fixed_noise(SAMPLES)
    row |= measure(judge, draw(trainer.averaged_generator(), noise), reference)[0]
    without = draw(trainer.generator.eval(), noise)
    row["no_average"] = measure(judge, without, reference)[0]
    return row


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--seconds",
        type=number(float, 1),
        default=60,
        help="of one core, for each run",
    )
    add(
        "--seeds",
        type=number(int, 0),
        nargs="*",
        default=[0, 1],
        help="one run of each design for each of these; none: only measure the steps",
    )
    add(
        "--output",
        type=Path,
        default=Path("designs.json"),
        help="where the table goes; one that exists there is completed",
    )
    args = parser.parse_args(arguments)
    data = helpers.load_mnist()
    if args.output.exists():
        table = json.loads(args.output.read_text())
    else:
        milliseconds = step_milliseconds(data.train_images)
        table = {"seconds": args.seconds, "step_ms": milliseconds, "runs": []}
        args.output.write_text(json.dumps(table, indent=1))

    judge = train_judge(data.train_images, data.train_labels)
    reference, _ = read(judge, data.train_images)
    done = {(run["design"], run["seed"]) for run in table["runs"]}
    for seed, design in itertools.product(args.seeds, DESIGNS):
        if (design, seed) not in done:
            steps = int(1000 * table["seconds"] / table["step_ms"][design])
            table["runs"].append(judged(design, seed, steps, data, judge, reference))
            args.output.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
