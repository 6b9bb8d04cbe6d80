import numpy as np
import pandas as pd
from PIL import Image

from pliant.results import headline_figure, save_figure

ROWS = [
    (method, seed, task, "test_accuracy", level - 0.02 * task + 0.1 * seed)
    for method, level in (("first", 0.8), ("second", 0.4))
    for seed in range(3)
    for task in range(4)
]
METRICS = pd.DataFrame(ROWS, columns=["method", "seed", "task", "metric", "value"])


def _figure():
    return headline_figure(METRICS, "test_accuracy", "a title", chance=0.1)


def test_the_numbers_drawn():
    axes = _figure().axes[0]
    first, second, chance = axes.lines
    np.testing.assert_allclose(first.get_ydata(), 0.9 - 0.02 * np.arange(4))
    np.testing.assert_allclose(second.get_ydata(), 0.5 - 0.02 * np.arange(4))
    assert first.get_xdata().tolist() == [1, 2, 3, 4]
    assert set(chance.get_ydata()) == {0.1}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["first", "second"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("task", "test accuracy", "a title")


def test_the_band_is_one_standard_error():
    band = _figure().axes[0].collections[0].get_paths()[0].vertices
    at_first_task = band[np.isclose(band[:, 0], 1.0), 1]
    error = np.std([0.8, 0.9, 1.0], ddof=1) / np.sqrt(3)
    np.testing.assert_allclose([at_first_task.min(), at_first_task.max()], [0.9 - error, 0.9 + error])


def test_files(tmp_path):
    png, pdf = save_figure(_figure(), tmp_path / "test_accuracy")
    assert pdf.read_bytes().startswith(b"%PDF")
    image = np.asarray(Image.open(png).convert("L"))
    assert image.shape[1] > 1000
    assert (image < 200).mean() > 0.005
