"""Image data sets: by name, embedded or from a folder of parquet files or the Hugging Face hub; and one's own."""

import inspect
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy.typing import ArrayLike

from pliant.errors import UserError, require_choice, unknown_name
from pliant.specs import find, split_options, user_file, users_code
from pliant.streams._classes import class_numbers
from pliant.streams._hub import hub_tables
from pliant.streams._image_column import read_images
from pliant.streams._own import Own, is_own, own_data
from pliant.streams._own import from_arrays as own_arrays
from pliant.streams._parquet import DATA_VARIABLE, data_folder, read_tables, split_files
from pliant.streams._tables import Table

_SUBSET_SEED = 0  # all runs and seeds use the same subset


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


def load_dataset(
    name: "str | Dataset",
    *,
    data_dir: str | os.PathLike[str] | None = None,
    train_size: int | None = None,
    test_size: int | None = None,
    standardize: Literal["default", "channel", "pixel", "half"] = "default",
) -> Dataset:
    """Loads an image data set.

    `digits` is embedded. All others are read from a folder of parquet files: `data_dir`, or else the environment
    variable `PLIANT_DATA`. The files are in the folder itself or in a subfolder with the name of the data set, as
    `train-*.parquet` and `test-*.parquet`. Without a folder, the data set is downloaded from the Hugging Face hub once
    and cached. Your own data need a name of their own and a folder, or are named by one of these:

    - the path of a folder: images in a folder for each class, also within `train` and `test`; parquet or CSV files,
      such as `train.csv` and `test.csv`; or what `save_to_disk` of the library `datasets` wrote;
    - the path of a file: `.npz` with arrays such as `x_train` and `y_train`, `.csv`, `.tsv` or `.parquet`;
    - OWNER/NAME, a repository of image classification on the hub;
    - `path/to/file.py:name`, a `Dataset` or a function without arguments that returns one.

    Options may follow a path or a repository, as in `data.csv:label=species`: the columns `image` and `label`, the
    splits `train` and `test`, the `config` of a repository, and the `shape` of rows of numbers, such as 28x28. A table
    without images has a number in each of its other columns; each is standardised by itself, unless `shape` makes an
    image of them. Without a test split, every tenth example of a class is a test example.

    A column `image` or `img` holds encoded images, or lists of numbers (height × wide, or height × wide × channels);
    `label` holds numbers or names. Grey images have one channel; colour, palette, CMYK and YCbCr images have three. If
    a data set has both kinds, grey images are repeated to three channels. Pixels keep their 8, 16 or 32 bits. Classes
    are numbered from 0 in the ascending order of training labels.

    Args:
      name: a name in `DATASETS`, or one of your own with a folder; a path, a repository, or a file and a name; or a
        `Dataset`, of which subsets are taken, and which is standardised anew unless `standardize` is "default".
      data_dir: folder with parquet files; `~` is your home.
      train_size: size of a fixed, balanced subset of the training images: equally many of every class, ± 1.
      test_size: the same for the test images.
      standardize: "channel" or "pixel", what mean and standard deviation of the training images in use are taken over;
        "half" subtracts and divides by ½ of the largest value of the image type (`Dataset.largest`), so that pixels are
        in [−1, 1]. By default channels, and pixels for digits.

    Returns:
      A `Dataset`.

    Raises:
      UserError: for an unknown name; a folder that is missing, lacks the data or holds another data set; unreadable
        files, missing columns or splits; images of several sizes or ranges, with transparent pixels or several frames;
        missing labels, and test labels without a training image; no network; subsets larger than the data.

    Example:
      >>> digits = load_dataset("digits", train_size=100)
      >>> digits.train.images.shape, np.bincount(digits.train.labels).tolist()
      ((100, 8, 8, 1), [10, 10, 10, 10, 10, 10, 10, 10, 10, 10])

    References:
      Hub repositories as listed in `DATASETS`.

    Differs from:
      Published benchmarks that normalise subsets by the statistics of the whole data set.
    """
    require_choice("standardize", standardize, "default", "channel", "pixel", "half")
    sizes = (train_size, test_size)
    if not isinstance(name, str) or user_file(name):
        _refuse_folder(data_dir, "a data set of your own")
        return _resized(_own_dataset(name), sizes, standardize)
    spec, chosen = split_options(name)
    if is_own(spec):
        _refuse_folder(data_dir, repr(spec))
        return _standardized(own_data(spec, chosen), sizes, standardize)
    if chosen:
        raise UserError(
            got=f"options of the data set {spec!r}: {', '.join(chosen)}",
            wanted="options of a path or of a repository on the hub",
            do=f"Write {spec} alone.",
        )
    origin = _origin(name)
    if name == "digits":
        _refuse_folder(data_dir, "'digits', which are embedded")
        loaded = _digits(sizes)
    else:
        tables = _tables(name, origin, data_dir)
        loaded = _read(name, tables, sizes)
        if tables[0].folder is not None:
            _require_named(name, origin, loaded, tables[0].folder)
    return _dataset(name, loaded, origin.standardize if standardize == "default" else standardize)


