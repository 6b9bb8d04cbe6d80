"""Writes results in the background while training continues."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


class BackgroundWriter:
    """Runs submitted work in order on a background thread; leaving the context waits for it.

    Example:
      >>> done = []
      >>> with BackgroundWriter() as writer:
      ...     writer.submit(lambda: done.append(1))
      ...     writer.submit(lambda: done.append(2))
      >>> done
      [1, 2]
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._last: Future[None] | None = None

    def submit(self, work: Callable[[], None]) -> None:
        """Waits for the previous work, then starts this; raises the previous work's error instead if it failed."""
        self._finish()
        self._last = self._pool.submit(work)

    def _finish(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def __enter__(self) -> "BackgroundWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for the last work. Its error is raised, or noted on the one that ends the context anyway."""
        self._pool.shutdown()
        try:
            self._finish()
        except Exception as failed:
            if error is None:
                raise
            error.add_note(f"Before that, writing in the background failed: {type(failed).__name__}: {failed}")
