"""A generative adversarial network (Goodfellow et al. 2014) that draws MNIST digits.

    python my_gan.py --n_epochs 12 --save mnist_generator.pt

trains one, writes sample grids and checkpoints as it goes, and at the end the state_dict of
the generator. After an interruption the same command with --resume goes on from the last
checkpoint and ends with exactly the generator that it would have ended with.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError

import matplotlib.pyplot as plt
import torch
from programs import usable_device
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

import helpers


# ----------------------------------------------------------------------------- modules
class MLPGenerator(nn.Module):
    """The generator that the assignment's template suggests: fully connected.

    Maps noise (N, latent_dim) to images (N, 1, 28, 28) in [-1, 1].
    """

    def __init__(self, latent_dim=64):
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
    """The discriminator that the template suggests; maps (N, 1, 28, 28) to logits (N,)."""

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


class DCGANGenerator(nn.Module):
    """Transposed convolutions with batch norm, after DCGAN (Radford et al. 2016).

    Maps noise (N, latent_dim) to images (N, 1, 28, 28) in [-1, 1].
    """

    def __init__(self, latent_dim=64, width=32):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, 2 * width * 7 * 7, bias=False),
            nn.Unflatten(1, (2 * width, 7, 7)),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False),  # 14 x 14
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, 1, 4, 2, 1),  # 28 x 28
            nn.Tanh(),
        )
        self.apply(_start_as_dcgan)

    def forward(self, noise):
        return self.layers(noise)


class DCGANDiscriminator(nn.Module):
    """Strided convolutions with batch norm, after DCGAN; (N, 1, 28, 28) to logits (N,)."""

    def __init__(self, width=32):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 4, 2, 1),  # 14 x 14
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),  # 7 x 7
            nn.BatchNorm2d(2 * width),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(2 * width * 7 * 7, 1),
        )
        self.apply(_start_as_dcgan)

    def forward(self, images):
        return self.layers(images).squeeze(1)


def _start_as_dcgan(module):
    """Weights from N(0, 0.02^2), as DCGAN prescribes."""
    if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, std=0.02)


class Generator(nn.Module):
    """Fully connected layers that sort the noise, then transposed convolutions that draw.

    Maps noise (N, latent_dim) to images (N, 1, 28, 28) in [-1, 1].
    """

    def __init__(self, latent_dim=64, hidden=(512, 512, 512), width=16):
        super().__init__()
        layers, sizes = [], [latent_dim, *hidden]
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs, bias=False)]
            layers += [nn.BatchNorm1d(outputs), nn.ReLU()]
        self.layers = nn.Sequential(
            *layers,
            nn.Linear(sizes[-1], 2 * width * 7 * 7, bias=False),
            nn.Unflatten(1, (2 * width, 7, 7)),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False),  # 14 x 14
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, 1, 4, 2, 1),  # 28 x 28
            nn.Tanh(),
        )

    def forward(self, noise):
        return self.layers(noise)


class MinibatchDeviation(nn.Module):
    """Append one channel that says how varied the batch is (Karras et al. 2018, section 3).

    The standard deviation over the batch of every feature, averaged over the features: the
    same number everywhere. (N, C, H, W) becomes (N, C + 1, H, W). A generator that draws too
    few kinds of digits is given away by it.
    """

    def forward(self, x):
        variance = (x - x.mean(dim=0)).square().mean(dim=0)
        deviation = (variance + 1e-8).sqrt().mean()  # 1e-8: the root has a slope at 0
        return torch.cat([x, deviation.expand_as(x[:, :1])], dim=1)


class Discriminator(nn.Module):
    """Strided convolutions and two linear layers: images (N, 1, 28, 28) to logits (N,).

    The logit of an image depends on its batch through `MinibatchDeviation`. There is no batch
    norm, with which the gradient penalty would not be that of one image.
    """

    def __init__(self, width=16, hidden=256):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 4, 2, 1),  # 14 x 14
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, 2, 1),  # 7 x 7
            nn.LeakyReLU(0.2),
            MinibatchDeviation(),
            nn.Flatten(),
            nn.Linear((2 * width + 1) * 7 * 7, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1),
        )

    def forward(self, images):
        return self.layers(images).squeeze(1)


# ------------------------------------------------------------------------------ losses
def discriminator_loss(real_logits, fake_logits):
    """-V(D, G) of equation (10), which D minimises; D = sigmoid(logits), log D = -softplus(-l).

    E_p[-log D(X)] + E_q[-log(1 - D(G(Z)))], a scalar from logits (N,) and (N,).
    """
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def minimax_generator_loss(fake_logits):
    """E_q[log(1 - D(G(Z)))], the part of equation (10) that G minimises: a scalar."""
    return -F.softplus(fake_logits).mean()


def generator_loss(fake_logits):
    """The non-saturating E_q[-log D(G(Z))] (Goodfellow et al. 2014, section 3): a scalar."""
    return F.softplus(-fake_logits).mean()


def gradient_penalty(discriminator, images):
    """R1 = E_p[|dl/dx|^2] / 2 (Mescheder et al. 2018): a scalar; l is the logit of D."""
    images = images.detach().requires_grad_()
    logits = discriminator(images).sum()
    (gradient,) = torch.autograd.grad(logits, images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean() / 2


# ----------------------------------------------------------------------------- designs
@dataclass(frozen=True)
class Design:
    """Two modules and how they are trained.

    `generator(latent_dim)`, `discriminator()` make the modules; `lr`, `betas`: of Adam, for
    both; `ema`: decay per step of the moving average of the generator, which is what draws
    the samples (0: the generator itself); `anneal`: whether the learning rate falls linearly
    to 0 over the second half; `penalty`: weight of R1 (0: none), `penalty_every`: it is applied
    at every so many steps, and so many times as strong.
    """

    generator: Callable
    discriminator: Callable
    lr: float
    betas: tuple = (0.5, 0.999)
    ema: float = 0.0
    anneal: bool = False
    penalty: float = 0.0
    penalty_every: int = 8


BEST = Design(
    Generator,
    Discriminator,
    lr=2e-3,
    betas=(0.0, 0.99),
    ema=0.999,
    anneal=True,
    penalty=0.3,
)
DESIGNS = {
    "mlp": Design(MLPGenerator, MLPDiscriminator, lr=4e-4, ema=0.999),
    "dcgan": Design(DCGANGenerator, DCGANDiscriminator, lr=2e-4, ema=0.999),
    "best": BEST,
    "no-mapping": replace(BEST, generator=partial(Generator, hidden=())),
    "no-penalty": replace(BEST, penalty=0.0),
}


# ---------------------------------------------------------------------------- training
class Trainer:
    """The alternating optimisation of a generator and a discriminator.

    `images` (N, 28, 28) in [0, 1] are visited in a new order each epoch, in batches of
    `batch_size` (the rest of an epoch that does not fill a batch is left out). Training lasts
    `n_epochs`, but not less than `min_steps` steps: `total_steps`. Everything random comes
    from `seed`, and `state_dict` holds all that the next step depends on.
    """

    def __init__(
        self,
        images,
        design="best",
        n_epochs=12,
        min_steps=4000,
        batch_size=64,
        lr=None,
        latent_dim=64,
        seed=0,
        device="cpu",
    ):
        if design not in DESIGNS:
            accepted = ", ".join(DESIGNS)
            raise ValueError(f"design must be one of {accepted}, got {design!r}")
        if not 2 <= batch_size <= len(images):
            raise ValueError(
                f"batch_size must be from 2 to the number of images, {len(images):,}, "
                f"got {batch_size}"
            )
        self.design = DESIGNS[design]
        self.settings = {
            "design": design,
            "n_epochs": n_epochs,
            "min_steps": min_steps,
            "batch_size": batch_size,
            "lr": self.design.lr if lr is None else lr,
            "latent_dim": latent_dim,
            "seed": seed,
            "number of images": len(images),
        }
        helpers.seed_everything(seed)
        options = {"device": device, "memory_format": torch.channels_last}
        self.generator = self.design.generator(latent_dim).to(**options)
        self.discriminator = self.design.discriminator().to(**options)
        self.average = AveragedModel(
            self.generator, multi_avg_fn=get_ema_multi_avg_fn(self.design.ema)
        )
        self.optimizers = [
            torch.optim.Adam(
                module.parameters(), self.settings["lr"], self.design.betas, fused=True
            )
            for module in (self.discriminator, self.generator)
        ]
        self.images = (2 * images - 1)[:, None].to(device)
        self.total_steps = max(n_epochs * (len(images) // batch_size), min_steps)
        self.step_count = 0
        self.random = torch.Generator().manual_seed(seed)
        self.order = torch.empty(0, dtype=torch.int64)
        self.history = {"loss_d": [], "loss_g": [], "d_real": [], "d_fake": []}

    def batch(self):
        """The next real images (batch_size, 1, 28, 28), in [-1, 1]."""
        size = self.settings["batch_size"]
        if len(self.order) < size:
            self.order = torch.randperm(len(self.images), generator=self.random)
        indices, self.order = self.order[:size], self.order[size:]
        return self.images[indices.to(self.images.device)]

    def noise(self, count):
        """`count` draws of z from the standard normal distribution: (count, latent_dim)."""
        noise = torch.randn(count, self.settings["latent_dim"], generator=self.random)
        return noise.to(self.images.device)

    def step(self):
        """One update of D by equation (10), then one of G by the non-saturating loss."""
        self.set_learning_rate()
        optimizer_d, optimizer_g = self.optimizers
        real = self.batch()
        fake = self.generator(self.noise(len(real)))

        real_logits = self.discriminator(real)
        fake_logits = self.discriminator(fake.detach())
        loss_d = discriminator_loss(real_logits, fake_logits)
        loss = loss_d
        if self.design.penalty and self.step_count % self.design.penalty_every == 0:
            weight = self.design.penalty * self.design.penalty_every
            loss = loss + weight * gradient_penalty(self.discriminator, real)
        optimizer_d.zero_grad()
        loss.backward()
        optimizer_d.step()

        # the same fake images, judged by the updated D; no gradient for D's weights
        loss_g = generator_loss(self.discriminator(fake))
        optimizer_g.zero_grad()
        loss_g.backward(inputs=list(self.generator.parameters()))
        optimizer_g.step()
        self.average.update_parameters(self.generator)

        self.step_count += 1
        values = (
            loss_d,
            loss_g,
            real_logits.sigmoid().mean(),
            fake_logits.sigmoid().mean(),
        )
        for name, value in zip(self.history, values):
            self.history[name].append(value.item())

    def set_learning_rate(self):
        """Constant, or falling linearly to 0 over the second half of the training."""
        left = 1 - self.step_count / self.total_steps
        factor = min(1.0, 2 * left) if self.design.anneal else 1.0
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = factor * self.settings["lr"]

    def train(self, until=None, after_step=None):
        """Step up to step number `until` (default: the end), with a progress bar.

        After each step, `after_step` is called with the number of steps taken so far.
        """
        until = self.total_steps if until is None else until
        for count in helpers.progress(
            range(self.step_count + 1, until + 1),
            desc=f"{self.settings['design']}, steps",
            initial=self.step_count,
            total=until,
        ):
            self.step()
            if after_step is not None:
                after_step(count)

    def fixed_noise(self, count):
        """`count` draws of z that depend on the seed alone: (count, latent_dim)."""
        random = torch.Generator().manual_seed(self.settings["seed"])
        noise = torch.randn(count, self.settings["latent_dim"], generator=random)
        return noise.to(self.images.device)

    def averaged_generator(self):
        """The moving average of the generator, in eval mode, with batch statistics of its own."""
        update_bn(self.fixed_noise(5000).split(500), self.average.module)
        return self.average.module.eval()

    def state_dict(self):
        """All that the steps to come depend on, and the settings they must share."""
        return {
            "settings": self.settings,
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step_count": self.step_count,
            "random": self.random.get_state(),
            "order": self.order.clone(),
            "history": self.history,
        }

    def load_state_dict(self, state):
        """Go on from `state`; raises ValueError when it was made with other settings."""
        for name, value in self.settings.items():
            if state["settings"][name] != value:
                raise ValueError(
                    f"the checkpoint was made with {name} = {state['settings'][name]}, "
                    f"got {value}: only the same settings can be resumed"
                )
        for name in ("generator", "discriminator", "average"):
            getattr(self, name).load_state_dict(state[name])
        for optimizer, optimizer_state in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(optimizer_state)
        self.step_count, self.order = state["step_count"], state["order"]
        self.random.set_state(state["random"])
        self.history = {name: list(values) for name, values in state["history"].items()}


@torch.no_grad()
def draw(generator, noise):
    """Images (N, 28, 28) in [0, 1] that the generator makes of noise (N, latent_dim)."""
    images = torch.cat([generator(part) for part in noise.split(500)])
    return (images[:, 0] + 1) / 2


# ------------------------------------------------------------------------ command line
def grid(images):
    """Images (25, 28, 28) as one picture of 5 x 5: (140, 140)."""
    return images.unflatten(0, (5, 5)).transpose(1, 2).reshape(5 * 28, 5 * 28)


def number(kind, least, above=False):
    """An argparse type: a finite int or float of at least `least`, or above it."""

    def parse(text):
        wanted = f"{kind.__name__} {'above' if above else 'of at least'} {least}"
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        if not least <= value < float("inf") or (above and value == least):
            raise argparse.ArgumentTypeError(f"must be a finite {wanted}, got {text!r}")
        return value

    return parse


def device(text):
    """An argparse type: the name of a device that can be used."""
    try:
        return usable_device(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def build_parser():
    parser = argparse.ArgumentParser(
        description="Train a GAN on MNIST and save its generator.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--n_epochs", type=number(int, 0), default=12, help="passes over the data")
    add(
        "--min_steps",
        type=number(int, 1),
        default=4000,
        help="train for at least so many steps, however small the data",
    )
    add("--batch_size", type=number(int, 2), default=64, help="images per step")
    add(
        "--lr",
        type=number(float, 0, above=True),
        help="learning rate of Adam; without it, that of the design",
    )
    add("--latent_dim", type=number(int, 1), default=64, help="length of the noise z")
    add("--design", choices=DESIGNS, default="best", help="which modules and recipe")
    add(
        "--save_interval",
        type=number(int, 1),
        default=500,
        help="write a sample grid and a checkpoint every so many steps",
    )
    add("--seed", type=number(int, 0), default=0, help="of everything that is random")
    add(
        "--device",
        type=device,
        default=str(helpers.device()),
        help="cpu, cuda, mps, ...",
    )
    add(
        "--save",
        type=Path,
        default=Path("mnist_generator.pt"),
        metavar="PATH",
        help="where the generator's state_dict goes; checkpoints go to PATH.checkpoint",
    )
    add(
        "--images",
        type=Path,
        default=Path("images"),
        metavar="FOLDER",
        help="where the sample grids go, named after their step",
    )
    add(
        "--resume",
        action="store_true",
        help="go on from PATH.checkpoint, with the same settings; without this flag a new run "
        "overwrites it",
    )
    return parser


def save_checkpoint(state, path):
    """torch.save that leaves the old file or the new one, whenever it is interrupted."""
    aside = f"{path}.incomplete"
    torch.save(state, aside)
    os.replace(aside, path)


def load_checkpoint(path, keys):
    """The dict with these keys that `save_checkpoint` wrote to `path`, its tensors on the CPU.

    Raises ValueError for a file that is damaged or something else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {key: state[key] for key in keys}
    except (UnpicklingError, EOFError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a checkpoint of this program: {error}"
        ) from error


