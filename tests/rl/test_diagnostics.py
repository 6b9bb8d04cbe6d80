"""Every diagnostic on agents: measured, or left out for a reason; measuring changes nothing."""

import numpy as np
import pytest

import pliant
from pliant.diagnostics import DIAGNOSTICS
from pliant.errors import UserError
from pliant.rl import AgentConfig, make_plan

SETTINGS = {
    "ppo": ("ppo.num_envs=4", "ppo.rollout_length=8", "ppo.epochs=2"),
    "ppo-shared": ("ppo.num_envs=4", "ppo.rollout_length=8", "ppo.epochs=2", "ppo.trunk=shared"),
    "dqn": ("dqn.min_replay=8", "dqn.replay_size=32", "dqn.steps_per_update=8", "dqn.num_envs=4"),
}
SHARES = {"sample-plasticity", "excess-loss-plasticity"}
"""What measures shares of a loss, which has no least value where it is a policy's."""


def small(agent, **changes):
    return {
        "environment": "probe",
        "agent": agent.partition("-")[0],
        "methods": ("adam",),
        "seeds": 2,
        "tasks": 2,
        "env_steps": 64,
        "batch_size": 16,
        "widths": (5, 4),
        "eval_episodes": 2,
        "probe_size": 16,
        "settings": SETTINGS[agent],
    } | changes


@pytest.mark.parametrize(
    ("agent", "left_out"),
    [
        ("ppo", SHARES),
        pytest.param("ppo-shared", SHARES, marks=pytest.mark.whole),
        pytest.param("dqn", set(), marks=pytest.mark.whole),
    ],
)
def test_what_cannot_be_measured_is_left_out_for_a_reason(agent, left_out):
    (method,) = make_plan(AgentConfig(**small(agent, diagnostics=("full",)))).methods
    reason = "the loss of ppo can be negative, so that a share of it says nothing"
    assert method.unmeasured == dict.fromkeys(left_out, reason)
    assert {each.name for each in method.diagnostics} == set(DIAGNOSTICS) - left_out


def test_what_is_asked_for_by_name_is_refused():
    with pytest.raises(
        UserError, match=r"got the diagnostic 'sample-plasticity' for 'adam'; .* the loss of ppo can be"
    ):
        make_plan(AgentConfig(**small("ppo", diagnostics=("sample-plasticity",))))


@pytest.mark.whole
@pytest.mark.parametrize("agent", ["ppo", "ppo-shared", "dqn"])
def test_all_of_them_are_measured_and_change_nothing(agent, tmp_path):
    def values(name):
        folder = pliant.run(**small(agent, diagnostics=name, out=tmp_path / name))
        table = folder.metrics.pivot_table(index=["task", "seed"], columns="metric", values="value")
        return table, (folder.path / "run.log").read_text()

    (basic, _), (full, log) = values("basic"), values("full")
    np.testing.assert_array_equal(full[basic.columns], basic)
    # Nothing was dead that could revive; the noise scale is infinite where the gradients' mean is lost in noise.
    may_be_infinite = [name for name in full if name.startswith("revival_rate/") or name.endswith("noise_scale")]
    finite = np.isfinite(full.drop(columns=may_be_infinite)).all()
    assert finite.all(), list(finite.index[~finite])
    wanted = {"policy_changed_fraction", "value_churn", "probe_plasticity", "hessian_top", "ntk_trace", "feature_rank"}
    assert wanted <= set(full)
    if agent != "dqn":
        assert "adam: without sample-plasticity: the loss of ppo can be negative" in log
