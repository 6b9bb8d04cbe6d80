import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pliant.results import predictor_table
from pliant.supervised import RunConfig, make_plan

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "what_predicts.py"))


@pytest.fixture(scope="module")
def table():
    """The norm is good in one stream and bad in the other, dead units are bad in both, ranks are noise."""
    draw, rows = np.random.default_rng(0), []
    for problem, sign in (("labels-digits", 1), ("mdp-mnist", -1)):
        for seed in range(5):
            for task in range(1, 11):
                y = draw.standard_normal()
                values = {"probe_plasticity": y, "weight_norm": sign * y, "dead_fraction": -y}
                values |= {"feature_rank": draw.standard_normal(), "weight_effective_rank": 1.0}
                rows += [(problem, "adam", "mlp", "d", seed, task, task, name, each) for name, each in values.items()]
    columns = ["problem", "method", "network", "dataset", "seed", "task", "step", "metric", "value"]
    return predictor_table(pd.DataFrame(rows, columns=columns), "probe_plasticity")


def test_the_row_of_the_falsification_study(table):
    found = EXAMPLE["falsified"](table).set_index("predictor")
    assert found.loc["weight_norm"].tolist() == [1, 1, 0, True]
    assert found.loc["dead_fraction"].tolist() == [0, 2, 0, False]
    assert found.loc["weight_effective_rank"].tolist() == [0, 0, 2, False]
    assert not found.loc["feature_rank", "flips"]


@pytest.mark.parametrize("name", ["labels-digits", "regression"])
def test_streams_can_be_planned(name):
    """Every diagnostic of the study suits the stream."""
    problem, choices = EXAMPLE["RUNS"][name]
    shared = {"methods": EXAMPLE["METHODS"], "diagnostics": EXAMPLE["DIAGNOSTICS"], "tasks": 2, "seeds": 1}
    made = make_plan(RunConfig(stream=problem, **shared | choices))
    assert {method.method.name for method in made.methods} == set(EXAMPLE["METHODS"])
    assert not any(method.unmeasured for method in made.methods)


def test_outcomes_are_of_streams_that_are_run():
    assert {name for names in EXAMPLE["OUTCOMES"].values() for name in names} == set(EXAMPLE["RUNS"])
    assert EXAMPLE["metrics_of"](Path("nowhere"), ["labels-digits"]).empty
