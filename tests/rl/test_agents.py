"""Whole runs of agents: killed, extended, over a grid, diagnosed again; environments as objects."""

import dataclasses

import numpy as np
import pytest

import pliant
from pliant.errors import UserError
from pliant.problems import diagnose_run
from pliant.rl import AgentConfig, make_plan
from pliant.training import train
from rl.counting import counting, stream

SMALL = {
    "agent": "ppo",
    "methods": ("adam",),
    "seeds": 2,
    "tasks": 3,
    "env_steps": 64,
    "batch_size": 16,
    "widths": (4,),
    "eval_episodes": 2,
    "probe_size": 8,
    "settings": ("ppo.num_envs=4", "ppo.rollout_length=8", "ppo.epochs=2"),
}
GAMES = stream(counting(3), counting(4, truncates=True, bonus=1.0, name="longer"), num_tasks=8)


def _run(out, **changes):
    return pliant.run(environment=GAMES, out=out, **SMALL | changes)


def _values(folder):
    return folder.metrics.pivot_table(index=["method", "task", "seed"], columns="metric", values="value")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return _run(tmp_path_factory.mktemp("agents") / "run", curve_points=2)


def test_what_is_recorded(finished):
    values = _values(finished)
    assert values["episode_length"].tolist() == [3, 3, 4, 4, 3, 3]
    assert values["environment"].tolist() == [0, 0, 1, 1, 0, 0]
    assert values["env_steps"].tolist() == [64, 64, 128, 128, 192, 192]
    assert (values["eval_length"] == values["episode_length"]).all()
    assert {"episode_return", "eval_return", "entropy", "value_loss", "approximate_kl", "clip_fraction"} <= set(values)
    assert np.isfinite(values).all(axis=None)
    assert finished.headline == "episode_return"
    configuration = finished.configuration
    assert configuration["environment"]["environments"] == ["counting", "longer"]
    assert configuration["task"] == {"num_updates": 8, "env_steps": 64}
    curves = finished.curves
    assert sorted(set(curves["step"])) == [4, 8, 12, 16, 20, 24]


def test_nothing_recompiles_after_every_game_was_seen(tmp_path, compilations):
    counts = {}
    _run(tmp_path / "run", tasks=4, report=lambda now: counts.update({now.task: len(compilations)}))
    assert counts[2] == counts[3] == counts[4]


def test_seeds_differ(finished):
    values = _values(finished)["weight_norm"].unstack("seed")
    assert (values[0] != values[1]).all()


@pytest.mark.exact
def test_a_run_that_is_killed_ends_with_the_same_numbers(tmp_path):
    """In the middle of a game, with a point of its curve behind it."""

    def kill(now):
        if now.task == 2 and now.task_done >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path / "run", curve_points=2, report=kill)
    again = _run(tmp_path / "run", curve_points=2)
    whole = _run(tmp_path / "whole", curve_points=2)
    np.testing.assert_array_equal(_values(again), _values(whole))
    columns = ["seed", "step", "metric", "value"]
    found, expected = (each.curves[columns].sort_values(columns).to_numpy() for each in (again, whole))
    np.testing.assert_array_equal(found, expected)


def test_a_run_is_extended_by_tasks_and_seeds(finished, tmp_path):
    short = _run(tmp_path / "run", curve_points=2, tasks=1)
    assert len(_values(short)) == 2
    longer = _run(tmp_path / "run", curve_points=2, seeds=3)
    np.testing.assert_allclose(_values(longer).drop(2, level="seed"), _values(finished), rtol=1e-4, atol=1e-6)
    assert len(_values(longer)) == 9


def test_numbers_of_the_agent_are_a_grid_in_one_program(tmp_path):
    grid = ("ppo.entropy_strength=0,0.5", "adam.learning_rate=0.01,0.02")
    values = _values(_run(tmp_path / "grid", seeds=1, tasks=1, grid=grid))
    assert len(values) == 4
    label = "adam[ppo.entropy_strength=0.5,learning_rate=0.02]"
    settings = (*SMALL["settings"], "ppo.entropy_strength=0.5")
    alone = _values(_run(tmp_path / "alone", seeds=1, tasks=1, learning_rate=0.02, settings=settings))
    np.testing.assert_allclose(values.loc[label], alone.loc["adam"], rtol=1e-4, atol=1e-6)
    assert values["loss"].nunique() == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": ("ppo.epochs=1,2",)}, r"got --grid ppo.epochs; wanted numbers of ppo: discount, "),
        ({"grid": ("ppo.clip=0.1,0.1",)}, r"got --grid ppo.clip=0.1,0.1; wanted every value once"),
        ({"grid": ("ppo.clip=0.1,-1",)}, r"got ppo.clip=-1"),
        ({"settings": ("ppo.kl=1",)}, r"got the option of 'ppo' 'kl'|got .*'kl'.*"),
        ({"env_steps": 0}, r"got env_steps=0; wanted"),
        ({"eval_episodes": -1}, r"got eval_episodes=-1; wanted"),
        ({"curve_points": 9}, r"got curve_points=9 for tasks of .*; wanted at most"),
        ({"dataset": "mnist"}, r"got a data set or its size for 'counting', which shows no images of one"),
        ({"headline": "score"}, r"got the headline 'score', which nobody reports; wanted one of .*episode_return"),
    ],
)
def test_what_cannot_be_run_is_refused(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        _run(tmp_path / "run", **changes)


def test_one_environment_can_be_given(tmp_path):
    alone = pliant.run(environment=counting(3), out=tmp_path / "run", **SMALL | {"tasks": 1})
    assert _values(alone)["episode_length"].tolist() == [3, 3]


def test_environments_of_a_file_are_found_again(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(__file__.rpartition('/rl/')[0])!r})\n"
        "from rl.counting import counting, stream\n"
        "def games(*, num_tasks, length=3):\n"
        '    """Counts."""\n'
        "    return stream(counting(length), num_tasks=num_tasks)\n"
    )
    config = AgentConfig(environment=f"{file}:games", **SMALL | {"tasks": 1})
    config = dataclasses.replace(config, settings=(*config.settings, "games.length=2"))
    folder = train(make_plan(config), tmp_path / "run")
    assert _values(folder)["episode_length"].tolist() == [2, 2]
    (found,) = diagnose_run(folder.path, diagnostics=("weight-norm",))
    assert np.isfinite(found.numbers["weight-norm"]["weight_norm"])
    file.write_text(file.read_text() + "# edited\n\n\ndef more():\n    return 1\n")
    with pytest.raises(UserError, match=r"other files of yours"):
        diagnose_run(folder.path, diagnostics=("weight-norm",))


def test_a_run_of_objects_cannot_be_diagnosed_again(finished):
    with pytest.raises(UserError, match=r"made with objects of a Python program: environment; wanted"):
        diagnose_run(finished.path)


def test_a_stream_and_environments_are_two_problems(tmp_path):
    with pytest.raises(UserError, match=r"got several problems"):
        pliant.run("random-labels", environment=GAMES, out=tmp_path / "run")
