"""Objectives for classes, values and texts: a loss and a score each."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from pliant.streams._decoding import writing
from pliant.types import Objective


def is_correct(output: Float[Array, "*batch classes"], targets: Int[Array, "*batch"]) -> Bool[Array, "*batch"]:
    """True where the target has the largest output; never for outputs that are not finite.

    Example:
      >>> is_correct(jnp.array([[0.1, 0.9], [0.1, jnp.nan]]), jnp.array([1, 1])).tolist()
      [True, False]

    References:
      None: the definition of accuracy.

    Differs from:
      A bare argmax, which takes NaN for the largest.
    """
    return (output.argmax(axis=-1) == targets) & jnp.isfinite(output).all(axis=-1)


def _cross_entropies(output: Array, targets: Array, task: Any) -> Array:
    del task
    return optax.softmax_cross_entropy_with_integer_labels(_wide(output), targets)


def _are_correct(output: Array, targets: Array, task: Any) -> Array:
    del task
    return is_correct(output, targets).astype(jnp.float32)


def _squared_errors(output: Array, targets: Array, task: Any) -> Array:
    del task
    errors = jnp.square(_wide(output) - targets).mean(axis=-1)
    return jnp.where(jnp.isnan(errors), jnp.inf, errors)


def _token_cross_entropies(output: Array, targets: Array, task: Any) -> Array:
    del task
    return mean_over_tokens(optax.softmax_cross_entropy_with_integer_labels(_wide(output), targets), targets)


def _tokens_correct(output: Array, targets: Array, task: Any) -> Array:
    del task
    return mean_over_tokens(is_correct(output, targets).astype(jnp.float32), targets)


def mean_over_tokens(values: Float[Array, "batch target"], targets: Int[Array, "batch target"]) -> Array:
    """The mean over the tokens of each example, without padding."""
    real = targets != 0
    return jnp.where(real, values, 0.0).sum(axis=-1) / jnp.maximum(real.sum(axis=-1), 1)


def _wide(output: Array) -> Array:
    """In float32 or wider: squared errors overflow in float16, and bfloat16 has two digits of a logarithm."""
    return output.astype(jnp.promote_types(output.dtype, jnp.float32))


CLASSIFICATION = Objective("accuracy", _cross_entropies, _are_correct)
"""Softmax cross-entropy against integer classes, and accuracy."""
REGRESSION = Objective("squared_error", _squared_errors, _squared_errors)
"""The mean squared error, as loss and as score."""


def text_objective(*, num_beams: int = 1) -> Objective:
    """Cross-entropy and accuracy of the next token under teacher forcing, averaged over the tokens of each example.

    Use it for streams of texts. At evaluation the network also writes texts (`greedy`, `beam_search`), and
    `text_scores` compares them with the targets.

    Args:
      num_beams: beam width at evaluation, ≥ 1; 1 is greedy.

    Returns:
      An `Objective`.

    Example:
      >>> objective = text_objective(num_beams=3)
      >>> objective.score, objective.writing.num_beams
      ('token_accuracy', 3)

    References:
      None: cross-entropy under teacher forcing.

    Differs from:
      A mean over all tokens of a batch, in which long texts weigh more.
    """
    return Objective("token_accuracy", _token_cross_entropies, _tokens_correct, writing(num_beams))


TEXT = text_objective()
"""`text_objective` with greedy writing."""


def masked_classification(allowed: Callable[[Any], Bool[Array, " classes"]]) -> Objective:
    """Classification among the classes that a task allows; the logits of all others are −∞.

    Use it where the output layer has units for classes that the current task does not have. Their gradient is exactly
    0, and they are never the answer.

    Args:
      allowed: `allowed(task) -> mask`, True for the classes of the task.

    Returns:
      An `Objective`.

    Example:
      >>> objective = masked_classification(lambda num_seen: jnp.arange(3) < num_seen)
      >>> float(objective.losses(jnp.zeros((1, 3)), jnp.array([0]), 2)[0]) == float(jnp.log(2.0))
      True

    References:
      Dohare et al. 2024, class-incremental CIFAR-100: the output units of unseen classes are not used.
    """

    def masked(output: Array, task: Any) -> Array:
        return jnp.where(allowed(task)[None], output, jnp.finfo(output.dtype).min)

    def losses(output: Array, targets: Array, task: Any) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(masked(_wide(output), task), targets)

    def scores(output: Array, targets: Array, task: Any) -> Array:
        finite = jnp.isfinite(output).all(axis=-1)
        return (finite & is_correct(masked(output, task), targets)).astype(jnp.float32)

    return Objective("accuracy", losses, scores)


def smoothed(output: Array, targets: Array, weight: Any) -> Array:
    r"""Cross-entropy against :math:`(1-w)\,\mathrm{onehot}(y) + w/C`, over any leading axes.

    Example:
      >>> float(smoothed(jnp.array([[1.0, 0.0]]), jnp.array([0]), 0.0)[0]).__round__(4)
      0.3133

    References:
      Müller et al. 2019, label smoothing.
    """
    log_probabilities = jax.nn.log_softmax(_wide(output))
    hard = -jnp.take_along_axis(log_probabilities, targets[..., None], axis=-1)[..., 0]
    return (1 - weight) * hard - weight * log_probabilities.mean(axis=-1)
