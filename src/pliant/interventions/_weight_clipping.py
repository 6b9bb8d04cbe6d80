"""Weight clipping: weights that stay within the bounds of a usual initialisation."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from pliant.errors import UserError, require_range
from pliant.interventions._at_switch import norm_moved
from pliant.interventions._frozen import keep_frozen
from pliant.isometry import matrix_view
from pliant.layouts import find_output_axes
from pliant.types import (
    Info,
    Intervention,
    Key,
    Learned,
    Method,
    Number,
    Params,
    Signals,
    State,
    Uniform,
    Wiring,
    by_path,
    leaf_path,
)
from pliant.xla.squares import sum_of_squares

_NONE = 1e30
"""The κ from which on nothing is clipped, not even what is infinite."""


def weight_clipping(wiring: Wiring, *, kappa: Number = 2.0, include_head: bool = True) -> Intervention:
    r"""Clips weights and biases to a multiple of their layer's initial bound, after every update.

    Use it when weights must be bounded at no cost.

    .. math:: \theta \leftarrow \min(\max(\theta, -\kappa s_l), \kappa s_l), \qquad s_l = 1/\sqrt{\text{fan-in}_l}

    s is the bound of PyTorch's uniform initialisation of layer l. The fan-in is the number of weights into a unit; a
    bias has that of the kernels to whose outputs it is added, see `Wiring.biases`. Norms, embeddings and scales stay,
    as does the optimizer's state.

    Other initialisers have no such bound: of an orthogonal kernel with the gain √2 for ReLU about 16 % of the weights
    are clipped at the first update with κ = 2, and 0.5 % with κ = 4.

    Args:
      wiring: the network's layer graph.
      kappa: κ > 0; 1 to 5 are usual. 1e30 and more does nothing.
      include_head: whether the output layer is clipped as well.

    Returns:
      A stateless `Intervention`; `info` has `clipped_fraction`, the share of the weights and biases within its reach
      that were beyond their bound, in [0, 1], and `norm_moved`, the L2 norm of what they changed by.

    Raises:
      UserError: if `kappa` is not positive, and for a bias that belongs to no kernel.

    Example:
      >>> from pliant.networks import mlp
      >>> network = mlp((100,), 1, widths=(3,))
      >>> params, state = network.init(jax.random.key(0))
      >>> params["dense_0"]["bias"] = jnp.array([0.25, -0.3, 0.1])
      >>> method = weight_clipping(network.wiring, kappa=2.0)
      >>> after, _, info = method.update(jax.random.key(1), 1, Learned(params, state, ()), (), None)
      >>> [round(float(b), 3) for b in after.params["dense_0"]["bias"]]
      [0.2, -0.2, 0.1]

    References:
      Elsayed, Lan, Lyle, Mahmood, `Weight Clipping for Deep Continual and Reinforcement Learning
      <https://arxiv.org/abs/2407.01704>`_, 2024: weights within [−κ s, κ s].

    Differs from:
      The authors' code, which takes the bound of a bias from the tensor that it saw before: right in PyTorch, where
      that is the kernel, wrong where a bias comes first, as in Flax, and for norms.
    """
    require_range("kappa", kappa, 1e-12, do="1 to 5 are usual; a large number such as 1e30 clips nothing.")

    def init(learned: Learned) -> State:
        _bounds(wiring, learned.params, include_head)
        return ()

    def update(
        key: Key, step: Any, learned: Learned, state: State, signals: Signals | None
    ) -> tuple[Learned, State, Info]:
        del key, step, signals
        bounds, num_clipped, total = _bounds(wiring, learned.params, include_head), jnp.float32(0), 0

        def clip(path: Any, leaf: Array) -> Array:
            nonlocal num_clipped, total
            if leaf_path(path) not in bounds:
                return leaf
            bound = jnp.asarray(kappa * bounds[leaf_path(path)], leaf.dtype)
            is_beyond = (jnp.abs(leaf) > bound) & (kappa < _NONE)
            num_clipped += sum_of_squares(is_beyond.astype(jnp.float32))  # of zeros and ones
            total += leaf.size
            return jnp.where(kappa < _NONE, jnp.clip(leaf, -bound, bound), leaf)

        params = jax.tree_util.tree_map_with_path(clip, learned.params)
        info = {"clipped_fraction": num_clipped / max(total, 1), "norm_moved": norm_moved(learned.params, params)}
        return learned._replace(params=params), state, info

    return keep_frozen(Intervention(init, update), wiring)


def _bounds(wiring: Wiring, params: Params, include_head: bool) -> dict[str, float]:
    """The initial bound s of every leaf that is clipped, by path."""
    leaves = by_path(params)
    roles = {path: role for path, role in wiring.roles.items() if include_head or path not in wiring.head_leaves}
    is_kernel = [roles.get(path) not in ("bias", "norm", None) for path in leaves]
    axes = dict(zip(leaves, find_output_axes(wiring, params, is_kernel), strict=True))
    fan_in = {path: matrix_view(leaves[path], axes[path]).shape[0] for path in roles if axes[path]}
    sizes = {path: fan_in[path] for path, role in roles.items() if role in ("matrix", "head")}
    sizes |= {path: _fan_in_of_bias(wiring, path, fan_in) for path, role in roles.items() if role == "bias"}
    return {path: size**-0.5 for path, size in sizes.items() if size}


def _fan_in_of_bias(wiring: Wiring, bias: str, fan_in: dict[str, int]) -> int:
    """Of the kernels to whose outputs it is added, all together."""
    kernels = [path for path, own in wiring.biases.items() if own == bias and path in fan_in]
    if not kernels:
        raise UserError(
            got=f"the bias {bias!r}, which belongs to no kernel",
            wanted="a bias that feeds a layer of the wiring, is in its heads, or in its biases",
            do="Add it to the feeds of its layer, next to the kernel.",
        )
    return sum(fan_in[path] for path in kernels)


WEIGHT_CLIPPING = Method(
    name="weight-clipping",
    summary="Adam with weights clipped to a multiple of the bounds of a uniform initialisation",
    reference="Elsayed et al. 2024",
    intervention=weight_clipping,
    space={"kappa": Uniform(1.0, 5.0)},
    off={"kappa": 1e30},
    lowers="weight_norm",
)
