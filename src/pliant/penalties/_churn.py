"""Churn reduction (C-CHAIN): learning a batch must not change the outputs on other examples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pliant.errors import UserError, require_choice, require_range, require_whole
from pliant.finite import all_finite
from pliant.penalties._output_distance import Distance, output_distance
from pliant.penalties._strength import heard, scaled
from pliant.types import Forward, LogUniform, Method, Number, Params, Penalty, Scalar


class ChurnState(NamedTuple):
    """State of `churn`."""

    past: tuple[Params, ...]
    """The parameters before each of the last updates, oldest first."""
    updates: Int[Array, ""]
    """Number of updates so far."""
    loss: Float[Array, ""]
    """Running absolute loss of the task, not corrected for its start at 0."""
    churn: Float[Array, ""]
    """Running churn, likewise."""


def churn(
    strength: Number = 0.01,
    *,
    decay: Number = 0.99,
    distance: Distance = "squared",
    lag: int = 1,
    num_examples: int = 32,
) -> Penalty:
    r"""Keeps the outputs on other examples close to what they were one update ago (C-CHAIN).

    Use it when updates on one batch change the answers on other examples, as in reinforcement learning.

    .. math:: c\, D, \qquad D = \mathbb E_x\, d\big(f_{\theta_{t-k}}(x), f_{\theta_t}(x)\big), \qquad
              c = \lambda\, \frac{\overline{|L|}}{\overline D + 10^{-8}}

    over reference examples x, sampled from the current task at every update, independently of the batch. The bars are
    running means over updates, including the current one, corrected for their start at 0; values that are not finite
    are left out. No gradient flows through them or through the earlier outputs. So the term is about λ times the loss,
    however much the network churns. d is

    * "squared": the mean squared difference of the outputs;
    * "kl": :math:`\sum_c p_c \log (p_c / q_c)` with p the earlier and q the present softmax.

    Of several named outputs, such as a policy and a value, the distances are added; there "kl" compares outputs of size
    1, which are no logits, by "squared".

    In the first k updates the term and its gradient are exactly 0. D is quadratic in the size of an update, so the
    gradient of the term is about 2λ |L| divided by that size: small steps make it large. If the loss stays far from 0,
    the published λ may outweigh the task.

    Args:
      strength: λ ≥ 0, the size of the term in units of the loss. 0 does nothing.
      decay: of the running means per update, in [0, 1).
      distance: d, "squared" or, for classes and tokens, "kl".
      lag: k ≥ 1, in updates.
      num_examples: reference examples for each update, ≥ 1, drawn with replacement.

    Returns:
      A `Penalty`; its `loss` needs the `Forward`. The state is a `ChurnState`. Cost: two forward passes and a backward
      pass on the reference examples; memory: k copies of the parameters.

    Raises:
      UserError: for numbers out of range, an unknown distance, a missing `Forward`, and for "kl" between outputs of
        size 1, which is 0.

    Example:
      >>> outputs = lambda params, inputs: (inputs * params[None], {})
      >>> x = jnp.ones((4, 1))
      >>> forward = Forward(x, x, {}, jnp.float32(3.0), outputs, lambda num_examples: x)
      >>> penalty = churn(0.01)
      >>> state = penalty.init(jnp.array([1.0]))
      >>> first, state = penalty.loss(jnp.array([1.0]), state, forward)
      >>> second, state = penalty.loss(jnp.array([1.5]), state, forward)
      >>> float(first), round(float(second), 5)
      (0.0, 0.03)

    References:
      Tang et al., `Mitigating Plasticity Loss in Continual Reinforcement Learning by Reducing Churn
      <https://arxiv.org/abs/2506.00592>`_, 2025, the churn reduction term. Tang and Berseth, `Improving Deep
      Reinforcement Learning by Reducing the Chain Effect of Value and Policy Churn
      <https://arxiv.org/abs/2409.04792>`_, 2024, the automatic coefficient.

    Differs from:
      The authors' code, whose means run over a window (50,000 updates in MinAtar), with a constant coefficient of 50
      before update 10,000; which for policies uses the cross-entropy, so that c is relative to the entropy, not to the
      churn. Its history index 2 is k = 1 here: the first entry is the present network.
    """
    require_range("strength", strength, 0, do="Use 0 to switch the penalty off.")
    require_range("decay", decay, 0, 0.999999, do="0.99 is usual.")
    lag = require_whole("lag", lag, 1, do="Use 1, as published.")
    num_examples = require_whole("num_examples", num_examples, 1, do="Use the size of the batch.")
    require_choice("distance", distance, "squared", "kl")

    def init(params: Params) -> ChurnState:
        past = tuple(jax.tree.map(jnp.copy, params) for _ in range(lag))
        return ChurnState(past, jnp.int32(0), jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))

    def loss(params: Params, state: ChurnState, forward: Forward | None) -> tuple[Scalar, ChurnState]:
        if forward is None:
            raise UserError(
                got="no Forward",
                wanted="the forward pass of the batch: churn is a matter of outputs",
                do="Pass a pliant.types.Forward with evaluate and sample.",
            )
        inputs = forward.sample(num_examples)
        before = jax.lax.stop_gradient(forward.evaluate(state.past[0], inputs)[0])
        has_past = state.updates >= lag
        is_on = has_past & (jnp.asarray(strength) > 0)
        now = output_distance(distance, before, forward.evaluate(heard(is_on, params), inputs)[0])
        updates = state.updates + 1

        def running(mean: Scalar, value: Scalar) -> Scalar:
            new = decay * mean + (1 - decay) * jax.lax.stop_gradient(value).astype(jnp.float32)
            return jnp.where(has_past, new, mean)

        means = running(state.loss, jnp.abs(forward.loss)), running(state.churn, now)
        is_seen = all_finite(means)  # both or neither, so that their ratio needs no correction
        means = jnp.where(is_seen, means[0], state.loss), jnp.where(is_seen, means[1], state.churn)
        correction = 1 - jnp.float32(decay) ** jnp.maximum(updates - lag, 1)
        ratio = means[0] / (means[1] + 1e-8 * correction)
        past = (*state.past[1:], jax.lax.stop_gradient(params))
        return scaled(jnp.where(is_on, strength * ratio, 0.0), now), ChurnState(past, updates, *means)

    return Penalty(init, loss)


C_CHAIN = Method(
    name="c-chain",
    summary="Adam with a penalty on how much an update changes the outputs on other examples",
    reference="Tang et al. 2025; Tang and Berseth 2024",
    penalty=churn,
    space={"strength": LogUniform(1e-3, 1.0)},
    off={"strength": 0.0},
    remembers="the last weights",
)
