import base64

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from parquet_files import as_image, encoded, random_images, write, write_both
from pliant.errors import UserError
from pliant.streams import load_dataset

PIXELS = np.random.default_rng(0).integers(0, 255, (2, 6, 5, 3), dtype=np.uint8)


def _load(folder, images, test=None):
    write_both(folder, images, [0, 1])
    if test is not None:
        write(folder, test, [0, 1], "test-00000-of-00001.parquet")
    return load_dataset("mine", data_dir=folder)


def _lists(array):
    return list(array.tolist())


@pytest.mark.parametrize("kind", ["structs", "without path", "bytes", "text"])
def test_encoded_images(tmp_path, kind):
    files = [encoded(image) for image in PIXELS]
    for number, file in enumerate(files):
        (tmp_path / f"{number}.png").write_bytes(file)
    train = {
        "structs": [as_image(file) for file in files],
        "without path": [{"bytes": file} for file in files],
        "bytes": files,
        "text": ["0.png", str(tmp_path / "1.png")],  # beside the parquet file, or anywhere
    }[kind]
    data = _load(tmp_path, train, [as_image(file) for file in files])
    np.testing.assert_array_equal(data.train.images, PIXELS)


def test_paths_without_bytes(tmp_path):
    for number, image in enumerate(PIXELS):
        (tmp_path / f"{number}.png").write_bytes(encoded(image))
    data = _load(tmp_path, [{"path": f"{number}.png"} for number in range(2)], [encoded(image) for image in PIXELS])
    np.testing.assert_array_equal(data.train.images, PIXELS)


@pytest.mark.parametrize(
    ("dtype", "largest", "kept"),
    [
        (np.uint8, 255, np.uint8),
        (np.uint16, 65535, np.uint16),
        (np.int16, np.nan, np.int32),
        (np.int64, np.nan, np.int32),
        (np.uint64, np.nan, np.int32),
        (np.float16, 1, np.float32),
        (np.float64, 1, np.float32),
    ],
)
def test_lists_of_numbers(tmp_path, dtype, largest, kept):
    column = pa.array(_lists(PIXELS), pa.list_(pa.list_(pa.list_(pa.from_numpy_dtype(dtype)))))
    table = pa.table({"image": column, "label": [0, 1]})
    for split in ("train", "test"):
        pq.write_table(table, tmp_path / f"{split}.parquet")
    data = load_dataset("mine", data_dir=tmp_path)
    np.testing.assert_array_equal(data.train.images, PIXELS)
    assert data.train.images.dtype == kept
    np.testing.assert_equal(data.largest, largest)


@pytest.mark.parametrize(
    "column",
    [
        pa.array(_lists(PIXELS[..., 0]), pa.list_(pa.list_(pa.uint8(), 5), 6)),
        pa.array(_lists(PIXELS[..., 0]), pa.large_list(pa.list_(pa.uint8()))),
        pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(PIXELS[..., 0])),
    ],
    ids=["fixed", "large", "tensor"],
)
def test_lists_of_other_kinds(tmp_path, column):
    for split in ("train", "test"):
        pq.write_table(pa.table({"image": column, "label": [3, 9]}), tmp_path / f"{split}.parquet")
    data = load_dataset("mine", data_dir=tmp_path)
    np.testing.assert_array_equal(data.train.images, PIXELS[..., :1])


def test_lists_of_bits(tmp_path):
    bits = PIXELS[..., 0] > 100
    data = _load(tmp_path, _lists(bits))
    np.testing.assert_array_equal(data.train.images[..., 0], 255 * bits)


