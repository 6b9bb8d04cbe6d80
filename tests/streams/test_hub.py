import builtins
import itertools
import json
import logging
import time

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from huggingface_hub import constants

from parquet_files import random_images
from pliant.errors import UserError
from pliant.streams import _hub, load_dataset

ELSEWHERE = r"--data-dir DIR or PLIANT_DATA=DIR.*--dataset digits"


def _dataset(shape=(28, 28), number=10):
    frame = pd.DataFrame({"image": random_images(number, shape), "label": np.arange(number)})
    return datasets.Dataset.from_pandas(frame)


@pytest.fixture
def hub(monkeypatch):
    """What the hub has, or what it raises."""

    def serve(content, reachable=True):
        def load(repository, config=None):
            if isinstance(content, BaseException):
                raise content
            return datasets.DatasetDict(content)

        monkeypatch.setattr(datasets, "load_dataset", load)
        if reachable:
            monkeypatch.setattr(_hub, "_obstacle", lambda: None)

    return serve


@pytest.fixture
def caches(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def test_images_of_the_hub(hub):
    hub({"train": _dataset(), "test": _dataset().select([3, 6])})
    data = load_dataset("mnist")
    assert data.train.images.shape == (10, 28, 28, 1)
    assert data.test.labels.tolist() == [3, 6]


def test_names_of_classes_of_the_hub(hub):
    names = datasets.ClassLabel(names=["cat", "owl"]), datasets.ClassLabel(names=["owl", "cat"])
    train, test = (_dataset(number=2).cast_column("label", of_split) for of_split in names)
    hub({"train": train, "test": test})
    assert load_dataset("mnist").test.labels.tolist() == [1, 0]


def test_splits_of_the_hub_are_those_of_folders(hub):
    hub({"train": _dataset(), "valid": _dataset()})
    with pytest.raises(UserError, match=r"got the splits train, valid of 'mnist' \(ylecun/mnist\); wanted 'train'"):
        load_dataset("mnist")
    assert len(load_dataset("tiny-imagenet").test.labels) == 10
    hub({"train": _dataset(), "valid": _dataset(), "test": _dataset().select([3])})
    assert len(load_dataset("mnist").test.labels) == len(load_dataset("tiny-imagenet").test.labels) == 1


def test_a_split_of_arrays_of_the_library(hub):
    features = datasets.Features({"image": datasets.Array2D((3, 2), "uint8"), "label": datasets.Value("int64")})
    images = np.arange(12, dtype=np.uint8).reshape(2, 3, 2)
    split = datasets.Dataset.from_dict({"image": list(images), "label": [0, 1]}, features)
    hub({"train": split, "test": split})
    np.testing.assert_array_equal(load_dataset("mnist").train.images[..., 0], images)


def test_offline_without_the_data_says_what_to_do(caches, capfd):
    """One message, at once, and not a line of what the libraries log."""
    message = r"got no connection to the Hugging Face hub for 'mnist' \(ylecun/mnist\): .*offline mode is enabled.*"
    with pytest.raises(UserError, match=message + ELSEWHERE):
        load_dataset("mnist")
    assert capfd.readouterr() == ("", "")


def test_what_the_network_said_is_shown(caches, monkeypatch):
    class Session:
        def head(self, url, timeout):
            try:
                raise OSError("[Errno -2] Name or service not known")
            except OSError as error:
                raise RuntimeError("connect") from error

    monkeypatch.setattr("huggingface_hub.utils.get_session", Session)
    with pytest.raises(UserError, match=r"'mnist' \(ylecun/mnist\): OSError: \[Errno -2\] Name or service not known;"):
        load_dataset("mnist")


def test_no_answer_is_not_waited_for(caches, monkeypatch):
    class Session:
        def head(self, url, timeout):
            time.sleep(0.5)

    monkeypatch.setattr("huggingface_hub.utils.get_session", Session)
    monkeypatch.setattr(_hub, "_PATIENCE", 0.001)
    with pytest.raises(UserError, match=r"'mnist' \(ylecun/mnist\): TimeoutError: no answer in 0.002 s"):
        load_dataset("mnist")


def test_offline_the_cache_is_used(hub):
    hub({"train": _dataset(), "test": _dataset()}, reachable=False)
    assert load_dataset("mnist").num_classes == 10


def _raised_from(*errors):
    for outer, inner in itertools.pairwise(errors):
        outer.__cause__ = inner
    return errors[0]


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (
            _raised_from(RuntimeError("generating"), pa.ArrowInvalid("not Arrow")),
            "ArrowInvalid: not Arrow",
        ),
        (
            PermissionError(13, "Permission denied", "/cache"),
            r"PermissionError: \[Errno 13\] Permission denied",
        ),
        (
            _raised_from(RuntimeError("writing"), OSError(28, "No space left on device")),
            r"OSError: \[Errno 28\]",
        ),
        (json.JSONDecodeError("Expecting value", "", 0), "JSONDecodeError: Expecting value"),
    ],
)
def test_the_cache_is_told_apart_from_the_data(hub, caches, error, cause):
    (caches / "datasets" / "ylecun___mnist").mkdir(parents=True)
    hub(error)
    message = rf"got {cause}.* in the cache of the Hugging Face hub while reading 'mnist'.*Remove .*ylecun___mnist; "
    with pytest.raises(UserError, match=message + ".*HF_HOME.*" + ELSEWHERE):
        load_dataset("mnist")


