"""Which entries of a grid stay within a program, and which make runs."""

import pytest

from pliant.cluster import structures
from pliant.errors import UserError
from pliant.rl import AgentConfig
from pliant.supervised import RunConfig


def _parts(config):
    return {part.name: (part.config.methods, part.config.settings, part.config.grid) for part in structures(config)}


def test_a_grid_of_numbers_is_one_run():
    config = RunConfig(methods=("adam", "adamo"), grid=("learning_rate=1,2", "adamo.isometry_strength=0.1,1"))
    assert _parts(config) == {"": (config.methods, (), config.grid)}
    assert list(_parts(RunConfig())) == [""]


def test_options_of_a_method_that_shape_the_program():
    """All combinations; each with its own settings and grids, the others' left out."""
    config = RunConfig(
        methods=("adam", "redo"),
        settings=("redo.every=9", "adam.b1=0.8"),
        grid=("redo.source=fresh,initial", "redo.threshold=0.1,0.2", "adam.b2=0.9,0.99"),
    )
    numbers = ("redo.threshold=0.1,0.2",)
    assert _parts(config) == {
        "": (("adam",), ("adam.b1=0.8",), ("adam.b2=0.9,0.99",)),
        "redo.source=fresh": (("redo",), ("redo.every=9", "redo.source=fresh"), numbers),
        "redo.source=initial": (("redo",), ("redo.every=9", "redo.source=initial"), numbers),
    }


def test_options_of_the_problem_and_the_network():
    config = RunConfig(methods=("adam",), grid=("mlp.norm=none,layer", "random-labels.labels=iid,balanced"))
    parts = _parts(config)
    assert list(parts) == [
        f"mlp.norm={norm},random-labels.labels={labels}" for norm in ("none", "layer") for labels in ("iid", "balanced")
    ]
    assert parts["mlp.norm=layer,random-labels.labels=iid"][1] == ("mlp.norm=layer", "random-labels.labels=iid")


def test_numbers_of_an_agent_stay_within_the_program():
    config = AgentConfig(methods=("adam",), grid=("ppo.clip=0.1,0.2", "cartpole.episode=1,2"))
    assert [part.config.grid for part in structures(config)] == [("ppo.clip=0.1,0.2",)] * 2


@pytest.mark.parametrize("entry", ["source=fresh,initial", "redo.source:threshold=fresh:0.1,initial:0.2"])
def test_what_cannot_be_split_is_refused(entry):
    match = rf"got --grid {entry}, which shapes the compiled program; wanted METHOD.OPTION"
    with pytest.raises(UserError, match=match):
        structures(RunConfig(methods=("redo",), grid=(entry,)))
