"""Checkpoints at task boundaries, by Orbax: atomic, so a killed run continues from the last one that is whole."""

import shutil
from pathlib import Path
from types import TracebackType
from typing import Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from pliant.errors import UserError


class Checkpoints:
    """The checkpoints of one method in a run folder; a context manager, so that writes are finished at the end."""

    def __init__(self, folder: Path, num_tasks_stored: int, *, keep: Literal["last", "all"] = "last"):
        """Opens a folder; what is beyond the tasks whose metrics are stored is of no use, and all is begun anew."""
        self._most = 1 if keep == "last" else None
        self._folder = folder.absolute()
        for leftover in self._folder.glob("*.orbax-checkpoint-tmp*"):  # of a process that was killed while writing
            shutil.rmtree(leftover)
        self._manager = self._open()
        if self.num_tasks_done() > num_tasks_stored:
            self._manager.close()
            shutil.rmtree(self._folder)
            self._manager = self._open()

    def num_tasks_done(self) -> int:
        """How many tasks the newest checkpoint has behind it; 0 without one."""
        return self._manager.latest_step() or 0

    def save(self, num_tasks_done: int, state: PyTree[np.ndarray]) -> None:
        """Writes a checkpoint in the background, then removes the older one."""
        self._manager.save(num_tasks_done, args=ocp.args.StandardSave(state))

    def kept(self) -> list[int]:
        """The numbers of tasks that the checkpoints have behind them."""
        return sorted(self._manager.all_steps())

    def restore(self, like: PyTree, num_tasks_done: int | None = None) -> PyTree[np.ndarray]:
        """Reads a checkpoint, by default the newest; `like` has its structure, shapes and dtypes.

        Raises:
          UserError: if its files are damaged.
        """
        shapes = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
        try:
            return self._manager.restore(num_tasks_done or self.num_tasks_done(), args=ocp.args.StandardRestore(shapes))
        except Exception as error:  # Orbax raises many kinds for what is missing, truncated or of another structure
            raise UserError(
                got=f"a damaged checkpoint in {self._folder} ({type(error).__name__})",
                wanted="the checkpoint that `pliant run` wrote",
                do="Remove that folder: the method then starts anew, with the same numbers.",
            ) from error

    def _open(self) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(self._folder, options=ocp.CheckpointManagerOptions(max_to_keep=self._most))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._manager.wait_until_finished()
        self._manager.close()