def test_half_a_copy_without_a_network_is_named(caches):
    (caches / "hub" / "datasets--ylecun--mnist").mkdir(parents=True)
    with pytest.raises(UserError, match=r"got no connection.*; and no whole copy in .*datasets--ylecun--mnist; wanted"):
        load_dataset("mnist")


@pytest.mark.parametrize("error", [ConnectionError("reset"), ValueError("BuilderConfig 'x' not found"), TimeoutError()])
def test_a_repository_that_cannot_be_read(hub, caches, error):
    hub(_raised_from(RuntimeError("failed"), error), reachable=False)
    with pytest.raises(
        UserError, match=r"got no connection.*" + ("" if isinstance(error, ConnectionError) else str(error))
    ):
        load_dataset("mnist")
    hub(_raised_from(RuntimeError("failed"), error))
    cause = f"{type(error).__name__}: {error}" if str(error) else "TimeoutError"
    message = rf"got no data set 'mnist' from the Hugging Face hub \(ylecun/mnist\): {cause}; wanted a repository"
    with pytest.raises(UserError, match=message):
        load_dataset("mnist")


def test_damaged_images_in_the_cache(hub, caches):
    (caches / "datasets" / "ylecun___mnist").mkdir(parents=True)
    split = datasets.Dataset.from_dict({"image": [{"bytes": random_images(1)[0]["bytes"][:-40]}], "label": [0]})
    hub({"train": split, "test": split})
    with pytest.raises(UserError, match=r"got image 0 in train of 'mnist', which cannot be .*Remove .*ylecun___mnist;"):
        load_dataset("mnist")


def test_the_libraries_are_left_as_they_were(hub):
    datasets.enable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.WARNING)
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    hub({"train": _dataset(), "test": _dataset()}, reachable=False)
    load_dataset("mnist")
    assert not datasets.utils.are_progress_bars_disabled()
    assert logging.getLogger("huggingface_hub").level == logging.WARNING
    assert before == (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE)


def test_folders_need_neither_library(monkeypatch, tmp_path):
    """What is read from a folder is in no cache that could be of an earlier version of it."""
    from parquet_files import write_both

    write_both(tmp_path)
    imported = builtins.__import__

    def refuse(name, *args, **options):
        assert not name.startswith(("datasets", "huggingface_hub"))
        return imported(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    first = load_dataset("mine", data_dir=tmp_path)
    write_both(tmp_path, random_images(8, seed=1))
    assert np.any(load_dataset("mine", data_dir=tmp_path).train.images != first.train.images)
