"""Five tiny environments whose values are known: each fails for a kind of fault in an agent."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pliant.errors import require_choice, require_whole
from pliant.types import Environment, EnvironmentStream, Key, Outcome, World

_ON_SIGHT = 0.5  # of "both": half-way between acting on the observation, 1, and ignoring it, 0


def probe(
    *, num_tasks: int = 1, kind: Literal["constant", "observation", "delayed", "action", "both"] = "both"
) -> EnvironmentStream:
    """Checks an agent: environments of one or two steps that a correct agent solves within seconds.

    Use the kinds in this order when you write or change an agent: the first that fails says where to look. There are
    two actions a, 0 and 1, and one observed number x, float32 (1,). γ is the discount.

    "constant" shows x = 0, gives a reward of 1, and ends. V(0) = 1, and Q is 1 for both actions. If it fails, look at
    the loss and the optimizer.

    "observation" shows x = 1 or −1, gives a reward of x, and ends. V(1) = 1 and V(−1) = −1. If it fails, the network
    does not get its inputs.

    "delayed" shows x = 0 and gives no reward, then shows x = 1, gives a reward of 1, and ends. V(0) = γ and V(1) = 1.
    If it fails, look at bootstrapping and the discount.

    "action" shows x = 0, gives a reward of 2a − 1, and ends. Q(0, 1) = 1 and Q(0, 0) = −1; the agent acts 1, with
    V(0) = 1. If it fails, look at advantages, or at the action that is learned from.

    "both" shows x = 1 or −1, gives a reward of (2a − 1) x, and ends. Q is 1 for the right action and −1 for the wrong
    one; the agent acts 1 at x = 1 and 0 at x = −1, with V = 1. If it fails, observations and actions are mixed up.

    Args:
      num_tasks: ≥ 1; they are all the same.
      kind: "constant", "observation", "delayed", "action" or "both".

    Returns:
      An `EnvironmentStream` without data or tasks of its own.

    Raises:
      UserError: for an unknown kind or `num_tasks` < 1.

    Example:
      >>> environment = probe(kind="action").environments[0]
      >>> state, observation = environment.reset(jax.random.key(0), World((), ()))
      >>> state, outcome = environment.step(jax.random.key(1), state, jnp.int32(1), World((), ()))
      >>> float(outcome.reward), bool(outcome.terminated)
      (1.0, True)

    References:
      Jones, `Debugging RL, without the agonizing pain <https://andyljones.com/posts/rl-debugging.html>`_, 2021.

    Differs from:
      The first three have one action there; here all have two, so that one agent fits all.
    """
    require_choice("kind", kind, "both", "constant", "observation", "delayed", "action")
    require_whole("tasks", num_tasks, 1, do="Leave it out for the default of 1.")
    is_random = kind in ("observation", "both")
    num_steps = 2 if kind == "delayed" else 1

    def reset(key: Key, world: World) -> tuple[Float[Array, "1"], Float[Array, "1"]]:
        del world
        seen = jax.random.rademacher(key, (1,), jnp.float32) if is_random else jnp.zeros(1)
        return seen, seen

    def step(
        key: Key, state: Float[Array, "1"], action: Int[Array, ""], world: World
    ) -> tuple[Float[Array, "1"], Outcome]:
        """The state is what was seen; in "delayed" that counts the steps."""
        del key, world
        seen, sign = state[0], 2.0 * action - 1.0
        rewards = {"constant": jnp.ones(()), "observation": seen, "delayed": seen, "action": sign, "both": sign * seen}
        after = state + 1 if kind == "delayed" else state
        ends = after[0] >= num_steps if kind == "delayed" else jnp.ones((), bool)
        return after, Outcome(after, rewards[kind], ends, jnp.zeros((), bool))

    environment = Environment(
        name=f"probe-{kind}",
        observation=jax.ShapeDtypeStruct((1,), jnp.float32),
        num_actions=2,
        reset=reset,
        step=step,
        max_episode_steps=num_steps,
        dead_below=_ON_SIGHT if kind == "both" else None,
    )
    return EnvironmentStream(name="probe", num_tasks=num_tasks, environments=(environment,), which=lambda _: 0)
