r"""Values as distributions over bins: a network learns them by cross-entropy instead of a squared error."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree, Real

from pliant.errors import UserError, require_range
from pliant.types import Coded, Key, Method, Network, Objective, Params, Posed, State


class ValueBins(NamedTuple):
    """A code of values: bins, and how a value is spread over them."""

    centres: Float[np.ndarray, " bins"]
    """The values that the bins stand for, ascending."""
    encode: Callable[[Real[Array, "*axes"]], Float[Array, "*axes bins"]]
    """`encode(values) -> probabilities`, float32 or wider, to be compared with a softmax by cross-entropy."""

    def __call__(self, objective: Objective, num_outputs: int) -> Posed:
        """Poses values to regress on as classes: a softmax over the bins for each, scored by the mean that it has.

        Raises:
          UserError: for an objective that is not scored by a squared error.
        """
        if objective.score != "squared_error":
            raise UserError(
                got=f"an objective that is scored by its {objective.score}",
                wanted="values to regress on, as in slowly-changing-regression or random-teacher",
                do="Leave the method out, or choose such a stream.",
            )

        coded = self.coded(num_outputs)

        def losses(output: Array, targets: Array, task: PyTree[Array]) -> Array:
            del task
            return coded.losses(output, targets)

        def scores(output: Array, targets: Array, task: PyTree[Array]) -> Array:
            return objective.scores(coded.values(output), targets, task)

        return Posed(objective._replace(losses=losses, scores=scores, coded=coded), num_outputs * len(self.centres))

    def coded(self, num_values: int) -> Coded:
        """Outputs that are the logits of all bins, for one value after the other.

        Example:
          >>> coded = two_hot(num_bins=3, low=-1.0, high=1.0).coded(num_values=2)
          >>> coded.values(jnp.array([[0.0, 0.0, 0.0, 0.0, 0.0, 99.0]])).tolist()
          [[0.0, 1.0]]
        """

        def logits(output: Float[Array, "batch out"]) -> Float[Array, "batch values bins"]:
            return _wide(output).reshape(len(output), num_values, len(self.centres))

        def losses(output: Array, values: Array) -> Array:
            return optax.softmax_cross_entropy(logits(output), self.encode(values)).mean(axis=-1)

        return Coded(lambda output: self.decode(jax.nn.softmax(logits(output))), losses)

    def decode(self, probabilities: Float[Array, "*axes bins"]) -> Float[Array, "*axes"]:
        r"""The mean of a distribution over the bins, :math:`\sum_i p_i z_i`.

        Example:
          >>> float(two_hot(num_bins=3, low=-1.0, high=1.0).decode(jnp.array([0.0, 0.75, 0.25])))
          0.25
        """
        return jnp.matmul(probabilities, jnp.asarray(self.centres, probabilities.dtype), precision="highest")


def two_hot(*, num_bins: int = 51, low: float = -10.0, high: float = 10.0) -> ValueBins:
    r"""Spreads a value over the two nearest of evenly spaced points, so that their mean is the value.

    .. math:: p_i(y) = \max\!\Big(0,\; 1 - \frac{|y - z_i|}{\Delta}\Big), \qquad z_i = low + i \Delta, \quad
              \Delta = \frac{high - low}{n - 1}

    for i = 0, …, n − 1. Values outside [low, high] count as the nearer end.

    Args:
      num_bins: n ≥ 2.
      low: the smallest value.
      high: the largest value, above `low`.

    Returns:
      The code; decoding an encoded value within the range gives the value.

    Raises:
      UserError: for fewer than two bins and an empty range.

    Example:
      >>> bins = two_hot(num_bins=3, low=-1.0, high=1.0)
      >>> bins.encode(jnp.array([0.25, 5.0])).tolist()
      [[0.0, 0.75, 0.25], [0.0, 0.0, 1.0]]

    References:
      Bellemare, Dabney, Munos, `A Distributional Perspective on Reinforcement Learning
      <https://arxiv.org/abs/1707.06887>`_, 2017, equation 7: the projection of a single value; 51 points on [−10, 10].
      Lyle et al., `Understanding Plasticity in Neural Networks <https://arxiv.org/abs/2303.01486>`_, 2023, "two-hot".

    Differs from:
      MuZero's and Dreamer's code, which squash the values first (√ and symlog).
    """
    _check(num_bins, low, high)
    centres = np.linspace(low, high, num_bins, dtype=np.float32)

    def encode(values: Real[Array, "*axes"]) -> Float[Array, "*axes bins"]:
        places = (jnp.clip(_wide(values), low, high) - low) * ((num_bins - 1) / (high - low))
        return jnp.maximum(0.0, 1.0 - jnp.abs(jnp.subtract.outer(places, jnp.arange(num_bins, dtype=places.dtype))))

    return ValueBins(centres, encode)


def hl_gauss(*, num_bins: int = 51, low: float = -10.0, high: float = 10.0, smoothing: float = 0.75) -> ValueBins:
    r"""Spreads a value over bins as a normal distribution around it, cut off at the ends of the range.

    .. math:: p_i(y) = \frac{\Phi((e_{i+1} - y)/\sigma) - \Phi((e_i - y)/\sigma)}
                            {\Phi((e_n - y)/\sigma) - \Phi((e_0 - y)/\sigma)}, \qquad
              e_i = low + i \Delta, \quad \Delta = \frac{high - low}{n}, \quad \sigma = s \Delta

    for i = 0, …, n − 1; a bin stands for its centre. Values outside [low, high] count as the nearer end. The cut pulls
    what is decoded inwards near the ends: choose a range that is some σ wider than the values.

    Args:
      num_bins: n ≥ 2.
      low: the lower edge of the first bin.
      high: the upper edge of the last bin, above `low`.
      smoothing: s > 0, the standard deviation in widths of a bin.

    Returns:
      The code; decoding an encoded value gives the value but for the cut.

    Raises:
      UserError: for fewer than two bins, an empty range, and a smoothing that is not positive.

    Example:
      >>> bins = hl_gauss(num_bins=3, low=0.0, high=3.0, smoothing=0.5)
      >>> [round(float(p), 5) for p in bins.encode(jnp.array(1.5))]
      [0.15773, 0.68454, 0.15773]

    References:
      Imani and White, `Improving Regression Performance with Distributional Losses
      <https://arxiv.org/abs/1806.04613>`_, 2018, section 3. Farebrother et al., `Stop Regressing
      <https://arxiv.org/abs/2403.03950>`_, 2024, section 3.1: s = 0.75.

    Differs from:
      Farebrother et al.'s listing, which divides 0 by 0 for values far outside of the range.
    """
    _check(num_bins, low, high)
    require_range("smoothing", smoothing, 1e-6, do="0.75 is usual.")
    edges = np.linspace(low, high, num_bins + 1, dtype=np.float32)
    deviation = smoothing * (high - low) / num_bins

    def encode(values: Real[Array, "*axes"]) -> Float[Array, "*axes bins"]:
        values = _wide(values)
        distances = -jnp.subtract.outer(jnp.clip(values, low, high), jnp.asarray(edges, values.dtype))
        below = jax.scipy.special.ndtr(distances / deviation)
        return jnp.diff(below, axis=-1) / (below[..., -1:] - below[..., :1])

    return ValueBins((edges[1:] + edges[:-1]) / 2, encode)


def _wide(values: Real[Array, "*axes"]) -> Float[Array, "*axes"]:
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def _check(num_bins: int, low: float, high: float) -> None:
    require_range("num_bins", num_bins, 2, do="Use 51, as published.")
    if not low < high:
        raise UserError(got=f"low={low:g} and high={high:g}", wanted="low < high", do="Use −10 and 10, or your range.")


def with_zero_head(network: Network) -> Network:
    """The network with an output layer of zeros at the start, so that all bins are equally probable.

    Example:
      >>> from pliant.networks import mlp
      >>> params, _ = with_zero_head(mlp((2,), 3, widths=(4,))).init(jax.random.key(0))
      >>> float(jnp.abs(params["head"]["kernel"]).sum())
      0.0
    """

    def init(key: Key) -> tuple[Params, State]:
        params, state = network.init(key)
        is_head = network.wiring.head(params)
        return jax.tree.map(lambda leaf, head: jnp.zeros_like(leaf) if head else leaf, params, is_head), state

    return network._replace(init=init)


TWO_HOT = Method(
    name="two-hot",
    summary="Adam on values as classes: cross-entropy to the two bins next to the target",
    reference="Lyle et al. 2023, section 5; Bellemare et al. 2017, equation 7",
    wrap=with_zero_head,
    targets=two_hot,
)
HL_GAUSS = Method(
    name="hl-gauss",
    summary="Adam on values as classes: cross-entropy to a normal distribution around the target",
    reference="Farebrother et al. 2024, section 3.1; Imani and White 2018, section 3",
    wrap=with_zero_head,
    targets=hl_gauss,
)
