"""Plasticity injection: once, the head is frozen and a fresh one learns what it does not."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from pliant.errors import UserError, require_range
from pliant.interventions._surgery import by_path, clear_moments
from pliant.types import (
    Features,
    Fresh,
    HiddenLayer,
    Info,
    Inputs,
    Intervention,
    Key,
    Learned,
    Network,
    Number,
    Params,
    Role,
    Signals,
    State,
    Wiring,
    leaf_path,
)

_INJECTION = "injection"  # the parameters injection/new/… and injection/old/…, and the flag in the network's state


class PlasticityInjectionState(NamedTuple):
    """State of `plasticity_injection`."""

    frozen: tuple[Array, ...]
    """The head and the old half of the injected pair as they were at the injection, in the order of their paths."""


def with_injection(network: Network) -> Network:
    r"""Adds a pair of heads to a network, which say nothing until plasticity is injected.

    .. math:: f(x) = h_\theta(z) + \mathbb 1_{injected} \big( h_{\theta_1}(z) - h_{\theta_2}(z) \big)

    h is the linear head and z what it reads, `wiring.head_input`. The pair are parameters `injection/new` (θ₁) and
    `injection/old` (θ₂), 0 until they are drawn; whether they are is a flag in the network's state. Before the
    injection they get no gradient; after it θ₂ and θ get none, while z still gets its own through all three.

    Args:
      network: its parameters are a dictionary, its head one kernel (width, outputs), with or without a bias, that reads
        the feature `head_input`; maps are flattened.

    Returns:
      A `Network` with the new parameters and their wiring: the last hidden layer's units are read by the pair as well.

    Raises:
      UserError: for networks with another head; for those whose head reads something else than the feature, at the
        first call of `apply`.

    Example:
      >>> from pliant.networks import mlp
      >>> network = with_injection(mlp((2,), 3, widths=(4,)))
      >>> params, state = network.init(jax.random.key(0))
      >>> params["injection"]["new"]["kernel"].shape, state
      ((4, 3), {'injection': Array(False, dtype=bool)})

    References:
      See `plasticity_injection`.

    Differs from:
      Implementations that subtract the output of θ₂ from that of θ₁: here their kernels are subtracted, so that the
      pair's sum is 0 exactly and costs one product.
    """
    paths, read = _head_paths(network.wiring), network.wiring.head_input or ""
    module = paths[0].rpartition("/")[0]

    def init(key: Key) -> tuple[Params, State]:
        params, state = network.init(key)
        leaves = by_path(params)
        pair = {which: {_name(path): jnp.zeros_like(leaves[path]) for path in paths} for which in ("new", "old")}
        return {**params, _INJECTION: pair}, {**state, _INJECTION: jnp.zeros((), bool)}

    def apply(
        params: Params, state: State, inputs: Inputs, *, train: bool, key: Key | None = None
    ) -> tuple[Array, Features, State]:
        injected, pair = state[_INJECTION], params[_INJECTION]
        head = {f"{module}/{name}": injected for name in pair["old"]}
        output, features, after = network.apply(
            _without_gradient(_rest(params), head), _rest(state), inputs, train=train, key=key
        )
        added = _injected_output(pair, features[read], output)
        output = output + jnp.where(injected, added, jnp.zeros_like(added))
        return output, features, {**after, _INJECTION: injected}

    return Network(init, apply, _wired(network.wiring, paths))


def plasticity_injection(wiring: Wiring, *, at_task: Number = 1) -> Intervention:
    r"""Freezes the head when a certain task begins, and has a fresh one learn the correction to it.

    .. math:: h_\theta(z) \;\to\; h_\theta(z) + h_{\theta_1}(z) - h_{\theta_2}(z),
              \qquad \theta_1 = \theta_2 \sim p_{init}

    The network's output is the same before and after. From then on θ and θ₂ are frozen: their gradients are 0, and
    copies are put back after every update, whatever other parts make of them. θ₁ learns, its moments begin at 0, and so
    do the features.

    It happens once, so that a network which then learns better had lost plasticity in its head: as its authors say, a
    diagnosis as much as a remedy.

    Args:
      wiring: of a network that `with_injection` made.
      at_task: the task, counted from 0, before which to inject, ≥ 1; 0 never does.

    Returns:
      An `Intervention`; its state is a `PlasticityInjectionState`. `info` of a switch counts `injections`.

    Raises:
      UserError: for a network without the pair of heads, and if `at_task` is negative.

    Example:
      >>> from pliant.networks import mlp
      >>> network = with_injection(mlp((2,), 1, widths=(4,)))
      >>> params, state = network.init(jax.random.key(0))
      >>> learned, fresh = Learned(params, state, ()), Fresh(network.init, lambda params: ())
      >>> method = plasticity_injection(network.wiring, at_task=1)
      >>> after, _, info = method.switch(jax.random.key(1), 1, learned, method.init(learned), fresh)
      >>> pair = after.params["injection"]
      >>> bool((pair["new"]["kernel"] == pair["old"]["kernel"]).all()), bool(pair["new"]["kernel"].any())
      (True, True)
      >>> x = jnp.ones((1, 2))
      >>> outputs = [network.apply(l.params, l.network, x, train=False, key=None)[0] for l in (learned, after)]
      >>> bool((outputs[0] == outputs[1]).all()), int(info["injections"])
      (True, 1)

    References:
      Nikishin et al., `Deep Reinforcement Learning with Plasticity Injection <https://arxiv.org/abs/2305.15555>`_,
      2023. The definition of the intervention.

    Differs from:
      The paper, where the head is all that follows the convolutions; here it is the output layer. Plasticine, which
      keeps the optimizer as it is, so that the old heads go on learning. A protocol or an intervention that rewrites
      the head after the injection is undone by the next update.
    """
    require_range("at_task", at_task, 0, do="Use the number of a task, from 1; 0 never injects.")
    paths = [path for path in _head_paths(wiring, of_injected=True) if not path.startswith(f"{_INJECTION}/")]
    old, new = ([f"{_INJECTION}/{which}/{_name(path)}" for path in paths] for which in ("old", "new"))
    frozen = sorted([*paths, *old])

    def copies(params: Params) -> PlasticityInjectionState:
        leaves = by_path(params)
        return PlasticityInjectionState(tuple(jnp.copy(leaves[path]) for path in frozen))

    def inject(learned: Learned, fresh: Fresh, key: Key) -> tuple[Learned, PlasticityInjectionState]:
        drawn, now = by_path(fresh.network(key)[0]), by_path(learned.params)
        pair = {path: drawn[head] for half in (old, new) for path, head in zip(half, paths, strict=True)}
        params = _with_leaves(learned.params, {path: leaf.astype(now[path].dtype) for path, leaf in pair.items()})
        forgotten = {path: jnp.full(now[path].shape, True) for path in (*frozen, *new)}
        network = {**learned.network, _INJECTION: jnp.ones((), bool)}
        return Learned(params, network, clear_moments(learned.optimizer, forgotten)), copies(params)

    def switch(
        key: Key, index: Any, learned: Learned, state: PlasticityInjectionState, fresh: Fresh
    ) -> tuple[Learned, PlasticityInjectionState, Info]:
        is_due = index == at_task
        learned, state = jax.lax.cond(
            is_due, lambda learned, _: inject(learned, fresh, key), lambda *both: both, learned, state
        )
        return learned, state, {"injections": jnp.asarray(is_due, jnp.int32)}

    def update(
        key: Key, step: Any, learned: Learned, state: PlasticityInjectionState, signals: Signals | None
    ) -> tuple[Learned, PlasticityInjectionState, Info]:
        del key, step, signals
        injected, now = learned.network[_INJECTION], by_path(learned.params)
        kept = {path: jnp.where(injected, c, now[path]) for path, c in zip(frozen, state.frozen, strict=True)}
        return learned._replace(params=_with_leaves(learned.params, kept)), state, {}

    return Intervention(lambda learned: copies(learned.params), update, switch)


def _injected_output(pair: Mapping[str, Mapping[str, Array]], read: Array, output: Array) -> Array:
    """What the pair adds: the new half's output minus the old half's, whose gradient is that of the features alone."""
    difference = {name: leaf - jax.lax.stop_gradient(pair["old"][name]) for name, leaf in pair["new"].items()}
    kernel = next(leaf for leaf in difference.values() if leaf.ndim == 2)
    shape, read = read.shape, read.reshape(*output.shape[:-1], -1)
    if kernel.shape != (read.shape[-1], output.shape[-1]):
        raise UserError(
            got=f"plasticity injection for a head of shape {kernel.shape} that reads features of shape {shape}",
            wanted="a linear head that reads each of them",
            do="Name what the head reads in the wiring's head_input.",
        )
    biases = [jnp.broadcast_to(leaf, output.shape) for leaf in difference.values() if leaf.ndim == 1]
    return sum(biases, read @ kernel).astype(output.dtype)


def _head_paths(wiring: Wiring, *, of_injected: bool = False) -> list[str]:
    """The head's kernel and what lies beside it."""
    kernels = [path for path, role in wiring.roles.items() if role == "head"]
    is_injected = any(path.startswith(f"{_INJECTION}/") for path in kernels)
    if of_injected and not is_injected:
        raise UserError(
            got="plasticity injection into a network without the pair of heads for it",
            wanted="a network made by with_injection",
            do="Use with_injection(network), and its wiring; the method plasticity-injection does so.",
        )
    if not of_injected and (is_injected or len(kernels) != 1 or wiring.head_input is None):
        raise UserError(
            got=f"plasticity injection into a network whose heads are {', '.join(kernels) or 'tied'}"
            + (", reading the inputs" if wiring.head_input is None else ""),
            wanted="one output layer that reads hidden features",
            do="Use a network with hidden layers and a head of its own, and inject once.",
        )
    modules = {path.rpartition("/")[0] for path in kernels}
    return sorted(path for path in wiring.roles if path.rpartition("/")[0] in modules)


