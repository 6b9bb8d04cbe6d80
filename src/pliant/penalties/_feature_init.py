"""A penalty on the distance of features from those of the initial network."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array

from pliant.errors import UserError, require_range
from pliant.penalties._strength import heard, scaled
from pliant.types import Features, Forward, LogUniform, Method, Number, Params, Penalty, Scalar, State, Wiring


def feature_init(wiring: Wiring, *, strength: Number = 0.1) -> Penalty:
    r"""Penalises the distance of the last hidden features from those of the initial network.

    Use it when weights may move freely as long as the features of the initial network stay reachable.

    .. math:: \alpha\, \mathbb E_x \lVert \phi_\theta(x) - \phi_{\theta_0}(x) \rVert^2

    on the inputs of the batch. The norm is over units (channels), the mean over examples and positions. If heads read
    different features, such as an actor's and a critic's, the terms are added.

    Args:
      wiring: the network's layer graph; φ is the feature that a head reads.
      strength: α ≥ 0, in units of 1/feature². 0 does nothing.

    Returns:
      A `Penalty` whose `loss` needs the `Forward`; its state is the copy θ₀ made by `init` and must be checkpointed.
      Costs a forward pass of θ₀ an update, in evaluation mode (without dropout), with the current running statistics if
      there are any.

    Raises:
      UserError: if `strength` is negative, and for networks without hidden features.

    Example:
      >>> from pliant.types import Forward, Head, Wiring
      >>> evaluate = lambda params, x: (x * params, {"hidden": x * params})
      >>> penalty = feature_init(Wiring((), {}, {"output": Head((), reads="hidden")}), strength=0.5)
      >>> x, start, now = jnp.ones((2, 3)), jnp.float32(1.0), jnp.float32(3.0)
      >>> forward = Forward(x, *evaluate(now, x), jnp.float32(0.0), evaluate, lambda number: x)
      >>> float(penalty.loss(now, penalty.init(start), forward)[0])
      6.0

    References:
      Lyle, Rowland, Dabney, `Understanding and Preventing Capacity Loss in Reinforcement Learning
      <https://arxiv.org/abs/2204.09560>`_, 2022, of whose InFeR (section 4) it is a variant.

    Differs from:
      `infer`, which keeps a few random projections of the features, and magnifies them. The default is its α.
    """
    require_range("strength", strength, 0, do="Use 0 to switch the penalty off.")
    reads = [read for read in wiring.features_read() if read is not None]
    if not reads:
        raise UserError(
            got="a network whose head reads the inputs",
            wanted="hidden features to keep near the start's",
            do="Use a network with hidden layers.",
        )

    def wide(features: Features, read: str) -> Array:
        feature = wiring.units_last(read, features[read])
        return feature.astype(jnp.promote_types(feature.dtype, jnp.float32))

    def init(params: Params) -> State:
        return jax.tree.map(jnp.copy, params)

    def loss(params: Params, state: State, forward: Forward) -> tuple[Scalar, State]:
        del params
        _, start = forward.evaluate(state, forward.inputs)
        terms = []
        for read in reads:
            moved = heard(strength, wide(forward.features, read)) - jax.lax.stop_gradient(wide(start, read))
            terms.append(jnp.mean(jnp.sum(moved**2, axis=-1)))
        return scaled(strength, functools.reduce(jnp.add, terms)), state

    return Penalty(init, loss)


FEATURE_INIT = Method(
    name="feature-init",
    summary="Adam with a penalty on the distance of the last hidden features from their initial values",
    reference="Lyle et al. 2022, a variant",
    penalty=feature_init,
    space={"strength": LogUniform(1e-3, 1.0)},
    off={"strength": 0.0},
    lowers="penalty",
    remembers="the initial features",
)
