import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from parquet_files import random_images, write, write_both
from pliant.errors import UserError
from pliant.streams import load_dataset
from pliant.streams._parquet import data_folder, split_files


def _touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).touch()


def _found(folder, *names, test_splits=("test",), name="mine"):
    _touch(folder, *names)
    found = split_files(name, folder, test_splits)
    return found and {split: [str(file.relative_to(folder)) for file in files] for split, files in found.items()}


@pytest.mark.parametrize(
    ("train", "test", "others"),
    [
        (["train.parquet"], ["test.parquet"], ["validation.parquet", "valid-0.parquet", "val.parquet", "dev.parquet"]),
        (["train-00000-of-00001.parquet"], ["test-00000-of-00001.parquet"], ["train_test-00000-of-00001.parquet"]),
        (["train-00000-of-00001-b21b4bc9f0c3d5e6.parquet"], ["test0.parquet"], ["training_validation.parquet"]),
        (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"], ["test.parquet"], ["trainers.parquet"]),
        (["train_0.parquet", "train_1.parquet"], ["test_0.parquet"], ["test_train.parquet", "testimony.parquet"]),
        (["train-part-0.parquet", "train-part-1.parquet"], ["test-part-0.parquet"], ["test-valid.parquet"]),
        (["training.parquet"], ["testing.parquet"], ["extra_train.parquet", "part-00000.parquet"]),
        (["train_images.parquet"], ["test_images.parquet"], ["train.csv", "._train.parquet"]),
        (["Train.PARQUET"], ["Test.parquet"], ["unsupervised.parquet"]),
        (["train.parquet"], ["test.parquet"], ["train_extra.parquet", "train-clean.parquet", "test_hard.parquet"]),
        (["mine/train.parquet"], ["mine/test.parquet"], ["train.parquet", "test.parquet"]),
    ],
)
def test_a_file_belongs_to_one_split(tmp_path, train, test, others):
    assert _found(tmp_path, *train, *test, *others) == {"train": train, "test": test}


@pytest.mark.parametrize("names", [["train_test.parquet"], ["part-0.parquet"], ["train.csv", "test.csv"], []])
def test_no_file_of_a_split(tmp_path, names):
    assert _found(tmp_path, *names) is None


def test_validation_is_not_test(tmp_path):
    """But where a data set declares that it is tested on."""
    message = r"got the splits train, validation of 'mine'.*valid\.parquet.*wanted 'train' and 'test'.*rename them"
    with pytest.raises(UserError, match=message):
        _found(tmp_path, "train.parquet", "valid.parquet")
    with pytest.raises(UserError, match="wanted 'train' and 'test'"):
        load_dataset("mnist", data_dir=tmp_path)
    declared = ("test", "validation")
    assert _found(tmp_path, test_splits=declared)["test"] == ["valid.parquet"]
    assert _found(tmp_path, "test.parquet", test_splits=declared)["test"] == ["test.parquet"]
    assert _found(tmp_path)["test"] == ["test.parquet"]


def test_a_missing_split(tmp_path):
    with pytest.raises(UserError, match=r"got the splits train of 'mine' in .*\(train-0\.parquet\); wanted 'train'"):
        _found(tmp_path, "train-0.parquet")
    with pytest.raises(UserError, match=r"got the splits test of 'mine' in .*mine \(test\.parquet\)"):
        _found(tmp_path, "mine/test.parquet", "test.parquet")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train_en.parquet", "train_fr.parquet"], r"got files of 2 kinds for the split 'train'.*: train-en, train-fr"),
        (["train.parquet", "training.parquet"], r"got files of 2 kinds for the split 'train'.*: train, training"),
        (["train-00000-of-00002.parquet"], r"got the files train-00000-of-00002\.parquet .*each of the 2 parts of"),
        (["train-00001-of-00001.parquet"], "wanted each of the 1 parts of 'train' once"),
        (["train-00000-of-00001.parquet", "train.parquet"], "wanted each of the 1 parts of 'train' once"),
        ([f"train-0000{i}-of-0000{n}.parquet" for i, n in [(0, 1), (0, 2), (1, 2)]], "wanted each of the 2 parts"),
        ([f"train-00000-of-00001-{h}.parquet" for h in ("0123456789abcdef", "1123456789abcdef")], "the 1 parts of"),
    ],
)
def test_files_of_several_data_sets_and_missing_parts(tmp_path, names, message):
    with pytest.raises(UserError, match=message):
        _found(tmp_path, *names, "test.parquet")


def test_parts_are_put_together_in_order(tmp_path):
    images = random_images(4)
    for part in range(2):
        write(tmp_path, images[2 * part :][:2], [part, part], f"train-{part}.parquet")
    write(tmp_path, images, np.float64([0, 1, 0, 1]), "test.parquet")
    data = load_dataset("mine", data_dir=tmp_path)
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(data.train.images, data.test.images)


