import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pliant.errors import UserError
from pliant.streams import load_dataset


def _png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def _write(folder, split, size=20, *, image="image", label="label", shape=(6, 5), labels=None):
    draw = np.random.default_rng(0)
    images = [_png(draw.integers(0, 255, shape, dtype=np.uint8)) for _ in range(size)]
    labels = np.arange(size) % 4 if labels is None else labels
    pd.DataFrame({image: images, label: labels}).to_parquet(folder / f"{split}-00000-of-00001.parquet")


@pytest.fixture
def folder(tmp_path):
    _write(tmp_path, "train")
    _write(tmp_path, "test", 8)
    return tmp_path


def test_digits_are_split_and_standardised():
    digits = load_dataset("digits")
    assert digits.train.images.shape == (1621, 8, 8, 1)
    assert digits.test.images.shape == (176, 8, 8, 1)
    assert digits.train.images.dtype == np.uint8
    normalised = (digits.train.images - digits.mean.astype(float)) / digits.std
    np.testing.assert_allclose(normalised.mean(0), 0.0, atol=1e-5)
    spread = normalised.std(0)
    assert np.all((np.abs(spread - 1) < 1e-5) | (spread == 0))


def test_digits_train_and_test_share_no_position():
    from sklearn.datasets import load_digits

    digits = load_dataset("digits")
    both = np.concatenate([digits.train.images, digits.test.images]).reshape(1797, 64)
    fingerprints = [np.sort(images.astype(int) @ np.arange(1, 65) ** 2) for images in (both, load_digits().data)]
    np.testing.assert_array_equal(*fingerprints)


@pytest.mark.parametrize("size", [10, 100, 103])
def test_subsets_are_balanced_and_the_same_each_time(size):
    first, again = (load_dataset("digits", train_size=size) for _ in range(2))
    counts = np.bincount(first.train.labels)
    assert counts.sum() == size
    assert np.ptp(counts) <= 1
    np.testing.assert_array_equal(first.train.images, again.train.images)


@pytest.mark.parametrize("size", [0, 1600])
def test_subset_that_cannot_be_balanced(size):
    with pytest.raises(UserError, match=rf"got a subset of {size} training images.*wanted 1 to 1\d\d0"):
        load_dataset("digits", train_size=size)


@pytest.mark.parametrize("place", [".", "mnist"])
def test_parquet_folder(folder, place):
    if place == "mnist":
        inner = folder / "mnist"
        inner.mkdir()
        for file in list(folder.glob("*.parquet")):
            file.rename(inner / file.name)
    data = load_dataset("mnist", data_dir=folder)
    assert data.train.images.shape == (20, 6, 5, 1)
    assert data.num_classes == 4
    assert data.mean.shape == (1, 1, 1)


def test_folder_from_the_environment(folder, monkeypatch):
    monkeypatch.setenv("PLIANT_DATA", str(folder))
    assert load_dataset("cifar10").train.labels.tolist() == [0, 1, 2, 3] * 5


@pytest.mark.parametrize("columns", [{"image": "img"}, {"label": "fine_label"}])
def test_column_names_of_the_hub(tmp_path, columns):
    _write(tmp_path, "train", **columns)
    _write(tmp_path, "test", **columns)
    assert load_dataset("cifar100", data_dir=tmp_path).num_classes == 4


def test_unknown_name():
    with pytest.raises(UserError, match=r"got the data set 'mnits'.*Did you mean 'mnist'\?"):
        load_dataset("mnits")


def test_empty_folder(tmp_path):
    message = r"got no train\*.parquet.*wanted the data set 'mnist'.*--data-dir or PLIANT_DATA"
    with pytest.raises(UserError, match=message):
        load_dataset("mnist", data_dir=tmp_path)


def test_wrong_column(tmp_path):
    _write(tmp_path, "train", image="picture")
    _write(tmp_path, "test", image="picture")
    with pytest.raises(UserError, match=r"got the columns picture, label.*wanted a column named image or img"):
        load_dataset("mnist", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_missing_folder(name, tmp_path):
    """Also for the data that needs none: it is a typing mistake."""
    with pytest.raises(UserError, match=r"got the data folder .*nowhere.*wanted a folder that exists.*--data-dir"):
        load_dataset(name, data_dir=tmp_path / "nowhere")


def test_missing_folder_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PLIANT_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"got the data folder .*nowhere.*PLIANT_DATA"):
        load_dataset("mnist")
    assert load_dataset("digits").num_classes == 10


def test_truncated_parquet(folder):
    file = folder / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UserError, match=r"while reading 'mnist' from .*wanted readable parquet files"):
        load_dataset("mnist", data_dir=folder)


def test_images_of_several_sizes(tmp_path):
    images = [_png(np.zeros(shape, np.uint8)) for shape in [(4, 4), (5, 5)]]
    for split in ("train", "test"):
        pd.DataFrame({"image": images, "label": [0, 1]}).to_parquet(tmp_path / f"{split}.parquet")
    with pytest.raises(UserError, match="cannot be decoded into one array"):
        load_dataset("mnist", data_dir=tmp_path)


def test_labels_that_are_no_classes(tmp_path):
    _write(tmp_path, "train", labels=np.linspace(0, 1, 20))
    _write(tmp_path, "test")
    with pytest.raises(UserError, match="wanted class numbers"):
        load_dataset("mnist", data_dir=tmp_path)


def test_offline_without_the_data_says_what_to_do(monkeypatch, tmp_path):
    import datasets

    def offline(*args, **kwargs):
        raise ConnectionError("no route to the hub")

    monkeypatch.delenv("PLIANT_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(UserError, match=r"ylecun/mnist.*--data-dir DIR or PLIANT_DATA=DIR.*--dataset digits"):
        load_dataset("mnist")


@pytest.mark.parametrize(
    ("name", "place", "shape", "classes"),
    [
        ("mnist", "mnist", (28, 28, 1), 10),
        ("cifar10", "cifar10", (32, 32, 3), 10),
        ("cifar100", "cifar100", (32, 32, 3), 100),
        ("emnist", "emnist_mnist_10k", (28, 28, 1), 10),
        ("tiny-imagenet", "tiny_imagenet_20", (64, 64, 3), 20),
    ],
)
def test_real_data(data_dir, name, place, shape, classes):
    data = load_dataset(name, data_dir=data_dir / place, train_size=300, test_size=100)
    assert data.train.images.shape == (300, *shape)
    assert data.test.images.shape == (100, *shape)
    assert data.num_classes == classes
    assert data.train.images.dtype == np.uint8
    normalised = (data.train.images - data.mean.astype(float)) / data.std
    np.testing.assert_allclose(normalised.mean((0, 1, 2)), 0.0, atol=1e-4)
    np.testing.assert_allclose(normalised.std((0, 1, 2)), 1.0, atol=1e-4)


@pytest.mark.slow
def test_statistics_of_mnist_are_the_published_ones(data_dir):
    data = load_dataset("mnist", data_dir=data_dir)
    np.testing.assert_allclose(data.mean / 255, 0.1307, atol=1e-4)
    np.testing.assert_allclose(data.std / 255, 0.3081, atol=1e-4)
