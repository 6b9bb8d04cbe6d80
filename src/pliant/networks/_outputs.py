"""Networks with several named outputs: one network for each, or one with several heads."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args, get_origin

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from pliant.errors import UserError
from pliant.networks.blocks import orthogonal
from pliant.types import (
    Features,
    Head,
    HiddenLayer,
    Inputs,
    Key,
    Network,
    Params,
    Role,
    State,
    Wiring,
    by_path,
    leaf_path,
)
from pliant.wiring import renamed


def side_by_side(
    networks: Mapping[str, Network], branches: Mapping[str, str], gains: Mapping[str, float] = {}
) -> Network:
    """Makes one network of several that get the same inputs, such as an actor and a critic.

    Parameters, state and features get the name of their branch before them, so that methods and diagnostics see one
    network with two branches. "The last layers" are then those of each branch.

    Args:
      networks: by the name of their output; each has one.
      branches: the branch of each output.
      gains: what the initial kernel of an output's head is multiplied by, if not by 1.

    Returns:
      A network whose output is a dictionary by the names in `networks`.

    Raises:
      UserError: for a network that has several outputs, or does not state its head.

    Example:
      >>> from pliant.networks import mlp
      >>> parts = {"policy": mlp((4,), 3, widths=(8,)), "value": mlp((4,), 1, widths=(8,))}
      >>> network = side_by_side(parts, {"policy": "actor", "value": "critic"}, {"policy": 0.01})
      >>> params, state = network.init(jax.random.key(0))
      >>> output, features, _ = network.apply(params, state, jnp.zeros((5, 4)), train=False, key=None)
      >>> output["policy"].shape, sorted(features), [layer.branch for layer in network.wiring.layers]
      ((5, 3), ['actor/dense_0', 'critic/dense_0'], ['actor', 'critic'])

    References:
      Rosseau et al. 2026 (arXiv 2606.09762), appendix B.5: separate actor and critic.
    """
    for output, network in networks.items():
        if len(network.wiring.heads) != 1:
            raise UserError(
                got=f"a network with {len(network.wiring.heads)} stated heads for the output {output!r}",
                wanted="a network with one output, whose wiring states its head",
                do="Give its wiring heads={'output': Head((kernel, bias), reads=feature)}.",
            )
    prefixed = [_prefixed(network.wiring, branches[name], name) for name, network in networks.items()]
    wiring = _joined(prefixed)
    scale = _scaled(wiring, gains)

    def init(key: Key) -> tuple[Params, State]:
        params, state = {}, {}
        for number, (output, network) in enumerate(networks.items()):
            branch = branches[output]
            params[branch], own = network.init(jax.random.fold_in(key, number))
            if own:
                state[branch] = own
        return scale(params), state

    def apply(
        params: Params, state: State, inputs: Inputs, *, train: bool, key: Key | None = None
    ) -> tuple[Any, Features, State]:
        outputs: dict[str, Any] = {}
        features: dict[str, Array] = {}
        states: dict[str, State] = {}
        for number, (output, network) in enumerate(networks.items()):
            branch = branches[output]
            own_key = None if key is None else jax.random.fold_in(key, number)
            found = network.apply(params[branch], state.get(branch, {}), inputs, train=train, key=own_key)
            outputs[output] = found[0]
            features |= {f"{branch}/{name}": feature for name, feature in found[1].items()}
            if branch in state:
                states[branch] = found[2]
        return outputs, features, states

    return Network(init, apply, wiring)


def with_heads(network: Network, outputs: Mapping[str, int], gains: Mapping[str, float] = {}) -> Network:
    """Makes a network whose named outputs share all hidden layers.

    Args:
      network: has one output, which becomes the first of `outputs`, of that size.
      outputs: the size of each output. All but the first get a head of their own, `head_NAME`, with orthogonal kernels;
        with a bias if the network's own head has one.
      gains: what the initial kernel of an output's head is multiplied by, if not by 1.

    Returns:
      A network whose output is a dictionary by the names in `outputs`.

    Raises:
      UserError: for a network whose head is tied or not stated, or does not read one vector for each example.

    Example:
      >>> from pliant.networks import mlp
      >>> network = with_heads(mlp((4,), 3, widths=(8,)), {"policy": 3, "value": 1})
      >>> params, state = network.init(jax.random.key(0))
      >>> output, _, _ = network.apply(params, state, jnp.zeros((5, 4)), train=False, key=None)
      >>> output["value"].shape, [slot.path for slot in network.wiring.layers[0].readers]
      ((5, 1), ['head/kernel', 'head_value/kernel'])

    References:
      None: a shared trunk is common practice.
    """
    wiring = network.wiring
    first, *others = outputs
    (head,) = wiring.heads.values() if len(wiring.heads) == 1 else (None,)
    kernels = [path for path in (head.leaves or () if head else ()) if wiring.roles[path] != "bias"]
    if head is None or len(kernels) != 1:
        raise UserError(
            got="a network that does not state one head of its own",
            wanted="one output layer with a kernel, for others to be put beside",
            do="Give its wiring heads={'output': Head((kernel, bias), reads=feature)}, or use separate networks.",
        )
    (kernel,) = kernels
    has_bias = len(head.leaves or ()) > 1
    size = by_path(jax.eval_shape(network.init, jax.random.key(0))[0])[kernel].shape[0]
    heads, roles = {first: head}, dict(wiring.roles)
    for name in others:
        leaves = (f"head_{name}/kernel", *([f"head_{name}/bias"] if has_bias else []))
        heads[name] = Head(leaves, head.reads, head.branch)
        roles |= {leaf: "bias" if leaf.endswith("bias") else "head" for leaf in leaves}

    def also_read(layer: HiddenLayer) -> HiddenLayer:
        read = [slot for slot in layer.readers if slot.path == kernel]
        more = [slot._replace(path=f"head_{name}/kernel") for name in others for slot in read]
        return layer._replace(readers=(*layer.readers, *more))

    joined = Wiring(
        tuple(map(also_read, wiring.layers)),
        roles,
        heads,
        wiring.indirect,
        wiring.output_axes,
        wiring.frozen,
        dict(wiring.biases) | {f"head_{name}/kernel": f"head_{name}/bias" for name in others if has_bias},
    )
    scale = _scaled(joined, gains)

    def init(key: Key) -> tuple[Params, State]:
        params, state = network.init(key)
        for number, name in enumerate(others):
            own = jax.random.fold_in(key, number)
            params = {**params, f"head_{name}": {"kernel": orthogonal(1.0)(own, (size, outputs[name]), jnp.float32)}}
            if has_bias:
                params[f"head_{name}"]["bias"] = jnp.zeros(outputs[name])
        return scale(params), state

    def apply(
        params: Params, state: State, inputs: Inputs, *, train: bool, key: Key | None = None
    ) -> tuple[Any, Features, State]:
        own = {name: leaf for name, leaf in params.items() if name not in {f"head_{other}" for other in others}}
        output, features, state = network.apply(own, state, inputs, train=train, key=key)
        read = features[head.reads] if head.reads is not None else jnp.reshape(jnp.asarray(inputs), (len(output), -1))
        if read.shape != (len(output), size):
            raise UserError(
                got=f"a head that reads a feature of shape {read.shape}",
                wanted=f"a vector of {size} numbers for each example",
                do="Use separate networks for the outputs.",
            )
        found = {first: output}
        for name in others:
            found[name] = read @ params[f"head_{name}"]["kernel"]
            if has_bias:
                found[name] = found[name] + params[f"head_{name}"]["bias"][None]
        return found, features, state

    return Network(init, apply, joined)


def takes_outputs(factory: Callable[..., Network]) -> bool:
    """Whether a network factory makes networks with several outputs: its `num_outputs` may then be a mapping.

    Such a factory decides itself what several outputs share.

    Args:
      factory: `(input_shape, num_outputs, **options) -> Network`.

    Example:
      >>> from pliant.networks import mlp, octax_cnn
      >>> takes_outputs(mlp), takes_outputs(octax_cnn)
      (False, True)
    """
    parameter = inspect.signature(factory, eval_str=True).parameters.get("num_outputs")
    kinds = () if parameter is None else (parameter.annotation, *get_args(parameter.annotation))
    return any(get_origin(kind) is Mapping for kind in kinds)


def with_gains(network: Network, gains: Mapping[str, float]) -> Network:
    """Multiplies the initial kernels of the heads of named outputs.

    Args:
      network: whose wiring states the heads.
      gains: by the name of the output.

    Example:
      >>> from pliant.networks import octax_cnn
      >>> network = with_gains(octax_cnn((8, 8, 1), {"policy": 3, "value": 1}, widths=(4,)), {"policy": 0.01})
      >>> kernel = network.init(jax.random.key(0))[0]["policy"]["head"]["kernel"]
      >>> round(float(jnp.linalg.norm(kernel, ord=2)), 4)
      0.01
    """
    scale = _scaled(network.wiring, gains)

    def init(key: Key) -> tuple[Params, State]:
        params, state = network.init(key)
        return scale(params), state

    return network._replace(init=init)


def _scaled(wiring: Wiring, gains: Mapping[str, float]) -> Callable[[Params], Params]:
    """Multiplies the kernels of the heads of named outputs."""
    factors = {
        leaf: gain
        for output, gain in gains.items()
        for leaf in wiring.heads[output].leaves or ()
        if wiring.roles[leaf] != "bias"
    }

    def scale(path: Any, leaf: Array) -> Array:
        return leaf * factors[leaf_path(path)] if leaf_path(path) in factors else leaf

    def scaled(params: Params) -> PyTree[Array]:
        return jax.tree_util.tree_map_with_path(scale, params) if factors else params

    return scaled


def branch_wiring(wiring: Wiring, branch: str) -> Wiring:
    """The wiring of one branch, as if it were a network of its own: the inverse of `side_by_side`.

    Use it to let a method act on one branch: its parameters are `params[branch]`, and its features are those whose
    names begin with the branch.

    Args:
      wiring: of a network with branches.
      branch: the name of one.

    Returns:
      A wiring without the name of the branch in front of its paths. Its head keeps the name of its output.

    Raises:
      UserError: if the network has no such branch, or one that shares layers with others or has other names.

    Example:
      >>> from pliant.networks import mlp
      >>> parts = {"policy": mlp((4,), 3, widths=(8,)), "value": mlp((4,), 1, widths=(8,))}
      >>> network = side_by_side(parts, {"policy": "actor", "value": "critic"})
      >>> own = branch_wiring(network.wiring, "actor")
      >>> sorted(own.roles), own.head_reads()
      (['dense_0/bias', 'dense_0/kernel', 'head/bias', 'head/kernel'], 'dense_0')

    References:
      None: a convention of this library.

    Differs from:
      Nothing known.
    """
    prefix = f"{branch}/"
    branch_of = {layer.name: layer.branch for layer in wiring.layers}
    layers = tuple(layer for layer in wiring.layers if layer.branch == branch)
    heads = {
        name: head for name, head in wiring.heads.items() if branch in (head.branch, branch_of.get(head.reads or ""))
    }
    inside = [path for layer in layers for path in (layer.name, *_paths_of(layer))]
    inside += [path for head in heads.values() for path in (*(head.leaves or ()), *head.state)]
    outside = [path for layer in wiring.layers if layer.branch != branch for path in _paths_of(layer)]
    is_named = [path.startswith(prefix) for path in inside]
    if len(heads) != 1 or not all(is_named) or any(path.startswith(prefix) for path in outside):
        known = ", ".join(dict.fromkeys(head.branch for head in wiring.heads.values() if head.branch))
        raise UserError(
            got=f"the branch {branch!r} of a network with {f'the branches {known}' if known else 'no branches'}",
            wanted="a branch with one head that shares no layers, whose parameters have its name before theirs",
            do="Use separate networks for the outputs, see pliant.networks.side_by_side.",
        )

    def own(names: Iterable[str]) -> list[str]:
        return [name for name in names if name.startswith(prefix)]

    def cut(name: str) -> str:
        return name.removeprefix(prefix)

    whole = Wiring(
        layers,
        {path: wiring.roles[path] for path in own(wiring.roles)},
        heads,
        frozenset(own(wiring.indirect)),
        {path: wiring.output_axes[path] for path in own(wiring.output_axes)},
        frozenset(own(wiring.frozen)),
        {path: wiring.biases[path] for path in own(wiring.biases)},
    )
    return _in_branch(whole, cut, "", next(iter(heads)))


def _paths_of(layer: HiddenLayer) -> tuple[str, ...]:
    return (*(feed.slot.path for feed in layer.feeds), *(slot.path for slot in layer.readers))


def _prefixed(wiring: Wiring, branch: str, output: str) -> Wiring:
    """A wiring in which everything has the name of its branch before it."""
    return _in_branch(wiring, lambda name: f"{branch}/{name}", branch, output)


def _in_branch(wiring: Wiring, path: Callable[[str], str], branch: str, output: str) -> Wiring:
    """A wiring of one head with other names, whose layers and output have names of their own."""
    whole = renamed(wiring, path, name=path)
    (head,) = whole.heads.values()
    layers = tuple(layer._replace(branch=branch) for layer in whole.layers)
    return Wiring(layers, whole.roles, {output: head._replace(branch=branch)}, *whole[3:])


def _joined(wirings: list[Wiring]) -> Wiring:
    roles: dict[str, Role] = {}
    heads: dict[str, Head] = {}
    output_axes: dict[str, tuple[int, ...]] = {}
    biases: dict[str, str] = {}
    for wiring in wirings:
        roles |= wiring.roles
        heads |= wiring.heads
        output_axes |= wiring.output_axes
        biases |= wiring.biases
    return Wiring(
        tuple(layer for wiring in wirings for layer in wiring.layers),
        roles,
        heads,
        frozenset().union(*(wiring.indirect for wiring in wirings)),
        output_axes,
        frozenset().union(*(wiring.frozen for wiring in wirings)),
        biases,
    )
