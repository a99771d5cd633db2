"""Train designs of my_gan.py for the same time, or number of epochs, and judge what they draw.

    python compare_designs.py --seconds 60 --output designs.json
    python compare_designs.py --n_epochs 12 --designs best no-penalty --output penalty.json

make the tables that gan.ipynb shows. With `--seconds`, how long a step takes is measured first,
the designs taking turns on one core; the steps that fit follow from it, and so does the schedule
of a run. The runs themselves then depend on the seed alone.
"""

import argparse
import itertools
import json
from pathlib import Path

from judge import measure, read, train_judge
from my_gan import DESIGNS, Trainer, draw, number

import helpers

SAMPLES = 5000  # images that each run is judged on
REPEATS = 20  # of a block of steps, when it is timed


def step_milliseconds(images, designs):
    """The time of one step of each design on one core: the median of blocks of eight.

    A block holds one step with the gradient penalty, which is applied at every eighth.
    """
    trainers = {
        name: Trainer(images, name, n_epochs=0, min_steps=10**6) for name in designs
    }
    blocks = {
        name: lambda trainer=trainer: [trainer.step() for _ in range(8)]
        for name, trainer in trainers.items()
    }
    with helpers.threads(1):
        seconds = helpers.median_seconds(blocks, repeats=REPEATS)
    return {name: 1000 * value / 8 for name, value in seconds.items()}


def judged(trainer, judge, reference):
    """One row of the table: what a design draws after its training."""
    with helpers.threads(1):
        trainer.train()
    modules = trainer.generator, trainer.discriminator
    row = {name: trainer.settings[name] for name in ("design", "seed")}
    row["steps"] = trainer.step_count
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
    duration = parser.add_mutually_exclusive_group()
    duration.add_argument(
        "--seconds",
        type=number(float, 1),
        default=60,
        help="of one core, for each run",
    )
    duration.add_argument(
        "--n_epochs", type=number(int, 1), help="passes over the data, for each run"
    )
    add("--designs", nargs="+", choices=DESIGNS, default=list(DESIGNS), help="which")
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
    if not args.output.parent.is_dir():
        parser.error(f"argument --output: no folder {args.output.parent}")
    data = helpers.load_mnist()
    images = data.train_images
    wanted = {"n_epochs": args.n_epochs} if args.n_epochs else {"seconds": args.seconds}
    wanted["images"] = len(images)
    table = wanted | {"runs": []}
    if args.output.exists():
        table = json.loads(args.output.read_text())
        if not wanted.items() <= table.items():
            parser.error(
                f"argument --output: {args.output} has runs of another length or on other "
                "images"
            )
    if not args.n_epochs:
        known = table.setdefault("step_ms", {})
        missing = [design for design in args.designs if design not in known]
        known |= step_milliseconds(images, missing)
    args.output.write_text(json.dumps(table, indent=1))

    done = {(run["design"], run["seed"]) for run in table["runs"]}
    pairs = itertools.product(args.seeds, args.designs)
    to_do = [(design, seed) for seed, design in pairs if (design, seed) not in done]
    if not to_do:
        return
    judge = train_judge(images, data.train_labels)
    reference, _ = read(judge, images)
    for design, seed in to_do:
        duration = {"n_epochs": args.n_epochs, "min_steps": 1}
        if not args.n_epochs:
            steps = int(1000 * args.seconds / table["step_ms"][design])
            duration = {"n_epochs": 0, "min_steps": steps}
        trainer = Trainer(images, design, seed=seed, **duration)
        table["runs"].append(judged(trainer, judge, reference))
        args.output.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
