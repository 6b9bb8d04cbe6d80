"""Data sets of one's own: every kind of file, every odd one, arrays and objects."""

from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import PIL.Image
import pytest

from pliant.errors import UserError
from pliant.streams import _own, from_arrays, load_dataset
from pliant.streams._own import is_own

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 6, 5), dtype=np.uint8)
LABELS = np.arange(40) % 4


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _frame():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 3)), columns=["a", "b", "c"])
    return frame.assign(label=np.array(["owl", "cat"])[np.arange(40) % 2])


def _folder(place, *classes, number=12, first=0):
    for index, name in enumerate(classes):
        (place / name).mkdir(parents=True)
        for image in range(number):
            PIL.Image.fromarray(PIXELS[first + index * number + image]).save(place / name / f"{image}.png")


def _as_hugging_face():
    found = datasets.Dataset.from_dict({"image": [PIL.Image.fromarray(each) for each in PIXELS], "label": LABELS})
    return found.cast_column("label", datasets.ClassLabel(names=list("wxyz")))


def test_what_is_a_path_and_what_is_a_name():
    own = ["./mnist", "uoft-cs/cifar10", "~x", "mine.npz", "mine.CSV", "mine.npy"]
    assert [name for name in [*own, "mnist", "my-data", "v1.2"] if is_own(name)] == own


@pytest.mark.parametrize(
    ("arrays", "train", "test"),
    [
        ({"x_train": PIXELS, "y_train": LABELS, "x_test": PIXELS[:8], "y_test": LABELS[:8]}, (40, 6, 5, 1), 8),
        ({"train_images": PIXELS, "train_labels": LABELS[:, None], "test_images": PIXELS, "test_labels": LABELS},
         (40, 6, 5, 1), 40),
        ({"images": PIXELS, "labels": LABELS}, (36, 6, 5, 1), 4),
        ({"x": PIXELS / 255, "y": np.array(list("abcd"))[LABELS]}, (36, 6, 5, 1), 4),
        ({"x": PIXELS.reshape(40, 30), "y": LABELS}, (36, 1, 30, 1), 4),
    ],
)  # fmt: skip
def test_arrays_of_a_file(arrays, train, test):
    np.savez("mine.npz", **arrays)
    found = load_dataset("mine.npz")
    assert found.name == "mine"
    assert (found.train.images.shape, len(found.test.labels)) == (train, test)
    np.testing.assert_array_equal(np.unique(found.train.labels), range(4))


def test_without_a_test_split_every_tenth_example_of_a_class_is_one():
    found = from_arrays(PIXELS, LABELS)
    is_test = np.arange(40) // 4 == 9
    np.testing.assert_array_equal(found.test.images[..., 0], PIXELS[is_test])
    np.testing.assert_array_equal(found.train.images[..., 0], PIXELS[~is_test])
    assert found.test.labels.tolist() == [0, 1, 2, 3]


def test_rows_of_numbers_are_standardised_one_by_one_or_shaped():
    np.savez("rows.npz", x=PIXELS.reshape(40, 30), y=LABELS)
    assert load_dataset("rows.npz").mean.shape == (1, 30, 1)
    shaped = load_dataset("rows.npz:shape=6x5")
    assert shaped.mean.shape == (1, 1, 1)
    np.testing.assert_array_equal(shaped.train.images, from_arrays(PIXELS, LABELS).train.images)


@pytest.mark.parametrize("file", ["mine.csv", "mine.tsv", "mine.parquet"])
def test_a_table_of_numbers(file):
    write = {"csv": _frame().to_csv, "tsv": _frame().to_csv, "parquet": _frame().to_parquet}[file.split(".")[1]]
    write(file, index=False, **({"sep": "\t"} if file.endswith("tsv") else {}))
    found = load_dataset(file)
    assert (found.train.images.shape, found.classes) == ((36, 1, 3, 1), ("cat", "owl"))
    images = (found.train.images - found.mean) / found.std
    np.testing.assert_allclose(images.std(axis=0), 1, rtol=1e-5)


def test_tables_by_split_and_columns_by_name(here):
    (here / "tables").mkdir()
    for split in ("train", "test"):
        _frame().rename(columns={"label": "species"}).to_csv(f"tables/{split}.csv", index=False)
    found = load_dataset("./tables:label=species")
    assert (found.name, len(found.train.labels), len(found.test.labels)) == ("tables", 40, 40)


