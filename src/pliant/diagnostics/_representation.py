"""Representation change: how much the features of the hidden layers have changed since an earlier moment."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from pliant.diagnostics._as_measured import as_measured
from pliant.diagnostics._subject import features
from pliant.errors import UserError
from pliant.types import Diagnostic, Features, Scalar, Subject, Text


class RepresentationChange(NamedTuple):
    """What `representation_change` returns."""

    mean: Scalar
    """Unweighted mean over layers, ≥ 0."""
    by_layer: Mapping[str, Scalar]
    """One value ≥ 0 a layer."""


def representation_change(now: Features, previous: Features) -> RepresentationChange:
    r"""Measures the relative change of the features of each layer.

    Use it to see whether a new task changes the features, or only the head.

    .. math:: \mathbb E_x \frac{\lVert h_{now}(x) - h_{prev}(x) \rVert_2}{\lVert h_{prev}(x) \rVert_2 + 10^{-8}}

    with norms over all axes but the first, in float32. An example on which a layer was silent before and is not now
    counts for a lot: its norm divided by 1e-8. One that is silent on both sides counts as 0.

    Args:
      now: arrays by hidden layer, (examples, …). For texts let each position be an example: (examples · positions,
        width).
      previous: of the earlier network, on the same inputs.

    Returns:
      `RepresentationChange`; 0 for the same features, 1 where they doubled or vanished. NaN features give NaN.

    Raises:
      UserError: if there is no layer or an empty batch, since nothing was measured, and if layers or shapes differ.

    Example:
      >>> found = representation_change({"dense_0": jnp.array([[3.0, 0.0]])}, {"dense_0": jnp.array([[3.0, 4.0]])})
      >>> round(float(found.by_layer["dense_0"]), 4)
      0.8

    References:
      *Do Neural Networks Lose Plasticity in a Gradually Changing World?*, appendix C.

    Differs from:
      Nothing known. (The authors do not say which layer they take, nor whose inputs where tasks permute them.)
    """
    shapes = {name: layer.shape for name, layer in now.items()}
    earlier = {name: layer.shape for name, layer in previous.items()}
    if not now or shapes != earlier or any(layer.size == 0 for layer in now.values()):
        raise UserError(
            got=f"features of shapes {shapes} now and {earlier} before",
            wanted="the same at least one hidden layer, and the same at least one example",
            do="Pass the features that the network's `apply` returns on one probe batch, with both parameters.",
        )
    by_layer = {name: _change(layer, previous[name]) for name, layer in now.items()}
    return RepresentationChange(jnp.stack(list(by_layer.values())).mean(), by_layer)


def _change(now: Float[Array, "batch ..."], previous: Float[Array, "batch ..."]) -> Scalar:
    before = previous.reshape(len(previous), -1).astype(jnp.float32)
    moved = now.reshape(len(now), -1).astype(jnp.float32) - before
    return (jnp.linalg.norm(moved, axis=1) / (jnp.linalg.norm(before, axis=1) + 1e-8)).mean()


def _measure(subject: Subject) -> dict[str, Scalar]:
    """By metric: of the layer that the head reads, and of each; NaN without hidden layers, where nothing can change.

    Positions of texts are examples, padding included: the features do not say which text they are about.
    """
    read = subject.network.wiring.head_reads(subject.output)
    now, previous = features(subject), features(subject, at=subject.previous)
    if isinstance(subject.probe.inputs, Text):
        now, previous = (
            {name: layer.reshape(-1, layer.shape[-1]) for name, layer in found.items()} for found in (now, previous)
        )
    by_layer = representation_change(now, previous).by_layer if now else {}
    pooled = by_layer.get(read, jnp.full((), jnp.nan)) if read else jnp.full((), jnp.nan)
    return {"representation_change": pooled} | {f"representation_change/{name}": by_layer[name] for name in by_layer}


REPRESENTATION_CHANGE = Diagnostic(
    name="representation-change",
    summary="relative change of the last hidden layer's features since the task before, on the same inputs",
    cost="cheap",
    measure=_measure,
    summarize=as_measured,
    needs=("previous",),
)
