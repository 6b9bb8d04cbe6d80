"""L2-ER: last features of high effective rank, and small weights."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pliant.errors import UserError, require_range, unknown_name
from pliant.masks import Mask
from pliant.penalties._l2 import l2
from pliant.penalties._strength import heard, scaled
from pliant.types import Features, Forward, LogUniform, Method, Number, Params, Part, Penalty, Scalar, State, Wiring

_ABSENT = 1e-5
"""Singular values below this much of the largest count as 0: in float32 their directions are noise."""


def effective_rank(
    strength: Number = 2e-2,
    *,
    l2_strength: Number = 1e-3,
    layers: Sequence[str] = (),
    mask: Mask = None,
    wiring: Wiring | None = None,
) -> Penalty:
    r"""Rewards a high effective rank of the last two layers' features, and penalises large weights (L2-ER).

    Use it when the rank of the last features collapses.

    .. math:: \frac\mu2 \lVert \theta \rVert^2 - \frac\lambda2 \sum_{l} \mathrm{erank}(H_l), \qquad
              \mathrm{erank}(H) = \exp\Big(-\sum_i p_i \ln p_i\Big), \quad p_i = \sigma_i / \textstyle\sum_j \sigma_j

    with σ the singular values of the features :math:`H_l` of the training batch, (examples, width), not centred;
    positions of texts and images are examples too.

    **The gradient.** It treats the singular vectors v as constants, and :math:`\sigma_i = \lVert H v_i \rVert`, so that
    :math:`\partial\sigma_i / \partial H = u_i v_i^\top`. That is exact, and finite for equal singular values, where
    derivatives of singular vectors are not. A missing direction has an infinite slope; directions with
    :math:`\sigma_i \le 10^{-5} \sigma_{\max}` count as missing, and get no gradient. Second derivatives are wrong.

    Args:
      strength: λ ≥ 0. 0 does nothing.
      l2_strength: μ ≥ 0, the coupled form of weight decay. 0 does nothing.
      layers: keys of the features; the mean is taken over them. By default what the head reads and the last hidden
        layer in front of it; of several heads that read different features, such as an actor's and a critic's, the
        means are added. Without a wiring the last two of the network, in its order.
      mask: True at the parameters that the second term is about: a pytree of booleans or a function of the parameters
        that makes one; by default all.
      wiring: the network's layer graph, which says what the head reads, and where features have their units if that
        is not the last axis.

    Returns:
      A stateless `Penalty`, whose `loss` needs the features of the `Forward`.

    Raises:
      UserError: for numbers out of range, a mask that selects nothing, a layer that the features do not have, and a
        network without hidden layers.

    Example:
      >>> features = {"dense_0": jnp.eye(4), "dense_1": jnp.diag(jnp.array([3.0, 1.0]))}
      >>> forward = Forward(None, None, features, None, None, None)
      >>> value, _ = effective_rank(1.0, l2_strength=0.0).loss({"kernel": jnp.ones((2, 2))}, (), forward)
      >>> round(float(value), 4)  # −(4 + 1.7548) / 2
      -2.8774

    References:
      He, Guo et al., `Spectral Collapse Drives Loss of Plasticity in Deep Continual Learning
      <https://arxiv.org/abs/2509.22335>`_, 2025. L2-ER.
      Roy, Vetterli, `The effective rank: a measure of effective dimensionality
      <https://ieeexplore.ieee.org/document/7098875>`_, 2007. Definition 1.

    Differs from:
      The authors' code (lop-jax), which takes separate steps of plain gradient ascent on the rank, once in several
      batches and on all their examples, and adds 10⁻⁸ inside the logarithm. It decays all parameters; the method
      `effective-rank` leaves biases and norms out. The default μ is the largest of the authors' grid; λ is ours, since
      their step size belongs to another update.
    """
    require_range("strength", strength, 0, do="Use 0 to switch the reward of high ranks off.")
    require_range("l2_strength", l2_strength, 0, do="Use 0 to switch the penalty of the weights off.")
    decay = l2(l2_strength, mask=mask)
    groups = [tuple(layers)] if layers or not wiring else _last_two(wiring)

    def loss(params: Params, state: State, forward: Forward) -> tuple[Scalar, State]:
        means = []
        for names in groups:
            found = _of(forward.features, names)
            last = [wiring.units_last(name, feature) if wiring else feature for name, feature in found.items()]
            means.append(jnp.stack([_rank(features) for features in heard(strength, last)]).mean())
        small, state = decay.loss(params, state, forward)
        return small - scaled(strength, functools.reduce(jnp.add, means)), state

    return Penalty(decay.init, loss)


def _last_two(wiring: Wiring) -> list[tuple[str, ...]]:
    """What each head reads, and the last hidden layer in front of it."""
    reads = [read for read in wiring.features_read() if read is not None]
    if not reads:
        raise UserError(
            got="the effective rank of features on a network without hidden layers",
            wanted="at least one hidden layer",
            do="Choose a network with hidden layers.",
        )
    branch_of = {layer.name: layer.branch for layer in wiring.layers}
    found = []
    for read in reads:
        branches = ("", branch_of.get(read, ""))
        before = [name for name, branch in branch_of.items() if name != read and branch in branches]
        found.append((*before[-1:], read))
    return found


def _of(features: Features, layers: Sequence[str]) -> Features:
    for name in layers:
        if name not in features:
            raise unknown_name("layer", name, features, do="Name layers of the network's features.")
    return {name: features[name] for name in (layers or tuple(features)[-2:])}


def _rank(features: Float[Array, "*examples width"]) -> Scalar:
    """The effective rank; 0 for features that are all 0."""
    matrix = features.reshape(-1, features.shape[-1])
    matrix = matrix.astype(jnp.promote_types(matrix.dtype, jnp.float32))
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    directions = _right_singular_vectors(jax.lax.stop_gradient(tall))
    squares = jnp.sum(jnp.matmul(tall, directions, precision="highest") ** 2, axis=0)
    is_present = jnp.logical_not(squares <= _ABSENT**2 * jnp.max(squares))  # what is not a number is not hidden
    sizes = jnp.where(is_present, jnp.sqrt(jnp.where(is_present, squares, 1.0)), 0.0)
    p = jnp.where(is_present, sizes / jnp.where(jnp.any(is_present), sizes.sum(), 1.0), 1.0)
    return jnp.where(jnp.any(is_present), jnp.exp(-jnp.sum(p * jnp.log(p))), 0.0)


def _right_singular_vectors(tall: Float[Array, "rows columns"]) -> Float[Array, "columns columns"]:
    """As columns. The R of a QR decomposition has the same ones, and is smaller.

    Under `vmap` one matrix comes after the other: batched decompositions in one XLA:CPU program can deadlock.
    """

    def decompose(tall: Array) -> Array:
        return jnp.linalg.svd(jnp.linalg.qr(tall, mode="r"))[2].T

    result: Array = jax.custom_batching.sequential_vmap(decompose)(tall)
    return result


EFFECTIVE_RANK = Method(
    name="effective-rank",
    summary="Adam with a reward for last features of high effective rank, and L2 (L2-ER)",
    reference="He, Guo et al. 2025, L2-ER",
    penalty=Part(effective_rank, roles=("matrix", "head"), fixed={"layers": ()}),
    space={"strength": LogUniform(1e-3, 0.2), "l2_strength": LogUniform(1e-5, 1e-2)},
    off={"strength": 0.0, "l2_strength": 0.0},
    lowers="penalty",
)
