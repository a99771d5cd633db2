"""A classifier of digits, and what it says about a set of generated ones.

A generator's losses do not say how good its images are. The measures here do, each of them
computable for real digits too:

- the share of images that the classifier reads with a confidence above 0.9;
- the Kullback-Leibler divergence of the histogram of classes from the uniform one, which
  grows when digits are missing (mode collapse);
- the Fréchet distance between two sets of images in the classifier's feature space
  (Heusel et al. 2017, with this classifier in place of Inception).
"""

import torch
from torch import nn
from torch.nn import functional as F

import helpers

CONFIDENT = 0.9  # a probability of the most likely class above this counts as confident


class Judge(nn.Module):
    """Two convolutions and two linear layers: images (N, 1, 28, 28) to logits (N, 10)."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),  # 14 x 14
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),  # 7 x 7
            nn.Flatten(),
            nn.Linear(64 * 7 * 7, 128),
            nn.ReLU(),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Linear(128, 10))

    def forward(self, images):
        return self.classifier(self.features(images))


def train_judge(images, labels, n_epochs=4, batch_size=128, lr=3e-3, seed=0):
    """A `Judge` trained on images (N, 28, 28) in [0, 1] with labels (N,), in eval mode.

    It is trained by Adam with the learning rate `lr` at the top of a one-cycle schedule
    (Smith 2018). The number of threads changes how sums are rounded, and so the result.
    """
    helpers.seed_everything(seed)
    batches = helpers.minibatches(images[:, None], labels, batch_size)
    judge = Judge().to(images.device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(judge.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, epochs=n_epochs, steps_per_epoch=len(batches)
    )
    for _ in helpers.progress(range(n_epochs), desc="judge, epochs"):
        for x, y in batches:
            optimizer.zero_grad()
            F.cross_entropy(judge(x), y).backward()
            optimizer.step()
            schedule.step()
    return judge.eval()


@torch.no_grad()
def read(judge, images):
    """Features (N, 128) and class probabilities (N, 10) of images (N, 28, 28) in [0, 1].

    Raises ValueError for no images and for pixels that are not finite.
    """
    if not len(images) or not images.isfinite().all():
        raise ValueError("images must be finite and at least one, got none, NaN or inf")
    features = torch.cat([judge.features(x[:, None]) for x in images.split(1000)])
    return features, judge.classifier(features).softmax(dim=1)


def confident_share(probabilities):
    """The share of rows of (N, 10) whose largest probability is above `CONFIDENT`."""
    return (probabilities.amax(dim=1) > CONFIDENT).double().mean().item()


def class_histogram(probabilities):
    """How many rows of (N, 10) have their largest probability in each class: (10,)."""
    return probabilities.argmax(dim=1).bincount(minlength=probabilities.shape[1])


def class_kl(probabilities):
    """KL(histogram of classes || uniform) in nats: 0 when all classes are equally frequent."""
    share = class_histogram(probabilities).double() / len(probabilities)
    return torch.special.xlogy(share, share * len(share)).sum().item()


def frechet_distance(features, reference):
    """The squared Fréchet distance between Gaussians fitted to two sets of features (N, d).

    |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), Dowson & Landau 1982. The eigenvalues of
    S1 S2 are real and not negative, so the trace of its root is the sum of their roots.
    Raises ValueError for fewer than two rows, and for features that are not finite.
    """
    for rows in (features, reference):
        if len(rows) < 2 or not rows.isfinite().all():
            raise ValueError(
                f"features must be finite and at least two rows, got {len(rows)}"
            )
    first, second = features.double().cpu(), reference.double().cpu()
    mean_gap = first.mean(dim=0) - second.mean(dim=0)
    cov_first, cov_second = first.T.cov(), second.T.cov()
    roots = torch.linalg.eigvals(cov_first @ cov_second).real.clamp(min=0).sqrt()
    trace = cov_first.trace() + cov_second.trace() - 2 * roots.sum()
    return (mean_gap.square().sum() + trace).item()


def measure(judge, images, reference, frechet_count=None):
    """All measures of images (N, 28, 28), as a dict of numbers, and their probabilities.

    `reference` (M, 128): features of the images to which the Fréchet distance is taken, from
    the first `frechet_count` images (default: all).
    """
    features, probabilities = read(judge, images)
    return {
        "confident_share": confident_share(probabilities),
        "class_kl": class_kl(probabilities),
        "classes_seen": int((class_histogram(probabilities) > 0).sum()),
        "frechet": frechet_distance(features[:frechet_count], reference),
    }, probabilities
