"""Methods in agents: PPO with an actor and a critic, PPO with a shared trunk, and DQN."""

import jax.numpy as jnp
import optax
import pytest

from contracts import agent_checks as checks
from pliant.methods import find
from pliant.types import Penalty
from tiers import REPRESENTATIVES

REFUSED = {"ppo:both": set(), "ppo-shared:both": set(), "dqn:both": set(), "ppo:actor": {"two-hot", "hl-gauss"}}
"""Methods that do not suit an agent, by agent and by what they act on: values are the critic's."""


def each(*agents, on="both", names=checks.ALL):
    """Cases of one agent share programs, so they share a scope: what stands before the colon.

    Where an agent differs from plain PPO in its network or its wiring alone, one method of each family is enough.
    """
    return pytest.mark.parametrize(
        ("agent", "name"),
        [
            pytest.param(
                agent, name, id=f"{agent}:{name}", marks=() if name in checks.FAST[agent] else pytest.mark.whole
            )
            for agent in agents
            for name in names
            if name not in REFUSED[f"{agent}:{on}"]
            if name in REPRESENTATIVES or (on == "both" and agent != "ppo-shared")
        ],
    )


@each(*checks.AGENTS)
def test_trains(agent, name):
    checks.check_trains(checks.plan(agent, name))


@each(*checks.AGENTS, names=[name for name in checks.ALL if find(name).off])
def test_off_is_its_base(agent, name):
    checks.check_off_is_its_base(checks.plan(agent, name))


@each("ppo", on="actor")
def test_acts_on_the_actor_alone(agent, name):
    plan = checks.plan(agent, name, "actor")
    checks.check_trains(plan)
    checks.check_leaves_the_critic_to_adam(plan)
    if plan.method.off:
        checks.check_off_is_its_base(plan)


@pytest.mark.whole
@pytest.mark.parametrize(("case", "refused"), REFUSED.items(), ids=REFUSED)
def test_what_does_not_suit_is_known(case, refused):
    found, reasons = checks.plans(*case.split(":"), checks.ALL)
    assert set(reasons) == refused
    assert set(found) == set(checks.ALL) - refused


def _broken(**parts):
    plan = checks.plan("ppo", "l2-init")
    return plan._replace(method=plan.method._replace(name=f"broken {next(iter(parts))}", **parts))


def _never_a_number(strength=0.01):
    return Penalty(lambda params: (), lambda params, state, forward: (strength * jnp.nan, state))


def _stopped(learning_rate):
    return optax.with_extra_args_support(optax.scale(0.0))


BROKEN = {
    "not off at 0": ({"off": {"strength": 0.001}}, checks.check_off_is_its_base, "switched off, the params"),
    "not a number": ({"penalty": _never_a_number}, checks.check_trains, "is not finite"),
    "does not move": ({"optimizer": _stopped, "penalty": None}, checks.check_trains, "a head does not move"),
}


@pytest.mark.parametrize("defect", BROKEN, ids=lambda defect: f"ppo:{defect}")
def test_a_broken_method_fails(defect):
    parts, check, message = BROKEN[defect]
    with pytest.raises(AssertionError, match=message):
        check(_broken(**parts))


@pytest.mark.whole
def test_a_critic_that_is_not_trained_by_adam_is_noticed():
    with pytest.raises(AssertionError, match="the critic is not trained by Adam"):
        checks.check_leaves_the_critic_to_adam(checks.plan("ppo", "l2-init"))
