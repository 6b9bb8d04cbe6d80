from pathlib import Path

import numpy as np
import pytest

from parquet_files import as_image, encoded, random_images, write, write_both
from pliant import streams
from pliant.errors import UserError
from pliant.streams import DATASETS, load_dataset, random_labels
from strict_types import unchecked


@pytest.fixture
def folder(tmp_path):
    write_both(tmp_path)
    return tmp_path


@pytest.fixture
def mnist(tmp_path):
    """What could be MNIST."""
    write_both(tmp_path, random_images(10, (28, 28)), np.arange(10))
    return tmp_path


def test_digits_are_split_and_standardised():
    digits = load_dataset("digits")
    assert digits.train.images.shape == (1621, 8, 8, 1)
    assert digits.test.images.shape == (176, 8, 8, 1)
    assert digits.train.images.dtype == np.uint8
    assert (digits.largest, digits.classes, digits.is_renumbered) == (16, tuple(range(10)), False)
    normalised = (digits.train.images - digits.mean.astype(float)) / digits.std
    np.testing.assert_allclose(normalised.mean(0), 0.0, atol=1e-5)
    spread = normalised.std(0)
    assert np.all((np.abs(spread - 1) < 1e-5) | (spread == 0))


def test_the_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    theirs = load_digits()
    with np.load(Path(streams.__file__).with_name("digits.npz")) as ours:
        assert ours["images"].dtype == ours["labels"].dtype == np.uint8
        np.testing.assert_array_equal(ours["images"], theirs.images)
        np.testing.assert_array_equal(ours["labels"], theirs.target)


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
def test_parquet_folder(mnist, place):
    if place == "mnist":
        files = list(mnist.glob("*.parquet"))
        (mnist / "mnist").mkdir()
        for file in files:
            file.rename(mnist / "mnist" / file.name)
    data = load_dataset("mnist", data_dir=mnist)
    assert data.train.images.shape == (10, 28, 28, 1)
    assert data.num_classes == 10
    assert data.mean.shape == (1, 1, 1)


def test_folder_from_the_environment(folder, monkeypatch):
    monkeypatch.setenv("PLIANT_DATA", f"{folder}/")
    assert load_dataset("mine").train.labels.tolist() == [0, 1, 2, 3] * 2


@pytest.mark.parametrize("columns", [{"image": "img"}, {"label": "fine_label"}])
def test_column_names_of_the_hub(tmp_path, columns):
    write_both(tmp_path, random_images(100, (32, 32, 3)), np.arange(100), **columns)
    assert load_dataset("cifar100", data_dir=tmp_path).num_classes == 100


def test_data_of_ones_own_keep_their_name(folder):
    data = load_dataset("my-birds", data_dir=folder)
    assert (data.name, data.train.images.shape, data.num_classes) == ("my-birds", (8, 6, 5, 1), 4)
    assert random_labels(data).dataset == "my-birds"


@pytest.mark.parametrize(
    ("shape", "number"), [((28, 28), 9), ((28, 28, 3), 10), ((27, 28), 10)], ids=["classes", "channels", "size"]
)
def test_other_data_are_not_mnist(tmp_path, shape, number):
    write_both(tmp_path, random_images(number, shape), np.arange(number))
    message = rf"got images of shape .* in {number} classes for 'mnist'.*wanted shape \(28, 28, 1\) and 10 classes"
    with pytest.raises(UserError, match=message + r".*--dataset my-mnist --data-dir"):
        load_dataset("mnist", data_dir=tmp_path)
    assert load_dataset("my-mnist", data_dir=tmp_path).num_classes == number


def test_every_named_data_set_has_a_shape_and_classes():
    assert all(source.shape and source.num_classes for source in DATASETS.values())


@pytest.mark.parametrize("name", ["", "a b", ".mnist", "a\\b", "-x", "x" * 65])
def test_names_are_parts_of_file_names(folder, name):
    with pytest.raises(UserError, match="wanted a name of at most 64 letters, digits"):
        load_dataset(name, data_dir=folder)


@pytest.mark.parametrize("name", ["MNIST", "cifar-10", "Tiny_ImageNet", "Digits"])
def test_a_known_name_written_otherwise_is_no_name_of_ones_own(folder, name):
    with pytest.raises(UserError, match=rf"got the data set {name!r}; wanted one of cifar10"):
        load_dataset(name, data_dir=folder)


def test_unknown_name(tmp_path, monkeypatch):
    for _ in range(2):
        with pytest.raises(UserError, match=r"got the data set 'mnits'.*Did you mean 'mnist'\?.*--data-dir DIR"):
            load_dataset("mnits")
        monkeypatch.setenv("PLIANT_DATA", str(tmp_path))  # where there is no such data set


def test_digits_have_no_folder(folder, monkeypatch):
    with pytest.raises(UserError, match=r"for 'digits', which are embedded.*wanted a data set that is read from it"):
        load_dataset("digits", data_dir=folder)
    monkeypatch.setenv("PLIANT_DATA", str(folder))
    assert len(load_dataset("digits").train.labels) == 1621


