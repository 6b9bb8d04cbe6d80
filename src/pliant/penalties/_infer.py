"""InFeR: random projections of the features are kept at their initial values."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from pliant.errors import UserError, require_range, require_whole
from pliant.isometry import split_axes
from pliant.keys import Draw
from pliant.layouts import find_output_axes
from pliant.penalties._strength import heard, scaled
from pliant.types import (
    Features,
    Forward,
    HiddenLayer,
    Inputs,
    Key,
    LogUniform,
    Method,
    Network,
    Number,
    Params,
    Penalty,
    Role,
    Scalar,
    Slot,
    State,
    Wiring,
    by_path,
)

_HEADS = "infer"


def with_auxiliary_heads(network: Network, *, num_heads: int = 10) -> Network:
    r"""Adds auxiliary linear heads to a network, which do not change its output.

    Use it to prepare a network for `infer`.

    .. math:: g_i(\phi(x)) = w_i^\top \phi(x), \qquad i = 1, \dots, k

    φ is what the network's head reads. The network itself starts and computes as before.

    Args:
      network: its parameters are a dictionary, and its heads read features, not the inputs.
      num_heads: k ≥ 1.

    Returns:
      A `Network` with the parameter `infer/kernel`, (width, k), of role "other", drawn from a normal distribution of
      variance 1/width. It is among the readers of the last hidden layer's units. If the network's heads read different
      features, such as an actor's and a critic's, each of them gets k auxiliary heads, `infer/kernel_OUTPUT`.

    Raises:
      UserError: if `num_heads` is not positive, and for networks whose head reads the inputs, or is tied to an
        embedding.

    Example:
      >>> from pliant.networks import mlp
      >>> network = with_auxiliary_heads(mlp((2,), 3, widths=(4,)), num_heads=5)
      >>> params, _ = network.init(jax.random.key(0))
      >>> params["infer"]["kernel"].shape, network.wiring.roles["infer/kernel"]
      ((4, 5), 'other')

    References:
      See `infer`.

    Differs from:
      See `infer`.
    """
    num_heads = require_whole("num_heads", num_heads, 1, do="Use 10, as published.")
    sizes = _sizes_read(network)

    def init(key: Key) -> tuple[Params, State]:
        params, state = network.init(key)
        of_heads = jax.random.fold_in(key, Draw.AUXILIARY_HEADS.number)
        keys = [of_heads, *(jax.random.fold_in(of_heads, number) for number in range(1, len(sizes)))]
        draw = jax.nn.initializers.lecun_normal()
        kernels = {
            path.removeprefix(f"{_HEADS}/"): draw(own, (size, num_heads))
            for own, (path, size) in zip(keys, sizes.items(), strict=True)
        }
        return {**params, _HEADS: kernels}, state

    def apply(
        params: Params, state: State, inputs: Inputs, *, train: bool, key: Key | None = None
    ) -> tuple[PyTree[Array], Features, State]:
        own = {name: value for name, value in params.items() if name != _HEADS}
        return network.apply(own, state, inputs, train=train, key=key)

    return Network(init, apply, _wired(network.wiring))


def infer(wiring: Wiring, *, strength: Number = 0.1, scale: Number = 100.0) -> Penalty:
    r"""Keeps random linear functions of the features at a multiple of their initial values (InFeR).

    Use it to compare with InFeR; it was made for value functions.

    .. math:: \alpha \, \frac1k \sum_{i=1}^k \mathbb E_x
              \big( g_i(\phi_\theta(x)) - \beta\, g_i^0(\phi_{\theta_0}(x)) \big)^2

    on the inputs of the batch. φ is what the head reads, g the auxiliary heads of `with_auxiliary_heads`. θ₀ and g⁰ are
    frozen copies of the initial parameters; g starts as g⁰ and is trained like all parameters. With β = 1 the loss is 0
    at the start; the authors' large β forces the features to grow. Of several features, such as an actor's and a
    critic's, the terms are added.

    Args:
      wiring: of a network made by `with_auxiliary_heads`.
      strength: α ≥ 0. 0 does nothing.
      scale: β ≥ 0.

    Returns:
      A `Penalty` whose `loss` needs the `Forward`; its state is the copy of θ₀ and g⁰ made by `init` and must be
      checkpointed. Costs a forward pass of θ₀ an update, in evaluation mode (without dropout), with the current running
      statistics if there are any.

    Raises:
      UserError: for numbers out of range, and for networks without auxiliary heads.

    Example:
      >>> from pliant.networks import mlp
      >>> from pliant.types import Forward
      >>> network = with_auxiliary_heads(mlp((2,), 3, widths=(4,)))
      >>> params, state = network.init(jax.random.key(0))
      >>> evaluate = lambda params, x: network.apply(params, state, x, train=False)[:2]
      >>> x = jnp.ones((5, 2))
      >>> forward = Forward(x, *evaluate(params, x), jnp.float32(0.0), evaluate, lambda number: x)
      >>> penalties = infer(network.wiring, scale=1.0), infer(network.wiring, scale=100.0)
      >>> [bool(penalty.loss(params, penalty.init(params), forward)[0] > 0) for penalty in penalties]
      [False, True]

    References:
      Lyle, Rowland, Dabney, `Understanding and Preventing Capacity Loss in Reinforcement Learning
      <https://arxiv.org/abs/2204.09560>`_, 2022. The loss of section 4; k = 10, α = 0.1, β = 100.

    Differs from:
      timoklein/infer, whose heads have biases, and which takes β = 175 and α = 0.05.
    """
    require_range("strength", strength, 0, do="Use 0 to switch the penalty off.")
    require_range("scale", scale, 0, do="100 is the authors'; 1 asks for what is there at the start.")
    reads = _auxiliary(wiring)
    if not reads or not set(reads) <= set(wiring.roles):
        raise UserError(
            got="InFeR on a network without auxiliary heads",
            wanted="a network made by with_auxiliary_heads",
            do="Use with_auxiliary_heads(network), and its wiring; the method infer does so.",
        )

    def said(params: Params, features: Features, path: str) -> Float[Array, "examples heads"]:
        kernel, read = by_path(params)[path], reads[path]
        feature = features[read]
        is_flattened = math.prod(feature.shape[1:]) == len(kernel)
        rows = (feature if is_flattened else wiring.units_last(read, feature)).reshape(-1, len(kernel))
        wide = jnp.promote_types(jnp.result_type(rows, kernel), jnp.float32)
        return jnp.matmul(rows, kernel, preferred_element_type=wide)

    def init(params: Params) -> State:
        return jax.tree.map(jnp.copy, params)

    def loss(params: Params, state: State, forward: Forward) -> tuple[Scalar, State]:
        _, start = forward.evaluate(state, forward.inputs)
        params, features = heard(strength, (params, dict(forward.features)))
        terms = []
        for path in reads:
            error = said(params, features, path) - jax.lax.stop_gradient(scale * said(state, start, path))
            terms.append(jnp.mean(error**2))
        return scaled(strength, functools.reduce(jnp.add, terms)), state

    return Penalty(init, loss)


def _auxiliary(wiring: Wiring) -> dict[str, str]:
    """The features that auxiliary heads read, by the path of their kernels; empty if the heads read the inputs."""
    outputs = {read: output for output, read in reversed([(name, head.reads) for name, head in wiring.heads.items()])}
    reads = wiring.features_read()
    if None in reads:
        return {}
    names = ["kernel"] if len(reads) == 1 else [f"kernel_{outputs[read]}" for read in reads]
    return {f"{_HEADS}/{name}": read for name, read in zip(names, reads, strict=True) if read is not None}


def _kernels_behind(wiring: Wiring, read: str) -> set[str]:
    """The kernels of the heads that read a feature."""
    kernels = {path for path, role in wiring.roles.items() if role == "head"}
    listed = [head.leaves for head in wiring.heads.values() if head.reads == read]
    return kernels if None in listed else {path for leaves in listed for path in leaves or ()} & kernels


def _sizes_read(network: Network) -> dict[str, int]:
    """How many numbers each auxiliary head reads, by the path of its kernel."""
    wiring = network.wiring
    shapes: Any = jax.eval_shape(lambda: network.init(jax.random.key(0)))[0]
    if not isinstance(shapes, Mapping):
        raise UserError(
            got=f"with_auxiliary_heads(network) of a network whose parameters are a {type(shapes).__name__}",
            wanted="a dictionary, to which the parameters of the heads can be added",
            do="Give the network's init and apply the form of a dictionary.",
        )
    reads = _auxiliary(wiring)
    found = {path: _rows_of(wiring, shapes, _kernels_behind(wiring, read)) for path, read in reads.items()}
    unclear = [path for path, sizes in found.items() if len(sizes) != 1]
    if not found or unclear:
        kernels = _kernels_behind(wiring, reads[unclear[0]]) if unclear else wiring.head_leaves
        where = f"features of {len(found[unclear[0]])} sizes" if unclear else "the inputs"
        raise UserError(
            got=f"a network whose output layer ({', '.join(sorted(kernels)) or 'tied to an embedding'}) reads {where}",
            wanted="an output layer of its own that reads hidden features",
            do="Use a network with hidden layers and a head of its own.",
        )
    return {path: sizes.pop() for path, sizes in found.items()}


def _rows_of(wiring: Wiring, shapes: Params, kernels: set[str]) -> set[int]:
    """The numbers of inputs that kernels have."""
    leaves = by_path(shapes)
    axes = find_output_axes(wiring, shapes, [path in kernels for path in leaves])
    return {
        math.prod(leaf.shape[axis] for axis in split_axes(leaf.shape, outputs)[0])
        for leaf, outputs in zip(leaves.values(), axes, strict=True)
        if outputs
    }


def _wired(wiring: Wiring) -> Wiring:
    """What is read by a head is read by its auxiliary heads as well."""
    reads = _auxiliary(wiring)
    roles: dict[str, Role] = {**wiring.roles, **dict.fromkeys(reads, "other")}

    def with_heads(layer: HiddenLayer) -> HiddenLayer:
        more: list[Slot] = []
        for path, read in reads.items():
            kernels = _kernels_behind(wiring, read)
            more += [slot._replace(path=path, axis=-2, groups=1) for slot in layer.readers if slot.path in kernels][:1]
        return layer._replace(readers=(*layer.readers, *more))

    return wiring._replace(layers=tuple(map(with_heads, wiring.layers)), roles=roles)


INFER = Method(
    name="infer",
    summary="Adam with linear functions of the features kept at a multiple of their initial values (InFeR)",
    reference="Lyle et al. 2022, section 4",
    penalty=infer,
    wrap=with_auxiliary_heads,
    space={"strength": LogUniform(1e-3, 1.0), "scale": LogUniform(1.0, 200.0)},
    off={"strength": 0.0},
    lowers="penalty",
    remembers="the initial features",
)