@pytest.mark.parametrize("split", [True, False])
def test_images_by_class(here, split):
    for place in [here / "images" / "train", here / "images" / "test"] if split else [here / "images"]:
        _folder(place, "owl", "cat", **({"number": 3, "first": 30} if place.name == "test" else {}))
    found = load_dataset("images/")
    assert (found.classes, found.train.images.shape[1:]) == (("cat", "owl"), (6, 5, 1))
    assert (len(found.train.labels), len(found.test.labels)) == ((24, 6) if split else (22, 2))


def test_paths_of_images_in_a_table(here):
    _folder(here / "images", "owl", "cat")
    paths = [f"images/{name}/{image}.png" for name in ("owl", "cat") for image in range(12)]
    pd.DataFrame({"file": paths, "label": ["o"] * 12 + ["c"] * 12}).to_csv("table.csv", index=False)
    np.testing.assert_array_equal(load_dataset("table.csv").test.images[0, ..., 0], PIXELS[9])


def test_what_the_library_of_hugging_face_saved(here):
    with (
        datasets.utils.logging.silence() if hasattr(datasets.utils.logging, "silence") else pytest.MonkeyPatch.context()
    ):
        _as_hugging_face().save_to_disk(str(here / "one"))
        both = datasets.DatasetDict({"train": _as_hugging_face(), "test": _as_hugging_face().select([1, 2])})
        both.save_to_disk(str(here / "two"))
    assert len(load_dataset("./one").test.labels) == 4
    assert load_dataset("./two").test.labels.tolist() == [1, 2]


def test_any_repository_of_the_hub_with_its_columns_and_splits(monkeypatch):
    asked = []

    def splits(name, hub, config):
        asked.append((name, hub, config))
        table = _as_hugging_face().rename_columns({"image": "picture", "label": "kind"}).with_format("arrow")[:]
        return {"training": lambda: table, "eval": lambda: table.slice(0, 5)}

    monkeypatch.setattr(_own, "hub_splits", splits)
    found = load_dataset("some/birds:config=small:image=picture:label=kind:test=eval")
    assert asked == [("some-birds", "some/birds", "small")]
    assert (found.name, len(found.train.labels), len(found.test.labels)) == ("some-birds", 40, 5)
    with pytest.raises(UserError, match=r"got the splits training, eval of 'some/birds'; wanted 'train' and 'test'"):
        load_dataset("some/birds:image=picture:label=kind")


def test_a_data_set_of_a_users_file(here):
    (here / "my.py").write_text(
        "import numpy as np\nfrom pliant.streams import from_arrays\n"
        "def data():\n  return from_arrays(np.zeros((20, 3, 3)), np.arange(20) % 2, name='zeros')\n"
        "mine = data()\ndef three():\n  return 3\n"
    )
    assert load_dataset("my.py:data").name == load_dataset("my.py:mine").name == "zeros"
    with pytest.raises(UserError, match=r"got int from 'my.py:three'; wanted a pliant.streams.Dataset"):
        load_dataset("my.py:three")
    with pytest.raises(UserError, match=r"got no 'ours' in 'my.py'; wanted a pliant.streams.Dataset, or a function"):
        load_dataset("my.py:ours")


def test_a_data_set_as_an_object():
    mine = from_arrays(PIXELS, LABELS, PIXELS, LABELS)
    assert load_dataset(mine) is mine
    few = load_dataset(mine, train_size=8, standardize="pixel")
    assert (few.train.images.shape, few.mean.shape, few.classes) == ((8, 6, 5, 1), (6, 5, 1), mine.classes)
    np.testing.assert_allclose(few.mean, few.train.images.mean(axis=0), rtol=1e-6)


def _save(name, **arrays):
    return lambda: np.savez(name, **arrays)


def _write(name, text):
    return lambda: Path(name).write_text(text)


