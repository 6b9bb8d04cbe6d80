"""One update of a registered method on small networks."""

import jax
import jax.numpy as jnp
import numpy as np

from pliant.methods import build, defaults, find
from pliant.networks import cnn, mlp

MLP = mlp((3,), 2, widths=(5, 4), norm="layer")
CNN = cnn((4, 4, 2), 3, channels=(5,), kernel_sizes=(3,), strides=(1,), pool=(1,), widths=(6,))


def parts(name, network=MLP, **values):
    method = find(name)
    return build(method, network.wiring, defaults(method, 0.1) | values)


def params_of(network, seed=0):
    params, _ = network.init(jax.random.key(seed))
    return jax.tree.map(lambda leaf: leaf + 0.1, params)


def moved(name, gradients, network=MLP, **values):
    params, optimizer = params_of(network), parts(name, network, **values).optimizer
    updates, _ = optimizer.update(gradients, optimizer.init(params), params, step=1, key=jax.random.key(0))
    return updates


def still(network=MLP):
    return jax.tree.map(jnp.zeros_like, params_of(network))


def by_role(network, tree):
    """Leaves by role, in order."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        found.setdefault(network.wiring.roles[name], []).append(np.asarray(leaf))
    return found
