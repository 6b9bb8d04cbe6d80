import jax
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.methods import METHODS, build, defaults, find, split_static
from pliant.networks import mlp
from pliant.training import RunConfig, init_state, make_plan, seed_keys
from pliant.training._switch import switch_task
from pliant.types import leaf_path

NETWORK = mlp((3,), 2, widths=(4, 4), norm="layer")
HEAD = {"head/kernel", "head/bias"}
LAST = HEAD | {"dense_1/kernel", "dense_1/bias", "norm_1/scale", "norm_1/bias"}
ALL = LAST | {"dense_0/kernel", "dense_0/bias", "norm_0/scale", "norm_0/bias"}
NORMS = {f"norm_{i}/{name}" for i in (0, 1) for name in ("scale", "bias")}
TOUCHED = {
    "full-reset": ALL,
    "reset-distill": ALL,
    "head-reset": HEAD,
    "last-k-reset": LAST,
    "optimizer-reset": set(),
    "shrink-perturb": ALL - NORMS,
}


def _switched(name, **values):
    method = METHODS[name]
    parts = build(method, NETWORK.wiring, defaults(method) | values)
    keys = seed_keys(0)
    state = init_state(NETWORK, parts, keys.network)
    state = state._replace(params=jax.tree.map(lambda leaf: leaf + 1, state.params))
    return state, switch_task(NETWORK, parts, state, keys, 1)[0]


def _changed(before, after):
    pairs = zip(*(jax.tree_util.tree_leaves_with_path(tree) for tree in (before, after)), strict=True)
    return {leaf_path(path) for (path, old), (_, new) in pairs if not np.array_equal(old, new)}


@pytest.mark.parametrize("name", TOUCHED)
def test_what_a_switch_touches(name):
    before, after = _switched(name)
    assert _changed(before.params, after.params) == TOUCHED[name]
    before, after = _switched(name, **METHODS[name].off)
    assert not _changed(before.params, after.params)


def test_the_teacher_is_the_network_before_its_reset():
    before, after = _switched("reset-distill")
    assert not _changed(before.params, after.penalty.teacher)
    before, after = _switched("reset-distill", every_tasks=2)
    assert (int(after.penalty.taught), _changed(before.params, after.params)) == (-1, set())


def test_what_shapes_the_program():
    static = {name: split_static(METHODS[name], defaults(METHODS[name]))[0] for name in METHODS}
    assert static["last-k-reset"] == {"num_layers": 2}
    assert static["optimizer-reset"] == {"keep_moments": False}
    assert static["shrink-perturb"] == {"mode": "fresh-init"}
    assert static["reset-distill"] == {"distance": "kl"}
    assert static["soft-reset"] == {"toward": "start"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("last-k-reset",), "settings": ("last-k-reset.num_layers=9",)}, "got num_layers=9"),
        ({"methods": ("shrink-perturb",), "settings": ("shrink-perturb.mode=gaussian",)}, "acts after every update"),
        (
            {"methods": ("plasticity-injection",), "head_at_switch": "zero"},
            "got head_at_switch='zero' for 'plasticity-injection', which has frozen heads beside",
        ),
    ],
)
def test_plans_that_make_no_sense_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        make_plan(RunConfig(**options))


@pytest.mark.parametrize("name", ["plasticity-injection+layernorm", "adamo+plasticity-injection", "hare-tortoise+redo"])
def test_combinations_are_planned(name):
    assert make_plan(RunConfig(methods=(name,))).methods[0].method.name == find(name).name == name