def test_empty_folder(tmp_path):
    message = r"got no train\*.parquet.*, which is empty; wanted the data set 'mnist'.*--data-dir or PLIANT_DATA"
    with pytest.raises(UserError, match=message):
        load_dataset("mnist", data_dir=tmp_path)
    (tmp_path / "images.zip").touch()
    with pytest.raises(UserError, match=r"but images\.zip; wanted the data set 'mine'"):
        load_dataset("mine", data_dir=tmp_path)


def test_standardisation_by_half_of_what_the_type_can_say(tmp_path):
    """Not of the largest value: dark images of 8 bits are no counts up to 16."""
    write_both(tmp_path, [as_image(encoded(np.full((6, 5), value, np.uint8))) for value in (0, 9)], [0, 1])
    data = load_dataset("dark", data_dir=tmp_path, standardize="half")
    assert (data.mean.item(), data.std.item(), data.largest) == (127.5, 127.5, 255)
    digits = load_dataset("digits", standardize="half")
    assert (digits.mean.item(), digits.std.item()) == (8, 8)


@pytest.mark.parametrize(
    ("values", "dtype"), [((0.0, 1.5), np.float32), ((-0.5, 1.0), np.float64), ((0, 255), np.int64)], ids=str
)
def test_no_half_of_a_range_that_is_not_known(tmp_path, values, dtype):
    images = [np.full((3, 2), value, dtype).tolist() for value in values]
    write_both(tmp_path, images, [0, 1])
    with pytest.raises(UserError, match=r"got standardize='half' for 'mine', whose images are .*wanted images of 8 or"):
        load_dataset("mine", data_dir=tmp_path, standardize="half")
    assert load_dataset("mine", data_dir=tmp_path).std.item() == np.ptp(values) / 2


def test_floating_point_images_reach_from_0_to_1(tmp_path):
    write_both(tmp_path, [np.full((3, 2), value).tolist() for value in (0.0, 0.5)], [0, 1])
    data = load_dataset("mine", data_dir=tmp_path, standardize="half")
    assert (data.largest, data.mean.item(), data.train.images.dtype) == (1, 0.5, np.float32)


def test_constant_floating_point_images_are_not_blown_up(tmp_path):
    write_both(tmp_path, [np.full((3, 2), 0.1).tolist()] * 3, [0, 1, 2])
    assert load_dataset("mine", data_dir=tmp_path).std.item() == 1


def test_unknown_standardisation():
    with pytest.raises(UserError, match=r"standardize='quarter'.*wanted 'default', 'channel', 'pixel' or 'half'"):
        unchecked(load_dataset)("digits", standardize="quarter")


def test_images_in_use_decide(tmp_path):
    """A subset is decoded alone, and its labels are those of the whole."""
    images = [*random_images(4), as_image(b"damaged")]
    write(tmp_path, images[::-1], [7, 7, 3, 7, 3])
    write(tmp_path, random_images(2), [3, 7], "test.parquet")
    with pytest.raises(UserError, match="got image 0 in train of 'mine'"):
        load_dataset("mine", data_dir=tmp_path)
    data = load_dataset("mine", data_dir=tmp_path, train_size=2)
    assert (len(data.train.images), data.classes, data.is_renumbered) == (2, (3, 7), True)


@pytest.mark.parametrize(
    ("name", "place", "shape", "classes"),
    [
        ("mnist", "mnist", (28, 28, 1), 10),
        ("cifar10", "cifar10", (32, 32, 3), 10),
        ("cifar100", "cifar100", (32, 32, 3), 100),
        ("emnist_mnist_10k", ".", (28, 28, 1), 10),
        ("tiny_imagenet_20", "tiny_imagenet_20", (64, 64, 3), 20),
    ],
)
def test_real_data(data_dir, name, place, shape, classes):
    data = load_dataset(name, data_dir=data_dir / place, train_size=300, test_size=100)
    assert data.train.images.shape == (300, *shape)
    assert data.test.images.shape == (100, *shape)
    assert data.num_classes == classes
    assert not data.is_renumbered
    assert data.train.images.dtype == np.uint8
    normalised = (data.train.images - data.mean.astype(float)) / data.std
    np.testing.assert_allclose(normalised.mean((0, 1, 2)), 0.0, atol=1e-4)
    np.testing.assert_allclose(normalised.std((0, 1, 2)), 1.0, atol=1e-4)


def test_a_part_of_a_named_data_set_is_not_the_named_one(data_dir):
    with pytest.raises(UserError, match=r"in 20 classes for 'tiny-imagenet'.*wanted shape \(64, 64, 3\) and 200"):
        load_dataset("tiny-imagenet", data_dir=data_dir / "tiny_imagenet_20", train_size=20, test_size=20)


@pytest.mark.slow
def test_statistics_of_mnist_are_the_published_ones(data_dir):
    data = load_dataset("mnist", data_dir=data_dir)
    np.testing.assert_allclose(data.mean / 255, 0.1307, atol=1e-4)
    np.testing.assert_allclose(data.std / 255, 0.3081, atol=1e-4)


def test_an_old_name_is_refused_with_the_new_one():
    with pytest.raises(UserError, match=r"got pliant.streams.Source; wanted pliant.streams.Origin"):
        streams.Source  # noqa: B018
    assert not hasattr(streams, "Nothing")
