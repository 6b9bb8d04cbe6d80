"""Image data sets by name: embedded, from a folder of parquet files, or from the Hugging Face hub."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from pliant.errors import UserError, unknown_name

DATA_VARIABLE = "PLIANT_DATA"
_SUBSET_SEED = 0  # subsets are the same in every run: which images are used is not what seeds vary


class Images(NamedTuple):
    """Images and their labels."""

    images: Shaped[np.ndarray, "examples height wide channels"]
    """uint8 as stored in the files; kept so on the device, normalised in each batch."""
    labels: Int[np.ndarray, " examples"]


class Dataset(NamedTuple):
    """A data set with what is needed to normalise it."""

    name: str
    num_classes: int
    train: Images
    test: Images
    mean: Float[np.ndarray, "#height #wide #channels"]
    """Over the training images in use; height and wide are 1 where all pixels of a channel share it."""
    std: Float[np.ndarray, "#height #wide #channels"]
    """1 where the training images do not vary."""


class Source(NamedTuple):
    """Where a data set comes from."""

    summary: str
    hub: str | None = None
    """Repository on the Hugging Face hub; None for embedded data."""
    config: str | None = None
    label_columns: tuple[str, ...] = ("label",)
    """Names of the label column, the first that is there is taken."""
    standardize: Literal["channel", "pixel"] = "channel"
    """What has mean 0 and variance 1 over the training images: each channel, or each pixel of it."""


DATASETS: Mapping[str, Source] = {
    "digits": Source("8×8 digits of scikit-learn, embedded: 1,621 train, 176 test", standardize="pixel"),
    "mnist": Source("28×28 digits: 60,000 train, 10,000 test", hub="ylecun/mnist"),
    "cifar10": Source("32×32 colour images: 50,000 train, 10,000 test", hub="uoft-cs/cifar10"),
    "cifar100": Source(
        "32×32 colour images: 50,000 train, 10,000 test",
        hub="uoft-cs/cifar100",
        label_columns=("fine_label", "label"),
    ),
    "emnist": Source("28×28 letters: 124,800 train, 20,800 test", hub="tanganke/emnist_letters"),
    "emnist-balanced": Source("28×28 letters and digits: 112,800 train, 18,800 test", hub="claudiogsc/emnist_balanced"),
    "tiny-imagenet": Source("64×64 colour images: 100,000 train, 10,000 test", hub="zh-plus/tiny-imagenet"),
}
_IMAGE_COLUMNS = ("image", "img")
_TEST_SPLITS = ("test", "valid", "validation")


def load_dataset(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    train_size: int | None = None,
    test_size: int | None = None,
    standardize: Literal["default", "channel", "pixel", "half"] = "default",
) -> Dataset:
    """Loads an image data set.

    `digits` is embedded. The others are read from a folder of parquet files, `data_dir` or else the environment
    variable `PLIANT_DATA` (the files may lie in it or in a subfolder of the data set's name, as `train-*.parquet`
    and `test-*.parquet`), or else from the Hugging Face hub, which is downloaded once and cached.

    Args:
      name: a name in `DATASETS`.
      data_dir: folder with parquet files.
      train_size: balanced subset of the training images: as many of every class, ± 1, always the same ones.
      test_size: the same for the test images.
      standardize: what the mean and standard deviation are taken over, on the training images in use: "channel" or
        "pixel"; "half" stands for ½ of the largest value each, so that pixels are in [−1, 1]. By default channels, and
        pixels for digits, as is usual for these 64 counts.

    Returns:
      A `Dataset`.

    Raises:
      UserError: for an unknown name, a folder that is missing or lacks the data, unreadable files, missing columns,
        no network, or subsets larger than the data.

    Example:
      >>> digits = load_dataset("digits", train_size=100)
      >>> digits.train.images.shape, np.bincount(digits.train.labels).tolist()
      ((100, 8, 8, 1), [10, 10, 10, 10, 10, 10, 10, 10, 10, 10])

    References:
      Hub repositories as listed in `DATASETS`.

    Differs from:
      Published benchmarks that normalise subsets by the statistics of the whole set; for whole sets they are the same.
    """
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS, do="See `pliant list datasets`.")
    if data_dir is not None:  # also for digits, which needs none: a typing mistake
        _require_folder(data_dir)
    if name == "digits":
        splits: Sequence[_Split] = _digits()
    else:
        splits = _huggingface(name, data_dir)
    train, test = (
        split.read(_balanced(split.labels, size, f"{which} images of {name!r}"))
        for split, size, which in zip(splits, (train_size, test_size), ("training", "test"), strict=True)
    )
    num_classes = 1 + max(int(split.labels.max()) for split in splits)  # of the whole set, whatever the subset
    mean, std = _statistics(train.images, DATASETS[name].standardize if standardize == "default" else standardize)
    return Dataset(name, num_classes, train, test, mean, std)


def _require_folder(folder: str | os.PathLike[str]) -> None:
    if not Path(folder).is_dir():
        raise UserError(
            got=f"the data folder {str(folder)!r}",
            wanted="a folder that exists",
            do=f"Name another one with --data-dir or {DATA_VARIABLE}, or leave both out to load from the hub.",
        )


def _statistics(images: np.ndarray, standardize: str) -> tuple[np.ndarray, np.ndarray]:
    if standardize == "half":
        half = np.full((1, 1, 1), (16 if images.max() <= 16 else 255) / 2, np.float32)  # digits count to 16
        return half, half
    axes = (0,) if standardize == "pixel" else (0, 1, 2)
    mean = images.mean(axes, np.float64, keepdims=True)[0]
    std = images.std(axes, np.float64, keepdims=True)[0]
    std[std == 0] = 1.0
    return mean.astype(np.float32), std.astype(np.float32)


class _Split(NamedTuple):
    """Labels at once, images when it is known which are wanted: decoding is the slow part."""

    labels: np.ndarray
    decode: Callable[[np.ndarray], np.ndarray]

    def read(self, indices: np.ndarray) -> Images:
        return Images(self.decode(indices), self.labels[indices].astype(np.int32))


def _digits() -> tuple[_Split, _Split]:
    """Every tenth image of a class is a test image: a fixed, balanced split, since there is no official one."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype(np.uint8)[..., None]
    rank_in_class = np.zeros(len(images), int)
    for label in range(10):
        members = digits.target == label
        rank_in_class[members] = np.arange(members.sum())
    is_test = rank_in_class % 10 == 9

    def split(chosen: np.ndarray) -> _Split:
        return _Split(digits.target[chosen], images[chosen].__getitem__)

    return split(~is_test), split(is_test)


