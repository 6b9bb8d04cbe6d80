"""Adam with a bias correction for every weight, so that a weight that is reset starts like a new one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from pliant.errors import require_adam
from pliant.types import Method, Number, Schedule


class ScaleByAdamPerWeightState(NamedTuple):
    """State of `scale_by_adam_per_weight`."""

    mu_mass: PyTree[Float[Array, "..."]]
    """What `mu` would be if all gradients had been 1 since the weight's moments were last cleared: 1 − β₁ᵃ, float32."""
    nu_mass: PyTree[Float[Array, "..."]]
    """The same of `nu`: 1 − β₂ᵃ."""
    mu: optax.Updates
    """In float32 or wider, as `nu`: in bfloat16 an average would not notice a thousandth of a new square."""
    nu: optax.Updates


def scale_by_adam_per_weight(
    b1: Number = 0.9, b2: Number = 0.999, eps: Number = 1e-8
) -> optax.GradientTransformationExtraArgs:
    r"""Rescales gradients as Adam does, with a separate bias correction for every weight.

    Use it in place of `optax.scale_by_adam` when units or weights are reset during training.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1) g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \qquad
              c_i \leftarrow \beta_i c_i + (1 - \beta_i), \qquad
              u = \frac{m / c_1}{\sqrt{v / c_2} + \epsilon}

    where m, v and both c belong to a single weight, so that :math:`c_i = 1 - \beta_i^a` after a updates. A reset of a
    weight sets all four to 0, as `pliant.interventions.clear_moments` does; from then on the weight is updated as by
    an Adam that begins with it, first by one learning rate. Adam has one count for all weights: there the first update
    after a reset is up to (1 − b1)/√(1 − b2) ≈ 3.2 learning rates, for the usual decay rates. As long as nothing is
    reset both are the same, but for rounding.

    Args:
      b1: β₁, decay rate of the first moment, in [0, 1).
      b2: β₂, decay rate of the second moment, in [0, 1).
      eps: ϵ ≥ 0, outside the root.

    Returns:
      A transformation to chain in front of the learning rate. Memory: twice Adam's. Moments and c are in float32 or
      wider; updates are in the gradients' type.

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
      >>> [round(float(u), 4) for u in updates], [round(float(c), 4) for c in state[0].nu_mass]
      ([-0.1, -0.1], [0.001, 0.0961])

    References:
      Kingma, Ba, `Adam <https://arxiv.org/abs/1412.6980>`_, 2015. Algorithm 1, for every weight.
      Dohare et al., `Loss of plasticity in deep continual learning <https://doi.org/10.1038/s41586-024-07711-7>`_,
      2024, whose code has a step count for every weight (AdamGnT).

    Differs from:
      AdamGnT as first published and copied since, where the root of the second correction is computed and thrown
      away, so that the update is not Adam's (corrected upstream in 2025). PyTorch ports of ReDo that set the step count
      of a whole tensor to 0, which corrects the moments of all its old weights a second time. `optax.scale_by_adam`,
      whose moments have the type of the parameters.
    """
    require_adam(0.0, b1, b2, eps)

    def init_fn(params: Any) -> ScaleByAdamPerWeightState:
        masses = (optax.tree.zeros_like(params, dtype=jnp.float32) for _ in range(2))
        moments = (jax.tree.map(jnp.zeros_like, _wide(params)) for _ in range(2))
        return ScaleByAdamPerWeightState(*masses, *moments)

    def update_fn(
        updates: Any, state: ScaleByAdamPerWeightState, params: Any = None, **extra: Any
    ) -> tuple[Any, ScaleByAdamPerWeightState]:
        del params, extra
        mu_mass, nu_mass = _grown(state.mu_mass, b1), _grown(state.nu_mass, b2)
        gradients = _wide(updates)
        mu = optax.tree.update_moment(gradients, state.mu, b1, 1)
        nu = optax.tree.update_moment_per_elem_norm(gradients, state.nu, b2, 2)

        def scaled(m: Array, v: Array, m_mass: Array, v_mass: Array) -> Array:
            return (m / m_mass.astype(m.dtype)) / (jnp.sqrt(v / v_mass.astype(v.dtype)) + eps)

        moments = optax.tree.cast_like(mu, state.mu), optax.tree.cast_like(nu, state.nu)
        steps = optax.tree.cast_like(jax.tree.map(scaled, mu, nu, mu_mass, nu_mass), updates)
        return steps, ScaleByAdamPerWeightState(mu_mass, nu_mass, *moments)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def adam_per_weight(
    learning_rate: Number | Schedule, b1: Number = 0.9, b2: Number = 0.999, eps: Number = 1e-8
) -> optax.GradientTransformationExtraArgs:
    r"""Adam that counts the updates of each weight, so that a weight that is reset starts like a new one.

    Use it together with resets; on the command line as in `redo+adam-per-weight`.

    Args:
      learning_rate: step size, ≥ 0, or an optax schedule.
      b1: decay rate of the first moment, in [0, 1).
      b2: decay rate of the second moment, in [0, 1).
      eps: ≥ 0, outside the root.

    Returns:
      `scale_by_adam_per_weight` with a learning rate.

    Raises:
      UserError: for numbers out of range.

    Example:
      >>> tx = adam_per_weight(0.1)
      >>> updates, _ = tx.update(jnp.array([3.0, -2.0]), tx.init(jnp.zeros(2)))
      >>> [round(float(u), 4) for u in updates]
      [-0.1, 0.1]

    References:
      See `scale_by_adam_per_weight`.

    Differs from:
      See `scale_by_adam_per_weight`.
    """
    require_adam(learning_rate, b1, b2, eps)
    return optax.with_extra_args_support(
        optax.chain(scale_by_adam_per_weight(b1, b2, eps), optax.scale_by_learning_rate(learning_rate))
    )


def _wide(tree: optax.Updates) -> optax.Updates:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), tree)


def _grown(masses: PyTree[Float[Array, "..."]], decay: Number) -> PyTree[Float[Array, "..."]]:
    return jax.tree.map(lambda mass: (decay * mass + (1 - decay)).astype(jnp.float32), masses)


ADAM_PER_WEIGHT = Method(
    name="adam-per-weight",
    summary="Adam with a bias correction for every weight, so reset weights start like new; combine it with resets",
    reference="Dohare et al. 2024, AdamGnT of their code",
    optimizer=adam_per_weight,
)
