"""A generative adversarial network (Goodfellow et al. 2014) that draws MNIST digits.

    python my_gan.py --n_epochs 10 --save mnist_generator.pt

trains one and writes sample grids, checkpoints and, at the end, the generator's state_dict.
After an interruption, --resume goes on to the generator that would have come out without it.
"""

import argparse
import copy
import io
import math
import sys
from dataclasses import dataclass
from itertools import pairwise

import matplotlib.pyplot as plt
import programs
import torch
from programs import Settings, setting, usable_device
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

import helpers


# ----------------------------------------------------------------------------- modules
class Generator(nn.Module):
    """Fully connected layers on the noise, then transposed convolutions that draw.

    Maps noise (N, latent_dim) to images (N, 1, 28, 28) in [-1, 1].
    """

    def __init__(self, latent_dim=64, hidden=(256,) * 5, width=16):
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
    same number everywhere. (N, C, H, W) becomes (N, C + 1, H, W).
    """

    def forward(self, x):
        variance = (x - x.mean(dim=0)).square().mean(dim=0)
        deviation = (variance + 1e-8).sqrt().mean()  # 1e-8: the root has a slope at 0
        return torch.cat([x, deviation.expand_as(x[:, :1])], dim=1)


class Discriminator(nn.Module):
    """Strided convolutions and two linear layers: images (N, 1, 28, 28) to logits (N,)."""

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


def generator_loss(fake_logits):
    """The non-saturating E_q[-log D(G(Z))] (Goodfellow et al. 2014, section 3): a scalar."""
    return F.softplus(-fake_logits).mean()


def gradient_penalty(discriminator, images):
    """R1 = E_p[|dl/dx|^2] / 2 (Mescheder et al. 2018): a scalar; l is the logit of D."""
    images = images.detach().requires_grad_()
    logits = discriminator(images).sum()
    (gradient,) = torch.autograd.grad(logits, images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean() / 2


# ---------------------------------------------------------------------------- training
def _share(value):
    if not 0 <= value < 1:
        raise ValueError(f"beta1, beta2 and ema must be in [0, 1), got {value}")


@dataclass(frozen=True)
class Config(Settings):
    """What determines a training, beside the images and the two networks.

    The learning rate is constant up to the share `hold` of the training, then falls linearly
    to 0. R1 is applied at every `penalty_every`-th step, so many times as strong. `ema` is
    the largest decay of the average; at step n it is n / (n + 10) if that is less.
    """

    n_epochs: int = setting(10, "passes over the data", least=0)
    batch_size: int = setting(64, "images per step", least=2)
    lr: float = setting(2e-3, "learning rate of Adam at the start", above=0)
    beta1: float = setting(0.0, "Adam's memory of gradients", check=_share)
    beta2: float = setting(0.99, "Adam's memory of their squares", check=_share)
    hold: float = setting(0.5, "share of the training before lr falls", least=0)
    penalty: float = setting(0.3, "weight of the gradient penalty R1", least=0)
    penalty_every: int = setting(8, "steps between stronger penalties", least=1)
    ema: float = setting(0.999, "decay of G's moving average", check=_share)
    latent_dim: int = setting(64, "length of the noise z", least=1)
    seed: int = setting(0, "of everything that is random", least=0)
    save_interval: int = setting(500, "steps between grids, checkpoints", least=1)
    device: str = setting(str(helpers.device()), "of PyTorch", check=usable_device)


PARTS = "generator", "discriminator", "average", "optimizer_d", "optimizer_g"


class Trainer:
    """The alternating optimisation of a generator and a discriminator.

    `images` (N, 28, 28) in [0, 1] are visited in a new order each epoch, in batches (the
    rest of an epoch that does not fill a batch is left out). `networks`: what makes a
    generator, called with latent_dim, and a discriminator. Everything random comes from the
    seed; training uses one thread of the CPU, since another number rounds differently.
    Raises ValueError for other images and for a batch that they do not fill.
    """

    def __init__(self, images, config, networks=(Generator, Discriminator)):
        if images.shape[1:] != (28, 28) or not 0 <= images.min() <= images.max() <= 1:
            raise ValueError(
                f"images must be (N, 28, 28) with values in [0, 1], got "
                f"{tuple(images.shape)} from {images.min():g} to {images.max():g}"
            )
        if (size := config.batch_size) > len(images):
            raise ValueError(f"batch_size must be at most {len(images):,}, got {size}")
        self.config = config
        helpers.seed_everything(config.seed)
        options = {"device": config.device, "memory_format": torch.channels_last}
        self.generator = networks[0](config.latent_dim).to(**options)
        self.discriminator = networks[1]().to(**options)
        self.average = copy.deepcopy(self.generator)
        adam = {"lr": config.lr, "betas": (config.beta1, config.beta2), "fused": True}
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), **adam)
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), **adam)
        self.images = (2 * images - 1)[:, None].to(config.device)
        self.total_steps = config.n_epochs * (len(images) // config.batch_size)
        self.step_count = 0
        self.random = torch.Generator().manual_seed(config.seed)
        self.order = torch.empty(0, dtype=torch.int64)
        self.history = {}  # name -> one value per step

    def batch(self):
        """The next real images (batch_size, 1, 28, 28), in [-1, 1]."""
        size = self.config.batch_size
        if len(self.order) < size:
            self.order = torch.randperm(len(self.images), generator=self.random)
        indices, self.order = self.order[:size], self.order[size:]
        return self.images[indices.to(self.images.device)]

    def noise(self, count, random=None):
        """`count` draws of z from the standard normal distribution: (count, latent_dim)."""
        sizes, random = (count, self.config.latent_dim), random or self.random
        return torch.randn(*sizes, generator=random).to(self.images.device)

    def step(self):
        """One update of D by equation (10), then one of G by the non-saturating loss."""
        self.set_learning_rate()
        real = self.batch()
        fake = self.generator(self.noise(len(real)))

        real_logits = self.discriminator(real)
        fake_logits = self.discriminator(fake.detach())
        loss_d = discriminator_loss(real_logits, fake_logits)
        loss = loss_d
        if self.config.penalty and self.step_count % self.config.penalty_every == 0:
            weight = self.config.penalty * self.config.penalty_every
            loss = loss + weight * gradient_penalty(self.discriminator, real)
        self.optimizer_d.zero_grad()
        loss.backward()
        self.optimizer_d.step()

        # the same fake images, judged by the updated D; no gradient for D's weights
        loss_g = generator_loss(self.discriminator(fake))
        self.optimizer_g.zero_grad()
        loss_g.backward(inputs=list(self.generator.parameters()))
        self.optimizer_g.step()

        self.step_count += 1
        self.update_average()
        d_real, d_fake = real_logits.sigmoid().mean(), fake_logits.sigmoid().mean()
        self.record(loss_d=loss_d, loss_g=loss_g, d_real=d_real, d_fake=d_fake)

    def record(self, **values):
        """Append to the history; raises FloatingPointError for a value that is not finite."""
        for name, value in values.items():
            value = value.item()
            self.history.setdefault(name, []).append(value)
            if not math.isfinite(value):
                where = f"{name} is {value:g} at step {self.step_count:,}"
                raise FloatingPointError(f"{where}: lr {self.config.lr:g} too large?")

    def set_learning_rate(self):
        """Constant up to the share `hold` of the training, then linear, to 0 at its end."""
        left = 1 - self.step_count / self.total_steps
        falling = 1 - self.config.hold
        factor = min(1.0, left / falling) if falling > 0 else 1.0
        for optimizer in (self.optimizer_d, self.optimizer_g):
            for group in optimizer.param_groups:
                group["lr"] = factor * self.config.lr

    @torch.no_grad()
    def update_average(self):
        """Update the moving average of G's weights."""
        decay = min(self.config.ema, self.step_count / (self.step_count + 10))
        weights = self.average.parameters(), self.generator.parameters()
        for average, current in zip(*weights):
            average.lerp_(current, 1 - decay)

    def train(self, until=None, after_step=None):
        """Step up to step number `until` (default: the end), with a progress bar.

        After each step, `after_step` is called with the number of steps taken so far. Raises
        FloatingPointError when a loss is not finite.
        """
        until = self.total_steps if until is None else until
        bar = {"desc": "GAN, steps", "initial": self.step_count, "total": until}
        with programs.threads(1):
            for count in helpers.progress(range(self.step_count + 1, until + 1), **bar):
                self.step()
                if after_step is not None:
                    after_step(count)

    def fixed_noise(self, count):
        """`count` draws of z that depend on the seed alone: (count, latent_dim)."""
        return self.noise(count, torch.Generator().manual_seed(self.config.seed))

    def averaged_generator(self):
        """The moving average of the generator, in eval mode, with batch statistics of its own."""
        update_bn(self.fixed_noise(5000).split(500), self.average)
        return self.average.eval()

    def state_dict(self):
        """All that the steps to come depend on."""
        state = {name: getattr(self, name).state_dict() for name in PARTS}
        state |= {"images": len(self.images), "step_count": self.step_count}
        state |= {"random": self.random.get_state(), "order": self.order.clone()}
        return state | {"history": self.history}

    def load_state_dict(self, state):
        """Go on from `state`; raises ValueError when it was made with other images."""
        if (there := state["images"]) != (here := len(self.images)):
            raise ValueError(f"the checkpoint was made with {there} images, got {here}")
        for name in PARTS:
            getattr(self, name).load_state_dict(state[name])
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


