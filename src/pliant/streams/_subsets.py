"""Fixed, balanced subsets of a data set."""

from collections.abc import Sequence

import numpy as np

from pliant.errors import UserError

_SUBSET_SEED = 0  # all runs and seeds use the same subset


def subsets(name: str, labels: Sequence[np.ndarray], sizes: Sequence[int | None]) -> list[np.ndarray]:
    """Indices of the training and the test images in use."""
    kinds = ("training", "test")
    return [
        _balanced(of_split, size, f"{kind} images of {name!r}")
        for of_split, size, kind in zip(labels, sizes, kinds, strict=True)
    ]


def _balanced(labels: np.ndarray, size: int | None, what: str) -> np.ndarray:
    """Indices of a subset with equally many examples of every class, ± 1; all of them for None."""
    if size is None:
        return np.arange(len(labels))
    classes, counts = np.unique(labels, return_counts=True)
    per_class = np.full(len(classes), size // len(classes))
    per_class[: size % len(classes)] += 1
    if size < 1 or np.any(per_class > counts):
        raise UserError(
            got=f"a subset of {size} {what}",
            wanted=f"1 to {counts.min() * len(classes)}, so that it can be balanced",
            do="Choose a smaller size, or leave it out for all images.",
        )
    draw = np.random.default_rng(_SUBSET_SEED)
    chosen = [
        draw.permutation(np.flatnonzero(labels == label))[:count]
        for label, count in zip(classes, per_class, strict=True)
    ]
    return np.sort(np.concatenate(chosen))