def _wired(wiring: Wiring, paths: list[str]) -> Wiring:
    """The wiring with the pair: what reads a unit through the head's kernel reads it through the pair's as well."""
    pair = {path: [f"{_INJECTION}/{which}/{_name(path)}" for which in ("new", "old")] for path in paths}
    roles: dict[str, Role] = {copy: wiring.roles[path] for path in paths for copy in pair[path]}

    def with_pair(layer: HiddenLayer) -> HiddenLayer:
        more = [slot._replace(path=copy) for slot in layer.readers for copy in pair.get(slot.path, [])]
        return layer._replace(readers=(*layer.readers, *more))

    return Wiring(tuple(map(with_pair, wiring.layers)), {**wiring.roles, **roles}, wiring.head_input)


def _without_gradient(params: Params, frozen: Mapping[str, Bool[Array, ""]]) -> Params:
    def freeze(path: Any, leaf: Array) -> Array:
        is_frozen = frozen.get(leaf_path(path))
        return leaf if is_frozen is None else jnp.where(is_frozen, jax.lax.stop_gradient(leaf), leaf)

    return jax.tree_util.tree_map_with_path(freeze, params)


def _with_leaves(params: Params, leaves: Mapping[str, Array]) -> Params:
    return jax.tree_util.tree_map_with_path(lambda path, leaf: leaves.get(leaf_path(path), leaf), params)


def _rest(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {name: branch for name, branch in tree.items() if name != _INJECTION}


def _name(path: str) -> str:
    return path.rpartition("/")[2]