def from_arrays(
    images: ArrayLike,
    labels: ArrayLike,
    test_images: ArrayLike | None = None,
    test_labels: ArrayLike | None = None,
    *,
    name: str = "own",
    standardize: Literal["default", "channel", "pixel", "half"] = "default",
) -> Dataset:
    """Makes a data set from arrays.

    Args:
      images: (examples, height, wide) or (examples, height, wide, channels); or (examples, features), each feature then
        being standardised by itself. Any numbers that `load_dataset` reads.
      labels: whole numbers ≥ 0, or names.
      test_images: of the same shape; without them, every tenth example of a class is a test example.
      test_labels: their labels, all of them among the training labels.
      name: what tables, figures and folders call it.
      standardize: see `load_dataset`.

    Returns:
      A `Dataset`, which streams, `load_dataset` and `pliant.run(dataset=...)` take.

    Raises:
      UserError: for arrays of different lengths or shapes, missing and other labels, numbers that are not finite.

    Example:
      >>> pixels = np.arange(20 * 4 * 4).reshape(20, 4, 4).astype(np.uint8)
      >>> mine = from_arrays(pixels, ["cat", "owl"] * 10, name="animals")
      >>> mine.train.images.shape, mine.test.images.shape, mine.classes
      ((18, 4, 4, 1), (2, 4, 4, 1), ('cat', 'owl'))
    """
    require_choice("standardize", standardize, "default", "channel", "pixel", "half")
    _require_name(name)
    return _standardized(own_arrays(images, labels, test_images, test_labels, name), (None, None), standardize)


def _standardized(own: Own, sizes: tuple[int | None, int | None], standardize: str) -> Dataset:
    """A data set of one's own as read; columns of numbers are standardised one by one."""
    usual = "pixel" if own.has_features else "channel"
    loaded = _read(own.name, own.tables, sizes)
    return _dataset(own.name, loaded, usual if standardize == "default" else standardize)


def _own_dataset(spec: object) -> Dataset:
    """The data set that a file names, or the one given."""
    found: Any = find("dataset", spec, {}, _is_dataset, "a pliant.streams.Dataset, or a function that returns one")
    if not isinstance(found, Dataset):
        with users_code({"dataset": [spec]}):
            found = found()
        if not isinstance(found, Dataset):
            raise UserError(
                got=f"{type(found).__name__} from {spec!r}",
                wanted="a pliant.streams.Dataset",
                do="Return what pliant.streams.from_arrays makes of arrays.",
            )
    _require_name(found.name)
    return found


def _is_dataset(found: object) -> bool:
    return isinstance(found, Dataset) or inspect.isfunction(found)


def _resized(dataset: Dataset, sizes: tuple[int | None, int | None], standardize: str) -> Dataset:
    """A balanced subset, with statistics of its own."""
    if sizes == (None, None) and standardize == "default":
        return dataset
    splits = dataset.train, dataset.test
    chosen = _subsets(dataset.name, [split.labels for split in splits], sizes)
    images, labels = (
        [each[rows] for each, rows in zip(kind, chosen, strict=True)] for kind in zip(*splits, strict=True)
    )
    usual = "channel" if dataset.mean.shape[:2] == (1, 1) else "pixel"
    loaded = _Loaded(tuple(images), tuple(labels), tuple(range(dataset.num_classes)), dataset.largest)
    made = _dataset(dataset.name, loaded, usual if standardize == "default" else standardize)
    return made._replace(classes=dataset.classes)


def _dataset(name: str, loaded: "_Loaded", kind: str) -> Dataset:
    images, labels, classes, largest = loaded
    train, test = (Images(*split) for split in zip(images, labels, strict=True))
    mean, std = _half(name, images, largest) if kind == "half" else _statistics(train.images, kind)
    return Dataset(name, len(classes), train, test, mean, std, largest, classes)


class _Loaded(NamedTuple):
    """Train and test."""

    images: tuple[np.ndarray, ...]
    labels: tuple[np.ndarray, ...]
    classes: tuple[int | str, ...]
    largest: float


