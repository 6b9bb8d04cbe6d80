"""Data sets of one's own: a path, or a repository on the Hugging Face hub, with the columns and splits to use."""

import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pliant.errors import UserError, unknown_name
from pliant.streams._classes import label_values
from pliant.streams._features import as_images
from pliant.streams._hub import hub_splits, removal
from pliant.streams._parquet import SPLITS, class_names
from pliant.streams._stored import KNOWN, Splits, arrays_table, stored_splits
from pliant.streams._tables import Table

IMAGES = ("image", "img", "images", "x", "X", "data", "pixels", "path", "file", "file_name", "filename")
"""Possible names of the column of images, or of the paths of image files; the first one present is used."""
LABELS = ("label", "labels", "y", "Y", "class", "target", "targets", "fine_label")
"""The same of the column of labels."""
OPTIONS = ("image", "label", "train", "test", "shape", "config")
"""What may follow a path or repository, as in data.csv:label=species:shape=8x8."""

_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_EVERY = 10  # example of a class is a test example, as of the digits


class Own(NamedTuple):
    """A data set of one's own, as stored."""

    name: str
    tables: tuple[Table, Table]
    has_features: bool
    """True for columns of numbers that are no image, so that each is standardised by itself."""


def from_arrays(images: Any, labels: Any, test_images: Any, test_labels: Any, name: str) -> Own:
    """Arrays as a data set of one's own; without test arrays, every tenth example of a class is a test example."""
    given = {"train": (images, labels), "test": (test_images, test_labels)}
    splits: dict[str, Callable[[], pa.Table]] = {}
    for split, (each, of_each) in given.items():
        if (each is None) != (of_each is None):
            got = f"{split} images or labels without the other"
            raise UserError(got=got, wanted="both, or neither for test", do="Give both.")
        if each is not None:
            lengths = [len(array) if np.ndim(array) else 0 for array in (each, of_each)]
            if lengths[0] != lengths[1]:
                got = f"{lengths[0]} {split} images and {lengths[1]} labels"
                raise UserError(got=got, wanted="a label for every image", do="Give arrays of one length.")
            splits[split] = partial(arrays_table, {"image": np.asarray(each), "label": np.asarray(of_each)})
    return _made(name, name, splits, {}, Path(), "Correct the arrays.")


def is_own(spec: str) -> bool:
    """Whether a text is a path or a repository, and not a name.

    Example:
      >>> is_own("mnist"), is_own("./mnist"), is_own("uoft-cs/cifar10"), is_own("mine.npz")
      (False, True, True, True)
    """
    return "/" in spec or os.sep in spec or spec.startswith("~") or Path(spec.lower()).suffix in KNOWN


def own_data(spec: str, options: Mapping[str, str]) -> Own:
    """Reads the data set at a path, or of a repository on the hub if there is no such path.

    Args:
      spec: a folder, a file, or OWNER/NAME.
      options: by the names in `OPTIONS`.

    Raises:
      UserError: for unknown options, missing files, splits and columns, and files of other kinds.
    """
    for option in options:
        if option not in OPTIONS:
            raise unknown_name("option of a data set", option, OPTIONS, do="Write PATH:label=COLUMN, for example.")
    path = Path(spec).expanduser()
    name = re.sub(r"[^\w.+-]+", "-", path.resolve().stem if path.exists() else spec).strip("-.")[:64] or "own"
    folder, remedy = path if path.is_dir() else path.parent, "Store it again, or leave it out."
    if path.exists() or not _REPOSITORY.fullmatch(spec) or Path(spec.lower()).suffix in KNOWN:
        if "config" in options:
            do = "Leave it out for a path."
            raise UserError(got=f"config={options['config']} of {spec!r}", wanted="a hub repository", do=do)
        splits = stored_splits(spec, path)
    else:
        splits, remedy = hub_splits(name, spec, options.get("config")), removal(spec)
    return _made(spec, name, splits, options, folder, remedy)


def _made(spec: str, name: str, splits: Splits, options: Mapping[str, str], folder: Path, remedy: str) -> Own:
    """Chooses splits and columns."""
    tables, has_features = [], False
    chosen = _chosen(spec, splits, options)
    for split, of_split in zip(("train", "test"), chosen, strict=False):
        what = f"{split} of {name!r}"
        columns, is_of_features = _columns(what, splits[of_split](), options)
        has_features |= is_of_features
        tables.append(Table(*columns, what, folder / of_split if (folder / of_split).is_dir() else folder, remedy))
    train, test = tables if len(tables) == 2 else held_out(tables[0], name)
    return Own(name, (train, test), has_features)