def _huggingface(name: str, data_dir: str | os.PathLike[str] | None) -> tuple[_Split, _Split]:
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # what it would log as errors, it raises too
    source = DATASETS[name]
    folder = data_dir or os.environ.get(DATA_VARIABLE) or None
    if folder is not None:
        _require_folder(folder)
    try:
        if folder is not None:
            found = datasets.load_dataset("parquet", data_files=_parquet_files(name, Path(folder)))
        else:
            found = datasets.load_dataset(source.hub, source.config)
    except UserError:
        raise
    except Exception as error:
        where = f"{folder}" if folder else f"the Hugging Face hub ({source.hub})"
        raise UserError(
            got=f"{type(error).__name__} while reading {name!r} from {where}: {_first_line(error)}",
            wanted="readable parquet files" if folder else "network access, or the data set in the local cache",
            do="Fetch the files again."
            if folder
            else f"Run once with a network, or name a folder of parquet files: --data-dir DIR or {DATA_VARIABLE}=DIR "
            f"(DIR/{name}/train-*.parquet, DIR/{name}/test-*.parquet). `--dataset digits` needs neither.",
        ) from error
    test = next((split for split in _TEST_SPLITS if split in found), None)
    if "train" not in found or test is None:
        raise UserError(
            got=f"the splits {', '.join(found)} of {name!r}",
            wanted="'train' and one of " + ", ".join(_TEST_SPLITS),
            do="Check that the folder or hub repository is the data set's.",
        )
    return _table(name, found["train"]), _table(name, found[test])


def _parquet_files(name: str, folder: Path) -> dict[str, list[str]]:
    places = (folder / name, folder)
    for place in places:
        train = sorted(str(file) for file in place.glob("train*.parquet"))
        test = sorted(str(file) for split in _TEST_SPLITS for file in place.glob(f"{split}*.parquet"))
        if train and test:
            return {"train": train, "test": test}
    raise UserError(
        got=f"no train*.parquet and test*.parquet in {' or '.join(map(str, places))}",
        wanted=f"the data set {name!r} as parquet files",
        do=f"Name their folder with --data-dir or {DATA_VARIABLE}, or leave both out to load from the hub.",
    )


def _table(name: str, table: Any) -> _Split:
    import datasets

    image = _column(name, table, _IMAGE_COLUMNS)
    label = _column(name, table, DATASETS[name].label_columns)
    if not isinstance(table.features[image], datasets.Image):
        table = table.cast_column(image, datasets.Image())
    labels = np.asarray(table[label])
    if not np.issubdtype(labels.dtype, np.integer) or labels.size == 0 or labels.min() < 0:
        raise UserError(
            got=f"{labels.size} labels of type {labels.dtype} in column {label!r} of {name!r}",
            wanted="class numbers 0, 1, 2, …",
            do="Use the data set's own files.",
        )

    def decode(indices: np.ndarray) -> np.ndarray:
        try:
            images = [np.asarray(picture) for picture in table.select(indices)[image]]
            stacked = np.stack([picture[..., None] if picture.ndim == 2 else picture for picture in images])
        except (ValueError, OSError) as error:
            raise UserError(
                got=f"images of {name!r} that cannot be decoded into one array: {_first_line(error)}",
                wanted="PNG or JPEG images of one size and one number of channels",
                do="Fetch the files again.",
            ) from error
        return stacked

    return _Split(labels, decode)


def _column(name: str, table: Any, wanted: Sequence[str]) -> str:
    for column in wanted:
        if column in table.features:
            return column
    raise UserError(
        got=f"the columns {', '.join(table.features)} of {name!r}",
        wanted=f"a column named {' or '.join(wanted)}",
        do="Rename the column, or use the data set's own files.",
    )


def _balanced(labels: np.ndarray, size: int | None, what: str) -> np.ndarray:
    """Indices of a subset with as many examples of every class, ± 1; all of them for None."""
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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:300].rstrip(".")
