"""Speed of Atari games inside a compiled program against the same emulators stepped by a loop of Python.

    pip install -e '.[atari]'
    python benchmarks/atari_speed.py

Frames of all copies per second, four a step, random actions; both return stacks of four images. New games count: ale-py
begins them itself, and pliant between two steps. CPU seconds are those of the whole process, per thousand frames. The
emulators' threads share the cores with whatever else runs: compare within a row.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from ale_py.vector_env import AtariVectorEnv

from _timing import alternate, options, report
from pliant.rl.environments import atari
from pliant.types import World

SKIP = 4
WORLD = World((), ())


def compiled(game: str, num: int, num_steps: int) -> Callable[[], Any]:
    """Steps and new games as agents have them."""
    (environment,) = atari(games=(game,)).environments
    assert environment.together
    copies = environment.together(num)
    assert copies.restart
    restart = copies.restart

    @jax.jit
    def play(state: Any, key: jax.Array) -> Any:
        def step(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            actions = jax.random.randint(key, (num,), 0, environment.num_actions)
            state, outcome = copies.step(key, state, actions, WORLD)
            state, observation = restart(key, state, outcome.game_over, WORLD)
            return state, outcome.reward.sum() + observation[0, 0, 0, 0]

        return jax.lax.scan(step, state, jax.random.split(key, num_steps))

    state = copies.reset(jax.random.key(0), WORLD)[0]

    def run() -> None:
        nonlocal state
        state, rewards = play(state, jax.random.key(0))
        rewards.block_until_ready()

    return run


def alone(game: str, num: int, num_steps: int) -> Callable[[], Any]:
    """ale-py's vectorised environment."""
    games = AtariVectorEnv(game, num, repeat_action_probability=0.25, use_fire_reset=False)
    games.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, games.single_action_space.n, (num_steps, num)).astype(np.int32)

    def run() -> None:
        for each in actions:
            games.step(each)

    return run


def cpu_seconds(candidates: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median CPU seconds of all threads, in turn."""
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, run in candidates.items():
            start = time.process_time()
            run()
            found[name].append(time.process_time() - start)
    return {name: float(np.median(each)) for name, each in found.items()}


def measure(game: str, num: int, num_steps: int, repeats: int) -> dict[str, Any]:
    candidates = {"pliant": compiled(game, num, num_steps), "ale-py": alone(game, num, num_steps)}
    seconds, frames = alternate(candidates, repeats), SKIP * num * num_steps
    cpu = cpu_seconds(candidates, repeats)
    return {
        "game": game,
        "copies": num,
        **{f"{name}, frames/s": frames / each for name, each in seconds.items()},
        "ratio": seconds["ale-py"] / seconds["pliant"],
        **{f"{name}, CPU-s": 1000 * each / frames for name, each in cpu.items()},
        "CPU ratio": cpu["ale-py"] / cpu["pliant"],
    }


if __name__ == "__main__":
    parser = options(__doc__ or "")
    parser.add_argument("--games", nargs="+", default=["pong", "breakout"])
    parser.add_argument("--envs", type=int, nargs="+", default=[1, 8, 32], help="copies of the game")
    parser.add_argument("--steps", type=int, default=4000, help="of all copies together, in one measurement")
    chosen = parser.parse_args()
    rows = [measure(g, num, chosen.steps // num, chosen.repeats) for g in chosen.games for num in chosen.envs]
    report(rows, chosen.json)
