"""Layer reset: initialises the output layer and the last hidden layers again."""

from collections.abc import Collection

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from pliant.errors import UserError, require_whole
from pliant.interventions._at_switch import at_switch, drawn
from pliant.interventions._frozen import keep_frozen
from pliant.interventions._moments import clear_moments
from pliant.interventions._surgery import require_statistics
from pliant.types import (
    Choice,
    Fresh,
    Intervention,
    Key,
    Learned,
    Method,
    Number,
    Part,
    State,
    Wiring,
    by_path,
    leaf_path,
)


def layer_reset(wiring: Wiring, *, num_layers: int = 2, every_tasks: Number = 1) -> Intervention:
    r"""Resets the last k layers when the task changes, and clears their moments.

    Use it when classes change their meaning (k = 1), or to find out which layers lose plasticity.

    .. math:: \theta_l \leftarrow \theta_{l,0}' \sim p_{init}, \quad (m_l, v_l) \leftarrow 0
              \qquad \text{for the head and the last } k - 1 \text{ hidden layers}

    Everything that belongs to the units of a hidden layer is reset with it: kernels that feed them, biases, norms and
    running statistics. All else is left as it is, to the bit. Adam's count is shared by all weights and stays. In a
    network with several heads all of them are reset, and before each the last hidden layers of its branch, then those
    of the trunk.

    Args:
      wiring: the network's layer graph.
      num_layers: k, from 1 (the head alone) to the number of hidden layers plus 1.
      every_tasks: n ≥ 1, reset after tasks n, 2n, …; 0 never resets.

    Returns:
      A stateless `Intervention`; `info` has `norm_moved`.

    Raises:
      UserError: for numbers out of range, for networks without a head of their own, and for those whose wiring does
        not say which parameters are the head's, or which running statistics a layer has.

    Example:
      >>> from pliant.networks import mlp
      >>> network = mlp((2,), 1, widths=(3, 3))
      >>> params, state = network.init(jax.random.key(0))
      >>> fresh = Fresh(init_network=network.init, init_optimizer=lambda params: ())
      >>> method = layer_reset(network.wiring, num_layers=2)
      >>> new, _, _ = method.switch(jax.random.key(1), 1, Learned(params, state, ()), (), fresh)
      >>> {name: bool((new.params[name]["kernel"] != params[name]["kernel"]).any()) for name in params}
      {'dense_0': False, 'dense_1': True, 'head': True}

    References:
      Nikishin et al., `The Primacy Bias in Deep Reinforcement Learning <https://arxiv.org/abs/2205.07802>`_, 2022. Of
      their periodic resets those of SPR (the last layer) and DrQ (all behind the encoder).
      Lyle et al., `Understanding plasticity in neural networks <https://arxiv.org/abs/2303.01486>`_, 2023, where the
      last layer is reset at every update of the target network.

    Differs from:
      The protocol choice `head_at_switch`, which leaves the head's moments. In residual networks the hidden layers
      of the wiring are the insides of the blocks: the kernels that write to the stream belong to no layer and stay.
    """
    _check(wiring, num_layers)
    last = wiring.last_layers(int(num_layers) - 1)
    leaves = wiring.head_leaves | {feed.slot.path for layer in last for feed in layer.feeds}
    kept = {path for head in wiring.heads.values() for path in head.state}
    kept |= {path for layer in last for path in (*layer.state, *(slot.path for slot in layer.statistics or ()))}

    def init(learned: Learned) -> State:
        require_statistics(last, learned.statistics, "layer reset")
        return ()

    def renew(key: Key, learned: Learned, state: State, fresh: Fresh) -> Learned:
        del state
        params, statistics = drawn(key, learned.params, fresh)
        params = _replaced(leaves, learned.params, params)
        where = {path: jnp.full(leaf.shape, path in leaves) for path, leaf in by_path(learned.params).items()}
        units = {layer.name: jnp.full(layer.width, True) for layer in last}
        return Learned(
            params,
            _replaced(kept, learned.statistics, statistics),
            clear_moments(learned.optimizer, where, units, params=params),
        )

    return keep_frozen(Intervention(init, switch=at_switch(renew, every_tasks)), wiring)


def _replaced(paths: Collection[str], old: PyTree, new: PyTree) -> PyTree:
    """The leaves at `paths` from the new tree, all others from the old one."""
    return jax.tree_util.tree_map_with_path(lambda path, *each: each[leaf_path(path) in paths], old, new)


def _check(wiring: Wiring, num_layers: int) -> None:
    if not wiring.head_leaves:
        raise UserError(
            got="a reset of the last layers for a network whose head is tied",
            wanted="a network with an output layer of its own",
            do="Untie the head, such as --set t5.tie_embeddings=false, or use full-reset.",
        )
    most = max(map(len, wiring.chains())) + 1
    require_whole("num_layers", num_layers, 1, most, do="1 is the head alone; full-reset renews the whole network.")


HEAD_RESET = Method(
    name="head-reset",
    summary="Adam with a new output layer for every task",
    reference="Nikishin et al. 2022, resets of SPR; Lyle et al. 2023",
    intervention=Part(layer_reset, fixed={"num_layers": 1}),
    off={"every_tasks": 0},
    boundary_aware=True,
)
LAST_K_RESET = Method(
    name="last-k-reset",
    summary="Adam with a new head and new last hidden layers for every task",
    reference="Nikishin et al. 2022, resets of DrQ",
    intervention=layer_reset,
    space={"num_layers": Choice((2, 3))},
    off={"every_tasks": 0},
    boundary_aware=True,
)