def build_parser():
    parser = argparse.ArgumentParser(description="Train a GAN on MNIST.")
    programs.add_flags(parser, Config)
    add = parser.add_argument
    text = "file of the generator's state_dict; checkpoints go to SAVE.checkpoint"
    default = {"metavar": "SAVE", "default": "mnist_generator.pt"}
    add("--save", type=programs.output_file, help=text, **default)
    text = "folder of the sample grids, named after their step (default: %(default)s)"
    add("--images", type=programs.output_folder, default="images", help=text)
    text = "go on from the checkpoint, with the same settings, instead of anew"
    add("--resume", action="store_true", help=text)
    return parser


def main(arguments=None):
    """Run the program; returns its exit status."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    config = programs.settings_from(parser, Config, args)
    checkpoint = args.save.with_name(args.save.name + ".checkpoint")
    try:
        programs.output_file(checkpoint)
        trainer = Trainer(helpers.load_mnist().train_images, config)
        if args.resume:
            may_differ = ["save_interval"]
            state = programs.load_checkpoint(checkpoint, config, may_differ)
            trainer.load_state_dict(state)
    except (ValueError, FileNotFoundError, argparse.ArgumentTypeError) as error:
        parser.error(str(error))

    def write(count):
        """A sample grid and a checkpoint, every `save_interval` steps and at the end."""
        if count % config.save_interval == 0 or count == trainer.total_steps:
            samples = draw(trainer.averaged_generator(), trainer.fixed_noise(25))
            path = args.images / f"{count:06d}.png"
            plt.imsave(path, grid(samples).cpu(), cmap="gray_r", vmin=0, vmax=1)
            programs.save_checkpoint(checkpoint, config, trainer.state_dict())

    try:
        if not args.resume:
            write(0)
        trainer.train(after_step=write)
    except KeyboardInterrupt:
        print("\nInterrupted; go on from the checkpoint by --resume", file=sys.stderr)
        return 130
    except FloatingPointError as error:
        print(f"\n{error}; no generator was saved", file=sys.stderr)
        return 1
    torch.save(trainer.averaged_generator().state_dict(), content := io.BytesIO())
    programs.write_file(args.save, content.getvalue())
    print(f"{trainer.step_count:,} steps; the generator is in {args.save}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
