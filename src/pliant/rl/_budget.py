"""What a task of an agent costs, whatever the agent."""

from collections.abc import Callable
from typing import NamedTuple

from pliant.errors import UserError


class Budget(NamedTuple):
    """How much an agent acts, learns and is tested in a task."""

    env_steps: int
    """Steps of the environment in a task, over all of its copies; rounded down to whole rollouts or updates."""
    batch_size: int
    """Examples of an update."""
    eval_episodes: int = 16
    """Episodes that are played at once at the end of a task, and at every point of its curve, to evaluate."""
    curve_points: int = 1
    """Points of the learning curve of each task."""
    probe_size: int = 512
    """Observations on which diagnostics are measured, at most."""

    def points(self, num_updates: int, every: int = 1) -> Callable[[int], list[int]] | None:
        """The updates at which points of the curve lie: evenly spaced multiples of `every`.

        Example:
          >>> Budget(100, 10, curve_points=3).points(20, every=4)(0)
          [8, 16, 20]
        """
        if self.curve_points == 1:
            return None
        rounds = num_updates // every
        if self.curve_points > rounds:
            raise UserError(
                got=f"curve_points={self.curve_points} for tasks of {rounds} rollouts or updates",
                wanted=f"at most {rounds}",
                do="Use fewer points, or more env_steps.",
            )
        found = [-(-rounds * point // self.curve_points) * every for point in range(1, self.curve_points + 1)]
        return lambda _: found
