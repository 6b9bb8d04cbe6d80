"""Folders of parquet files: the files of each split, and their columns."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pliant.errors import UserError
from pliant.streams._tables import IMAGE_COLUMNS, Table, first_line

DATA_VARIABLE = "PLIANT_DATA"
SPLITS = {
    "train": "train",
    "training": "train",
    "trainset": "train",
    "test": "test",
    "testing": "test",
    "testset": "test",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "dev": "validation",
}
"""Splits by the words that name them."""
_SHARD = re.compile(r"(\d+)[-_.]of[-_.](\d+)")
_NUMBER = re.compile(r"\d+|of|(?=[0-9a-f]*\d)[0-9a-f]{8,}")
_BEGINNINGS = {
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"vers": "a Git LFS pointer, not the file that it points to",
    b"<!DO": "a web page",
    b"<htm": "a web page",
}


def data_folder(given: str | os.PathLike[str] | None) -> Path | None:
    """The given folder, or else that of the environment variable; None for neither.

    Raises:
      UserError: if there is no such folder.
    """
    text = os.fsdecode(given) if given is not None else os.environ.get(DATA_VARIABLE) or None
    if text is None:
        return None
    do = f"Name another one with --data-dir or {DATA_VARIABLE}, or leave both out to load from the hub."
    wanted = "a folder that exists"
    if not text.strip():
        raise UserError(got="an empty name for the data folder", wanted=wanted, do=do)
    try:
        folder = Path(text).expanduser()
        if folder.is_dir():
            os.scandir(folder).close()
            return folder
    except (OSError, RuntimeError, ValueError) as error:  # no permission, ~stranger, a zero byte
        raise UserError(got=f"the data folder {text!r} ({_reason(error)})", wanted=wanted, do=do) from error
    kind = "which is a file" if folder.exists() else "which is not there"
    raise UserError(got=f"the data folder {text!r}, {kind}", wanted=wanted, do=do)


def split_files(name: str, folder: Path, test_splits: Sequence[str]) -> dict[str, list[Path]] | None:
    """The parquet files of "train" and "test"; None if there are none.

    The files are in a subfolder with the name of the data set, or else in the folder itself. The first word of a file's
    name is its split; files that name two splits, such as train_test, are ignored.

    Raises:
      UserError: if a split or one of its files is missing.
    """
    for place in (folder / name, folder):
        found = _by_split(place)
        if not found:
            continue
        test = next((split for split in test_splits if split in found), None)
        if "train" not in found or test is None:
            files = sorted(file.name for of_split in found.values() for group in of_split.values() for file in group)
            raise UserError(
                got=f"the splits {', '.join(sorted(found))} of {name!r} in {place} ({', '.join(files[:8])})",
                wanted=f"'train' and {' or '.join(map(repr, test_splits))}",
                do="Name the files train-*.parquet and test-*.parquet. Validation data are not taken for test data: "
                "rename them if that is what they are.",
            )
        return {"train": _one_group("train", found["train"], place), "test": _one_group(test, found[test], place)}
    return None


def _by_split(place: Path) -> dict[str, dict[str, list[Path]]]:
    """Files by split, and by their names without numbers."""
    found: dict[str, dict[str, list[Path]]] = {}
    try:
        files = [file for file in sorted(place.iterdir()) if file.suffix.lower() == ".parquet" and file.is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return found
    except OSError as error:
        raise UserError(
            got=f"the data folder {str(place)!r} ({_reason(error)})",
            wanted="a folder that can be read",
            do="Change its permissions, or name another one.",
        ) from error
    for file in files:
        if split := split_of(file.stem):
            found.setdefault(split, {}).setdefault("-".join(_words(file.stem)), []).append(file)
    return found


def split_of(stem: str) -> str | None:
    """The split that a file's name begins with; None if it names none, or several.

    Example:
      >>> split_of("train-00000-of-00002"), split_of("train_test"), split_of("iris")
      ('train', None, None)
    """
    words = _words(stem)
    splits = {SPLITS[word] for word in words if word in SPLITS}
    return SPLITS[words[0]] if words and words[0] in SPLITS and len(splits) == 1 else None


def _words(stem: str) -> list[str]:
    """The words of a file's name, without numbers."""
    words = [word for word in re.split(r"[-_. ]+", stem.lower()) if not _NUMBER.fullmatch(word)]
    return [word.rstrip("0123456789") for word in words]


