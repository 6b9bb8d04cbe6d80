"""Speed of continual Octax's games against Octax itself: the same states and actions, side by side.

    python benchmarks/octax_speed.py

Steps of all copies per second, a random policy, no new episodes.
"""

import sys
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from _timing import alternate, options, report
from pliant.rl.environments import octax
from pliant.types import World

STEPS = 16


def played(step: Callable[..., Any], state: Any, num: int, num_actions: int) -> Callable[[], jax.Array]:
    @jax.jit
    def play(state: Any, key: jax.Array) -> jax.Array:
        def one(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            actions = jax.random.randint(key, (num,), 0, num_actions)
            state, observation, reward = step(state, actions)
            return state, observation.sum(dtype=jnp.int32) + reward.sum()

        return jax.lax.scan(one, state, jax.random.split(key, STEPS))[1]

    return lambda: jax.block_until_ready(play(state, jax.random.key(0)))


def measure(games: list[str], num: int, repeats: int) -> list[dict[str, Any]]:
    stream = octax(games=tuple(games))
    world = World(stream.data, ())
    keys = jax.random.split(jax.random.key(0), num)
    rows: list[dict[str, Any]] = []
    for environment in stream.environments:
        bare = sys.modules["octax.environments"].create_environment(environment.name)[0]

        def ours(state: Any, actions: jax.Array, environment: Any = environment) -> tuple[Any, jax.Array, jax.Array]:
            state, outcome = jax.vmap(environment.step, (0, 0, 0, None))(keys, state, actions, world)
            return state, outcome.observation, outcome.reward

        def theirs(state: Any, actions: jax.Array, bare: Any = bare) -> tuple[Any, jax.Array, jax.Array]:
            state, observation, reward, *_ = jax.vmap(bare.step)(state, actions)
            return state, observation, reward

        state = jax.vmap(environment.reset, (0, None))(keys, world)[0]
        begun = jax.vmap(bare.reset)(state.rng)[0].replace(time=state.time)
        seconds = alternate(
            {
                "pliant": played(ours, state, num, bare.num_actions),
                "octax": played(theirs, begun, num, bare.num_actions),
            },
            repeats,
        )
        speeds = {f"{name}, steps/s": STEPS * num / each for name, each in seconds.items()}
        rows.append({"game": environment.name} | speeds | {"ratio": seconds["octax"] / seconds["pliant"]})
    return rows


if __name__ == "__main__":
    parser = options(__doc__ or "")
    parser.add_argument("--games", nargs="+", default=["brix"])
    parser.add_argument("--envs", type=int, default=512, help="copies of the game")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)  # of Octax's casts
    report(measure(chosen.games, chosen.envs, chosen.repeats), chosen.json)
