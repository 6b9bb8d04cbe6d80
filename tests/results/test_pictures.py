"""Pictures of stored arrays: what is drawn, what is passed over, and what is said when there is nothing."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from drawn_texts import smallest_text
from pliant.errors import UserError
from pliant.results import (
    COLUMNS,
    PICTURES,
    RunFolder,
    RunRecord,
    dormant_by_layer,
    draw_picture,
    gradient_cosine,
    hessian_density,
    ntk_eigenvalues,
    probe_curves,
    save_figure,
    spectra_over_time,
)

SEEDS, TASKS = 3, (1, 2, 5, 10)
LAYERS = ("dense_0", "dense_1", "dense_2", "dense_10")
RECORD = RunRecord("random-labels on digits, mlp", "train_accuracy", 0.1, {})
NEEDS = {
    "spectra": "weight-spectra",
    "jacobian": "jacobian",
    "ntk": "ntk",
    "hessian": "hessian-density",
    "gradient-cosine": "gradient-cosine",
    "probes": "probe-plasticity",
    "dormant": "dormant",
}


def _cosines(rng, strength):
    vectors = np.repeat(rng.normal(size=(10, 30)) * strength, 12, axis=0) + rng.normal(size=(120, 30))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors @ vectors.T


def _density(rng, largest):
    grid = np.linspace(-0.1 * largest, largest, 1000)
    width = 0.003 * largest
    nodes, weights = rng.uniform(0, largest, 12), rng.dirichlet(np.full(12, 0.3)) * 1e-3
    bumps = np.exp(-((grid[:, None] - nodes) ** 2) / 2 / width**2) @ weights + np.exp(-((grid / width) ** 2) / 2)
    return grid, bumps / np.trapezoid(bumps, grid)


def _arrays_of_task(task):
    """As diagnostics store them: the seed first, NaN where nothing was measured."""
    rng = np.random.default_rng(task)
    arrays = {}
    for i, layer in enumerate(LAYERS):
        spread = 0.2 + 0.3 * task
        sigma = np.exp(spread * rng.normal(size=(SEEDS, 24 + 8 * i)))
        arrays[f"weight-spectra/singular_values/{layer}/kernel"] = -np.sort(-sigma)
        of_examples = np.exp(spread * rng.normal(size=(SEEDS, 6, 24))) * (rng.uniform(size=24) > 0.05 * (task - 1))
        arrays[f"jacobian/singular_values/{layer}"] = -np.sort(-of_examples)
    arrays["jacobian/input_output"] = -np.sort(-np.exp(rng.normal(size=(SEEDS, 6, 10))))
    arrays["ntk/eigenvalues"] = 1e3 * np.arange(1, 101) ** -(1.0 + 0.2 * task) * np.exp(rng.normal(size=(SEEDS, 1)))
    arrays["ntk/eigenvalues"][:, -5:] = np.nan
    densities = [_density(rng, 10.0 * (1 + 10 * task)) for _ in range(SEEDS)]
    arrays["hessian-density/grid"] = np.stack([grid for grid, _ in densities])
    arrays["hessian-density/density"] = np.stack([density for _, density in densities])
    arrays["gradient-cosine/matrix"] = np.stack([_cosines(rng, 0.2 * (task - 1)) for _ in range(SEEDS)])
    arrays["gradient-cosine/labels"] = np.tile(np.repeat(np.arange(10), 12), (SEEDS, 1))
    steps = np.linspace(0, 2000, 101).astype(int)
    falling = np.exp(-steps / (200 + 100 * task)) + 0.01 * (1 + task)
    arrays["probe-plasticity/curves"] = 0.5 * falling * np.exp(0.1 * rng.normal(size=(SEEDS, 4, 1)))
    arrays["probe-plasticity/steps"] = np.tile(steps, (SEEDS, 1))
    return arrays


@pytest.fixture(scope="module")
def arrays():
    return {task: _arrays_of_task(task) for task in TASKS}


def _dormant_rows(method, num_tasks):
    return [
        ("b", method, "n", "d", seed, task, 10, f"dormant_fraction/{layer}", 0.02 * (i + 1) * (task - 1) + 0.05 * seed)
        for seed in range(SEEDS)
        for task in range(1, num_tasks + 1)
        for i, layer in enumerate(LAYERS)
    ]


METRICS = pd.DataFrame(_dormant_rows("adam", 10), columns=list(COLUMNS))


@pytest.fixture(scope="module")
def folder(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "run"
    with RunFolder.begin(path, RECORD).open_method("adam", {}) as method:
        (block,) = method.blocks(SEEDS)
        for task in range(1, 11):
            block.record_task(task, METRICS[METRICS["task"] == task], seconds=1.0)
        for task, of_task in arrays.items():
            block.record_arrays(task, of_task)
    return RunFolder(path)


@pytest.mark.parametrize("picture", PICTURES)
def test_every_picture_is_drawn_from_a_folder(folder, picture, tmp_path):
    figure = draw_picture(folder, picture, "adam")
    assert figure.get_suptitle() == "adam: random-labels on digits, mlp, 3 seeds"
    assert smallest_text(figure) >= 6
    png, pdf = save_figure(figure, tmp_path / picture)
    assert pdf.read_bytes().startswith(b"%PDF")
    image = np.asarray(Image.open(png).convert("L"))
    assert image.shape[1] > 500
    assert (image < 200).mean() > 0.005
    assert all(axes.get_xlabel() or axes.get_ylabel() or axes.images for axes in figure.axes if axes.axison)


@pytest.mark.parametrize("picture", PICTURES)
def test_nothing_stored_is_an_error_that_names_the_diagnostic(picture):
    metrics = METRICS.iloc[:0]
    with pytest.raises(UserError, match=rf"got no .*{NEEDS[picture].split('-')[0]}.*--diagnostics {NEEDS[picture]}"):
        PICTURES[picture]({1: {"other/array": np.ones(2)}}, metrics, "")


@pytest.mark.parametrize("picture", PICTURES)
def test_only_nan_is_an_error_and_some_nan_is_not(picture, arrays):
    lost = {task: {key: np.full(array.shape, np.nan) for key, array in each.items()} for task, each in arrays.items()}
    with pytest.raises(UserError, match=r"number in the|without a number"):
        PICTURES[picture](lost, METRICS.assign(value=np.nan), "")
    diverged = {task: {key: np.array(array, float) for key, array in each.items()} for task, each in arrays.items()}
    for array in diverged[10].values():
        array[0] = np.nan
    first = (METRICS["seed"] == 0) & (METRICS["task"] == 10)
    PICTURES[picture](diverged, METRICS.assign(value=METRICS["value"].mask(first)), "")


def test_spectra_are_medians_over_seeds_by_rank_and_task():
    key = "weight-spectra/singular_values/"
    arrays = {
        1: {f"{key}b_10/kernel": np.array([[4.0, 1.0], [6.0, 2.0], [90.0, 3.0]]), f"{key}b_9/kernel": np.ones((3, 1))},
        5: {f"{key}b_10/kernel": np.array([[8.0, np.nan], [8.0, np.nan], [8.0, np.nan]])},
    }
    figure = spectra_over_time(arrays, "weight-spectra", "a title")
    first, second = figure.axes[:2]
    assert [first.get_title(), second.get_title()] == ["b_9/kernel", "b_10/kernel"]
    np.testing.assert_array_equal(second.images[0].get_array().filled(np.nan), [[6.0, 8.0], [2.0, np.nan]])
    assert [label.get_text() for label in second.get_xticklabels()] == ["1", "5"]
    assert "median over seeds" in figure.get_supxlabel()


def test_jacobians_are_medians_over_examples_too_and_zeros_are_below_the_scale():
    sigma = np.array([[[3.0, 0.0], [1.0, 0.0]], [[2.0, 0.0], [2.0, 1.0]]])
    arrays = {1: {"jacobian/singular_values/dense_1": sigma, "jacobian/input_output": sigma + 1.0}}
    figure = spectra_over_time(arrays, "jacobian")
    layer, whole, bar = figure.axes
    assert (layer.get_title(), whole.get_title()) == ("dense_1", "input to output")
    image = layer.images[0]
    assert image.get_array()[0, 0] == 2.0
    assert 0 < image.get_array()[1, 0] < image.norm.vmin
    np.testing.assert_array_equal(whole.images[0].get_array(), [[3.0], [1.0]])
    assert "black: 0" in figure.get_supxlabel()
    assert bar.get_ylabel() == "singular value"


def test_equal_singular_values_have_a_scale():
    figure = spectra_over_time({1: {"weight-spectra/singular_values/w": np.ones((2, 3))}}, "weight-spectra")
    norm = figure.axes[0].images[0].norm
    np.testing.assert_allclose([norm.vmin, norm.vmax], [0.5**0.5, 2**0.5])
    assert "black" not in figure.get_supxlabel()


def test_all_zero_singular_values_are_drawn():
    figure = spectra_over_time({1: {"weight-spectra/singular_values/w": np.zeros((2, 3))}}, "weight-spectra")
    image = figure.axes[0].images[0]
    assert (image.get_array() < image.norm.vmin).all()


def test_ntk_lines():
    arrays = {
        1: {"ntk/eigenvalues": np.array([[9.0, 1.0, 0.0], [11.0, 3.0, 0.0]])},
        3: {"ntk/eigenvalues": np.array([[5.0, np.nan], [7.0, np.nan]])},
    }
    axes = ntk_eigenvalues(arrays).axes[0]
    first, second = axes.lines
    np.testing.assert_array_equal(first.get_ydata(), [10.0, 2.0, np.nan])
    np.testing.assert_array_equal(second.get_ydata(), [6.0, np.nan])
    assert first.get_xdata().tolist() == [1, 2, 3]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["task 1", "task 3"]


def test_a_legend_names_no_more_tasks_than_can_be_read():
    arrays = {task: {"ntk/eigenvalues": np.array([[4.0, 1.0]])} for task in range(1, 101)}
    axes = ntk_eigenvalues(arrays).axes[0]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert len(axes.lines) == 100
    assert len(names) == 8
    assert (names[0], names[-1]) == ("task 1", "task 100")


def test_hessian_density_of_first_middle_and_last_task(arrays):
    figure = hessian_density(arrays)
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["task 1", "task 5", "task 10"]
    for axes, task in zip(figure.axes, (1, 5, 10), strict=True):
        line = axes.lines[0]
        np.testing.assert_array_equal(line.get_xdata(), arrays[task]["hessian-density/grid"][0])
        drawn, wanted = line.get_ydata(), arrays[task]["hessian-density/density"][0]
        np.testing.assert_array_equal(drawn[wanted > 0], wanted[wanted > 0])
        assert axes.get_yscale() == "log"
    assert "seed 0" in figure.get_supxlabel()


def test_the_seed_that_was_measured_most_is_drawn():
    grid, density = np.array([[0.0, 1.0]] * 2), np.array([[0.5, 1.5], [0.25, 1.75]])
    lost = np.array([[np.nan, np.nan], [0.25, 1.75]])
    arrays = {
        1: {"hessian-density/grid": grid, "hessian-density/density": density},
        2: {"hessian-density/grid": grid, "hessian-density/density": lost},
    }
    figure = hessian_density(arrays)
    assert len(figure.axes) == 2
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0.25, 1.75]
    assert "seed 1" in figure.get_supxlabel()


def test_gradient_cosines_and_their_clusters():
    matrix = np.array([[[1.0, 0.8, -0.3], [0.8, 1.0, -0.2], [-0.3, -0.2, 1.0]]])
    arrays = {
        task: {"gradient-cosine/matrix": matrix, "gradient-cosine/labels": np.array([[0, 0, 1]])} for task in TASKS
    }
    *panels, bar = gradient_cosine(arrays).axes
    assert [axes.get_title() for axes in panels] == ["task 1", "task 5", "task 10"]
    for axes in panels:
        image = axes.images[0]
        np.testing.assert_array_equal(image.get_array(), matrix[0])
        assert (image.norm.vmin, image.norm.vmax) == (-1.0, 1.0)
        horizontal, vertical = axes.lines
        assert set(horizontal.get_ydata()) == set(vertical.get_xdata()) == {1.5}
    assert bar.get_ylabel() == "cosine"


def test_probe_curves_have_means_and_percentiles():
    rng = np.random.default_rng(0)
    curves, steps = rng.uniform(0.1, 1.0, size=(2, 5, 4)), np.tile([0, 10, 20, 30], (2, 1))
    arrays = {
        task: {"probe-plasticity/curves": curves * task, "probe-plasticity/steps": steps} for task in range(1, 10)
    }
    axes = probe_curves(arrays).axes[0]
    assert len(axes.lines) == 6
    np.testing.assert_allclose(axes.lines[0].get_ydata(), curves.reshape(10, 4).mean(axis=0))
    np.testing.assert_allclose(axes.lines[-1].get_ydata(), 9 * curves.reshape(10, 4).mean(axis=0))
    assert axes.lines[0].get_xdata().tolist() == [0, 10, 20, 30]
    band = axes.collections[0].get_paths()[0].vertices
    at_start = band[band[:, 0] == 0, 1]
    wanted = np.percentile(curves[..., 0], [10, 90])
    np.testing.assert_allclose([at_start.min(), at_start.max()], wanted)


def test_dormant_units_by_layer():
    axes = dormant_by_layer(METRICS).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(LAYERS)
    for i, line in enumerate(axes.lines):
        np.testing.assert_allclose(line.get_xdata(), np.arange(1, 11))
        np.testing.assert_allclose(line.get_ydata(), 0.02 * (i + 1) * np.arange(10) + 0.05)
    band = axes.collections[0].get_paths()[0].vertices
    at_first_task = band[np.isclose(band[:, 0], 1.0), 1]
    np.testing.assert_allclose([at_first_task.min(), at_first_task.max()], [0.0, 0.1], atol=1e-12)


def test_a_point_of_a_grid_has_its_own_seeds(tmp_path):
    labels = ("adamo[b1=0.8]", "adamo[b1=0.9]")
    rows = pd.DataFrame([row for label in labels for row in _dormant_rows(label, 1)], columns=list(COLUMNS))
    eigenvalues = np.repeat([[1.0, 0.5], [4.0, 2.0]], SEEDS, axis=0)
    folder = RunFolder.begin(tmp_path / "run", RECORD)
    with folder.open_method("adamo", {}) as method:
        (block,) = method.blocks(SEEDS)
        block.record_arrays(1, {"ntk/eigenvalues": eigenvalues})
        block.record_task(1, rows, seconds=1.0)
    for label, wanted in zip(labels, ([1.0, 0.5], [4.0, 2.0]), strict=True):
        figure = draw_picture(folder, "ntk", label)
        assert figure.axes[0].lines[0].get_ydata().tolist() == wanted
        png, _ = save_figure(figure, tmp_path / f"ntk-{label}")
        assert png.name == f"ntk-{label}.png"
