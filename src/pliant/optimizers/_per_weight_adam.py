"""Adam that counts the updates of every weight by itself, so that a weight which is reset starts like a new one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from pliant.errors import require_adam
from pliant.types import Number


class ScaleByAdamPerWeightState(NamedTuple):
    """State of `scale_by_adam_per_weight`."""

    age: PyTree[Int[Array, "..."]]
    """Updates of each weight since its moments were last cleared."""
    mu: optax.Updates
    nu: optax.Updates


def scale_by_adam_per_weight(
    b1: Number = 0.9, b2: Number = 0.999, eps: Number = 1e-8
) -> optax.GradientTransformationExtraArgs:
    r"""Rescales gradients as Adam does, with a bias correction for every weight.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1) g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \qquad
              a \leftarrow a + 1, \qquad
              u = \frac{m / (1 - \beta_1^a)}{\sqrt{v / (1 - \beta_2^a)} + \epsilon}

    where m, v and the age a belong to a single weight. Whoever resets weights sets all three to 0, as
    `pliant.interventions.clear_moments` does; from then on the weight is updated as by an Adam that begins with it,
    first by one learning rate. Adam has one count for all weights: there the first update after a reset is up to
    (1 − b1)/√(1 − b2) ≈ 3.2 learning rates, for the usual decay rates. As long as nothing is reset both are the same,
    but for rounding.

    Args:
      b1: β₁, decay rate of the first moment, in [0, 1).
      b2: β₂, decay rate of the second moment, in [0, 1).
      eps: ϵ ≥ 0, outside the root.

    Returns:
      A transformation to chain in front of the learning rate. Memory: Adam's and one int32 a weight.

    Raises:
      UserError: for numbers out of range.

    Example:
      >>> from pliant.interventions import clear_moments
      >>> tx = optax.chain(scale_by_adam_per_weight(), optax.scale(-0.1))
      >>> weights = jnp.zeros(2)
      >>> state = tx.init(weights)
      >>> for _ in range(100):
      ...     _, state = tx.update(jnp.ones(2), state)
      >>> state = clear_moments(state, {"": jnp.array([True, False])})
      >>> updates, state = tx.update(jnp.ones(2), state)
      >>> [round(float(u), 4) for u in updates], state[0].age.tolist()
      ([-0.1, -0.1], [1, 101])

    References:
      Kingma, Ba, `Adam <https://arxiv.org/abs/1412.6980>`_, 2015. Algorithm 1, for every weight.
      Dohare et al., `Loss of plasticity in deep continual learning <https://doi.org/10.1038/s41586-024-07711-7>`_,
      2024, whose code has a step count for every weight (AdamGnT).

    Differs from:
      AdamGnT as first published and copied since, where the root of the second correction is computed and thrown
      away, so that the update is not Adam's (corrected upstream in 2025). PyTorch ports of ReDo that set the step count
      of a whole tensor to 0, which corrects the moments of all its old weights a second time.
    """
    require_adam(0.0, b1, b2, eps)

    def init_fn(params: Any) -> ScaleByAdamPerWeightState:
        ages = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.int32), params)
        return ScaleByAdamPerWeightState(ages, optax.tree.zeros_like(params), optax.tree.zeros_like(params))

    def update_fn(
        updates: Any, state: ScaleByAdamPerWeightState, params: Any = None, **extra: Any
    ) -> tuple[Any, ScaleByAdamPerWeightState]:
        del params, extra
        age = jax.tree.map(optax.safe_increment, state.age)
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, b2, 2)

        def scaled(m: Array, v: Array, age: Array) -> Array:
            return (m / _correction(b1, age, m)) / (jnp.sqrt(v / _correction(b2, age, v)) + eps)

        moments = optax.tree.cast_like(mu, state.mu), optax.tree.cast_like(nu, state.nu)
        return jax.tree.map(scaled, mu, nu, age), ScaleByAdamPerWeightState(age, *moments)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _correction(decay: Number, age: Array, moment: Array) -> Array:
    """1 − decay^age, precise where it is small."""
    return -jnp.expm1(age * jnp.log(jnp.asarray(decay, jnp.float32))).astype(moment.dtype)
