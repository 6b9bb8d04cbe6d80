"""Activations: elementwise ones, and the sorting, doubling, learning and drawing ones of plasticity research."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pliant.errors import UserError, require_range, unknown_name
from pliant.networks.blocks._aid import aid
from pliant.networks.blocks._rational import DENOMINATOR, NUMERATOR, rational
from pliant.types import Method, Number
from pliant.wiring import TRAITS, Traits


class Activation(NamedTuple):
    """An activation with what a network must know of it."""

    apply: Callable[..., Array]
    """`apply(x)`; of one that learns with what it starts from, of one that draws as in evaluation."""
    gain: float
    """Gain of an orthogonal initialiser that keeps the scale of the signal."""
    elementwise: bool = True
    """False where an output depends on several units."""
    traits: Traits = Traits()
    """What else methods ask of it."""
    group_size: int = 1
    """The width must be a multiple of this."""
    learned: Mapping[str, tuple[float, ...]] = {}
    """What every layer learns of it: keywords of `apply`, with the values at the start."""
    draws: bool = False
    """Whether it is random in training: then `apply` takes `key`, which is None in evaluation."""

    @property
    def expansion(self) -> int:
        """Width of the output over width of the input."""
        return self.traits.outputs


def group_sort(x: Float[Array, "*axes width"], group_size: int = 2) -> Float[Array, "*axes width"]:
    r"""Sorts adjacent groups along the last axis, ascending: an isometry almost everywhere.

    .. math:: (y_{jk}, \dots, y_{jk+k-1}) = \mathrm{sort}(x_{jk}, \dots, x_{jk+k-1}), \qquad
              k = 2:\ (\min(x_{2j}, x_{2j+1}),\; \max(x_{2j}, x_{2j+1}))

    for j = 0, …, width/k − 1. The Jacobian is a permutation matrix, so norms and gradients pass unchanged and no unit
    can die.

    Args:
      x: any leading axes; for convolutions the last axis is the channels.
      group_size: k ≥ 1; must divide the width.

    Returns:
      y, in the shape of x.

    Raises:
      UserError: if `group_size` is below 1 or does not divide the width.

    Example:
      >>> group_sort(jnp.array([3.0, 1.0, -2.0, 5.0])).tolist()
      [1.0, 3.0, -2.0, 5.0]

    References:
      Anil, Lucas, Grosse, `Sorting out Lipschitz function approximation <https://arxiv.org/abs/1811.05381>`_, 2019.

    Differs from:
      LNets' `MaxMin`, which emits all maxima and then all minima, and code that sorts descending: the same values in
      another order, so the same functions, but checkpoints are not portable. LNets counts groups, we give their size.
    """
    require_range("group_size", group_size, 1, do="Use 2 for MaxMin.")
    width = x.shape[-1]
    if width % group_size:
        raise UserError(
            got=f"width {width} with groups of {group_size}",
            wanted=f"a width that is a multiple of {group_size}",
            do=f"Choose a width such as {-(-width // group_size) * group_size}.",
        )
    groups = x.reshape(*x.shape[:-1], width // group_size, group_size)
    if group_size == 2:  # twice as fast as a sort
        return jnp.stack([groups.min(-1), groups.max(-1)], axis=-1).reshape(x.shape)
    return jnp.sort(groups, axis=-1).reshape(x.shape)


def max_min(x: Float[Array, "*axes width"]) -> Float[Array, "*axes width"]:
    """Sorts adjacent pairs along the last axis: `group_sort` with groups of two, see there.

    Args:
      x: any leading axes; for convolutions the last axis is the channels.

    Returns:
      The sorted pairs, in the shape of x.

    Raises:
      UserError: if the width is odd.

    Example:
      >>> max_min(jnp.array([3.0, 1.0])).tolist()
      [1.0, 3.0]

    References:
      See `group_sort`.

    Differs from:
      See `group_sort`.
    """
    return group_sort(x, 2)


def crelu(x: Float[Array, "*axes width"]) -> Float[Array, "*axes doubled"]:
    r"""Concatenates relu(x) and relu(−x) along the last axis, which doubles.

    .. math:: y = (\max(x, 0),\; \max(-x, 0)), \qquad \lVert y \rVert = \lVert x \rVert

    For every unit one of the two halves passes the gradient, so no unit is dead.

    Args:
      x: any leading axes; for convolutions the last axis is the channels.

    Returns:
      y: first the positive parts of all units, then the negative ones.

    Example:
      >>> crelu(jnp.array([2.0, -3.0])).tolist()
      [2.0, 0.0, 0.0, 3.0]

    References:
      Shang et al., `Understanding and Improving Convolutional Neural Networks via Concatenated Rectified Linear Units
      <https://arxiv.org/abs/1603.05201>`_, 2016. Equation 2.

    Differs from:
      Plasticity baselines that also drop units to keep the parameter count (Kumar et al. 2023: 9 % of those of an MLP,
      27 % of a CNN). The networks' `width_multiplier` does that; the method `crelu` keeps 71 %, which leaves as many
      weights between two hidden layers as there were.
    """
    return jax.nn.relu(jnp.concatenate([x, -x], axis=-1))


def fourier(x: Float[Array, "*axes width"]) -> Float[Array, "*axes doubled"]:
    r"""Concatenates sin(x) and cos(x) along the last axis, which doubles (deep Fourier features).

    .. math:: \sin^2 x + \cos^2 x = 1, \qquad \Big(\frac{d \sin x}{dx}\Big)^2 + \Big(\frac{d \cos x}{dx}\Big)^2 = 1

    so the features' norm is the root of the number of pre-activations, whatever these are, and no unit is dead: where
    one half is flat the other is steepest and close to linear.

    Args:
      x: any leading axes; for convolutions the last axis is the channels.

    Returns:
      The features: first the sines of all units, then the cosines.

    Example:
      >>> [round(float(y), 3) for y in fourier(jnp.array([0.0, jnp.pi / 6]))]
      [0.0, 0.5, 1.0, 0.866]

    References:
      Lewandowski, Schuurmans, Machado, `Plastic Learning with Deep Fourier Features
      <https://arxiv.org/abs/2410.20634>`_, 2025: a sine and a cosine in every layer.

    Differs from:
      The authors' layers, which have half as many pre-activations, so that the features are as many as before: the
      method `fourier` has a `width_multiplier` of ½ for that.
      The gain of √2 gives every layer pre-activations of mean square 1, since half is the mean square of the features.
    """
    return jnp.concatenate([jnp.sin(x), jnp.cos(x)], axis=-1)


def smooth_leaky(
    x: Float[Array, "*axes"], alpha: Number = 0.1, p: Number = 3.0, c: Number = 5.0
) -> Float[Array, "*axes"]:
    r"""Goes over from slope α to slope 1 without a kink (Smooth-Leaky).

    .. math:: f(x) = \alpha x + (1 - \alpha) x \, \sigma(c x / p)

    f(0) = 0 and f'(0) = (1 + α)/2. The slope is nowhere below α − 0.0998 (1 − α), at x = −2.4 p/c, so it is positive
    for α ≥ 0.091.

    Args:
      x: any shape.
      alpha: α in [0, 1], the slope far below 0.
      p: > 0, the width of the transition.
      c: > 0, its steepness. Only c/p counts.

    Returns:
      f(x), in the shape of x.

    Raises:
      UserError: for numbers out of range.

    Example:
      >>> [round(float(y), 3) for y in smooth_leaky(jnp.array([-30.0, 0.0, 30.0]))]
      [-3.0, 0.0, 30.0]

    References:
      Lillo, Cheney, `Activation Function Design Sustains Plasticity in Continual Learning
      <https://arxiv.org/abs/2509.22562>`_, 2026. Equation 1, with α, p and c of their figure 5.

    Differs from:
      Their randomised form, which draws α in training.
    """
    require_range("alpha", alpha, 0, 1, do="0.1 is the authors'.")
    require_range("p", p, 1e-12, do="3 is the authors'.")
    require_range("c", c, 1e-12, do="5 is the authors'.")
    return alpha * x + (1.0 - alpha) * x * jax.nn.sigmoid(c / p * x)


ACTIVATIONS: Mapping[str, Activation] = {
    "relu": Activation(jax.nn.relu, gain=math.sqrt(2.0), traits=TRAITS["relu"]),
    "leaky-relu": Activation(jax.nn.leaky_relu, gain=math.sqrt(2.0 / (1.0 + 0.01**2)), traits=TRAITS["leaky-relu"]),
    "smooth-leaky": Activation(smooth_leaky, gain=1.507879),
    "rational": Activation(rational, gain=1.414743, learned={"numerator": NUMERATOR, "denominator": DENOMINATOR}),
    "aid": Activation(aid, gain=math.sqrt(2.0), traits=TRAITS["aid"], draws=True),
    "tanh": Activation(jnp.tanh, gain=5.0 / 3.0, traits=TRAITS["tanh"]),
    "gelu": Activation(jax.nn.gelu, gain=math.sqrt(2.0)),
    "gelu-exact": Activation(functools.partial(jax.nn.gelu, approximate=False), gain=math.sqrt(2.0)),
    "identity": Activation(lambda x: x, gain=1.0),
    "maxmin": Activation(max_min, gain=1.0, elementwise=False, group_size=2),
    "crelu": Activation(crelu, gain=math.sqrt(2.0), traits=TRAITS["crelu"]),
    "fourier": Activation(fourier, gain=math.sqrt(2.0), traits=TRAITS["fourier"]),
}


def activation(name: str) -> Activation:
    """The activation of that name.

    Raises:
      UserError: for an unknown name.

    Example:
      >>> activation("maxmin").elementwise
      False
    """
    if name not in ACTIVATIONS:
        raise unknown_name("activation", name, ACTIVATIONS, do="See pliant.networks.ACTIVATIONS.")
    return ACTIVATIONS[name]


MAX_MIN = Method(
    name="maxmin",
    summary="Adam on a network with MaxMin activations: pairs are sorted, so norms pass and no unit can die",
    reference="Anil, Lucas, Grosse 2019",
    network={"activation": "maxmin"},
)
CRELU = Method(
    name="crelu",
    summary="Adam with concatenated ReLU: ReLU of x beside that of −x, so every unit passes a gradient; fewer units",
    reference="Abbas et al. 2023; Shang et al. 2016, equation 2; Kumar et al. 2023, for fewer units",
    network={"activation": "crelu", "width_multiplier": 0.71},  # 1/√2: as many weights between hidden layers
)
FOURIER = Method(
    name="fourier",
    summary="Adam on deep Fourier features: sine beside cosine of half as many units; one of them is always steep",
    reference="Lewandowski, Schuurmans, Machado 2025",
    network={"activation": "fourier", "width_multiplier": 0.5},
)
LEAKY = Method(
    name="leaky",
    summary="Adam on a network with leaky ReLU of slope 0.01: no unit is without a gradient",
    reference="Maas, Hannun, Ng 2013, section 2",
    network={"activation": "leaky-relu"},
)
SMOOTH_LEAKY = Method(
    name="smooth-leaky",
    summary="Adam on a network with Smooth-Leaky activations: from slope 0.1 to 1 without a kink",
    reference="Lillo and Cheney 2026, equation 1",
    network={"activation": "smooth-leaky"},
)
