"""What the host has to do with a task is done while the next one is learned."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


class Meanwhile:
    """Runs submitted work in order on a background thread; leaving the context waits for it.

    Example:
      >>> done = []
      >>> with Meanwhile() as meanwhile:
      ...     meanwhile.do(lambda: done.append(1))
      ...     meanwhile.do(lambda: done.append(2))
      >>> done
      [1, 2]
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._last: Future[None] | None = None

    def do(self, work: Callable[[], None]) -> None:
        """Waits until the work before is done, and begins this one; if that one failed, raises its error instead."""
        self._finish()
        self._last = self._pool.submit(work)

    def _finish(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def __enter__(self) -> "Meanwhile":
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
            error.add_note(f"Before that, what was done meanwhile failed: {type(failed).__name__}: {failed}")