def main(arguments=None):
    parser = build_parser()
    args = parser.parse_args(arguments)
    if args.save.is_dir():
        parser.error(f"argument --save: {args.save} is a folder, not a file")
    checkpoint = args.save.with_name(args.save.name + ".checkpoint")
    if not args.save.parent.is_dir():
        parser.error(f"argument --save: no folder {args.save.parent} for {args.save}")
    if args.images.exists() and not args.images.is_dir():
        parser.error(f"argument --images: {args.images} is not a folder")
    if args.resume and not checkpoint.is_file():
        parser.error(f"argument --resume: there is no checkpoint {checkpoint}")

    images = helpers.load_mnist().train_images
    names = (
        "design",
        "n_epochs",
        "min_steps",
        "batch_size",
        "lr",
        "latent_dim",
        "seed",
    )
    settings = {name: getattr(args, name) for name in names}
    try:
        trainer = Trainer(images, device=args.device, **settings)
        if args.resume:
            keys = trainer.state_dict().keys()
            trainer.load_state_dict(load_checkpoint(checkpoint, keys))
    except ValueError as error:
        parser.error(str(error))
    args.images.mkdir(parents=True, exist_ok=True)

    def write(count):
        """A sample grid and a checkpoint, every `save_interval` steps and at the end."""
        if count % args.save_interval == 0 or count == trainer.total_steps:
            samples = draw(trainer.averaged_generator(), trainer.fixed_noise(25))
            path = args.images / f"{count:06d}.png"
            plt.imsave(path, grid(samples).cpu(), cmap="gray_r", vmin=0, vmax=1)
            save_checkpoint(trainer.state_dict(), checkpoint)

    try:
        if not args.resume:
            write(0)
        trainer.train(after_step=write)
    except KeyboardInterrupt:
        known = checkpoint.exists()
        again = f"; --resume goes on from {checkpoint}" if known else ""
        parser.exit(130, f"Interrupted{again}\n")
    save_checkpoint(trainer.averaged_generator().state_dict(), args.save)
    print(f"{trainer.step_count:,} steps; the generator is in {args.save}")


if __name__ == "__main__":
    main()
