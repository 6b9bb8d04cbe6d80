"""Checkpoints at task boundaries, by Orbax: atomic, so a killed run continues from the last one that is whole."""

import contextlib
import gc
import logging
import math
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from pliant.errors import UserError

_PAUSE = 2.0  # seconds between checkpoints: a short task takes less time than writing one


class Checkpoints:
    """The checkpoints of one method in a run folder; a context manager, so that writes are finished at the end."""

    def __init__(self, folder: Path, num_tasks_stored: int, *, keep: Literal["last", "all"] = "last"):
        """Opens a folder. If it is ahead of the tasks whose metrics are stored, its checkpoints are deleted."""
        self._most = 1 if keep == "last" else None
        self._last_time, self._pending = -math.inf, dict[int, PyTree[np.ndarray]]()
        self._loud = _silenced()
        self._folder = folder.absolute()
        for leftover in self._folder.glob("*.orbax-checkpoint-tmp*"):  # of a process that was killed while writing
            shutil.rmtree(leftover)
        self._manager: Any = self._open()
        if self.num_tasks_done() > num_tasks_stored:
            self._manager.close()
            shutil.rmtree(self._folder)
            self._manager = self._open()

    def num_tasks_done(self) -> int:
        """How many tasks the newest checkpoint has behind it; 0 without one."""
        return self._manager.latest_step() or 0

    def offer(self, num_tasks_done: int, state: PyTree[np.ndarray], source: PyTree[np.ndarray] = ()) -> None:
        """Writes a checkpoint, unless the last is recent: then the newest that was offered is written at the end.

        It is always written if all are kept, or if its source has a state, which may be too large to be held.

        Args:
          num_tasks_done: as of `save`.
          state: as of `save`.
          source: as of `save`.

        Raises:
          UserError: as `save`.
        """
        is_due = time.monotonic() - self._last_time >= _PAUSE
        self._pending = {num_tasks_done: state}
        if is_due or self._most is None or jax.tree.leaves(source):
            self._pending = {}
            self.save(num_tasks_done, state, source)

    def save(self, num_tasks_done: int, state: PyTree[np.ndarray], source: PyTree[np.ndarray] = ()) -> None:
        """Writes a checkpoint, then removes the older one.

        Args:
          num_tasks_done: its number.
          state: what the learner carries.
          source: the state of where its batches come from, stored apart.

        Raises:
          UserError: if it cannot be written; the older one stays.
        """
        told, sys.unraisablehook = sys.unraisablehook, lambda _: None  # its threads complain when one of them fails
        parts = {name: ocp.args.StandardSave(tree) for name, tree in _stored(state, source).items()}
        try:
            self._manager.save(num_tasks_done, args=ocp.args.Composite(**parts))
            self._manager.wait_until_finished()
        except Exception as error:  # many kinds: the system's errors come back wrapped by TensorStore and Orbax
            reason = _reason(error)
        else:
            sys.unraisablehook, self._last_time = told, time.monotonic()
            return
        self._abandon()  # outside of the handler, which keeps alive what failed
        sys.unraisablehook = _passing_over_closed_loops(told)  # those that are late
        raise UserError(
            got=f"a checkpoint that cannot be written in {self._folder} ({reason})",
            wanted="free space, and permission to write there",
            do="Fix that and run the same command again: it resumes after the last complete checkpoint.",
        )

    def _abandon(self) -> None:
        """Lets go of a write that failed, and of the complaints of what it leaves half done."""
        with contextlib.suppress(Exception):
            self._manager.close()
        self._manager = None
        gc.collect()

    def kept(self) -> list[int]:
        """The numbers of tasks that the checkpoints have behind them."""
        return sorted(self._manager.all_steps())

    def restore(
        self, like: PyTree, source_like: PyTree = (), num_tasks_done: int | None = None
    ) -> tuple[PyTree[np.ndarray], PyTree[np.ndarray]]:
        """Reads a checkpoint, by default the newest.

        Args:
          like: has the structure, shapes and types of what the learner carries.
          source_like: those of its source's state.
          num_tasks_done: the checkpoint's number.

        Returns:
          What the learner carries, and its source's state.

        Raises:
          UserError: if its files are damaged.
        """
        shapes = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), (like, source_like))
        parts = {name: ocp.args.StandardRestore(tree) for name, tree in _stored(*shapes).items()}
        try:
            found = self._manager.restore(num_tasks_done or self.num_tasks_done(), args=ocp.args.Composite(**parts))
            return found["learner"], found["source"] if "source" in parts else source_like
        except Exception as error:  # Orbax raises many kinds for what is missing or truncated
            if type(error) is ValueError:  # what it raises for another structure
                raise UserError(
                    got=f"a checkpoint of another structure in {self._folder}",
                    wanted="one that this version wrote for the same method and diagnostics",
                    do="Use the version of pliant that wrote it.",
                ) from error
            raise UserError(
                got=f"a damaged checkpoint in {self._folder} ({type(error).__name__})",
                wanted="the checkpoint that `pliant run` wrote",
                do="Remove that folder: the method then starts from the beginning, with the same numbers.",
            ) from error

    def _open(self) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(self._folder, options=ocp.CheckpointManagerOptions(max_to_keep=self._most))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for num_tasks_done, state in self._pending.items():
                self.save(num_tasks_done, state)
        finally:
            if self._manager:
                self._manager.close()
            self._loud()


def _stored(state: PyTree, source: PyTree) -> dict[str, PyTree]:
    """What a checkpoint holds; a source without a state has no part in it."""
    return {"learner": state} | ({"source": source} if jax.tree.leaves(source) else {})


def _silenced() -> Callable[[], None]:
    """Keeps Orbax from logging tracebacks of what it raises as well; returns what ends that."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]

    def end() -> None:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    return end


def _passing_over_closed_loops(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Reports what it is told as before, but for the error in which the threads of a failed write end."""
    return lambda told: None if str(told.exc_value) == "Event loop is closed" else hook(told)


def _reason(error: Exception) -> str:
    """What the system said: "…: Failed to write 9 bytes to file 7: No space left on device [os_error_code='28']"."""
    line = (str(error).splitlines() or [""])[0].partition(" [os_error_code")[0]
    return getattr(error, "strerror", None) or line.rpartition(": ")[2] or type(error).__name__
