"""Frozen parameters, which no intervention may change."""

from typing import Any

import jax

from pliant.types import Info, Intervention, Key, Learned, Params, State, Wiring, leaf_path


def keep_frozen(intervention: Intervention, wiring: Wiring) -> Intervention:
    """Restores a wiring's frozen parameters after an intervention.

    Use it around an intervention when part of a network must not change.

    Args:
      intervention: any.
      wiring: the network's layer graph.

    Returns:
      The intervention itself where nothing is frozen.

    Example:
      >>> import jax.numpy as jnp
      >>> double = Intervention(
      ...     lambda learned: (),
      ...     lambda key, step, learned, state, signals: (
      ...         learned._replace(params=jax.tree.map(lambda leaf: 2 * leaf, learned.params)), state, {}
      ...     ),
      ... )
      >>> wiring = Wiring((), {}, frozen=frozenset({"head"}))
      >>> learned = Learned({"body": jnp.ones(1), "head": jnp.ones(1)}, {}, ())
      >>> after, _, _ = keep_frozen(double, wiring).update(jax.random.key(0), 1, learned, (), None)
      >>> float(after.params["body"][0]), float(after.params["head"][0])
      (2.0, 1.0)

    References:
      None: a convention of this library.

    Differs from:
      `optax.set_to_zero` in a partition, which holds what the optimizer would change.
    """
    if not wiring.frozen:
        return intervention

    def restored(before: Params, after: Params) -> Params:
        return jax.tree_util.tree_map_with_path(
            lambda path, old, new: old if leaf_path(path) in wiring.frozen else new, before, after
        )

    def keeping(hook: Any) -> Any:
        def run(key: Key, when: Any, learned: Learned, state: State, seen: Any) -> tuple[Learned, State, Info]:
            after, state, info = hook(key, when, learned, state, seen)
            return after._replace(params=restored(learned.params, after.params)), state, info

        return run if hook else None

    def reported(learned: Learned, state: State) -> tuple[Params, State]:
        params, network = intervention.reported(learned, state)
        return restored(learned.params, params), network

    return Intervention(
        intervention.init,
        keeping(intervention.update),
        keeping(intervention.switch),
        reported if intervention.reported else None,
    )


def resettable(wiring: Wiring) -> Wiring:
    """Returns the wiring without the layers that a frozen parameter feeds or reads: their units cannot be reset.

    Example:
      >>> from pliant.networks import mlp
      >>> wiring = mlp((2,), 1, widths=(3, 3, 3)).wiring._replace(frozen=frozenset({"dense_1/kernel"}))
      >>> [layer.name for layer in resettable(wiring).layers]
      ['dense_2']
    """

    def is_free(layer: Any) -> bool:
        paths = {feed.slot.path for feed in layer.feeds} | {slot.path for slot in layer.readers}
        return not paths & wiring.frozen

    return wiring._replace(layers=tuple(layer for layer in wiring.layers if is_free(layer)))
