"""Checkpoints at task boundaries, by Orbax: atomic, so a killed run continues from the last one that is whole."""

from pathlib import Path
from types import TracebackType

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree


class Checkpoints:
    """The checkpoints of one method in a run folder; a context manager, so that writes are finished at the end."""

    def __init__(self, folder: Path):
        options = ocp.CheckpointManagerOptions(max_to_keep=1)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def num_tasks_done(self) -> int:
        """How many tasks the newest checkpoint has behind it; 0 without one."""
        return self._manager.latest_step() or 0

    def save(self, num_tasks_done: int, state: PyTree[np.ndarray]) -> None:
        """Writes a checkpoint in the background, then removes the older one."""
        self._manager.save(num_tasks_done, args=ocp.args.StandardSave(state))

    def restore(self, like: PyTree) -> PyTree[np.ndarray]:
        """Reads the newest checkpoint; `like` has its structure, shapes and dtypes."""
        shapes = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
        return self._manager.restore(self.num_tasks_done(), args=ocp.args.StandardRestore(shapes))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._manager.wait_until_finished()
        self._manager.close()
