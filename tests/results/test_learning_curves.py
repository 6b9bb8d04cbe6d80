"""Learning curves: where points lie in the panel of their environment, and which points are drawn."""

import numpy as np
import pandas as pd
import pytest

from drawn_texts import smallest_text
from pliant.errors import UserError
from pliant.results import learning_curves

GAMES = ("breakout", "freeway", "breakout", "freeway")
COLUMNS = ["method", "seed", "task", "step", "metric", "value", "environment"]


def _curves(*, methods=("first", "second"), seeds=3, points=2, games=GAMES, env_steps=16.0):
    """Tasks of 10 updates; the return at a point is its step, plus the seed, plus 100 for the second method."""
    rows = []
    for place, method in enumerate(methods):
        for seed in range(seeds):
            for task, game in enumerate(games):
                for point in range(points):
                    step = 10 * task + 10 * (point + 1) // points
                    common = (method, seed, task + 1, step)
                    rows.append((*common, "episode_return", 100.0 * place + step + seed, game))
                    rows.append((*common, "env_steps", env_steps * step, game))
    return pd.DataFrame(rows, columns=COLUMNS)


def _panels(figure):
    return {axes.get_title(): axes for axes in figure.axes}


def _lines(axes):
    return [line for line in axes.lines if len(line.get_xdata()) > 2]


def _borders(axes):
    return [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 2]


def test_a_panel_has_the_phases_of_its_environment_one_after_the_other():
    figure = learning_curves(_curves(), "episode_return", "a title")
    panels = _panels(figure)
    assert list(panels) == ["breakout", "freeway"]
    first, second = _lines(panels["freeway"])
    np.testing.assert_array_equal(first.get_xdata(), [80, 160, np.nan, 240, 320])
    np.testing.assert_array_equal(first.get_ydata(), np.array([15, 20, np.nan, 35, 40]) + 1.0)  # mean over seeds
    np.testing.assert_array_equal(second.get_ydata(), first.get_ydata() + 100)
    assert _borders(panels["freeway"]) == [160]
    assert figure.get_supylabel() == "episode return"
    assert panels["breakout"].get_xlabel() == "environment steps"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["first", "second"]
    said = figure.legends[0].get_title().get_text().replace("\n", " ")
    assert said == "mean over 3 seeds; band: ± one standard error; vertical lines separate phases"


def test_without_environment_steps_the_axis_counts_updates():
    curves = _curves()
    of_second = (curves["metric"] == "env_steps") & (curves["method"] == "second")
    axes = _panels(learning_curves(curves[~of_second], "episode_return", ""))["breakout"]
    assert axes.get_xlabel() == "updates"
    np.testing.assert_array_equal(_lines(axes)[0].get_xdata(), [5, 10, np.nan, 15, 20])


def test_without_environments_there_is_one_panel():
    (axes,) = learning_curves(_curves().drop(columns="environment"), "episode_return", "").axes
    assert len(_lines(axes)) == 2
    assert _borders(axes) == [160, 320, 480]


def test_phases_of_one_point_are_joined():
    axes = _panels(learning_curves(_curves(points=1, games=("a", "b", "a", "a")), "episode_return", ""))["a"]
    assert _lines(axes)[0].get_xdata().tolist() == [160, 320, 480]


def test_the_band_is_one_standard_error_at_every_point():
    axes = _panels(learning_curves(_curves(), "episode_return", ""))["breakout"]
    band = np.concatenate([path.vertices for path in axes.collections[0].get_paths()])
    at_end = band[np.isclose(band[:, 0], 320), 1]
    np.testing.assert_allclose([at_end.min(), at_end.max()], [31 - 3**-0.5, 31 + 3**-0.5])


def test_what_is_not_finite_is_left_out_and_moves_nothing():
    curves = _curves(seeds=2)
    returns = curves["metric"] == "episode_return"
    curves.loc[returns & (curves["step"] == 10), "value"] = np.nan  # no episode has ended before the first phase has
    curves.loc[returns & (curves["step"] == 25) & (curves["seed"] == 0), "value"] = np.inf
    line = _lines(_panels(learning_curves(curves, "episode_return", ""))["breakout"])[0]
    np.testing.assert_array_equal(line.get_xdata(), [80, np.nan, 240, 320])
    np.testing.assert_array_equal(line.get_ydata(), [5.5, np.nan, 26, 30.5])


def test_many_phases_are_drawn_without_borders():
    axes = _panels(learning_curves(_curves(methods=("m",), seeds=1, games=("a",) * 102), "env_steps", ""))["a"]
    assert _borders(axes) == []
    assert np.isnan(_lines(axes)[0].get_xdata()).sum() == 101


def test_eight_environments_with_odd_names_fit(tmp_path):
    games = ["$x_1$", "_b", "a$b", "ünï", "e", "f", "g"]
    figure = learning_curves(_curves(games=games, methods=("$m$",)), "episode_return", "$t$")
    assert smallest_text(figure) >= 6
    assert [axes.title._preprocess_math(axes.get_title()) for axes in figure.axes] == [(name, False) for name in games]


def test_what_cannot_be_drawn():
    with pytest.raises(UserError, match=r"got the metric 'episode_returns'; .*Did you mean 'episode_return'"):
        learning_curves(_curves(), "episode_returns", "")
    with pytest.raises(UserError, match="without a finite number"):
        learning_curves(_curves().assign(value=np.nan), "episode_return", "")
