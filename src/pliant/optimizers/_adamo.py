"""AdamO: Adam with a decoupled step towards isometry."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from pliant.errors import UserError, require_adam, require_range, require_whole
from pliant.isometry import Rectangular, gram_deviation_gradient, require_rectangular
from pliant.layouts import OutputAxes, select_kernels
from pliant.masks import Mask
from pliant.types import Info, LogUniform, Method, Number, Part, Scalar, Schedule
from pliant.xla.squares import total_norm


class IsometryStepState(NamedTuple):
    """State of `add_isometry_step`."""

    count: Int[Array, ""]  # type: ignore[assignment] # optax's name; tuples have a method of that name
    """Number of updates so far."""
    info: Info
    """`isometry_norm`: the L2 norm of what the last update moved kernels by towards isometry, 0 between periods."""


def add_isometry_step(
    step_size: Number | Schedule,
    *,
    every: Number = 16,
    gain: Number = 1.0,
    rectangular: Rectangular = "none",
    mask: Mask = None,
    output_axes: OutputAxes = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Moves kernels towards isometry, by a stable gradient step on their Gram deviation at every k-th update.

    Use it to add AdamO's isometry step to any other optimizer.

    To finished updates (already scaled by minus the learning rate) of each selected kernel W it adds

    .. math:: u \leftarrow u - \min\!\Big(k\,\eta_t,\; \frac{1}{8 B}\Big)\, \nabla R(W), \qquad
              \nabla R(W) = 4 A (A^\top A - s^2 I)

    at updates number k, 2k, 3k, …, and nothing at others. W is the kernel before the update, A its matrix view with at
    least as many rows as columns, η the `step_size`, k = `every`, s = `gain`.

    **Stable for every strength, and every σ** up to 10⁹. B = s² + ‖AᵀA − s²I‖_∞ bounds the largest σ² (Gershgorin).
    A step moves each singular value by σ ← σ − 4kη σ(σ² − s²), which overshoots once 4kησ² > ½ and diverges soon
    after. The cap 1/(8B) keeps 4kησ² ≤ ½; then σ approaches s monotonically and never crosses it (at the cap
    σ ← ½(σ + s²/σ) ≥ s for the largest, if B is its square). Where kη is below the cap the step is the published one
    exactly. B is s² at the target; far from it B − s² is up to √n times the largest |σ² − s²|, for n the smaller side
    of A: so there the cap can bind although kη is stable, and the step is shorter than the published one.

    **Lazy isometry.** The flow is slow compared with training, so k small Euler steps are about the same as one of k
    times the size. The cost, several times that of Adam on a CPU if paid at every update, falls to a few per cent. k =
    1 is the paper's.

    Args:
      step_size: η ≥ 0 per update, in units of 1/σ², or an optax schedule (evaluated at the number of updates so far).
        0 changes nothing.
      every: k ≥ 1, a period in updates.
      gain: s > 0, the singular value aimed at; √2 keeps the start of an orthogonal ReLU network.
      rectangular: "none" as published, or "fan": s² · out/in where a kernel has more outputs than inputs.
      mask: True at the kernels to move: a pytree of booleans, a prefix of one, or a function of the parameters that
        makes one, such as `lambda params: wiring.mask(params, "matrix")`. By default all leaves with two or more axes
        that are no biases, which includes an output layer and embeddings: mask those out.
      output_axes: the axes of kernels that index outputs: (0,) for (out, in, height, width), (-2, -1) for attention
        kernels (in, heads, size), a mapping from paths to such tuples, or a wiring. By default the last one, and the
        first one inside Equinox modules; if a shape leaves this open, they must be given.

    Returns:
      A transformation to chain *after* the learning rate. `update` needs `params`. The state's `info` has the
      `isometry_norm`, see `pliant.optimizers.optimizer_info`. Pass `step` (the number of this
      update, from 1) where updates are vmapped over seeds: a step that is the same for all seeds keeps the periodic
      work a real branch, while the count in a vmapped state makes XLA do it at every update.

    Raises:
      UserError: for numbers out of range, an unknown `rectangular`, for a mask that does not fit or selects nothing or
        a vector, for kernels whose output axes are in doubt, and if `params` is missing.

    Example:
      >>> tx = add_isometry_step(0.01, every=1)
      >>> params = jnp.diag(jnp.array([2.0, 1.0, 0.5]))
      >>> updates, _ = tx.update(jnp.zeros((3, 3)), tx.init(params), params)
      >>> [round(float(u), 3) for u in jnp.diag(updates)]
      [-0.24, 0.0, 0.015]

    References:
      Rosseau, Müller, Nowé, `Preserving Plasticity in Continual Learning via Dynamical Isometry
      <https://arxiv.org/abs/2606.09762>`_, 2026. Equation 20, last term.

    Differs from:
      The paper by the period and the cap, which shortens the step where kη > 1/(8B). Stoix' `adamo`, which adds the
      gradient with the wrong sign and so ascends the penalty; rejax and Stoix, which skip convolutions.
    """
    require_whole("every", every, 1, do="Use 1 for the paper's step at every update, or a longer period.")
    require_range("gain", gain, 1e-12, do="Use 1 for isometry, √2 for the gain of ReLU networks.")
    require_range("step_size", step_size, 0, do="The penalty is descended; a negative step would ascend it.")
    require_rectangular(rectangular)

    def step_of(kernel: Array, axes: tuple[int, ...], size: Any) -> Array:
        gradient, bound = gram_deviation_gradient(kernel, gain, rectangular, axes)
        return jnp.minimum(size, 1.0 / (8.0 * bound)) * gradient

    def moved(updates: Any, params: Any, size: Any) -> tuple[Any, Scalar]:
        structure: Any = jax.tree.structure(params)
        found = zip(jax.tree.leaves(params), select_kernels(mask, params, output_axes), strict=True)
        steps = [None if axes is None else step_of(kernel, axes, size) for kernel, axes in found]

        def move(update: Array, step: Array | None) -> Array:
            if step is None:
                return update
            return jnp.where(size > 0, (update.astype(step.dtype) - step).astype(update.dtype), update)

        changed = [move(update, step) for update, step in zip(structure.flatten_up_to(updates), steps, strict=True)]
        norm = jnp.where(size > 0, total_norm(steps), 0.0).astype(jnp.float32)
        return structure.unflatten(changed), norm

    def unmoved(updates: Any, params: Any, size: Any) -> tuple[Any, Scalar]:
        del params, size
        return updates, jnp.float32(0)

    def init_fn(params: Any) -> IsometryStepState:
        select_kernels(mask, params, output_axes)  # what cannot be done is refused here, not at the first update
        return IsometryStepState(jnp.zeros((), jnp.int32), {"isometry_norm": jnp.float32(0)})

    def update_fn(
        updates: Any, state: IsometryStepState, params: Any = None, *, step: Any = None, **extra: Any
    ) -> tuple[Any, IsometryStepState]:
        del extra
        if params is None:
            raise UserError(
                got="update(gradients, state)",
                wanted="update(gradients, state, params)",
                do="Pass the parameters: the isometry step is computed from them.",
            )
        size = every * (step_size(state.count) if callable(step_size) else step_size)
        count = optax.safe_increment(state.count)
        fires = (count if step is None else step) % every == 0
        updates, norm = jax.lax.cond(fires, moved, unmoved, updates, params, size)
        return updates, IsometryStepState(count, {"isometry_norm": norm})

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def adamo(
    learning_rate: Number | Schedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    *,
    isometry_strength: Number = 0.1,
    isometry_every: Number = 16,
    gain: Number = 1.0,
    rectangular: Rectangular = "none",
    mask: Mask = None,
    output_axes: OutputAxes = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam with a decoupled step that keeps kernels near isometry (AdamO).

    Use it first when an MLP or CNN trained with Adam loses plasticity; it costs a few per cent of a step.

    .. math:: \theta_{t+1} = \theta_t - \eta \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon}
              - \eta \lambda \nabla \textstyle\sum_l R(W_l)

    The moments m and v see the gradient of the task only. The last term is `add_isometry_step` with step size ηλ:
    see there for R, for the period k = `isometry_every` (the term is k times as large at every k-th update) and for
    why it is stable. It revives dead ReLU units, whose task gradient is zero.

    Args:
      learning_rate: η ≥ 0, or an optax schedule; the isometry step follows it.
      b1: decay rate of the first moment, in [0, 1).
      b2: decay rate of the second moment, in [0, 1).
      eps: ϵ > 0, outside the root.
      isometry_strength: λ ≥ 0. With 0 the updates are those of `optax.adam` to the bit.
      isometry_every: k ≥ 1, a period in updates; 1 is the paper.
      gain: s > 0, the singular value aimed at.
      rectangular: see `add_isometry_step`.
      mask: see `add_isometry_step`; leave the output layer and embeddings out.
      output_axes: see `add_isometry_step`.

    Returns:
      An optimizer whose `update` needs `params` and takes `step`, see `add_isometry_step`. Memory: Adam's.

    Raises:
      UserError: see `add_isometry_step`.

    Example:
      >>> params = {"hidden": jnp.diag(jnp.array([2.0, 1.0])), "head": jnp.ones((2, 1))}
      >>> tx = adamo(1e-2, isometry_strength=1.0, isometry_every=1, mask={"hidden": True, "head": False})
      >>> gradients = jax.tree.map(jnp.zeros_like, params)
      >>> updates, _ = tx.update(gradients, tx.init(params), params)
      >>> round(float(updates["hidden"][0, 0]), 3), bool((updates["head"] == 0).all())
      (-0.24, True)

    References:
      Rosseau, Müller, Nowé, `Preserving Plasticity in Continual Learning via Dynamical Isometry
      <https://arxiv.org/abs/2606.09762>`_, 2026. Equations 19 and 20.

    Differs from:
      The paper: λ = 0.1, not 1e-3, at which the term is too weak to keep a ReLU network plastic on random labels (the
      authors' RL code passes 0.1 as well); k = 16, not 1; a cap on kηλ, which makes the term smaller than equation 20's
      where it binds, and far from isometry that can be before stability asks for it; no isometry step size η_iso of its
      own, since only η_iso λ matters. The authors' nanochat and rejax code apply the term after Adam's step and with
      half of the gradient: pass λ/2. See also `add_isometry_step`.
    """
    require_adam(learning_rate, b1, b2, eps)
    require_range("isometry_strength", isometry_strength, 0, do="Use 0 for plain Adam.")

    def step_size(count: Any) -> Any:
        rate = learning_rate(count) if callable(learning_rate) else learning_rate
        return rate * isometry_strength

    return optax.chain(
        optax.scale_by_adam(b1, b2, eps),
        optax.scale_by_learning_rate(learning_rate),
        add_isometry_step(
            step_size, every=isometry_every, gain=gain, rectangular=rectangular, mask=mask, output_axes=output_axes
        ),
    )


ADAMO = Method(
    name="adamo",
    summary="Adam with a decoupled step of the hidden kernels towards isometry",
    reference="Rosseau et al. 2026, equations 16–20",
    optimizer=Part(adamo, roles=("matrix",)),
    space={"isometry_strength": LogUniform(1e-3, 1.0)},
    off={"isometry_strength": 0.0},
    lowers="isometry_deviation",
)
ADAMO_MAXMIN = ADAMO._replace(
    name="adamo-maxmin",
    summary="AdamO on a network with MaxMin activations: isometric almost everywhere",
    reference="Rosseau et al. 2026, sections 3.1 and 4.4",
    network={"activation": "maxmin"},
)
