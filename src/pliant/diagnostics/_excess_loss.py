"""Excess-loss plasticity: the share of the loss on a new task that training removes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from pliant.diagnostics._fit import fit
from pliant.diagnostics._subject import all_outputs, some
from pliant.errors import require_range
from pliant.types import Batch, Diagnostic, Key, Measured, Number, Params, Subject, Text

_LEAST = 1e-8
_NUM_TASKS, _NUM_STEPS = 10, (100, 500, 2000)
_MOST = 512  # examples of a task: ten copies train, and their losses are taken on all of them
_SEED = 0  # of tasks and batches: the same for all networks, tasks and seeds, whose results can so be compared


class ExcessLossPlasticity(NamedTuple):
    """What `excess_loss_plasticity` returns."""

    plasticity: Float[Array, " budgets"]
    """Mean fraction over the tasks that were not skipped, at most 1; NaN if all were."""
    fractions: Float[Array, "tasks budgets"]
    """Φ of each task; NaN if it was skipped."""
    losses: Float[Array, "tasks budgets+1"]
    """Mean loss of all examples: before, and after each budget."""
    num_skipped: Int[Array, ""]
    """Tasks of which there was nothing left to learn."""


def excess_loss_fraction(
    loss_before: Float[Array, "*shape"],
    loss_after: Float[Array, "*shape"],
    best_loss: Number | Float[Array, "*shape"] = 0.0,
) -> Float[Array, "*shape"]:
    r"""Measures the fraction of the excess loss that training eliminated.

    Use it with losses from training of your own; `excess_loss_plasticity` also does the training.

    .. math:: \Phi = \frac{\Delta_{before} - \Delta_{after}}{\Delta_{before}}, \qquad \Delta = L - L^*

    Args:
      loss_before: L(θ).
      loss_after: L(θ_T).
      best_loss: L*, the best that the network can reach: 0 for tasks that it can memorise.

    Returns:
      Φ ≤ 1 as long as no loss is below L*; 0 if nothing was gained, negative if the loss rose; never clipped. NaN where
      Δ before is less than 1e-8, since there is nothing to eliminate, and where a loss is NaN.

    Example:
      >>> excess_loss_fraction(jnp.array([2.0, 1.0, 0.5]), jnp.array([1.0, 1.5, 0.0]), best_loss=0.5).tolist()
      [0.6666666865348816, -1.0, nan]

    References:
      Rosseau et al. 2026 (arXiv 2606.09762). Definition 2.1.

    Differs from:
      Nothing known.
    """
    gap = loss_before - best_loss
    return jnp.where(gap < _LEAST, jnp.nan, (loss_before - loss_after) / gap)


def excess_loss_plasticity(
    function: Callable[[Params, Any], Array],
    losses: Callable[[Array, Any], Float[Array, " batch"]],
    params: Params,
    optimizer: optax.GradientTransformation,
    draw: Callable[[Key], Batch],
    key: Key,
    *,
    num_tasks: int = 10,
    num_steps: Sequence[int] = (100, 500, 2000),
    batch_size: int = 32,
    best_loss: Number | Float[Array, " tasks"] = 0.0,
) -> ExcessLossPlasticity:
    r"""Measures plasticity as the expected fraction of excess loss that training on a new task eliminates.

    Use it to compare how well networks learn new tasks whose starting losses differ.

    .. math:: \mathcal P_T(\theta) = \mathbb E_\tau\, \Phi_T(\theta, \tau), \qquad
       \Phi_T = \frac{\Delta_\tau(\theta) - \Delta_\tau(\theta_T)}{\Delta_\tau(\theta)}, \qquad
       \Delta_\tau(\theta) = L_\tau(\theta) - L^*_\tau

    where :math:`\theta_T` is a copy of θ after T updates on task τ, from a fresh state of the optimizer. All budgets T
    are moments of one and the same training. Tasks with Δ(θ) < 1e-8 are skipped and counted.

    Φ is relative to where the loss begins. A network that is sure of the wrong answers begins far above the loss of
    guessing (ln C for C classes) and eliminates most of that by becoming unsure: read the losses beside it.

    Args:
      function: `function(params, inputs) -> output`, deterministic.
      losses: `losses(output, targets) -> loss of every example`.
      params: θ; not changed.
      optimizer: that the network learns with; its update is handed `step` and `key` if it takes them.
      draw: `draw(key) -> Batch`, a new task: all of its examples.
      key: for tasks and batches; compare networks under the same key.
      num_tasks: ≥ 1.
      num_steps: budgets T, ascending, each ≥ 1.
      batch_size: examples in an update, drawn with replacement.
      best_loss: L*, one for all tasks or one for each. 0 is right for tasks that the network can memorise; else give
        the least loss of long training from a fresh initialisation.

    Returns:
      `ExcessLossPlasticity`. Losses that are not finite give NaN.

    Raises:
      UserError: for no tasks, budgets, examples, or examples in an update.

    Example:
      >>> def function(params, x):
      ...     return jnp.broadcast_to(params, (len(x), 1))
      >>> def losses(output, targets):
      ...     return 0.5 * jnp.square(output - targets).sum(axis=1)
      >>> def draw(key):
      ...     return Batch(jnp.zeros((4, 1)), jnp.ones((4, 1)))
      >>> found = excess_loss_plasticity(
      ...     function, losses, jnp.zeros(1), optax.sgd(0.5), draw, jax.random.key(0), num_steps=(1, 2)
      ... )
      >>> found.plasticity.tolist()  # 1 − (1 − η)^2T
      [0.75, 0.9375]

    References:
      Rosseau et al. 2026 (arXiv 2606.09762). Definition 2.1.

    Differs from:
      The authors, who follow their benchmarks' own tasks. In runs the tasks are the probe's targets shuffled with
      L* = 0, which is true where they can be memorised: not for targets that are distributions (two-hot), and not where
      inputs repeat (slowly-changing-regression); there all fractions are too low. Copies are trained with the method's
      optimizer alone: its penalties, interventions and schedules take no part.
    """
    require_range("num_tasks", num_tasks, 1, do="Use 10.")
    require_range("the first of num_steps", min(num_steps, default=0), 1, do="Use (100, 500, 2000).")
    points = (0, *num_steps)

    def one(number: Int[Array, ""]) -> Float[Array, " points"]:
        of_task, of_fit = jax.random.split(jax.random.fold_in(key, number))
        task = draw(of_task)
        return fit(function, losses, params, optimizer, task, of_fit, batch_size=batch_size, points=points).losses

    curves = jax.lax.map(one, jnp.arange(num_tasks))
    best = jnp.broadcast_to(jnp.asarray(best_loss, curves.dtype), (num_tasks,))
    fractions = jax.vmap(excess_loss_fraction, in_axes=(None, 1, None), out_axes=1)(curves[:, 0], curves[:, 1:], best)
    skipped = curves[:, 0] - best < _LEAST
    total = jnp.where(skipped[:, None], 0.0, fractions).sum(axis=0)
    return ExcessLossPlasticity(total / (~skipped).sum(), fractions, curves, skipped.sum())


def _redealt(batch: Batch, key: Key) -> Batch:
    """The same inputs and the same targets, paired at random; of texts, what is written stays with its target."""
    order = jax.random.permutation(key, len(jax.tree.leaves(batch.targets)[0]))
    if isinstance(batch.inputs, Text):
        return batch._replace(inputs=batch.inputs._replace(source=jnp.asarray(batch.inputs.source)[order]))
    return batch._replace(inputs=jax.tree.map(lambda leaf: jnp.asarray(leaf)[order], batch.inputs))


def _measure(subject: Subject) -> ExcessLossPlasticity:
    """New tasks for any stream: the probe's targets, shuffled. A network can only memorise them, so L* = 0."""
    assert subject.rule is not None
    probe = some(subject.probe, _MOST)
    return excess_loss_plasticity(
        all_outputs(subject),
        subject.losses,
        subject.params,
        subject.rule.optimizer,
        lambda key: _redealt(probe, key),
        jax.random.key(_SEED),
        num_tasks=_NUM_TASKS,
        num_steps=_NUM_STEPS,
        batch_size=subject.rule.batch_size,
    )


def _summarize(found: ExcessLossPlasticity) -> Measured:
    *earlier, last = (float(value) for value in found.plasticity)
    numbers = {"excess_loss_plasticity": last}
    numbers |= {f"excess_loss_plasticity/{steps}": value for steps, value in zip(_NUM_STEPS, earlier, strict=False)}
    numbers["num_skipped_tasks"] = float(found.num_skipped)
    return Measured(numbers, {"fractions": np.asarray(found.fractions), "losses": np.asarray(found.losses)})


EXCESS_LOSS_PLASTICITY = Diagnostic(
    name="excess-loss-plasticity",
    summary="share of the loss on the probe with targets dealt anew that 2000 updates remove (Rosseau et al.)",
    cost="rare",
    measure=_measure,
    summarize=_summarize,
    needs=("rule",),
    measures_shares=True,
)
