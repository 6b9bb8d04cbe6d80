"""Distance from initialisation: how far training has moved the parameters."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pliant.diagnostics._as_measured import as_measured
from pliant.diagnostics._tree_norms import count, norms, require_same, widened
from pliant.types import Diagnostic, Measured, Params, Scalar, Subject
from pliant.xla.squares import total_norm


class Distance(NamedTuple):
    """What `distance` returns."""

    total: Scalar
    """The L2 norm of the difference."""
    relative: Scalar
    """Over the norm of the initial parameters; NaN if these are all 0."""
    rms: Scalar
    """Root mean square over parameters."""
    by_leaf: Mapping[str, Scalar]
    """The L2 norm of the difference of each leaf, by its path."""


def distance(params: Params, initial: Params) -> Distance:
    r"""Measures the distance of parameters from those that training began with.

    Use it to see how far training has moved the network, or how strongly a pull to the start acts.

    .. math:: d = \lVert \theta - \theta_0 \rVert_2, \qquad \frac{d}{\lVert \theta_0 \rVert_2}, \qquad
              \frac{d}{\sqrt P}

    with P the number of parameters and norms over all leaves together. Sums are in float32.

    Args:
      params: θ.
      initial: θ₀, of the same structure and shapes.

    Returns:
      `Distance`, values ≥ 0; all 0 where nothing moved. NaN parameters give NaN.

    Raises:
      UserError: if there are no parameters, since nothing was measured, or the two do not match.

    Example:
      >>> found = distance({"w": jnp.array([3.0, 5.0])}, {"w": jnp.array([0.0, 1.0])})
      >>> float(found.total), float(found.relative), round(float(found.rms), 4)
      (5.0, 5.0, 3.5355)

    References:
      Nagarajan, Kolter, `Generalization in Deep Networks: The Role of Distance from Initialization
      <https://arxiv.org/abs/1901.01672>`_, 2019. Section 2.

    Differs from:
      Plasticine, which publishes d / √P (here `rms`) as the weight difference.
    """
    require_same(params, initial)
    now, start = widened(params), widened(initial)
    moved = jax.tree.map(jnp.subtract, now, start)
    total, length = total_norm(moved), total_norm(start)
    relative = jnp.where(length == 0, jnp.nan, total / length)
    return Distance(total, relative, total / np.sqrt(count(params)), norms(moved))


def _measure(subject: Subject) -> Distance:
    assert subject.initial is not None
    return distance(subject.params, subject.initial[0])


def _summarize(found: Distance) -> Measured:
    numbers = {"distance_from_init": found.total}
    numbers |= {f"distance_from_init/{path}": norm for path, norm in found.by_leaf.items()}
    numbers |= {"distance_from_init_relative": found.relative, "distance_from_init_rms": found.rms}
    return as_measured(numbers)


DISTANCE_FROM_INIT = Diagnostic(
    name="distance-from-init",
    summary="L2 distance of all parameters from the initial ones; also relative to these, and root mean square",
    cost="cheap",
    measure=_measure,
    summarize=_summarize,
    needs=("initial",),
)
