"""What optimizers tell about their last update."""

import jax
import optax

from pliant.types import Info, leaf_path


def optimizer_info(opt_state: optax.OptState) -> Info:
    """The named scalars in an optimizer's state that say what the last update did.

    They are found by the name of their field, `info`, wherever the state that has it sits: in chains, masks,
    `MultiSteps`, `inject_hyperparams`. A run stores them among its metrics, averaged over each task.

    Args:
      opt_state: any optax state.

    Returns:
      The scalars by name; nothing where no part of the optimizer reports any.

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
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(opt_state):
        fields = [getattr(entry, "name", None) for entry in path]
        if "info" in fields:
            found[leaf_path(path[fields.index("info") + 1 :])] = leaf
    return found
