"""Checks a wiring by perturbation: units that nothing reads must not reach the output."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from pliant.inference._forward import Seen, as_one
from pliant.inference._program import Program
from pliant.tracing import evaluate
from pliant.types import HiddenLayer, Wiring

_SUBSETS = 3
_SEED = 0
_UNHEARD = "the output does not depend on its units"


class Trial(NamedTuple):
    """What is changed in a forward pass, by layer."""

    cut: Mapping[str, Any]
    """True at the units whose readers are 0."""
    moved: Mapping[str, Any]
    """How far the feeds of each unit are moved."""
    norms: Mapping[str, Any]
    """The same for those of role "norm" only."""
    added: Mapping[str, Any]
    """What is added to the features of each unit."""


def verified(
    program: Program,
    seen: Mapping[str, Sequence[Seen]],
    wiring: Wiring,
    paths: Sequence[str],
    leaves: Sequence[Any],
    inputs: Sequence[Any],
) -> dict[str, str]:
    """By layer, what is wrong with it: layers that are not in the result are right.

    For some random halves of a layer's units: with the readers of a half at 0, neither what is added to its features
    nor a change of its feeds may change the output; the other half must still be heard; and moving its feeds must
    change its features and, unless a norm mixes the layer's units, no others.

    Args:
      program: the network on a few examples.
      seen: the variables of the features, and where in them the units are.
      wiring: what is to be checked.
      paths: of the parameters.
      leaves: the parameters.
      inputs: the leaves of the examples.
    """
    if not wiring.layers:
        return {}
    random = np.random.default_rng(_SEED)
    run = _runner(program, seen, wiring, paths, inputs)
    nothing = {layer.name: np.zeros(layer.width, np.float32) for layer in wiring.layers}
    silent = Trial(nothing, nothing, nothing, nothing)
    found = {}
    for layer in wiring.layers:
        reasons = []
        for _ in range(_SUBSETS):
            values = [_random(random, leaf, path, wiring) for path, leaf in zip(paths, leaves, strict=True)]
            on_values = functools.partial(run, values)
            reasons.append(_wrong(on_values, silent, layer, _half(random, layer)))
        wrong = [reason for reason in reasons if reason and (reason != _UNHEARD or set(reasons) == {_UNHEARD})]
        if wrong:
            found[layer.name] = wrong[0]
    return found


def _wrong(run: Callable[[Trial], Any], silent: Trial, layer: HiddenLayer, half: np.ndarray) -> str | None:
    name, own = layer.name, half.astype(np.float32)

    def trial(**changes: np.ndarray) -> Any:
        return run(silent._replace(**{field: getattr(silent, field) | {name: by} for field, by in changes.items()}))

    before, features = trial()
    if not all(np.isfinite(each).any() for each in (*before, features[name])):
        return "its features or the output are not finite, whatever the parameters are, so it cannot be checked"
    if _equal(before, trial(added=own)[0]):
        return _UNHEARD  # as of an expert that the router does not choose
    cut, features = trial(cut=own)
    if not _equal(cut, trial(cut=own, added=own)[0]):
        return "the output depends on its units although all that reads them is 0, as behind a norm that mixes units"
    if not half.all() and _equal(cut, trial(cut=own, added=1 - own)[0]):
        return "what reads some of its units reads others as well"
    if not layer.feeds:
        return "nothing feeds its units"
    for field in ("moved", "norms"):
        results = [trial(cut=own, **{field: by * own}) for by in (0.9, -0.9)]
        changed = np.array([_by_unit(layer, features[name], each[1][name]) for each in results]).any(axis=0)
        if field == "norms" and not changed.any():
            return None  # no norm of its own: its units share one, or their kernel's
        if (changed & ~half).any():
            continue
        if not changed.any():
            return "its feeds do not change its features"
        if not all(_equal(cut, each[0]) for each in results):
            return "the output depends on what feeds its units although all that reads them is 0"
        return None
    return "what feeds some of its units changes others as well"


def _half(random: np.random.Generator, layer: HiddenLayer) -> np.ndarray:
    """Some of a layer's units; neighbours that may be sorted together stay together."""
    chosen = np.zeros(layer.width, bool)
    order = random.permutation(layer.width) if layer.elementwise else np.arange(layer.width // 4 * 4)
    chosen[order[: max(layer.width // 2, 1)] if layer.elementwise else order[: len(order) // 2]] = True
    return chosen


def _equal(first: Sequence[Any], second: Sequence[Any]) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second, strict=True))


def _by_unit(layer: HiddenLayer, first: Any, second: Any) -> np.ndarray:
    """How many entries of each unit differ."""
    differ = ~((first == second) | (np.isnan(first) & np.isnan(second)))
    return np.moveaxis(differ, layer.axis, -1).reshape(-1, layer.width).sum(axis=0)


def _runner(
    program: Program,
    seen: Mapping[str, Sequence[Seen]],
    wiring: Wiring,
    paths: Sequence[str],
    inputs: Sequence[Any],
) -> Callable[[Sequence[Any], Trial], Any]:
    jaxpr, consts = program.closed.jaxpr, program.closed.consts
    features = [each.value for layer in wiring.layers for each in seen[layer.name]]
    wanted = jaxpr.replace(
        outvars=[*jaxpr.outvars, *features],
        debug_info=jaxpr.debug_info.with_unknown_names(),
    )

    @jax.jit
    def run(leaves: Sequence[Array], trial: Trial) -> Any:
        own = dict(zip(paths, leaves, strict=True))
        for layer in wiring.layers:
            for feed in layer.feeds:
                path = feed.slot.path
                by = trial.moved[layer.name]
                if wiring.roles[path] == "norm":
                    by = by + trial.norms[layer.name]
                own[path] = own[path] + feed.slot.spread(by, own[path]).astype(own[path].dtype)
        for layer in wiring.layers:
            for slot in layer.readers:
                leaf = own[slot.path]
                own[slot.path] = jnp.where(slot.spread(trial.cut[layer.name] > 0, leaf), jnp.zeros_like(leaf), leaf)
        added = {}
        for layer in wiring.layers:
            for variable, place in seen[layer.name]:
                nothing = jnp.zeros(variable.aval.shape, variable.aval.dtype)
                tiles = place.groups * nothing.shape[place.axis] // layer.width
                of_units = place._replace(tiles=tiles, repeats=1).spread(trial.added[layer.name], nothing)
                added[variable] = nothing + of_units.astype(nothing.dtype)
        found = evaluate(wanted, consts, [*(own[path] for path in paths), *inputs], added)
        values = dict(zip(features, found[len(jaxpr.outvars) :], strict=True))
        by_layer = {name: as_one([values[each.value] for each in own], own) for name, own in seen.items()}
        return found[first : first + num_outputs], by_layer

    num_outputs = len(jax.tree.leaves(program.returned.outputs))
    first = len(jax.tree.leaves(program.returned.output))

    def called(leaves: Sequence[Any], trial: Trial) -> Any:
        return jax.tree.map(_wide, jax.device_get(run(list(leaves), trial)))

    return called


def _wide(array: Any) -> np.ndarray:
    array = np.asarray(array)
    return array if array.dtype.kind in "fiub" else array.astype(np.float32)


def _random(random: np.random.Generator, leaf: Any, path: str, wiring: Wiring) -> Array:
    """Parameters with which every unit is heard, whatever training has made of the network."""
    leaf = jnp.asarray(leaf)
    if leaf.ndim < 2 or wiring.roles.get(path) not in ("matrix", "head", "embed"):
        return jnp.asarray(random.uniform(0.5, 1.5, leaf.shape), leaf.dtype)
    outputs = wiring.output_axes.get(path, (-1,))
    inputs = leaf.size / max(math.prod(leaf.shape[axis] for axis in outputs), 1)
    return jnp.asarray(random.normal(size=leaf.shape) / math.sqrt(max(inputs, 1.0)), leaf.dtype)
