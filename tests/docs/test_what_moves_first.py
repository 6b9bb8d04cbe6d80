import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "what_moves_first.py"))


def test_half_way():
    down = np.array([0.9, 0.9, 0.8, 0.4, 0.1, 0.1, 0.1, 0.1, 0.1])
    rising = np.array([0.0, 3.0, 5.0, 7.0, 10.0, 10.0, 10.0, 10.0, 10.0])
    dies = np.array([3.0, 4.0, 7.0, 10.0, 10.0, 10.0, 10.0, 10.0, np.nan])
    values = np.stack([down, rising, np.full(9, 2.0), dies])
    np.testing.assert_array_equal(EXAMPLE["half_way"](values), [4.0, 3.0, np.nan, 3.0])


@pytest.fixture
def metrics():
    """Adam's dormant units are half way at task 2, its accuracy at task 4; nothing of AdamO moves."""
    rows = []
    for metric in EXAMPLE["MEASURES"]:
        for task in range(9):
            moves = task >= (3 if metric == "train_accuracy" else 1)
            for seed in range(2):
                rows.append(("adam", seed, task, metric, float(moves)))
                rows.append(("adamo", seed, task, metric, 0.5))
    return pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])


def test_table(metrics):
    table = EXAMPLE["table"](metrics).set_index("measure")
    assert table.loc["accuracy", "lead over accuracy, tasks"] == 0.0
    assert table.loc["dormant units", "lead over accuracy, tasks"] == 2.0
    assert table.loc["dormant units", "adam half way, by seed"] == "2 2"
    assert table.loc["dormant units", "adamo, last five"] == 0.5


def test_figure(metrics):
    figure = EXAMPLE["draw"](metrics)
    assert [axes.get_title() for axes in figure.axes] == list(EXAMPLE["MEASURES"].values())
    line = figure.axes[1].lines[2]
    assert line.get_ydata().tolist() == [0.0, *[1.0] * 8]
    assert figure.axes[1].lines[-1].get_xdata()[0] == 4.0
