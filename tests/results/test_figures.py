import itertools
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from drawn_texts import smallest_text
from pliant.errors import UserError
from pliant.results import headline_figure, save_figure

ROWS = [
    (method, seed, task, "test_accuracy", level - 0.02 * (task - 1) + 0.1 * seed)
    for method, level in (("first", 0.8), ("second", 0.4))
    for seed in range(3)
    for task in (1, 2, 3, 4)
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
    assert [text.get_text() for text in _figure().legends[0].get_texts()] == ["first", "second"]
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


def _of(values, metric="loss"):
    """One method; rows are seeds."""
    rows = [("m", seed, task + 1, metric, v) for seed, of_seed in enumerate(values) for task, v in enumerate(of_seed)]
    return pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])


@pytest.mark.parametrize("scale", [1e-4, 300.0])
def test_limits_are_those_of_the_data(scale):
    axes = headline_figure(_of([[scale, 2 * scale], [2 * scale, 3 * scale]]), "loss", "", None).axes[0]
    low, high = axes.get_ylim()
    assert 0.8 * scale < low < 1.01 * scale
    assert 3.0 * scale < high < 3.3 * scale


def test_the_band_is_explained():
    assert _said(_figure()) == "mean over 3 seeds; band: ± one standard error"
    one = headline_figure(METRICS[METRICS["seed"] == 0], "test_accuracy", "", None)
    assert _said(one) == "one seed, so without a band"
    fewer = METRICS[(METRICS["method"] == "first") | (METRICS["seed"] < 2)]
    assert _said(headline_figure(fewer, "test_accuracy", "", None)).startswith("mean over 2 to 3 seeds")


def _said(figure):
    return figure.legends[0].get_title().get_text().replace("\n", " ")


@pytest.mark.parametrize(
    ("metric", "values", "chance", "begins"),
    [
        ("test_accuracy", [0.4, 0.9], None, True),
        ("test_accuracy", [0.8, 0.9], 0.1, True),
        ("test_accuracy", [0.8, 0.9], None, False),
        ("dormant_fraction/dense_0", [0.01, 0.02], None, True),
        ("loss", [0.4, 0.9], None, False),
    ],
)
def test_the_axis_of_a_share_begins_at_zero_or_the_legend_says_so(metric, values, chance, begins):
    figure = headline_figure(_of([values], metric), metric, "", chance)
    assert bool(figure.axes[0].get_ylim()[0] == 0) is begins
    assert ("the axis does not begin at 0" in _said(figure)) is (not begins and metric != "loss")
    assert ("chance" in [text.get_text() for text in figure.axes[0].texts]) is (chance is not None)


def test_the_chance_level_is_on_the_axes():
    axes = headline_figure(_of([[0.8, 0.9]], "test_accuracy"), "test_accuracy", "", 0.5).axes[0]
    low, high = axes.get_ylim()
    assert low <= 0.5 <= high


def test_letters_are_legible_in_a_column():
    assert smallest_text(_figure()) >= 6


def test_lines_differ_without_colours():
    rows = [(f"method {i}", 0, 1, "loss", float(i)) for i in range(20)]
    table = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
    lines = headline_figure(table, "loss", "", None).axes[0].lines
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines}) == 20
    assert all(one.get_linestyle() != other.get_linestyle() for one, other in itertools.pairwise(lines))


@pytest.mark.parametrize("number", [2, 8, 60])
def test_the_legend_is_below_and_as_wide_as_the_figure(number):
    rows = [(f"method-number-{i}", 0, 1, "loss", float(i)) for i in range(number)]
    table = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
    figure = headline_figure(table, "loss", "a title", None)
    FigureCanvasAgg(figure).draw()
    legend, axes = figure.legends[0].get_window_extent(), figure.axes[0].get_window_extent()
    assert legend.x0 >= 0
    assert legend.x1 <= figure.bbox.x1
    assert legend.y1 < axes.y0
    assert axes.height > 2.2 * figure.dpi


def test_what_is_not_finite_is_left_out():
    axes = headline_figure(_of([[1.0, math.nan, 5.0], [3.0, math.nan, math.inf]]), "loss", "", None).axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[1.0, 2.0], [3.0, 5.0]])


@pytest.mark.parametrize(
    ("metric", "value", "message"),
    [("los", 1.0, "got the metric 'los'; .*Did you mean 'loss'"), ("loss", math.nan, "without a finite number")],
)
def test_what_cannot_be_drawn(metric, value, message):
    with pytest.raises(UserError, match=message):
        headline_figure(_of([[value]]), metric, "", None)


def test_seventy_lines_differ():
    rows = [(f"method {i}", 0, 1, "loss", float(i)) for i in range(70)]
    table = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
    lines = headline_figure(table, "loss", "", None).axes[0].lines
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 70
    assert len({line.get_color() for line in lines[:7]}) == len({line.get_marker() for line in lines[:7]}) == 7


@pytest.mark.parametrize("name", ["$x_1$", "_hidden", "a$b", r"$\frac{$", "{}^_", r"back\slash$ $", "ünï–σ", "a$$b"])
def test_names_are_drawn_as_they_are(name, tmp_path):
    figure = headline_figure(_of([[0.1, 0.2]], metric=name).assign(method=name), name, name, None)
    axes = figure.axes[0]
    FigureCanvasAgg(figure).draw()
    texts = [figure.legends[0].get_texts()[0], axes.title, axes.yaxis.label]
    for text, wanted in zip(texts, (name, name, name.replace("_", " ")), strict=True):
        assert text._preprocess_math(text.get_text()) == (wanted, False)
    save_figure(figure, tmp_path / "figure")


def test_letters_that_the_font_lacks_are_no_warning(tmp_path):
    png, _ = save_figure(headline_figure(METRICS, "test_accuracy", "可塑性", None), tmp_path / "figure")
    assert png.exists()
