"""Palindromes of decimal digits: the network reads all but the last digit, and predicts it."""

import sys

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset

SPLITS = ("all", "train", "held_out")
HELD_OUT_SHARE = 0.1
SMALLEST_SPLIT = 1000  # a smaller space of palindromes is not split


class PalindromeDataset(Dataset):
    """Palindromes of length `seq_length` (T), each drawn uniformly at random.

    An item is `(inputs, target)`: the first T-1 digits, float32 of shape (T-1, 1), or
    (T-1, num_classes) with `one_hot`, and the last digit, an int64 scalar. Item `index` is a
    function of `seed` and `index` alone: it is drawn anew on each access, and is the same each
    time. `batch(index, size)` draws a whole mini-batch in one vectorised operation.

    `split` is "all", or one of two parts that have no palindrome in common: "held_out" (a
    tenth) and "train" (the rest). Which part a palindrome is in depends on its digits alone
    (tabulation hashing, Carter & Wegman 1979). Spaces of fewer than 1,000 palindromes (T < 5)
    are too small to hold anything out (a digit might never be seen): there both parts are the
    whole space.

    Raises TypeError or ValueError for a `seq_length` below 2, fewer than 2 classes, another
    split, or a negative seed.
    """

    def __init__(
        self, seq_length, one_hot=False, *, num_classes=10, split="all", seed=0
    ):
        for name, value, least in [
            ("seq_length", seq_length, 2),
            ("num_classes", num_classes, 2),
            ("seed", seed, 0),
        ]:
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be an integer, got {value!r}")
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
        self.seq_length, self.one_hot, self.num_classes = (
            seq_length,
            one_hot,
            num_classes,
        )
        self.seed = seed
        self.half = (seq_length + 1) // 2  # the digits that may be chosen freely
        self.size = num_classes**self.half
        self.split = split if self.size >= SMALLEST_SPLIT else "all"
        # the split must not depend on `seed`, which differs between training and evaluation
        table = np.random.default_rng(324)
        self.table = table.integers(
            2**63, size=(self.half, num_classes), dtype=np.uint64
        )

    def __len__(self):
        """How many palindromes there are, or the largest length that Python can express."""
        return min(self.size, sys.maxsize)

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(f"index must be in 0..{len(self) - 1}, got {index}")
        inputs, targets = self.batch(index, 1)
        return inputs[0], targets[0]

    def batch(self, index, size):
        """Mini-batch number `index`: inputs (size, T-1, 1 or num_classes), targets (size,)."""
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        digits = torch.from_numpy(self.palindromes(index, size))
        inputs, targets = digits[:, :-1], digits[:, -1]
        if self.one_hot:
            return F.one_hot(inputs, self.num_classes).float(), targets
        return inputs.unsqueeze(2).float(), targets

    def palindromes(self, index, size):
        """The whole palindromes of that mini-batch: int64, shape (size, T)."""
        generator = np.random.default_rng([self.seed, index])
        left = np.empty((0, self.half), dtype=np.int64)
        while len(left) < size:  # those of the other part are drawn again
            more = generator.integers(self.num_classes, size=(size, self.half))
            left = np.concatenate([left, more[self.in_split(more)]])
        left = left[:size]
        right = left[:, ::-1]
        return np.concatenate([left, right[:, self.seq_length % 2 :]], axis=1)

    def in_split(self, left):
        """Whether the palindromes with these left halves (N, half) are in the split: (N,)."""
        if self.split == "all":
            return np.ones(len(left), dtype=bool)
        keys = np.bitwise_xor.reduce(
            self.table[np.arange(self.half), left], axis=1, initial=0
        )
        held_out = keys < np.uint64(HELD_OUT_SHARE * 2**63)
        return held_out == (self.split == "held_out")