def _one_group(split: str, groups: Mapping[str, list[Path]], place: Path) -> list[Path]:
    """All files of a split; of several kinds, those that are named after the split alone."""
    bare = [name for name in groups if name in SPLITS]
    if len(groups) > 1 and len(bare) != 1:
        raise UserError(
            got=f"files of {len(groups)} kinds for the split {split!r} in {place}: {', '.join(sorted(groups))}",
            wanted="the files of one data set",
            do="Move the others, such as those of other configurations, into folders of their own.",
        )
    files = groups[bare[0]] if bare else next(iter(groups.values()))
    shards = [_SHARD.search(file.stem) for file in files]
    if any(shards):
        numbers = [tuple(map(int, shard.groups())) if shard else None for shard in shards]
        total = max(number[1] for number in numbers if number)
        if sorted(number or (-1, -1) for number in numbers) != [(index, total) for index in range(total)]:
            raise UserError(
                got=f"the files {', '.join(file.name for file in files[:8])} in {place}",
                wanted=f"each of the {total} parts of {split!r} once",
                do="Fetch what is missing, and remove what is of another version.",
            )
    return files


def read_tables(name: str, files: Mapping[str, Sequence[Path]], label_columns: Sequence[str]) -> list[Table]:
    """The images and labels of each split.

    Raises:
      UserError: for files that cannot be read, and missing columns.
    """
    return [
        as_table(
            f"{split} of {name!r}",
            [_read(file, name, label_columns) for file in of_split],
            label_columns,
            folder=of_split[0].parent,
            remedy="Fetch the files again.",
        )
        for split, of_split in files.items()
    ]


def as_table(
    what: str, parts: Sequence[pa.Table], label_columns: Sequence[str], *, folder: Path | None, remedy: str
) -> Table:
    """The image and label columns of all files of a split."""
    image, label = (_column(what, parts[0].schema.names, columns) for columns in (IMAGE_COLUMNS, label_columns))
    names = {class_names(part.schema, label) for part in parts}
    try:
        whole = pa.concat_tables([part.select([image, label]) for part in parts], promote_options="permissive")
    except pa.ArrowException as error:
        raise UserError(
            got=f"files of {what} with different columns: {first_line(error)}",
            wanted="files with the same columns",
            do="Write them alike.",
        ) from error
    if len(names) > 1:
        raise UserError(
            got=f"files of {what} that name their classes differently",
            wanted="the same names in each",
            do="Write them alike.",
        )
    return Table(whole[image], whole[label], names.pop(), what, folder, remedy)


def _read(file: Path, name: str, label_columns: Sequence[str]) -> pa.Table:
    """The image and label columns of a file."""
    try:
        with pq.ParquetFile(file) as opened:
            names = opened.schema_arrow.names
            columns = [_column(f"{file.name} of {name!r}", names, wanted) for wanted in (IMAGE_COLUMNS, label_columns)]
            groups = [opened.read_row_group(index, columns=columns) for index in range(opened.num_row_groups)]
            return pa.concat_tables(groups) if groups else opened.schema_arrow.empty_table().select(columns)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            got=f"{_beginning(file) or _reason(error)} while reading {name!r} from {file}",
            wanted="readable parquet files",
            do="Fetch the file again.",
        ) from error


def _beginning(file: Path) -> str | None:
    """What a file is if it is not parquet, by its first bytes."""
    try:
        with file.open("rb") as opened:
            start = opened.read(4)
    except OSError:
        return None
    return next((kind for magic, kind in _BEGINNINGS.items() if start.startswith(magic)), None if start else "empty")


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error) or type(error).__name__


def _column(what: str, names: Sequence[str], wanted: Sequence[str]) -> str:
    for column in wanted:
        if column in names:
            return column
    raise UserError(
        got=f"the columns {', '.join(names)} of {what}",
        wanted=f"a column named {' or '.join(wanted)}",
        do="Rename the column, or use the data set's own files.",
    )


def class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    """Class names in the metadata that the Hugging Face library writes."""
    written = (schema.metadata or {}).get(b"huggingface")
    try:
        return tuple(json.loads(written)["info"]["features"][label]["names"]) if written else ()
    except (ValueError, KeyError, TypeError):
        return ()
