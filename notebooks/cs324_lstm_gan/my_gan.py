"""A generative adversarial network (Goodfellow et al. 2014) that draws MNIST digits.

    python my_gan.py --n_epochs 10

writes images/STEP.png and mnist_generator.pt every --save_interval steps and at the end.
"""

import argparse
import math
import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, update_bn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

import helpers


# ----------------------------------------------------------------------------- modules
class Generator(nn.Module):
    """Linear layers that map the noise, then convolutions that draw.

    Noise (N, latent_dim) becomes images (N, 1, 28, 28) in [-1, 1].
    """

    def __init__(self, latent_dim=64, hidden=(256,) * 5, width=16):
        super().__init__()
        layers = []
        for inputs, outputs in pairwise((latent_dim, *hidden)):
            layers += [nn.Linear(inputs, outputs, bias=False)]
            layers += [nn.BatchNorm1d(outputs), nn.ReLU()]
        self.layers = nn.Sequential(
            *layers,
            nn.Linear(hidden[-1], 2 * width * 7 * 7, bias=False),
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
    """Append a channel that says how varied the batch is (Karras et al. 2018, section 3).

    (N, C, H, W) becomes (N, C + 1, H, W). The new channel holds one number everywhere: the
    standard deviation over the batch, averaged over all features.
    """

    def forward(self, x):
        variance = (x - x.mean(dim=0)).square().mean(dim=0)
        deviation = (variance + 1e-8).sqrt().mean()  # 1e-8: the root has a slope at 0
        return torch.cat([x, deviation.expand_as(x[:, :1])], dim=1)


class Discriminator(nn.Module):
    """Convolutions and two linear layers: images (N, 1, 28, 28) to logits (N,)."""

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
    """-V(D, G) of equation (10), which D minimises: a scalar from logits (N,) and (N,).

    D = sigmoid(logit), so that -log D = softplus(-logit), -log(1 - D) = softplus(logit).
    """
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def generator_loss(fake_logits):
    """The non-saturating E_q[-log D(G(Z))] (Goodfellow et al. 2014, section 3): a scalar."""
    return F.softplus(-fake_logits).mean()


def gradient_penalty(discriminator, images):
    """R1 = E_p[|d logit / dx|^2] / 2 (Mescheder et al. 2018): a scalar."""
    images = images.detach().requires_grad_()
    logits = discriminator(images).sum()
    (gradient,) = torch.autograd.grad(logits, images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean() / 2


# ---------------------------------------------------------------------------- training
@dataclass(frozen=True)
class Settings:
    """What determines a training, beside the images and the two networks.

    Adam's learning rate is `lr` for the share `hold` of the training and then falls
    linearly to 0. R1 is applied at every `penalty_every`-th step, so many times as strong.
    """

    n_epochs: int = 10
    batch_size: int = 64
    lr: float = 2e-3
    hold: float = 0.5
    beta1: float = 0.0
    beta2: float = 0.99
    penalty: float = 0.3
    penalty_every: int = 8
    average: bool = True  # whether samples come from a moving average of G's weights
    latent_dim: int = 64
    seed: int = 0


def polynomial_decay(average, current, count):
    """The average of weights after `count` steps, mostly of the last tenth of them.

    Shamir & Zhang 2013, section 4, with eta = 9.
    """
    return average.lerp(current, 10 / (count.item() + 10))


def no_average(average, current, count):
    """The current weights."""
    return current


def train(images, settings, networks=(Generator, Discriminator), after_step=None):
    """Train a generator against a discriminator on images (N, 28, 28) in [0, 1].

    `networks`: what makes a generator, given latent_dim, and a discriminator. Before the
    first step and after each, `after_step(step, average)` is called. Returns the moving
    average of the generator and the history, a dict: name -> one number per step. Raises
    FloatingPointError for a loss that is not finite.
    """
    after_step = after_step or (lambda step, average: None)
    helpers.seed_everything(settings.seed)
    generator, discriminator = networks[0](settings.latent_dim), networks[1]()
    for network in (generator, discriminator):
        network.to(images.device, memory_format=torch.channels_last)
    average = AveragedModel(
        generator, avg_fn=polynomial_decay if settings.average else no_average
    )

    pixels = 2 * images[:, None] - 1
    sampler = BatchSampler(RandomSampler(pixels), settings.batch_size, drop_last=True)
    batches = DataLoader(pixels, sampler=sampler, batch_size=None)
    total = settings.n_epochs * len(batches)

    adam = {"lr": settings.lr, "betas": (settings.beta1, settings.beta2), "fused": True}
    optimizer_d = torch.optim.Adam(discriminator.parameters(), **adam)
    optimizer_g = torch.optim.Adam(generator.parameters(), **adam)
    falling = max(1, (1 - settings.hold) * total)  # steps
    schedules = [
        LambdaLR(optimizer, lambda step: min(1, (total - step) / falling))
        for optimizer in (optimizer_d, optimizer_g)
    ]
    history = {"loss_d": [], "loss_g": [], "d_real": [], "d_fake": []}

    epochs = (real for _ in range(settings.n_epochs) for real in batches)
    after_step(0, average)
    bar = helpers.progress(epochs, total=total, desc="GAN, steps")
    for step, real in enumerate(bar, 1):
        noise = torch.randn(len(real), settings.latent_dim, device=real.device)
        fake = generator(noise)

        # one update of D by equation (10), with R1 at every `penalty_every`-th step
        real_logits = discriminator(real)
        fake_logits = discriminator(fake.detach())
        loss_d = discriminator_loss(real_logits, fake_logits)
        penalty = 0
        if settings.penalty and step % settings.penalty_every == 0:
            weight = settings.penalty * settings.penalty_every
            penalty = weight * gradient_penalty(discriminator, real)
        optimizer_d.zero_grad()
        (loss_d + penalty).backward()
        optimizer_d.step()

        # one update of G: the same images, judged by the updated D, whose weights rest
        loss_g = generator_loss(discriminator(fake))
        optimizer_g.zero_grad()
        loss_g.backward(inputs=list(generator.parameters()))
        optimizer_g.step()

        for schedule in schedules:
            schedule.step()
        average.update_parameters(generator)
        history["loss_d"].append(loss_d.item())
        history["loss_g"].append(loss_g.item())
        history["d_real"].append(real_logits.sigmoid().mean().item())
        history["d_fake"].append(fake_logits.sigmoid().mean().item())
        if not math.isfinite(loss_d.item() + loss_g.item()):
            raise FloatingPointError(f"no finite loss at step {step}: lr too large?")
        after_step(step, average)
    return average, history


def fixed_noise(count, latent_dim, seed=0):
    """`count` draws of z that depend on the seed alone: (count, latent_dim)."""
    return torch.randn(count, latent_dim, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def draw(average, noise):
    """Images (N, 28, 28) in [0, 1] that a generator makes of noise (N, latent_dim).

    Its batch-norm statistics are measured first, on 5,000 other draws: training measures
    them for the current weights, not for their average.
    """
    others = fixed_noise(5000, noise.shape[1], seed=1).to(noise.device)
    update_bn(others.split(500), average)
    average.eval()
    images = torch.cat([average(part) for part in noise.split(500)])
    return (images[:, 0] + 1) / 2


# ------------------------------------------------------------------------ command line
def grid(images):
    """Images (25, 28, 28) as one picture of 5 x 5: (140, 140)."""
    return images.unflatten(0, (5, 5)).transpose(1, 2).reshape(5 * 28, 5 * 28)


def number(kind, least, most=math.inf):
    """A type for argparse: a finite number of `kind` from `least` to `most`."""

    def parse(text):
        value = kind(text)
        if not least <= value <= most or value == math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not from {least} to {most}")
        return value

    parse.__name__ = kind.__name__  # argparse says: invalid int value: 'two'
    return parse


FLAGS = {  # name: type, help
    "n_epochs": (number(int, 1), "passes over the training images"),
    "batch_size": (number(int, 2), "images per step"),
    "lr": (number(float, 1e-9), "learning rate of Adam at the start"),
    "latent_dim": (number(int, 1), "length of the noise z"),
    "seed": (number(int, 0, 2**32 - 1), "of everything that is random"),
}


def main(arguments=None):
    """Run the program."""
    parser = argparse.ArgumentParser(
        description="Train a GAN on MNIST.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for name, (kind, text) in FLAGS.items():
        default = getattr(Settings(), name)
        parser.add_argument(f"--{name}", type=kind, default=default, help=text)
    interval = {"type": number(int, 1), "default": 500, "help": "steps between files"}
    parser.add_argument("--save_interval", **interval)
    folder = {"type": Path, "default": Path("."), "help": "folder of what is written"}
    parser.add_argument("--output", **folder)
    args = parser.parse_args(arguments)
    settings = Settings(**{name: getattr(args, name) for name in FLAGS})
    try:
        (args.output / "images").mkdir(parents=True, exist_ok=True)
        (args.output / "unfinished.pt").touch()
    except OSError as error:
        parser.error(f"--output {args.output} cannot be written: {error.strerror}")
    images = helpers.load_mnist().train_images.to(helpers.device())
    if args.batch_size > len(images):
        parser.error(f"--batch_size {args.batch_size} exceeds {len(images)} images")
    total = args.n_epochs * (len(images) // args.batch_size)
    noise = fixed_noise(25, args.latent_dim).to(images.device)

    def save(step, average):
        if step % args.save_interval and step != total:
            return
        picture = grid(draw(average, noise)).cpu()
        path = args.output / "images" / f"{step:06d}.png"
        plt.imsave(path, picture, cmap="gray_r", vmin=0, vmax=1)
        torch.save(average.module.state_dict(), args.output / "unfinished.pt")
        os.replace(args.output / "unfinished.pt", args.output / "mnist_generator.pt")

    torch.set_num_threads(1)  # the networks are small: more threads are slower
    train(images, settings, after_step=save)


if __name__ == "__main__":
    main()