def _origin(name: str) -> Origin:
    """Where the data set of a name comes from; defaults for a name of the user's own."""
    if name in DATASETS:
        return DATASETS[name]
    _require_name(name)
    plain = {re.sub(r"[\W_]", "", known.lower()) for known in DATASETS}
    if re.sub(r"[\W_]", "", name.lower()) in plain:  # MNIST, cifar-10
        raise unknown_name("data set", name, DATASETS, do="See `pliant list datasets`.")
    return Origin("")


def _require_name(name: str) -> None:
    if not re.fullmatch(r"\w[\w.+-]{0,63}", name):
        raise UserError(
            got=f"the data set {name!r}",
            wanted="a name of at most 64 letters, digits and _.+- (it names files)",
            do="Name the data set, and its folder with --data-dir.",
        )


def _refuse_folder(data_dir: str | os.PathLike[str] | None, what: str) -> None:
    """Refuses a folder given for data that are not read from it; PLIANT_DATA may be set for other runs."""
    if data_dir is not None:
        folder = data_folder(data_dir)
        raise UserError(
            got=f"the data folder {str(folder)!r} for {what}",
            wanted="a data set that is read from it",
            do="Add --dataset NAME, such as mnist or a name of your own, or leave --data-dir out.",
        )


def _tables(name: str, origin: Origin, data_dir: str | os.PathLike[str] | None) -> list[Table]:
    """Train and test, from a folder or the hub."""
    folder = data_folder(data_dir)
    if folder is None and origin.hub is not None:
        return hub_tables(name, origin.hub, origin.config, origin.label_columns, origin.test_splits)
    files = folder and split_files(name, folder, origin.test_splits)
    if files:
        return read_tables(name, files, origin.label_columns)
    if origin.hub is None and data_dir is None:
        do = f"See `pliant list datasets`. Data of your own need their folder: --data-dir DIR or {DATA_VARIABLE}."
        raise unknown_name("data set", name, DATASETS, do=do)
    assert folder is not None
    raise UserError(
        got=f"no train*.parquet and test*.parquet in {folder / name} or {folder}{_seen(folder)}",
        wanted=f"the data set {name!r} as parquet files",
        do=f"Name their folder with --data-dir or {DATA_VARIABLE}, or leave both out to load from the hub.",
    )


def _seen(folder: Path) -> str:
    """What the folder contains instead."""
    names = sorted(file.name for file in folder.iterdir())
    return f", but {', '.join(names[:6])}{', …' if len(names) > 6 else ''}" if names else ", which is empty"


def _read(name: str, tables: Sequence[Table], sizes: tuple[int | None, int | None]) -> _Loaded:
    """Reads all labels, to balance subsets, and decodes the images in use."""
    values, *labels = class_numbers(*tables)
    chosen = _subsets(name, labels, sizes)
    images, depth = read_images(tables, chosen)
    return _Loaded(tuple(images), tuple(map(np.take, labels, chosen)), values, depth.largest)


def _require_named(name: str, origin: Origin, loaded: _Loaded, folder: Path | None) -> None:
    """Refuses a folder of other data under the name of a known data set."""
    shape, number = loaded.images[0].shape[1:], len(loaded.classes)
    if origin.shape not in (None, shape) or origin.num_classes not in (None, number):
        raise UserError(
            got=f"images of shape {shape} in {number} classes for {name!r} in {folder}",
            wanted=f"shape {origin.shape} and {origin.num_classes} classes, or a name of your own for other data",
            do=f"If these are other data, name them: --dataset my-{name} --data-dir {folder}.",
        )


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


def _digits(sizes: tuple[int | None, int | None]) -> _Loaded:
    """The digits of scikit-learn. They have no official split: every tenth image of a class is a test image."""
    with np.load(Path(__file__).with_name("digits.npz")) as digits:
        images, labels = digits["images"][..., None], digits["labels"].astype(np.int32)
    rank_in_class = np.zeros(len(images), int)
    for label in range(10):
        members = labels == label
        rank_in_class[members] = np.arange(members.sum())
    splits = [np.flatnonzero(rank_in_class % 10 != 9), np.flatnonzero(rank_in_class % 10 == 9)]
    subsets = _subsets("digits", [labels[split] for split in splits], sizes)
    chosen = [split[subset] for split, subset in zip(splits, subsets, strict=True)]
    return _Loaded(tuple(images[rows] for rows in chosen), tuple(labels[rows] for rows in chosen), tuple(range(10)), 16)


def _subsets(name: str, labels: Sequence[np.ndarray], sizes: Sequence[int | None]) -> list[np.ndarray]:
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
