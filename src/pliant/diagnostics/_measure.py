"""Diagnostics of a subject: the device part of several at once, then their numbers."""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax

from pliant.diagnostics._registry import DIAGNOSTICS
from pliant.errors import UserError
from pliant.types import Measured, Subject

_LONGEST = 300


def measure(subject: Subject, names: Sequence[str]) -> dict[str, Any]:
    """The device part of diagnostics, each with a key of its own; of those that share it under the first's name.

    Args:
      subject: what is measured.
      names: diagnostics that have a device part.

    Returns:
      Arrays by name, for `summarize`. May be traced.

    Example:
      >>> from pliant.networks import mlp
      >>> from pliant.types import Batch
      >>> network = mlp((3,), 2, widths=(4,))
      >>> batch = Batch(jnp.ones((5, 3)), jnp.zeros(5))
      >>> subject = Subject(network, *network.init(jax.random.key(0)), batch, lambda y, _: y[:, 0], jax.random.key(1))
      >>> [each.shape for each in measure(subject, ["effective-rank", "srank"]).values()]
      [(5, 4)]
    """
    found: dict[str, Any] = {}
    for name in names:
        if _source(name, found) is None:
            of_name = DIAGNOSTICS[name].measure
            assert of_name is not None
            found[name] = of_name(subject._replace(key=jax.random.fold_in(subject.key, zlib.crc32(name.encode()))))
    return found


def summarize(names: Iterable[str], measured: Mapping[str, Any]) -> dict[str, Measured]:
    """Numbers and arrays by diagnostic.

    Args:
      names: diagnostics among those that were measured.
      measured: what `measure` returned, as NumPy arrays.

    Example:
      >>> import numpy as np
      >>> summarize(["srank", "stable-rank"], {"srank": np.eye(3)})["stable-rank"].numbers
      {'stable_rank': 3.0}
    """
    found = {}
    for name in names:
        source, of_name = _source(name, measured), DIAGNOSTICS[name].summarize
        assert source is not None
        assert of_name is not None
        found[name] = of_name(measured[source])
    return found


def failure(attempt: Callable[[], Any]) -> str | None:
    """Why something fails, whatever the exception: networks are other people's code. None if it does not.

    Example:
      >>> failure(lambda: 1 / 0), failure(lambda: 1)
      ('ZeroDivisionError: division by zero', None)
    """
    try:
        attempt()
    except Exception as error:
        return in_one_line(error)
    return None


def in_one_line(error: Exception) -> str:
    """What an exception says, in one line.

    Example:
      >>> in_one_line(KeyError("conv"))
      "KeyError: 'conv'"
    """
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    text = first if isinstance(error, UserError) else f"{type(error).__name__}: {first}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _source(name: str, measured: Iterable[str]) -> str | None:
    """Which of those measured has the device part of a diagnostic: itself, or one that shares it."""
    return next((other for other in measured if DIAGNOSTICS[other].measure is DIAGNOSTICS[name].measure), None)
