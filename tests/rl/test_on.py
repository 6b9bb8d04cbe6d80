"""Methods that act on the actor or the critic alone: what is planned, and what is refused."""

import jax
import numpy as np
import pytest

import pliant
from pliant.errors import UserError
from pliant.networks import mlp, side_by_side
from pliant.problems import diagnose_run
from pliant.rl import AgentConfig, make_plan, plan_suited
from pliant.specs import Objects
from pliant.types import by_path

SMALL = {
    "environment": "probe",
    "tasks": 2,
    "env_steps": 32,
    "batch_size": 16,
    "widths": (4, 4),
    "eval_episodes": 0,
    "settings": ("ppo.num_envs=4", "ppo.rollout_length=8", "ppo.epochs=1"),
}


def plan(*methods, objects=None, **changes):
    config = AgentConfig(**SMALL | {"methods": methods} | changes)
    return make_plan(config, objects=objects or Objects())


def shapes(method):
    params, state = jax.eval_shape(method.network.init, jax.random.key(0))
    return by_path(params), by_path(state)


@pytest.mark.parametrize(
    ("on", "changed"), [("actor", {"actor"}), ("critic", {"critic"}), ("both", {"actor", "critic"})]
)
def test_networks_change_in_one_branch(on, changed):
    for method in plan("layernorm", "crelu", "maxmin", "infer", "plasticity-injection", on=on).methods:
        before, _ = shapes(plan("adam", on=on).methods[0])
        after, state = shapes(method)
        activations = {layer.branch: layer.activation for layer in method.network.wiring.layers}
        different = {path.partition("/")[0] for path in after.keys() ^ before.keys()}
        different |= {
            path.partition("/")[0] for path in after.keys() & before.keys() if after[path].shape != before[path].shape
        }
        different |= {branch for branch, activation in activations.items() if activation != "relu"}
        different |= {path.partition("/")[0] for path in state}
        name = method.method.name
        assert different == (
            {"infer": {"infer"}, "plasticity-injection": {"injection"}}.get(name, changed) if on == "both" else changed
        )


def test_another_network_takes_the_place_of_one():
    (method,) = plan("mixture-of-experts", on="critic").methods
    params, _ = shapes(method)
    assert {path.split("/")[0] for path in params if "gate" in path or "expert" in path} == {"critic"}
    assert (method.network_name, method.branch) == ("moe-mlp", "critic")


def test_networks_are_shared_where_they_are_equal():
    adam, redo, infer, l2_init = plan("adam", "redo", "infer", "l2-init", on="actor").methods
    assert adam.network is redo.network
    assert redo.network is l2_init.network
    assert infer.network is not adam.network


def test_it_is_recorded():
    found = [plan("adam", on=on).record for on in ("actor", "both")]
    assert [record.configuration["config"]["on"] for record in found] == ["actor", "both"]
    assert [record.title for record in found] == ["ppo in probe, mlp, methods on the actor", "ppo in probe, mlp"]


@pytest.mark.parametrize(
    ("agent", "trunk", "message"),
    [
        (
            "ppo",
            "shared",
            r"on='actor' for ppo with a shared trunk, .*; wanted an agent with a network each .*Add --set ppo",
        ),
        (
            "dqn",
            None,
            "on='actor' for dqn, which has no actor and critic; wanted an agent with a network each .*Leave it",
        ),
    ],
)
def test_agents_of_one_network_are_refused(agent, trunk, message):
    settings = (*SMALL["settings"], "ppo.trunk=shared") if trunk else ()
    with pytest.raises(UserError, match=message):
        plan("adam", agent=agent, on="actor", settings=settings)


def test_methods_that_do_not_suit_a_branch_are_left_out():
    config = AgentConfig(**SMALL | {"methods": ("adam", "reset-distill", "redo"), "on": "critic"})
    found, reasons = plan_suited(config)
    assert [method.method.name for method in found.methods] == ["adam", "redo"]
    assert "distance='kl' between outputs of size 1" in reasons["reset-distill"]
    settings = (*SMALL["settings"], "reset-distill.distance=squared")
    assert plan("reset-distill", on="critic", settings=settings).methods


def test_values_are_the_critics():
    with pytest.raises(
        UserError, match=r"got the method 'two-hot' on the actor; it changes how values are learned; want"
    ):
        plan("two-hot", on="actor")
    (method,) = plan("two-hot", on="critic").methods
    assert shapes(method)[0]["critic/head/kernel"].shape == (4, 51)


@pytest.mark.whole
def test_a_run_is_trained_continued_and_diagnosed(tmp_path):
    """Switched off, the methods are Adam to the bit in every number but their own."""

    def kill(now):
        if now.method == "hare-tortoise" and now.task == 2:
            raise KeyboardInterrupt

    settings = (*SMALL["settings"], "hare-tortoise.momentum=0", "redo.threshold=-1", "redo.every=2")
    choices = SMALL | {"methods": ("adam", "redo", "hare-tortoise"), "settings": settings, "on": "actor"}
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        pliant.run(**choices, seeds=2, out=out, report=kill)
    metrics = pliant.run(**choices, seeds=2, out=out).metrics
    values = metrics.pivot_table(index=["method", "task", "seed"], columns="metric", values="value")
    adam = values.loc["adam"].dropna(axis=1)
    for name in ("redo", "hare-tortoise"):
        np.testing.assert_array_equal(values.loc[name][adam.columns], adam)
    found = {each.label: each.numbers["weight-norm"] for each in diagnose_run(out, diagnostics=("weight-norm",))}
    assert found["redo"] == found["adam"] == found["hare-tortoise"]


def _agent(input_shape, num_outputs, *, widths=(4,), norm="none", use_bias=True):
    del num_outputs
    parts = {name: mlp(input_shape, size, widths=widths, norm=norm) for name, size in {"policy": 2, "value": 1}.items()}
    return side_by_side(parts, {"policy": "actor", "value": "critic"})


def test_networks_with_all_outputs_can_be_trained_but_not_changed_in_one_branch():
    objects = Objects(network={"mine": _agent})
    (method,) = plan("redo", on="actor", network="mine", objects=objects).methods
    assert [layer.name for layer in method.network.wiring.layers if layer.branch == "actor"]
    for name in ("layernorm", "infer"):
        with pytest.raises(UserError, match=r"got a method that changes the network, on actor alone.* all outputs"):
            plan(name, on="actor", network="mine", objects=objects)