def _chosen(spec: str, splits: Splits, options: Mapping[str, str]) -> list[str]:
    """The stored names of train and test; of one split alone, if nothing else is stored."""
    meant = {SPLITS.get(split.lower(), split): split for split in splits} | {split: split for split in splits}
    asked = {split: options[split] for split in ("train", "test") if split in options}
    for split, of_split in asked.items():
        if of_split not in meant:
            raise unknown_name(f"split for {split}", of_split, splits, do=f"These are the splits of {spec}.")
    if len(splits) == 1 and "test" not in asked:
        return list(splits)
    found = [asked.get(split, split) for split in ("train", "test")]
    if not all(split in meant for split in found):
        raise UserError(
            got=f"the splits {', '.join(splits)} of {spec!r}",
            wanted="'train' and 'test'",
            do=f"Name those to use: {spec}:train=SPLIT:test=SPLIT.",
        )
    return [meant[split] for split in found]


def _columns(
    what: str, table: pa.Table, options: Mapping[str, str]
) -> tuple[tuple[pa.ChunkedArray, pa.ChunkedArray, tuple[str, ...]], bool]:
    """Images, labels and names of classes; and whether the images are columns of numbers."""
    names = table.schema.names
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice or "" in names:
        raise UserError(
            got=f"the columns {_some(names)} of {what}, {'two of one name' if twice else 'one without a name'}",
            wanted="a name for every column, each once, in the first line",
            do="Write a header; with pandas, leave the index out: to_csv(FILE, index=False).",
        )
    table = table.drop_columns([name for name in names if name.startswith("__index_level_")])  # of pandas
    names = table.schema.names
    label = _column(what, names, options, "label", LABELS)
    if label is None:
        raise UserError(
            got=f"the columns {_some(names)} of {what}",
            wanted=f"a column of labels named {', '.join(LABELS[:3])} or {LABELS[4]}",
            do="Name it behind the data set: PATH:label=COLUMN.",
        )
    image = _column(what, [name for name in names if name != label], options, "image", IMAGES)
    stored = None if image is None else table[image]
    images, has_features = as_images(what, stored, table.drop_columns([label]), options.get("shape"))
    return (images, table[label], class_names(table.schema, label)), has_features


def _column(what: str, names: list[str], options: Mapping[str, str], kind: str, usual: tuple[str, ...]) -> str | None:
    if kind in options and options[kind] not in names:
        raise unknown_name(f"column of {kind}s", options[kind], names, do=f"These are the columns of {what}.")
    return options.get(kind) or next((name for name in usual if name in names), None)


def held_out(table: Table, name: str) -> tuple[Table, Table]:
    """Every tenth example of a class as a test example, of a data set that has no test split."""
    labels = label_values(table)
    rank = np.zeros(len(labels), int)
    for label in set(labels.tolist()):
        members = labels == label
        rank[members] = np.arange(members.sum())
    is_test = rank % _EVERY == _EVERY - 1
    if not is_test.any():
        raise UserError(
            got=f"{len(labels)} examples in {name!r}, without a test split",
            wanted=f"a test split, or {_EVERY} examples of a class, of which one is then a test example",
            do="Store training and test data apart, or name the split: PATH:test=SPLIT.",
        )

    def part(which: np.ndarray, split: str) -> Table:
        rows = np.flatnonzero(which)
        images = pa.chunked_array([_taken(table.images, rows)])
        return table._replace(images=images, labels=table.labels.take(pa.array(rows)), what=f"{split} of {name!r}")

    return part(~is_test, "train"), part(is_test, "test")


def _taken(column: pa.ChunkedArray, rows: np.ndarray) -> pa.Array:
    """Rows of a column; tensors are taken by NumPy, since Arrow has no kernel for them in all versions."""
    if isinstance(column.type, pa.FixedShapeTensorType):
        arrays = [chunk.to_numpy_ndarray() for chunk in column.chunks]
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.concatenate(arrays)[rows])
    taken = column.take(pa.array(rows)).combine_chunks()
    return pa.concat_arrays(taken.chunks) if isinstance(taken, pa.ChunkedArray) else taken


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
