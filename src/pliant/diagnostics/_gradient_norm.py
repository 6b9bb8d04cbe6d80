"""The size of the gradient."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from pliant.diagnostics._as_measured import as_measured
from pliant.diagnostics._subject import gradient
from pliant.diagnostics._tree_norms import count, norms, widened
from pliant.types import Diagnostic, Measured, Params, Scalar, Subject
from pliant.xla.squares import total_norm


class GradientNorm(NamedTuple):
    """What `gradient_norm` returns."""

    l2: Scalar
    """The L2 norm of all leaves together."""
    l1: Scalar
    """The sum of |g|."""
    zero_fraction: Scalar
    """Entries that are exactly 0 over all entries, in [0, 1]."""
    by_leaf: Mapping[str, Scalar]
    """The L2 norm of each leaf, by its path."""


def gradient_norm(gradients: Params) -> GradientNorm:
    r"""Measures the norms of a gradient, and the fraction of its entries that are exactly 0.

    Use it to tell a network that cannot learn (no gradient) from one that has nothing to learn.

    .. math:: \lVert g \rVert_2, \qquad \lVert g \rVert_1 = \sum_i |g_i|, \qquad
              \frac1P \#\{i : g_i = 0\}

    with P the number of parameters. Sums are in float32.

    Args:
      gradients: of the loss by the parameters, before any clipping.

    Returns:
      `GradientNorm`. A gradient of 0 has norms 0 and the zero fraction 1; NaN entries give NaN.

    Raises:
      UserError: if there are no gradients, since nothing was measured.

    Example:
      >>> found = gradient_norm({"kernel": jnp.array([3.0, -4.0]), "bias": jnp.array([0.0, 0.0])})
      >>> float(found.l2), float(found.l1), float(found.zero_fraction)
      (5.0, 7.0, 0.5)

    References:
      Elsayed, Mahmood, `Addressing Loss of Plasticity and Catastrophic Forgetting in Continual Learning
      <https://arxiv.org/abs/2404.00781>`_, 2024. The ℓ0, ℓ1 and ℓ2 norms of the gradient that their figures follow.

    Differs from:
      Their ℓ0, which is the fraction of entries that are not 0, one less `zero_fraction`.
    """
    wide = widened(gradients, "gradients")
    l1 = optax.tree.sum(jax.tree.map(jnp.abs, wide))
    zeros = optax.tree.sum(jax.tree.map(lambda leaf: (leaf == 0).sum(), wide)) / count(wide)
    return GradientNorm(total_norm(wide), l1, jnp.where(jnp.isnan(l1), jnp.nan, zeros), norms(wide))


def _measure(subject: Subject) -> GradientNorm:
    return gradient_norm(gradient(subject)(subject.params, subject.probe))


def _summarize(found: GradientNorm) -> Measured:
    numbers = {"probe_gradient_norm": found.l2}
    numbers |= {f"probe_gradient_norm/{path}": norm for path, norm in found.by_leaf.items()}
    numbers |= {"probe_gradient_l1": found.l1, "probe_gradient_zero_fraction": found.zero_fraction}
    return as_measured(numbers)


GRADIENT_NORM = Diagnostic(
    name="gradient-norm",
    summary="norms of the gradient of the mean loss on the probe examples, and the fraction of it that is exactly 0",
    cost="cheap",
    measure=_measure,
    summarize=_summarize,
)