def test_a_subset_of_lists(tmp_path):
    write(tmp_path, _lists(np.arange(4)[:, None, None] * np.ones((4, 2, 3), int)), [1, 0, 0, 1])
    write(tmp_path, _lists(np.zeros((2, 2, 3), int)), [1, 0], "test.parquet")
    data = load_dataset("mine", data_dir=tmp_path, train_size=2)
    assert data.train.labels.tolist() == np.array([1, 0, 0, 1])[data.train.images[:, 0, 0, 0]].tolist()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([[0, 1, 2, 3]] * 2, "got images as lists of 4 numbers in train of 'mine'; wanted height × wide"),
        (_lists(PIXELS.transpose(0, 3, 1, 2)), "got images as lists of 3 × 6 × 5 numbers.*channels come last"),
        (_lists(PIXELS[None].repeat(2, 0)), "got images as lists of 2 × 6 × 5 × 3 numbers"),
        ([[[]], [[]]], "got images as lists of 1 × 0 numbers|got lists of null"),
        ([[[1, 2], [3]], [[1, 2], [3, 4]]], "got lists of 1, 2 numbers in train of 'mine'; wanted images of one size"),
        ([[[1, 2]], [[3, 4], [5, 6]]], "got lists of 1, 2 numbers in train of 'mine'; wanted images of one size"),
        ([[[1, None]], [[1, 2]]], "got 1 missing images or numbers in train of 'mine'"),
        ([[["a"]], [["b"]]], "got lists of .*string as images in train of 'mine'"),
        ([[[2**40]], [[0]]], "got numbers from 0 to 1099511627776 in the images of train of 'mine'; wanted .* 32 bits"),
        ([[[np.inf]], [[0.0]]], "got 1 images in train of 'mine' with numbers that are not finite in float32"),
        ([[[1e300]], [[0.0]]], "got 1 images in train of 'mine' with numbers that are not finite in float32"),
        ([as_image(encoded(PIXELS[0])), None], "got 1 missing images or numbers in train of 'mine'"),
        ([as_image(None), as_image(b"")], "got an image in train of 'mine' with neither bytes nor a path"),
        (
            [as_image(None, "gone.png")] * 2,
            r"got 'gone\.png' as an image in train of 'mine', which names no file",
        ),
        (["https://a.org/b.png"] * 2, r"got 'https://a\.org/b\.png' as an image in train of 'mine', which names no"),
        ([base64.b64encode(encoded(PIXELS[0])).decode()] * 2, r"got 'iVBORw0.*…' as an image .*wanted encoded images"),
        ([3, 4], "got images of type int64 in train of 'mine'; wanted encoded images, or lists"),
        ([{"data": b"x"}] * 2, "got images of type struct<data: binary> in train of 'mine'"),
        ([PIXELS[0].tobytes()] * 2, "got image 0 in train of 'mine', whose 90 bytes are no image"),
        ([encoded(PIXELS[0]), encoded(PIXELS[1])[:-40]], "got image 1 in train of 'mine', which cannot be decoded"),
    ],
)
def test_what_is_no_image(tmp_path, images, message):
    with pytest.raises(UserError, match=message):
        _load(tmp_path, images)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (
            random_images(2, (5, 6)),
            r"several sizes: train of 'mine': 6×5 \(2\); test of 'mine': 5×6 \(2\)",
        ),
        ([encoded(image.astype(np.uint16) * 256) for image in PIXELS[..., 0]], r"several ranges.*test.*: I;16 \(2\)"),
        (_lists(PIXELS.astype(float)), r"several ranges: train of 'mine': RGB \(2\); test of 'mine': lists of float64"),
        (_lists(PIXELS[..., [0, 0, 1, 2]].astype(np.uint8)), "several ranges"),
    ],
    ids=["size", "16 bits", "floats", "integers"],
)
def test_what_differs_between_train_and_test_is_found_at_loading(tmp_path, test, message):
    with pytest.raises(UserError, match=message):
        _load(tmp_path, [encoded(image) for image in PIXELS], test)


def test_channels_that_differ(tmp_path):
    """Grey images become colours; other numbers of channels are refused."""
    grey = [encoded(image) for image in PIXELS[..., 0]]
    assert _load(tmp_path, grey, [encoded(image) for image in PIXELS]).train.images.shape == (2, 6, 5, 3)
    two, three = (_lists(PIXELS[..., :channels].astype(float)) for channels in (2, 3))
    with pytest.raises(UserError, match=r"got images of several numbers of channels: train of 'mine': 2 \(lists of"):
        _load(tmp_path, two, three)


def test_a_file_that_is_in_both_splits(tmp_path):
    """Equal names alone say nothing: many data sets number the images of each split from 0."""
    files = [encoded(image) for image in PIXELS]
    train = [as_image(file, f"{number}.png") for number, file in enumerate(files)]
    assert len(_load(tmp_path, train, [as_image(file, "0.png") for file in files[1:] * 2]).test.labels) == 2
    with pytest.raises(UserError, match=r"got the image file '1\.png' in test of 'mine' \(image 0\) and in the trai"):
        _load(tmp_path, train, train[::-1])


def test_large_files_of_several_row_groups(tmp_path):
    table = pa.Table.from_pandas(pd.DataFrame({"image": random_images(5), "label": [4, 3, 2, 1, 0]}))
    for split in ("train", "test"):
        pq.write_table(table, tmp_path / f"{split}.parquet", row_group_size=2)
    assert load_dataset("mine", data_dir=tmp_path).train.labels.tolist() == [4, 3, 2, 1, 0]
