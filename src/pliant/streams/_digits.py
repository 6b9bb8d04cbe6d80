"""The digits, which are embedded in the package."""

from pathlib import Path

import numpy as np

from pliant.streams._dataset import Loaded
from pliant.streams._subsets import subsets


def embedded_digits(sizes: tuple[int | None, int | None]) -> Loaded:
    """The digits of scikit-learn. They have no official split: every tenth image of a class is a test image."""
    with np.load(Path(__file__).with_name("digits.npz")) as digits:
        images, labels = digits["images"][..., None], digits["labels"].astype(np.int32)
    rank_in_class = np.zeros(len(images), int)
    for label in range(10):
        members = labels == label
        rank_in_class[members] = np.arange(members.sum())
    splits = [np.flatnonzero(rank_in_class % 10 != 9), np.flatnonzero(rank_in_class % 10 == 9)]
    used = subsets("digits", [labels[split] for split in splits], sizes)
    chosen = [split[subset] for split, subset in zip(splits, used, strict=True)]
    return Loaded(tuple(images[rows] for rows in chosen), tuple(labels[rows] for rows in chosen), tuple(range(10)), 16)
