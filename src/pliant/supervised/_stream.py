"""From what names a stream to its factory."""

import inspect
from collections.abc import Callable
from typing import Any

from pliant.errors import UserError
from pliant.specs import find, name_of
from pliant.streams import STREAMS, check_stream
from pliant.types import Stream

_WANTED = "a function (dataset, *, num_tasks, options) -> pliant.types.Stream, without dataset if it makes its own data"


def stream_factory(spec: Any) -> Callable[..., Stream]:
    """Finds the factory of a stream.

    Args:
      spec: a registered name, `path/to/file.py:name`, a factory, or a stream, of which the factory takes as many tasks.

    Raises:
      UserError: if there is no such stream, or the factory takes no number of tasks.

    Example:
      >>> stream_factory("random-teacher")(num_tasks=2).num_tasks
      2
    """
    wanted = f"{_WANTED}, or a Stream"
    found: Any = find("stream", spec, STREAMS, lambda each: isinstance(each, Stream) or callable(each), wanted)
    if isinstance(found, Stream):
        return lambda *, num_tasks: _shortened(found, num_tasks)
    if "num_tasks" not in inspect.signature(found).parameters:
        raise UserError(
            got=f"the stream {name_of(spec)!r}, which takes no num_tasks", wanted=_WANTED, do="Add `*, num_tasks`."
        )
    factory: Callable[..., Stream] = found
    return factory


def made_stream(factory: Callable[..., Stream], *arguments: Any, **options: Any) -> Stream:
    """Makes a stream; one that is not registered is checked.

    Args:
      factory: see `stream_factory`.
      *arguments: of the factory, as are `options`.
      **options: of the factory.

    Raises:
      UserError: see `pliant.streams.check_stream`.
    """
    stream = factory(*arguments, **options)
    return stream if any(factory is each for each in STREAMS.values()) else check_stream(stream)


def _shortened(stream: Stream, num_tasks: int) -> Stream:
    if num_tasks > stream.num_tasks:
        raise UserError(
            got=f"tasks={num_tasks} of the stream {stream.name!r}",
            wanted=f"at most its {stream.num_tasks}",
            do="Choose fewer tasks, or give a factory, which is told num_tasks.",
        )
    return stream._replace(num_tasks=num_tasks)
