"""Image data sets: by name, embedded or from a folder of parquet files or the Hugging Face hub; and one's own."""

import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from pliant.errors import UserError, require_choice, unknown_name
from pliant.specs import find, split_options, user_file, users_code
from pliant.streams._classes import class_numbers
from pliant.streams._dataset import Dataset, Loaded, with_statistics
from pliant.streams._digits import embedded_digits
from pliant.streams._hub import hub_tables
from pliant.streams._image_column import read_images
from pliant.streams._origins import DATASETS, Origin, origin_of, require_name
from pliant.streams._own import Own, is_own, own_data
from pliant.streams._own import from_arrays as own_arrays
from pliant.streams._parquet import DATA_VARIABLE, data_folder, read_tables, split_files
from pliant.streams._subsets import subsets
from pliant.streams._tables import Table


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
    origin = origin_of(name)
    if name == "digits":
        _refuse_folder(data_dir, "'digits', which are embedded")
        loaded = embedded_digits(sizes)
    else:
        tables = _tables(name, origin, data_dir)
        loaded = _read(name, tables, sizes)
        if tables[0].folder is not None:
            _require_named(name, origin, loaded, tables[0].folder)
    return with_statistics(name, loaded, origin.standardize if standardize == "default" else standardize)


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
    require_name(name)
    return _standardized(own_arrays(images, labels, test_images, test_labels, name), (None, None), standardize)


def _standardized(own: Own, sizes: tuple[int | None, int | None], standardize: str) -> Dataset:
    """A data set of one's own as read; columns of numbers are standardised one by one."""
    usual = "pixel" if own.has_features else "channel"
    loaded = _read(own.name, own.tables, sizes)
    return with_statistics(own.name, loaded, usual if standardize == "default" else standardize)


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
    require_name(found.name)
    return found


def _is_dataset(found: object) -> bool:
    return isinstance(found, Dataset) or inspect.isfunction(found)


def _resized(dataset: Dataset, sizes: tuple[int | None, int | None], standardize: str) -> Dataset:
    """A balanced subset, with statistics of its own."""
    if sizes == (None, None) and standardize == "default":
        return dataset
    splits = dataset.train, dataset.test
    chosen = subsets(dataset.name, [split.labels for split in splits], sizes)
    images, labels = (
        [each[rows] for each, rows in zip(kind, chosen, strict=True)] for kind in zip(*splits, strict=True)
    )
    usual = "channel" if dataset.mean.shape[:2] == (1, 1) else "pixel"
    loaded = Loaded(tuple(images), tuple(labels), tuple(range(dataset.num_classes)), dataset.largest)
    made = with_statistics(dataset.name, loaded, usual if standardize == "default" else standardize)
    return made._replace(classes=dataset.classes)


def reads_folder(name: str) -> bool:
    """Whether a data set of this name is read from a data folder, or from the hub.

    Args:
      name: as of `load_dataset`.

    Example:
      >>> reads_folder("mnist"), reads_folder("digits"), reads_folder("mine/data.csv:label=species")
      (True, False, False)
    """
    spec, _ = split_options(name)
    return not (name == "digits" or user_file(name) or is_own(spec))


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


def _read(name: str, tables: Sequence[Table], sizes: tuple[int | None, int | None]) -> Loaded:
    """Reads all labels, to balance subsets, and decodes the images in use."""
    values, *labels = class_numbers(*tables)
    chosen = subsets(name, labels, sizes)
    images, depth = read_images(tables, chosen)
    return Loaded(tuple(images), tuple(map(np.take, labels, chosen)), values, depth.largest)


def _require_named(name: str, origin: Origin, loaded: Loaded, folder: Path | None) -> None:
    """Refuses a folder of other data under the name of a known data set."""
    shape, number = loaded.images[0].shape[1:], len(loaded.classes)
    if origin.shape not in (None, shape) or origin.num_classes not in (None, number):
        raise UserError(
            got=f"images of shape {shape} in {number} classes for {name!r} in {folder}",
            wanted=f"shape {origin.shape} and {origin.num_classes} classes, or a name of your own for other data",
            do=f"If these are other data, name them: --dataset my-{name} --data-dir {folder}.",
        )
