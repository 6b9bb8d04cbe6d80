"""What optimizers report about their last update."""

from collections import Counter

import jax
import optax
from jaxtyping import Array

from pliant.types import Info


def optimizer_info(opt_state: optax.OptState) -> Info:
    """Collects the named scalars in an optimizer's state that describe its last update.

    Use it in your own training loop to log what an optimizer of this package did.

    They are found by the name of their field, `info`, a dict, wherever the state that has it sits: in chains, masks,
    `MultiSteps`, `inject_hyperparams`. A run stores them among its metrics, averaged over each task.

    Args:
      opt_state: any optax state.

    Returns:
      The scalars by name; nothing where no part of the optimizer reports any. Of several with one name, as in a
      partition, the others are called `name_2`, `name_3` and so on.

    Example:
      >>> from pliant.optimizers import adamo
      >>> tx, params = adamo(0.01, isometry_every=1), {"w": jnp.diag(jnp.array([2.0, 1.0]))}
      >>> _, state = tx.update(params, tx.init(params), params)
      >>> # 0.01 · 0.1 · 4 · 2 · (2² - 1)
      >>> {name: round(float(value), 6) for name, value in optimizer_info(state).items()}
      {'isometry_norm': 0.024}

    References:
      None: a convention of this library.

    Differs from:
      `optax.inject_hyperparams`, whose state tells what an update was given.
    """
    found: dict[str, Array] = {}
    times: Counter[str] = Counter()
    for path, leaf in jax.tree_util.tree_leaves_with_path(opt_state):
        fields = [getattr(entry, "name", None) for entry in path[:-1]]
        if fields[-1:] == ["info"] and isinstance(path[-1], jax.tree_util.DictKey):
            name = str(path[-1].key)
            times[name] += 1
            found[name if times[name] == 1 else f"{name}_{times[name]}"] = leaf
    return found
