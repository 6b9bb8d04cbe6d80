"""Churn: how much the answers have changed since an earlier moment, on the same inputs."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from pliant.diagnostics._as_measured import as_measured
from pliant.diagnostics._subject import all_outputs, picked
from pliant.errors import UserError
from pliant.types import Diagnostic, Scalar, Subject, Text


class PolicyChurn(NamedTuple):
    """What `policy_churn` returns."""

    changed_fraction: Scalar
    """Where the greedy choice is another one now, in [0, 1]."""
    kl: Scalar
    """Mean KL divergence of the policy now from the one before, ≥ 0, in nats."""


def policy_churn(
    logits: Float[Array, "*batch classes"],
    previous_logits: Float[Array, "*before classes_before"],
    where: Bool[Array, "*batch"] | None = None,
) -> PolicyChurn:
    r"""Measures the churn of a policy, a classifier or action values.

    Use it to see how much training on new data changes answers to old inputs, for discrete choices.

    .. math:: W = \mathbb E_x\, 1\big[\arg\max f_{now}(x) \ne \arg\max f_{prev}(x)\big], \qquad
              D = \mathbb E_x \sum_c p_c \ln \frac{p_c}{q_c}

    with p and q the softmax of the logits before and now, in float32; the first of several maxima is the choice.

    Args:
      logits: outputs now. Of action values only the choices mean something: ignore the divergence.
      previous_logits: of the earlier network, on the same inputs. −∞ is a class that was excluded.
      where: the examples that count; by default all. Leave out padding.

    Returns:
      `PolicyChurn`; 0 for the same logits. NaN and ∞ in logits that count give NaN, as does a `where` without True. The
      divergence is ∞ where a class is excluded now that was not before.

    Raises:
      UserError: for an empty batch, since nothing was measured, for fewer than two classes, which leave no choice, and
        if the shapes differ.

    Example:
      >>> found = policy_churn(jnp.array([[2.0, 1.0], [0.0, 1.0]]), jnp.array([[1.0, 2.0], [0.0, 1.0]]))
      >>> float(found.changed_fraction), round(float(found.kl), 4)
      (0.5, 0.2311)

    References:
      Schaul et al., `The Phenomenon of Policy Churn <https://arxiv.org/abs/2206.00730>`_, 2022. Section 1.1 for W. Tang
      and Berseth, `Improving Deep Reinforcement Learning by Reducing the Chain Effect of Value and Policy Churn
      <https://arxiv.org/abs/2409.04792>`_, 2024, for D.

    Differs from:
      C-CHAIN's code, which logs the cross-entropy: D plus the entropy of the earlier policy. Papers that follow churn
      from one update to the next; how far apart the two networks are is the caller's choice.
    """
    if logits.size == 0 or logits.shape[-1] < 2 or logits.shape != previous_logits.shape:
        raise UserError(
            got=f"logits of shapes {logits.shape} and {previous_logits.shape}",
            wanted="the same, with at least one example and two classes",
            do="Pass the outputs on a non-empty probe batch; for values there is `value_churn`.",
        )
    p, q = (jax.nn.log_softmax(each.astype(jnp.float32)) for each in (previous_logits, logits))
    is_known = ~(jnp.isnan(p) | jnp.isnan(q)).any(axis=-1)
    has_changed = (logits.argmax(axis=-1) != previous_logits.argmax(axis=-1)).astype(jnp.float32)
    divergence = jnp.where(p == -jnp.inf, 0, jnp.exp(p) * (p - q)).sum(axis=-1)
    return PolicyChurn(
        jnp.where(is_known, has_changed, jnp.nan).mean(where=where),
        jnp.where(is_known, jnp.maximum(divergence, 0), jnp.nan).mean(where=where),
    )


def value_churn(values: Float[Array, "*batch"], previous_values: Float[Array, "*before"]) -> Scalar:
    r"""Measures the churn of values: :math:`\mathbb E_x\, (V_{now}(x) - V_{prev}(x))^2`.

    Use it to see how much training on new data changes predicted values on old inputs.

    Args:
      values: outputs now.
      previous_values: of the earlier network, on the same inputs.

    Returns:
      A number ≥ 0 in squared units of the values, computed in float32. NaN gives NaN.

    Raises:
      UserError: for an empty batch, since nothing was measured, and if the shapes differ.

    Example:
      >>> float(value_churn(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))
      2.0

    References:
      Tang and Berseth, `Improving Deep Reinforcement Learning by Reducing the Chain Effect of Value and Policy Churn
      <https://arxiv.org/abs/2409.04792>`_, 2024, value churn.

    Differs from:
      Nothing known.
    """
    if values.size == 0 or values.shape != previous_values.shape:
        raise UserError(
            got=f"values of shapes {values.shape} and {previous_values.shape}",
            wanted="the same, with at least one example",
            do="Pass the outputs on a non-empty probe batch.",
        )
    return jnp.square(values.astype(jnp.float32) - previous_values.astype(jnp.float32)).mean()


def _measure(subject: Subject) -> dict[str, Scalar]:
    """By metric: of the choice for integer targets, of the output for values; of both for agents.

    All classes count, also those that the task excludes. Padding of texts does not.
    """
    assert subject.previous is not None
    inputs, targets = subject.probe
    now = all_outputs(subject)(subject.params, inputs)
    before = all_outputs(subject._replace(state=subject.previous[1]))(subject.previous[0], inputs)
    if not hasattr(targets, "dtype"):
        return _of_agent(subject, now, before)
    now, before = picked(subject, now), picked(subject, before)
    if jnp.issubdtype(targets.dtype, jnp.integer):
        changed, kl = policy_churn(now, before, targets != 0 if isinstance(inputs, Text) else None)
        return {"policy_changed_fraction": changed, "policy_kl": kl}
    if now.size != targets.size:
        raise UserError(
            got=f"an output of shape {now.shape} for values of shape {targets.shape}",
            wanted="an output that is the value",
            do="Leave this diagnostic out where values are coded as bins.",
        )
    return {"value_churn": value_churn(now, before)}


def _of_agent(subject: Subject, now: PyTree[Array], before: PyTree[Array]) -> dict[str, Scalar]:
    """Of a policy, and of the values beside it; or of action values, whose softmax means nothing."""
    if not isinstance(now, Mapping):
        values = [subject.coded.values(output) if subject.coded else output for output in (now, before)]
        return {"policy_changed_fraction": policy_churn(*values).changed_fraction, "value_churn": value_churn(*values)}
    changed, kl = policy_churn(picked(subject, now), picked(subject, before))
    found = {"policy_changed_fraction": changed, "policy_kl": kl}
    values = [name for name, output in now.items() if name != subject.output and output.shape[-1] == 1]
    if values:
        found["value_churn"] = value_churn(now[values[0]], before[values[0]])
    return found


CHURN = Diagnostic(
    name="churn",
    summary="how much the answers on this task have changed since the task before: choices and KL, or squared values",
    cost="cheap",
    measure=_measure,
    summarize=as_measured,
    needs=("previous",),
)
