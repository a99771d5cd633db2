"""Palindromes of decimal digits: the network reads all but the last digit, and predicts it."""

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset

SPLITS = {"all": (0, 10), "train": (0, 8), "validation": (8, 9), "test": (9, 10)}
SMALLEST_SPLIT = 1000  # fewer palindromes are not split: whole digits could be missing


class PalindromeDataset(Dataset):
    """`total_len` random palindromes of T = input_length + 1 digits.

    An item is `(inputs, target)`: the first T-1 digits, float32 of shape (T-1, 1), or
    (T-1, num_classes) with `one_hot`; and the last digit, an int64 scalar. `batch(index, size)`
    draws a whole mini-batch at once. Both depend on `seed` and `index` alone.

    `split` is "all", or one of three parts without a palindrome in common: "train" (eight
    tenths), "validation" and "test" (a tenth each). Which part a palindrome is in depends on
    its digits alone (tabulation hashing, Carter & Wegman 1979). With fewer than 1,000
    palindromes (T < 5) every part is the whole.
    """

    def __init__(
        self,
        input_length,
        total_len,
        one_hot=False,
        *,
        num_classes=10,
        split="all",
        seed=0,
    ):
        if min(input_length, total_len) < 1 or num_classes < 2:
            raise ValueError(
                "input_length and total_len must be at least 1, num_classes at least 2, got "
                f"{input_length}, {total_len}, {num_classes}"
            )
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        self.input_length, self.total_len = input_length, total_len
        self.one_hot, self.num_classes, self.seed = one_hot, num_classes, seed
        self.half = input_length // 2 + 1  # the digits that may be chosen freely
        whole = num_classes**self.half < SMALLEST_SPLIT
        self.part = SPLITS["all" if whole else split]
        # not from `seed`: training and evaluation must split alike
        self.table = np.random.default_rng(324).integers(
            2**63, size=(self.half, num_classes)
        )

    def __len__(self):
        return self.total_len

    def __getitem__(self, index):
        if not 0 <= index < self.total_len:
            raise IndexError(f"index must be in 0..{self.total_len - 1}, got {index}")
        inputs, targets = self.batch(index, 1)
        return inputs[0], targets[0]

    def batch(self, index, size):
        """Mini-batch number `index`: inputs (size, T-1, 1 or num_classes), targets (size,)."""
        digits = torch.from_numpy(self.palindromes(index, size))
        inputs, targets = digits[:, :-1], digits[:, -1]
        if self.one_hot:
            return F.one_hot(inputs, self.num_classes).float(), targets
        return inputs.unsqueeze(2).float(), targets

    def palindromes(self, index, size):
        """The whole palindromes of that mini-batch: int64, shape (size, T)."""
        generator = np.random.default_rng([self.seed, index])
        left = np.empty((0, self.half), dtype=np.int64)
        while len(left) < size:  # those of other parts are drawn again
            more = generator.integers(self.num_classes, size=(size, self.half))
            left = np.concatenate([left, more[self.in_split(more)]])
        left = left[:size]
        middle = (self.input_length + 1) % 2  # with odd T the middle digit stands alone
        return np.concatenate([left, left[:, ::-1][:, middle:]], axis=1)

    def in_split(self, left):
        """Whether the palindromes with these left halves (N, half) are in the split: (N,)."""
        keys = np.bitwise_xor.reduce(self.table[np.arange(self.half), left], axis=1)
        first, last = self.part
        return (keys % 10 >= first) & (keys % 10 < last)
