"""Where the data sets come from that are known by name."""

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

from pliant.errors import UserError, unknown_name


class Origin(NamedTuple):
    """Where a data set comes from."""

    summary: str
    hub: str | None = None
    """Repository on the Hugging Face hub; None for embedded data."""
    config: str | None = None
    label_columns: tuple[str, ...] = ("label",)
    """Possible names of the label column; the first one present is used."""
    standardize: Literal["channel", "pixel"] = "channel"
    """What is standardised over the training images: each channel, or each of its pixels."""
    shape: tuple[int, int, int] | None = None
    """(height, wide, channels) of every image; a folder with other shapes is refused."""
    num_classes: int | None = None
    """A folder with another number of classes is refused."""
    test_splits: tuple[str, ...] = ("test",)
    """Possible names of the test split; the first one present is used."""


DATASETS: Mapping[str, Origin] = {
    "digits": Origin(
        "8×8 digits of scikit-learn, embedded: 1,621 train, 176 test",
        standardize="pixel",
        shape=(8, 8, 1),
        num_classes=10,
    ),
    "mnist": Origin("28×28 digits: 60,000 train, 10,000 test", hub="ylecun/mnist", shape=(28, 28, 1), num_classes=10),
    "cifar10": Origin(
        "32×32 colour images: 50,000 train, 10,000 test", hub="uoft-cs/cifar10", shape=(32, 32, 3), num_classes=10
    ),
    "cifar100": Origin(
        "32×32 colour images: 50,000 train, 10,000 test",
        hub="uoft-cs/cifar100",
        label_columns=("fine_label", "label"),
        shape=(32, 32, 3),
        num_classes=100,
    ),
    "emnist": Origin(
        "28×28 letters: 124,800 train, 20,800 test",
        hub="tanganke/emnist_letters",
        shape=(28, 28, 1),
        num_classes=26,
    ),
    "emnist-balanced": Origin(
        "28×28 letters and digits: 112,800 train, 18,800 test",
        hub="claudiogsc/emnist_balanced",
        shape=(28, 28, 1),
        num_classes=47,
    ),
    "tiny-imagenet": Origin(
        "64×64 colour images: 100,000 train, 10,000 test",
        hub="zh-plus/tiny-imagenet",
        shape=(64, 64, 3),
        num_classes=200,
        test_splits=("test", "validation"),  # its test images have no labels; papers test on the validation images
    ),
}


def origin_of(name: str) -> Origin:
    """Where the data set of a name comes from; defaults for a name of the user's own."""
    if name in DATASETS:
        return DATASETS[name]
    require_name(name)
    plain = {re.sub(r"[\W_]", "", known.lower()) for known in DATASETS}
    if re.sub(r"[\W_]", "", name.lower()) in plain:  # MNIST, cifar-10
        raise unknown_name("data set", name, DATASETS, do="See `pliant list datasets`.")
    return Origin("")


def require_name(name: str) -> None:
    """Refuses a name that cannot be part of the names of files."""
    if not re.fullmatch(r"\w[\w.+-]{0,63}", name):
        raise UserError(
            got=f"the data set {name!r}",
            wanted="a name of at most 64 letters, digits and _.+- (it names files)",
            do="Name the data set, and its folder with --data-dir.",
        )
