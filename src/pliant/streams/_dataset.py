"""A data set of images, and the statistics that normalise it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from pliant.errors import UserError


class Images(NamedTuple):
    """Images and their labels."""

    images: Shaped[np.ndarray, "examples height wide channels"]
    """As stored in the files, mostly uint8, also on the device; normalised in each batch."""
    labels: Int[np.ndarray, " examples"]
    """Class numbers 0, 1, 2, …"""


class Dataset(NamedTuple):
    """A data set, and the statistics to normalise it with."""

    name: str
    num_classes: int
    train: Images
    test: Images
    mean: Float[np.ndarray, "#height #wide #channels"]
    """Over the training images in use; height and wide are 1 if it is taken over channels."""
    std: Float[np.ndarray, "#height #wide #channels"]
    """1 where the training images are constant."""
    largest: float = 255.0
    """The largest value of the image type: 255 for 8 bits, 65535 for 16, by convention 1 for floating-point numbers, 16
    for digits; NaN for types without a range for images, such as int64."""
    classes: tuple[int | str, ...] = ()
    """The stored labels of class 0, 1, 2, …; empty if unknown."""

    @property
    def is_renumbered(self) -> bool:
        """True if class numbers differ from the stored labels."""
        return self.classes not in ((), tuple(range(self.num_classes)))


class Loaded(NamedTuple):
    """Images and labels of train and test, as read."""

    images: tuple[np.ndarray, ...]
    labels: tuple[np.ndarray, ...]
    classes: tuple[int | str, ...]
    largest: float


def with_statistics(name: str, loaded: Loaded, kind: str) -> Dataset:
    """The data set, with the statistics that `kind` asks for."""
    images, labels, classes, largest = loaded
    train, test = (Images(*split) for split in zip(images, labels, strict=True))
    mean, std = _half(name, images, largest) if kind == "half" else _statistics(train.images, kind)
    return Dataset(name, len(classes), train, test, mean, std, largest, classes)


def _half(name: str, images: Sequence[np.ndarray], largest: float) -> tuple[np.ndarray, np.ndarray]:
    """½ of the largest value, twice, for images within the range of their type."""
    if not all(split.min() >= 0 and split.max() <= largest for split in images):  # NaN for types without a range
        low, high = min(split.min() for split in images), max(split.max() for split in images)
        raise UserError(
            got=f"standardize='half' for {name!r}, whose images are {images[0].dtype} from {low} to {high}",
            wanted="images of 8 or 16 bits, or floating-point numbers in [0, 1]",
            do="Use 'channel' or 'pixel', or store the images so.",
        )
    half = np.full((1, 1, 1), largest / 2, np.float32)
    return half, half


def _statistics(images: np.ndarray, standardize: str) -> tuple[np.ndarray, np.ndarray]:
    axes = (0,) if standardize == "pixel" else (0, 1, 2)
    mean = images.mean(axes, np.float64, keepdims=True)[0]
    std = images.std(axes, np.float64, keepdims=True)[0]
    std[std <= 1e-7 * np.abs(mean)] = 1.0  # constant up to rounding
    return mean.astype(np.float32), std.astype(np.float32)
