"""The splits of a data set in a folder or file: images by class, arrays, tables, or saved by `datasets`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pliant.errors import UserError
from pliant.streams._parquet import SPLITS, split_of
from pliant.streams._tables import first_line

SUFFIXES = (".npz", ".csv", ".tsv", ".parquet")
_WANTED = (
    "a folder of images by class, of parquet or CSV files, or saved by `datasets`; or a file "
    ".npz, .csv, .tsv or .parquet"
)
_CONVERT = pyarrow.csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False)
_OTHERWISE = {
    ".npy": "Store images and labels in one file: np.savez(FILE, images=..., labels=...).",
    ".py": "Name the data set in it: FILE.py:NAME.",
    ".zip": "Unpack it.",
    ".tar": "Unpack it.",
    ".gz": "Unpack it.",
}

KNOWN = frozenset((*SUFFIXES, *_OTHERWISE))
"""The suffixes by which a text is taken for a path."""

Splits = Mapping[str, Callable[[], pa.Table]]
"""By name, "" if there is one that has none; read when called."""


def stored_splits(spec: str, path: Path) -> Splits:
    """What is at a path.

    Raises:
      UserError: if there is nothing, or something else.
    """
    if path.is_file():
        if path.suffix.lower() == ".npz":
            return _arrays(path)
        if path.suffix.lower() in SUFFIXES:
            return {"": lambda: _table(path)}
        do = _OTHERWISE.get(path.suffix.lower(), "Convert it to one of these.")
        raise UserError(got=f"the data set {spec!r}, a file of another kind", wanted=_WANTED, do=do)
    if not path.is_dir():
        do = "Check the path, or see `pliant list datasets`."
        raise UserError(got=f"the data set {spec!r}, which is not there", wanted=_WANTED, do=do)
    for read in (_saved, _tables, _image_folders):
        if splits := read(path):
            return splits
    names = sorted(each.name for each in path.iterdir())
    seen = f"which holds {', '.join(names[:6])}{', …' if len(names) > 6 else ''}" if names else "which is empty"
    raise UserError(got=f"the folder {spec!r}, {seen}", wanted=_WANTED, do="Check the path.")


def _table(*files: Path) -> pa.Table:
    parts = []
    for file in files:
        try:
            if file.suffix.lower() == ".parquet":
                parts.append(pq.ParquetFile(file).read())
            else:
                delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
                parse = pyarrow.csv.ParseOptions(delimiter=delimiter)
                parts.append(pyarrow.csv.read_csv(file, parse_options=parse, convert_options=_CONVERT))
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(file, error) from error
    if len(parts) == 1:
        return parts[0]
    try:
        return pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowException as error:
        got = f"files with different columns beside {files[0]}: {first_line(error)}"
        raise UserError(got=got, wanted="files with the same columns", do="Write them alike.") from error


def _unreadable(file: Path, error: Exception) -> UserError:
    reason = first_line(error) or type(error).__name__
    reason = "it holds Python objects, or is damaged" if "pickle" in reason else reason
    return UserError(got=f"{file}, which cannot be read: {reason}", wanted="a whole file", do="Store it again.")


def _tables(folder: Path) -> Splits:
    """Parquet or CSV files by split; of a folder without splits, all files together."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and file.suffix.lower() in SUFFIXES[1:]]
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(split_of(file.stem) or "", []).append(file)
    if len(found) > 1 and "" in found:
        others = ", ".join(file.name for file in found[""][:3])
        raise UserError(
            got=f"files with and without a split in {folder}: {others}",
            wanted="files that are named after their splits, such as train.csv and test.csv",
            do="Move the others, or name one file as the data set.",
        )
    return {split: lambda of_split=of_split: _table(*of_split) for split, of_split in found.items()}


def _arrays(file: Path) -> Splits:
    """The arrays of a .npz: x_train and y_train, train_images and train_labels, or images and labels."""
    try:
        with np.load(file, allow_pickle=False) as opened:
            arrays = {name: opened[name] for name in opened.files}
    except Exception as error:  # zip, pickle and NumPy raise their own
        raise _unreadable(file, error) from error
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        words = name.split("_")
        splits = [word for word in words if word.lower() in SPLITS]
        split = splits[0] if splits else ""
        found.setdefault(split, {})["_".join(word for word in words if word != split) or name] = array
    for split, columns in found.items():
        lengths = {name: array.shape[0] if array.ndim else 0 for name, array in columns.items()}
        if len(set(lengths.values())) > 1:
            sizes = ", ".join(f"{name} ({length})" for name, length in lengths.items())
            raise UserError(
                got=f"arrays of different lengths in {file}{split and f' for {split}'}: {sizes}",
                wanted="an image and a label for every example",
                do="Store arrays of one length, and nothing else.",
            )
    return {split: lambda columns=columns: arrays_table(columns) for split, columns in found.items()}


def arrays_table(columns: Mapping[str, np.ndarray]) -> pa.Table:
    """Arrays with one entry an example as a table; images are not copied.

    Example:
      >>> arrays_table({"x": np.zeros((3, 2, 2)), "y": np.array([0, 1, 1])}).schema.names
      ['x', 'y']
    """
    return pa.table({name: _array_column(np.asarray(array)) for name, array in columns.items()})


def _array_column(array: np.ndarray) -> pa.Array:
    if array.dtype == bool:
        array = array.astype(np.uint8) * np.uint8(255) if array.ndim > 1 else array
    if array.dtype.kind == "S":
        array = array.astype(str)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim < 2:
        return pa.array(array)
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(array))


def _saved(folder: Path) -> Splits:
    """What `save_to_disk` of the library `datasets` wrote."""
    if (folder / "state.json").is_file():
        return {"": lambda: _arrow(folder)}
    if not (folder / "dataset_dict.json").is_file():
        return {}
    names = _json(folder / "dataset_dict.json")["splits"]
    return {name: lambda name=name: _arrow(folder / name) for name in names}


def _arrow(folder: Path) -> pa.Table:
    state = _json(folder / "state.json")
    parts = []
    for file in (folder / each["filename"] for each in state["_data_files"]):
        try:
            parts.append(pa.ipc.open_stream(pa.memory_map(str(file))).read_all())
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(file, error) from error
    return pa.concat_tables(parts)


def _json(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from error


def _image_folders(folder: Path) -> Splits:
    """A folder for each class, or for each split with folders of classes."""
    inner = _folders(folder)
    splits = {each.name: each for each in inner if each.name.lower() in SPLITS}
    if splits:
        return {name: lambda each=each: _images_by_class(each) for name, each in splits.items()}
    return {"": lambda: _images_by_class(folder)} if inner else {}


def _images_by_class(folder: Path) -> pa.Table:
    """The path of every image below the folder of its class, which is its label."""
    paths, labels = [], []
    for of_class in _folders(folder):
        files = [file for file in sorted(of_class.rglob("*")) if file.is_file() and not file.name.startswith(".")]
        if not files:
            raise UserError(
                got=f"the folder {str(of_class)!r} without images",
                wanted="a folder for each class, with its images",
                do="Fill it, or remove it.",
            )
        paths += [file.relative_to(folder).as_posix() for file in files]
        labels += [of_class.name] * len(files)
    if not paths:
        wanted = "a folder for each class, with its images"
        raise UserError(got=f"no folders of classes in {str(folder)!r}", wanted=wanted, do="Sort the images by class.")
    return pa.table({"image": paths, "label": labels})


def _folders(folder: Path) -> list[Path]:
    return [each for each in sorted(folder.iterdir()) if each.is_dir() and not each.name.startswith(".")]