def test_parts_of_several_types(tmp_path):
    write(tmp_path, random_images(1), [0], "train-0.parquet")
    write(tmp_path, random_images(1), ["owl"], "train-1.parquet")
    write(tmp_path, random_images(1), [0], "test.parquet")
    with pytest.raises(UserError, match=r"got files of train of 'mine' with different columns: .*int64"):
        load_dataset("mine", data_dir=tmp_path)


def _with_names(table, *names):
    written = json.dumps({"info": {"features": {"label": {"names": names}}}})
    return table.replace_schema_metadata({"huggingface": written})


def test_names_in_the_files_are_read(tmp_path):
    table = pa.Table.from_pandas(pd.DataFrame({"image": random_images(2), "label": [0, 1]}))
    pq.write_table(_with_names(table, "cat", "owl"), tmp_path / "train-0.parquet")
    pq.write_table(_with_names(table, "owl", "cat"), tmp_path / "test.parquet")
    data = load_dataset("mine", data_dir=tmp_path)
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 1], [1, 0])
    pq.write_table(_with_names(table, "owl", "cat"), tmp_path / "train-1.parquet")
    with pytest.raises(UserError, match="got files of train of 'mine' that name their classes differently"):
        load_dataset("mine", data_dir=tmp_path)


def test_wrong_column(tmp_path):
    write_both(tmp_path, image="picture")
    with pytest.raises(UserError, match=r"got the columns picture, label of train.*wanted a column named image or img"):
        load_dataset("mine", data_dir=tmp_path)
    write_both(tmp_path, label="class")
    with pytest.raises(UserError, match=r"got the columns image, class of train.*wanted a column named label"):
        load_dataset("mine", data_dir=tmp_path)


def test_no_rows(tmp_path):
    write_both(tmp_path)
    write(tmp_path, [], [], "test-00000-of-00001.parquet")
    with pytest.raises(UserError, match="got no labels in test of 'mine', which is empty"):
        load_dataset("mine", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda whole: whole[:200], "Parquet magic bytes not found in footer"),
        (lambda whole: whole[:300] + b"\xff" * 200 + whole[500:], "."),
        (lambda whole: b"PK\x03\x04" + whole, "a zip archive"),
        (lambda whole: b"", "empty"),
        (lambda whole: b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (lambda whole: b"<!DOCTYPE html>", "a web page"),
        (lambda whole: b"something else entirely", "Parquet magic bytes not found"),
    ],
    ids=["truncated", "overwritten", "zip", "empty", "lfs", "web", "other"],
)
def test_damaged_files_are_named_with_the_cause(tmp_path, content, reason):
    write_both(tmp_path)
    file = tmp_path / "train-00000-of-00001.parquet"
    file.write_bytes(content(file.read_bytes()))
    with pytest.raises(UserError, match=rf"got .*{reason}.* while reading 'mine' from .*{file.name}; wanted readable"):
        load_dataset("mine", data_dir=tmp_path)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    write_both(tmp_path)

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pq, "ParquetFile", refuse)
    with pytest.raises(UserError, match=r"got Permission denied while reading 'mine' from .*train-00000"):
        load_dataset("mine", data_dir=tmp_path)


def test_where_the_folder_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for given in ("~/data", Path("~/data"), "data", "data/", "./data", tmp_path / "data"):
        assert data_folder(given).resolve() == (tmp_path / "data").resolve()
    assert data_folder(None) is None
    monkeypatch.setenv("PLIANT_DATA", "")
    assert data_folder(None) is None
    monkeypatch.setenv("PLIANT_DATA", "~/data/")
    assert data_folder(None) == tmp_path / "data"


@pytest.mark.parametrize(
    ("given", "got"),
    [
        ("nowhere", r"the data folder 'nowhere', which is not there"),
        ("file.parquet", r"the data folder 'file\.parquet', which is a file"),
        ("", "an empty name for the data folder"),
        ("~nobody-of-that-name/data", r"the data folder '~nobody-of-that-name/data'"),
        ("zero\0byte", r"the data folder 'zero\\x00byte'"),
    ],
)
@pytest.mark.parametrize("name", ["digits", "mnist", "mine"])
def test_no_folder(tmp_path, monkeypatch, given, got, name):
    """Also for the data that need none: it is a typing mistake."""
    monkeypatch.chdir(tmp_path)
    _touch(tmp_path, "file.parquet")
    with pytest.raises(UserError, match=rf"got {got}.*wanted a folder that exists.*--data-dir"):
        load_dataset(name, data_dir=given)


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"got the data folder .*\(Permission denied\); wanted a folder that exists"):
        load_dataset("mine", data_dir=tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(
        UserError, match=r"got the data folder .*mine' \(Permission denied\); wanted a folder that can be"
    ):
        load_dataset("mine", data_dir=tmp_path)


def test_missing_folder_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PLIANT_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"got the data folder .*nowhere.*PLIANT_DATA"):
        load_dataset("mnist")
    assert load_dataset("digits").num_classes == 10