ODD = {
    "mine.npz:label=z": (_save("mine.npz", x=PIXELS, y=LABELS), r"got the column of labels 'z'; wanted one of x, y"),
    "few.npz": (_save("few.npz", x=PIXELS, y=LABELS[:3]), r"got arrays of different lengths in few.npz: x \(40\)"),
    "objects.npz": (_save("objects.npz", x=np.array([{}], object)), r"got objects.npz, .* it holds Python objects"),
    "broken.npz": (_write("broken.npz", "no"), r"got broken.npz, which cannot be read: it holds Python objects, or is"),
    "rows.npz:shape=6x6": (_save("rows.npz", x=PIXELS.reshape(40, 30), y=LABELS), r"got shape=6x6 for rows of 30"),
    "image.npz:shape=6x5": (_save("image.npz", x=PIXELS, y=LABELS), r"got shape=6x5 for the images of train"),
    "two.npz": (_save("two.npz", x=PIXELS[:2], y=LABELS[:2]), r"got 2 examples in 'two', without a test split; wanted"),
    "x.npy": (_write("x.npy", "no"), r"got the data set 'x.npy', a file of another kind; .*np.savez\(FILE"),
    "x.zip": (_write("x.zip", "no"), r"got the data set 'x.zip', a file of another kind; .*Unpack it"),
    "text.csv": (_write("text.csv", "a,t,label\n1,u,0\n2,v,1\n"), r"got the columns t of train of 'text', which"),
    "gap.csv": (_write("gap.csv", "a,b,label\n1,,0\n2,3,1\n"), r"got 1 missing numbers in the column 'b' of"),
    "none.csv": (_write("none.csv", "label\n0\n1\n"), r"got no column of train of 'none' but the labels"),
    "kinds.csv": (_write("kinds.csv", "a,b\n0,1\n"), r"got the columns a, b of train of 'kinds'; wanted a"),
    "twice.csv": (_write("twice.csv", "a,a,label\n0,1,1\n"), r"got the columns a, a, label .*two of one name"),
    "index.csv": (_write("index.csv", ",a,label\n0,1,1\n"), r"one without a name; .*to_csv\(FILE, index=False\)"),
    "ragged.csv": (_write("ragged.csv", "a,b\n1,2\n1\n"), r"got ragged.csv, which cannot be read: CSV parse error"),
    "empty.csv": (_write("empty.csv", ""), r"got empty.csv, which cannot be read: Empty CSV file"),
    "away.csv": (lambda: None, r"got the data set 'away.csv', which is not there; wanted a folder of images by class"),
    "./away": (lambda: None, r"got the data set './away', which is not there"),
    "a/b:lable=c": (lambda: None, r"got the option of a data set 'lable'; .*Did you mean 'label'\?"),
    "digits:label=c": (lambda: None, r"got options of the data set 'digits': label; wanted options of a path"),
    "own.csv:config=c": (_write("own.csv", "a\n1\n"), r"got config=c of 'own.csv'; wanted a hub repository"),
    "own.csv:test=dev": (_write("own.csv", "a\n1\n"), r"got the split for test 'dev'; wanted one of"),
}  # fmt: skip


@pytest.mark.parametrize("spec", ODD)
def test_odd_files_get_one_message_each(spec):
    make, message = ODD[spec]
    make()
    with pytest.raises(UserError, match=message):
        load_dataset(spec)


def test_odd_folders_get_one_message_each(here):
    (here / "void").mkdir()
    with pytest.raises(UserError, match=r"got the folder './void', which is empty; wanted a folder of images"):
        load_dataset("./void")
    (here / "void" / "notes.md").write_text("no")
    with pytest.raises(UserError, match=r"got the folder './void', which holds notes.md"):
        load_dataset("./void")
    _folder(here / "images", "owl", "cat")
    (here / "images" / "cat" / "notes.txt").write_text("no")
    with pytest.raises(UserError, match=r"image 11 in train of 'images' \(cat/notes.txt\), whose 2 bytes are no image"):
        load_dataset("./images")
    (here / "images" / "dog").mkdir()
    with pytest.raises(UserError, match=r"got the folder '.*dog' without images; wanted a folder for each class"):
        load_dataset("./images")
    (here / "tables").mkdir()
    for name in ("train", "other"):
        _frame().to_csv(f"tables/{name}.csv", index=False)
    with pytest.raises(UserError, match=r"got files with and without a split in tables: other.csv"):
        load_dataset("./tables")
    (here / "split" / "train").mkdir(parents=True)
    with pytest.raises(UserError, match=r"got no folders of classes in 'split/train'"):
        load_dataset("./split")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((PIXELS, LABELS[:3]), {}, r"got 40 train images and 3 labels; wanted a label for every image"),
        ((PIXELS, LABELS, PIXELS), {}, r"got test images or labels without the other"),
        ((PIXELS, LABELS), {"name": "a/b"}, r"got the data set 'a/b'; wanted a name of at most 64"),
        ((PIXELS, np.eye(4)[LABELS]), {}, r"got lists of 4 numbers as labels"),
    ],
)
def test_arrays_that_are_no_data_set(arguments, options, message):
    with pytest.raises(UserError, match=message):
        from_arrays(*arguments, **options)


@pytest.mark.parametrize("spec", ["mine.npz", "../mnist", "a/b", from_arrays(PIXELS, LABELS)])
def test_a_data_folder_is_refused_beside(spec):
    with pytest.raises(UserError, match=r"got the data folder '.' for .*; wanted a data set that is read from it"):
        load_dataset(spec, data_dir=".")
