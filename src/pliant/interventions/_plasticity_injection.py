"""Plasticity injection: the head is frozen once, and a fresh one learns the correction to it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from pliant.errors import UserError, require_whole
from pliant.interventions._frozen import keep_frozen
from pliant.interventions._moments import clear_moments
from pliant.interventions._projection import wide
from pliant.types import (
    Features,
    Fresh,
    Info,
    Inputs,
    Intervention,
    Key,
    Learned,
    Method,
    Network,
    Number,
    Params,
    State,
    Wiring,
    by_path,
    leaf_path,
)

_INJECTION = "injection"  # in the network's state: the heads that are frozen, by the path of their parameters
_ADDED, _SUBTRACTED = "added", "subtracted"


def with_injection(network: Network) -> Network:
    r"""Adds two frozen heads to a network, which cancel each other until plasticity is injected.

    Use it to prepare a network for `plasticity_injection`.

    .. math:: f(x) = h_\theta(z) + h_{\theta_1}(z) - h_{\theta_2}(z) = h_{\theta + (\theta_1 - \theta_2)}(z)

    h is the linear head and z what it reads. θ₁ are the head's parameters; θ and θ₂ are in the network's state, where
    no optimizer reaches them, and 0 before the injection. z gets its gradient through all three.

    Args:
      network: its parameters and its state are dictionaries; its wiring states an output layer of its own.

    Returns:
      A `Network` with the same parameters and wiring. After the injection a unit that the head reads is read by the
      frozen ones as well: zeroing its weights in the head does not cut it off.

    Raises:
      UserError: for networks whose head is tied to an embedding, and for those that have the frozen heads already.

    Example:
      >>> from pliant.networks import mlp
      >>> network = with_injection(mlp((2,), 3, widths=(4,)))
      >>> params, state = network.init(jax.random.key(0))
      >>> state["injection"]["added"]["head/kernel"].shape
      (4, 3)

    References:
      See `plasticity_injection`.

    Differs from:
      Implementations that add up three outputs: here kernels are added, which costs no product.
    """
    if not network.wiring.head_leaves:
        raise UserError(
            got="plasticity injection into a network whose head is tied to an embedding",
            wanted="an output layer of its own",
            do="Untie the head, or leave the method out.",
        )

    def init(key: Key) -> tuple[Params, State]:
        params, state = network.init(key)
        if _INJECTION in state:
            raise UserError(
                got="with_injection(network) of a network that has the frozen heads already",
                wanted="a network without them",
                do="Inject into a network once.",
            )
        frozen = {part: jax.tree.map(jnp.zeros_like, _head(network.wiring, params)) for part in (_ADDED, _SUBTRACTED)}
        return params, {**state, _INJECTION: frozen}

    def apply(
        params: Params, state: State, inputs: Inputs, *, train: bool, key: Key | None = None
    ) -> tuple[PyTree[Array], Features, State]:
        frozen = state[_INJECTION]
        whole = {  # summed in this order: exactly θ where θ₁ = θ₂
            path: (wide(frozen[_ADDED][path]) + (wide(leaf) - wide(frozen[_SUBTRACTED][path]))).astype(leaf.dtype)
            for path, leaf in _head(network.wiring, params).items()
        }
        rest = {name: branch for name, branch in state.items() if name != _INJECTION}
        output, features, after = network.apply(_with_leaves(params, whole), rest, inputs, train=train, key=key)
        return output, features, {**after, _INJECTION: frozen}

    return Network(init, apply, network.wiring)


def plasticity_injection(wiring: Wiring, *, at_task: Number = 1) -> Intervention:
    r"""Freezes the head when a certain task begins; a fresh head learns the correction to it.

    Use it as a probe: does a fresh head learn what the old one cannot?

    .. math:: h_\theta(z) \;\to\; h_\theta(z) + h_{\theta_1}(z) - h_{\theta_2}(z),
              \qquad \theta_1 = \theta_2 \sim p_{init}

    The network's output is the same before and after, to the bit. From then on θ and θ₂ are frozen; θ₁ is trained, with
    moments that start at 0, and so are the features, through all three heads.

    It happens once. A network that learns better afterwards had lost plasticity in its head: as its authors say, a
    diagnosis as much as a remedy.

    Args:
      wiring: of a network that `with_injection` made.
      at_task: the task, counted from 1, after which to inject; 0 never does.

    Returns:
      An `Intervention` without a state of its own. `info` of a switch counts `injections`.

    Raises:
      UserError: if `at_task` is negative; for a network without the frozen heads, when training begins.

    Example:
      >>> from pliant.networks import mlp
      >>> network = with_injection(mlp((2,), 1, widths=(4,)))
      >>> params, state = network.init(jax.random.key(0))
      >>> learned, fresh = Learned(params, state, ()), Fresh(network.init, lambda params: ())
      >>> method = plasticity_injection(network.wiring, at_task=1)
      >>> after, _, info = method.switch(jax.random.key(1), 1, learned, method.init(learned), fresh)
      >>> bool((after.params["head"]["kernel"] != params["head"]["kernel"]).all()), int(info["injections"])
      (True, 1)
      >>> x = jnp.ones((1, 2))
      >>> outputs = [network.apply(l.params, l.statistics, x, train=False, key=None)[0] for l in (learned, after)]
      >>> bool((outputs[0] == outputs[1]).all())
      True

    References:
      Nikishin et al., `Deep Reinforcement Learning with Plasticity Injection <https://arxiv.org/abs/2305.15555>`_,
      2023. The definition of the intervention.

    Differs from:
      The paper, where the head is all that follows the convolutions; here it is the output layer. Plasticine, which
      keeps the optimizer as it is, so that the old heads go on learning. Methods that rewrite or remember the head's
      parameters would act on θ₁ alone, so combinations with them are refused.
    """
    require_whole("at_task", at_task, 0, do="Use the number of a task, from 1; 0 never injects.")

    def init(learned: Learned) -> State:
        if _INJECTION not in learned.statistics:
            raise UserError(
                got="plasticity injection into a network without frozen heads",
                wanted="a network made by with_injection",
                do="Use with_injection(network), and its wiring; the method plasticity-injection does so.",
            )
        return ()

    def inject(key: Key, learned: Learned, fresh: Fresh) -> Learned:
        old, drawn = _head(wiring, learned.params), _head(wiring, fresh.init_network(key)[0])
        new = {path: drawn[path].astype(leaf.dtype) for path, leaf in old.items()}
        frozen = jax.tree.map(
            lambda now, leaf: leaf.astype(now.dtype), learned.statistics[_INJECTION], {_ADDED: old, _SUBTRACTED: new}
        )
        forgotten = {path: jnp.full(leaf.shape, True) for path, leaf in old.items()}
        params = _with_leaves(learned.params, new)
        optimizer = clear_moments(learned.optimizer, forgotten, params=params)
        return Learned(params, {**learned.statistics, _INJECTION: frozen}, optimizer)

    def switch(key: Key, index: Any, learned: Learned, state: State, fresh: Fresh) -> tuple[Learned, State, Info]:
        is_due = index == at_task
        learned = jax.lax.cond(is_due, lambda now: inject(key, now, fresh), lambda now: now, learned)
        return learned, state, {"injections": jnp.asarray(is_due, jnp.int32)}

    return keep_frozen(Intervention(init, switch=switch), wiring)


def _head(wiring: Wiring, params: Params) -> dict[str, Array]:
    """The output layers' kernels and biases, by path."""
    return {path: leaf for path, leaf in by_path(params).items() if path in wiring.head_leaves}


def _with_leaves(params: Params, leaves: Mapping[str, Array]) -> Params:
    return jax.tree_util.tree_map_with_path(lambda path, leaf: leaves.get(leaf_path(path), leaf), params)


PLASTICITY_INJECTION = Method(
    name="plasticity-injection",
    summary="Adam; the head is frozen once, and a fresh head learns the correction to it",
    reference="Nikishin et al. 2023, the definition of the intervention",
    wrap=with_injection,
    intervention=plasticity_injection,
    off={"at_task": 0},
    boundary_aware=True,
    remembers="the head that it froze",
    alone="has frozen heads beside the one in the parameters",
)
