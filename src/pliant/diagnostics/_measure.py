"""Runs diagnostics on a subject: first the device part of all, then their numbers on the host."""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax

from pliant.diagnostics._registry import DIAGNOSTICS, find_diagnostic
from pliant.errors import in_one_line
from pliant.types import Diagnostic, Measured, Subject


def measure(subject: Subject, diagnostics: Sequence[str | Diagnostic]) -> dict[str, Any]:
    """Runs the device part of diagnostics, each with its own key; a part that several share is run once.

    Args:
      subject: what is measured.
      diagnostics: those with a device part, or their names.

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
    made = list(map(find_diagnostic, diagnostics))
    for each in made:
        if _shared(each, found, made) is None:
            assert each.measure is not None
            key = jax.random.fold_in(subject.key, zlib.crc32(each.name.encode()))
            found[each.name] = each.measure(subject._replace(key=key))
    return found


def summarize(
    diagnostics: Sequence[str | Diagnostic],
    measured: Mapping[str, Any],
    others: Sequence[str | Diagnostic] = (),
) -> dict[str, Measured]:
    """Turns what `measure` returned into numbers and arrays, by diagnostic.

    Args:
      diagnostics: some of those that were measured, or their names.
      measured: what `measure` returned, as NumPy arrays.
      others: diagnostics that are not registered and were measured before these, which may share their device part.

    Example:
      >>> import numpy as np
      >>> summarize(["srank", "stable-rank"], {"srank": np.eye(3)})["stable-rank"].numbers
      {'stable_rank': 3.0}
    """
    found = {}
    made = list(map(find_diagnostic, diagnostics))
    for each in made:
        name = _shared(each, measured, [*made, *map(find_diagnostic, others)])
        assert name is not None
        assert each.summarize is not None
        found[each.name] = each.summarize(measured[name])
    return found


def failure(attempt: Callable[[], Any]) -> str | None:
    """Calls a function and returns why it failed, whatever the exception; None if it succeeded.

    Example:
      >>> failure(lambda: 1 / 0), failure(lambda: 1)
      ('ZeroDivisionError: division by zero', None)
    """
    try:
        attempt()
    except Exception as error:
        return in_one_line(error)
    return None


def _shared(diagnostic: Diagnostic, measured: Iterable[str], others: Iterable[Diagnostic]) -> str | None:
    """Which of those measured has the device part of a diagnostic: itself, or one that shares it."""
    known = dict(DIAGNOSTICS) | {each.name: each for each in others}
    return next((name for name in measured if known[name].measure is diagnostic.measure), None)
