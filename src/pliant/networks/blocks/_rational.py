"""Rational activations: a quotient of polynomials whose coefficients are learned."""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from pliant.types import Method
from pliant.xla.rows import spread_number

NUMERATOR = (0.033563435, 0.505, 1.653176166, 2.009367223, 0.931452523, 0.152325757)
DENOMINATOR = (0.0, 3.978944947, 0.0, 0.301635159)
"""The least squares fit to leaky ReLU of slope 0.01 on [−3, 3]: off by 0.0055 in the mean square, 0.034 at most."""


def rational(
    x: Float[Array, "*axes"],
    numerator: Float[Array, " powers"] | Sequence[float] = NUMERATOR,
    denominator: Float[Array, " powers_from_1"] | Sequence[float] = DENOMINATOR,
) -> Float[Array, "*axes"]:
    r"""A quotient of polynomials without poles (safe Padé activation unit, of degrees 5 and 4 by default).

    .. math:: f(x) = \frac{a_0 + a_1 x + \dots + a_5 x^5}{1 + |b_1 x + \dots + b_4 x^4|}

    As the activation "rational" of a network, a and b are parameters of every layer (role "other", so weight decay and
    methods of kernels leave them alone). They start from the least squares fit to leaky ReLU of slope 0.01 on [−3, 3].
    Outside that interval the initial function approaches 0.505 x + 3.1: a quotient of degrees 5 and 4 has one slope on
    both sides.

    Args:
      x: any shape.
      numerator: a, lowest power first; at least one.
      denominator: b, from the first power on; at least one.

    Returns:
      f(x), in the shape of x. Powers and their gradients are in float32 or wider: x⁵ overflows float16 from 9 on.

    Example:
      >>> [round(float(y), 2) for y in rational(jnp.array([-2.0, 0.0, 2.0]))]
      [-0.02, 0.03, 2.0]

    References:
      Molina, Schramowski, Kersting, `Padé Activation Units <https://arxiv.org/abs/1907.06732>`_, 2020. The safe form
      of section 2.
      Delfosse et al., `Adaptive Rational Activations to Boost Deep Reinforcement Learning
      <https://arxiv.org/abs/2102.09407>`_, 2024, for their plasticity; one a layer, as here, or one for all layers.

    Differs from:
      The authors' library, whose default ("version A") has the denominator 1 + |b₁x| + … + |b₄x⁴|. Its coefficients for
      leaky ReLU belong to that form: put into this one they miss by 0.23 in the mean square.
    """
    numerator, denominator = list(numerator), list(denominator)
    dtype = jnp.result_type(x, *numerator, *denominator)
    x = x.astype(jnp.promote_types(dtype, jnp.float32))
    a, b = _spread(numerator, x), _spread(denominator, x)
    p = functools.reduce(lambda total, a: total * x + a, a[::-1])
    q = functools.reduce(lambda total, b: (total + b) * x, b[::-1], jnp.zeros_like(x))
    return (p / (1.0 + jnp.abs(q))).astype(dtype)


def _spread(coefficients: Sequence[Array | float], x: Array) -> list[Array]:
    return [spread_number(jnp.asarray(c, jnp.result_type(c, x)), x) for c in coefficients]


RATIONAL = Method(
    name="rational",
    summary="Adam on a network whose layers learn their activations: quotients of polynomials",
    reference="Delfosse et al. 2024; Molina, Schramowski, Kersting 2020",
    network={"activation": "rational"},
)
