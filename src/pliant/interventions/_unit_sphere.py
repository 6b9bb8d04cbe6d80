"""The unit sphere: units whose incoming weights have norm 1."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from pliant.errors import UserError, require_range
from pliant.interventions._at_switch import norm_moved
from pliant.interventions._frozen import keep_frozen
from pliant.interventions._projection import toward, wide
from pliant.types import Info, Intervention, Key, Learned, LogUniform, Method, Number, Signals, State, Wiring, leaf_path


def unit_sphere(wiring: Wiring, *, strength: Number = 1.0) -> Intervention:
    r"""Projects every unit's incoming weights to norm 1 after every update; a learned scale makes up for it.

    Use it when the growth of weights must be ruled out.

    .. math:: w_j \leftarrow w_j / \lVert w_j \rVert_2, \qquad y_j = s_j\, x\, w_j + b_j

    with w_j all weights into unit j of a hidden layer (for each of its matrices, if there are several). Updates then
    rotate the weights, by an angle that does not shrink during training. The scales are not bounded: features may grow,
    unless the network has norms (`norm="layer"`). Weights that are all 0 stay. The head and the optimizer's state stay
    as they are.

    Args:
      wiring: the network's layer graph, with a scale for every unit: `linear="scaled"`, or "weight-norm", where the
        projection changes no output.
      strength: the share of the way to the sphere, in [0, 1]. 0 does nothing.

    Returns:
      A stateless `Intervention`; `info` has `norm_moved`, the L2 norm of what the weights changed by.

    Raises:
      UserError: for a number out of range, and for networks whose units have no scale.

    Example:
      >>> from pliant.networks import mlp
      >>> network = mlp((2,), 1, widths=(1,), linear="scaled")
      >>> params, state = network.init(jax.random.key(0))
      >>> params["dense_0"]["kernel"] = jnp.array([[3.0], [4.0]])
      >>> method = unit_sphere(network.wiring)
      >>> after, _, info = method.update(jax.random.key(1), 1, Learned(params, state, ()), (), None)
      >>> [round(float(w), 3) for w in after.params["dense_0"]["kernel"][:, 0]], round(float(info["norm_moved"]), 3)
      ([0.6, 0.8], 4.0)

    References:
      Lee et al., `Hyperspherical Normalization for Scalable Deep Reinforcement Learning
      <https://arxiv.org/abs/2502.15280>`_, 2025 (SimbaV2): weight projection after each gradient step.

    Differs from:
      SimbaV2, which has residual blocks and features on a sphere as well, projects the output layer too, and learns its
      scalers at a rate of their own.
    """
    require_range("strength", strength, 0, 1, do="Use 1 for the sphere, 0 for none.")
    _check(wiring)
    slots = {
        feed.slot.path: feed.slot
        for layer in wiring.layers
        for feed in layer.feeds
        if wiring.roles[feed.slot.path] == "matrix"
    }

    def init(learned: Learned) -> State:
        del learned
        return ()

    def project(path: Any, leaf: Array) -> Array:
        if leaf_path(path) not in slots:
            return leaf
        slot = slots[leaf_path(path)]
        incoming = tuple(axis for axis in range(leaf.ndim) if axis not in slot.axes(leaf.ndim))
        squares = jnp.sum(wide(leaf) ** 2, axis=incoming, keepdims=True)
        if slot.tiles * slot.repeats * slot.groups > 1:
            squares = slot.spread(slot.by_unit(squares).sum(axis=0), leaf)
        return toward(leaf, wide(leaf) / jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), strength)

    def update(
        key: Key, step: Any, learned: Learned, state: State, signals: Signals | None
    ) -> tuple[Learned, State, Info]:
        del key, step, signals
        params = jax.tree_util.tree_map_with_path(project, learned.params)
        return learned._replace(params=params), state, {"norm_moved": norm_moved(learned.params, params)}

    return keep_frozen(Intervention(init, update), wiring)


def _check(wiring: Wiring) -> None:
    scaled = [any(wiring.roles[feed.slot.path] == "other" for feed in layer.feeds) for layer in wiring.layers]
    without = [layer.name for layer, has_scale in zip(wiring.layers, scaled, strict=True) if not has_scale]
    if without or not wiring.layers:
        raise UserError(
            got=f"the unit sphere for {', '.join(without)} without scales"
            if without
            else "the unit sphere for a network without hidden layers",
            wanted="hidden layers with a learned scale behind every unit's weights",
            do="Use mlp or cnn with linear='scaled'.",
        )


UNIT_SPHERE = Method(
    name="unit-sphere",
    summary="Adam with every unit's weights projected to norm 1, and a learned scale behind them",
    reference="Lee et al. 2025 (SimbaV2)",
    intervention=unit_sphere,
    network={"linear": "scaled"},
    space={"strength": LogUniform(1e-2, 1.0)},
    off={"strength": 0.0},
)
