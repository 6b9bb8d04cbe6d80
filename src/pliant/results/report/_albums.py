"""Spectra and matrices of a run: every kind that its diagnostics have stored, as far as a page can hold them."""

import json
from collections.abc import Callable
from typing import NamedTuple

from pliant.errors import UserError
from pliant.results._picture_parts import Arrays
from pliant.results._pictures import arrays_of
from pliant.results._run_folder import RunFolder
from pliant.results.report._cards import Album, Card
from pliant.results.report._matrices import gradient_cosines, probe_curves
from pliant.results.report._spectra import hessian_density, ntk_eigenvalues, spectra_over_time

MOST_BYTES = 4_000_000
"""Of the pictures on a page."""


class _Kind(NamedTuple):
    name: str
    caption: str
    draw: Callable[[Arrays, str], list[Card]]


_KINDS = (
    _Kind(
        "Gradient cosines",
        "Cosines between the gradients of examples, which are in order of their cluster; one seed, evenly spaced "
        "examples. Red: examples help each other. Blue: they interfere.",
        gradient_cosines,
    ),
    _Kind(
        "Hessian density",
        "Density of the eigenvalues of the Hessian at the end of tasks; one seed; densities below a millionth of the "
        "highest are drawn there.",
        hessian_density,
    ),
    _Kind(
        "NTK eigenvalues",
        "Eigenvalues of the neural tangent kernel at the end of tasks; median over seeds; values that are not positive "
        "are left out.",
        ntk_eigenvalues,
    ),
    _Kind(
        "New targets",
        "How copies of the network, made at the end of tasks, learn new targets; mean over seeds and targets.",
        probe_curves,
    ),
)
_SPECTRA = (
    ("weight-spectra", "Singular values of weights", "Median over seeds. Dark: small."),
    ("jacobian", "Singular values of Jacobians", "Median over seeds and examples. Dark: small."),
)


def albums(folder: RunFolder, most_bytes: int = MOST_BYTES) -> tuple[list[Album], str]:
    """Every kind of picture that a run has arrays for, and a line about methods for which there was no room.

    Args:
      folder: of the run.
      most_bytes: of all pictures together.
    """
    labels = [str(label) for label in folder.metrics["method"].unique()]
    found: list[Album] = []
    size, shown = 0, 0
    by_kind: dict[str, Album] = {}
    spectra: dict[str, dict[str, Arrays]] = {name: {} for name, _, _ in _SPECTRA}
    for label in labels:
        arrays = arrays_of(folder, label)
        cards = {kind.name: _drawn(kind, arrays, label) for kind in _KINDS}
        of_spectra = [album for name, title, said in _SPECTRA for album in _spectra({label: arrays}, name, title, said)]
        every = [*cards.values(), *(album.cards for album in of_spectra)]
        size += sum(len(json.dumps(card.figure)) for own in every for card in own)
        if size > most_bytes and shown:
            break
        shown += 1
        for kind in _KINDS:
            by_kind.setdefault(kind.name, Album(kind.name, kind.caption, [])).cards.extend(cards[kind.name])
        for name in spectra:
            spectra[name][label] = arrays
    found += [album for album in by_kind.values() if album.cards]
    found += [album for name, title, said in _SPECTRA for album in _spectra(spectra[name], name, title, said)]
    left = len(labels) - shown
    said = f"Pictures of the last {left} methods are left out: draw them with pliant plot --picture." if left else ""
    return found, said if found else ""


def _drawn(kind: _Kind, arrays: Arrays, label: str) -> list[Card]:
    try:
        return kind.draw(arrays, label)
    except UserError:  # the run has not measured it
        return []


def _spectra(by_method: dict[str, Arrays], name: str, title: str, caption: str) -> list[Album]:
    has_some = {method: arrays for method, arrays in by_method.items() if _has(arrays, f"{name}/")}
    if not has_some:
        return []
    try:
        return spectra_over_time(has_some, name, title, caption)
    except UserError:  # no number is finite
        return []


def _has(arrays: Arrays, prefix: str) -> bool:
    return any(key.startswith(prefix) for of_task in arrays.values() for key in of_task)
