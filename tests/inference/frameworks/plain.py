"""Plain functions of dictionaries."""

import jax
import jax.numpy as jnp
import numpy as np
from tests.inference.frameworks.linen import mean, scaled

__all__ = ["mean", "scaled"]
CHANNELS_FIRST, STATISTICS, SLOPES = False, True, True
_random = np.random.default_rng(0)
_params = {}


def _get(name, leaf, *shape):
    if leaf not in _params.setdefault(name, {}):
        made = np.full(shape, 0.25) if name.startswith("slope") else _random.normal(size=shape) / 4
        _params[name][leaf] = jnp.asarray(made, jnp.float32)
    return _params[name][leaf]


def dense(name, width):
    return lambda x: x @ _get(name, "w", x.shape[-1], width) + _get(name, "b", width)


def conv(name, width, *, size=3, stride=1, groups=1):
    def run(x):
        kernel, numbers = _get(name, "w", size, size, x.shape[-1] // groups, width), ("NHWC", "HWIO", "NHWC")
        strides = (stride, stride)
        made = jax.lax.conv_general_dilated(
            x, kernel, strides, "SAME", dimension_numbers=numbers, feature_group_count=groups
        )
        return made + _get(name, "b", width)

    return run


def batch_norm(name):
    def run(x):
        width = x.shape[-1]
        mean, root = jax.lax.stop_gradient((_get(name, "mean", width), _get(name, "var", width)))
        return (x - mean) / jnp.sqrt(root**2 + 1e-3) * _get(name, "w", width) + _get(name, "b", width)

    return run


def layer_norm(name):
    return lambda x: jax.nn.standardize(x) * _get(name, "w", x.shape[-1]) + _get(name, "b", x.shape[-1])


def rms_norm(name):
    return lambda x: x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5) * _get(name, "w", x.shape[-1])


def group_norm(name):
    def run(x):
        groups = jax.nn.standardize(x.reshape(*x.shape[:-1], 2, -1), axis=(1, 2, 4)).reshape(x.shape)
        return groups * _get(name, "w", x.shape[-1]) + _get(name, "b", x.shape[-1])

    return run


def attention(name):
    def run(x):
        query, key, value = (jnp.einsum("btd,dhk->bthk", x, _get(name, leaf, 8, 2, 4)) for leaf in "qkv")
        weights = jax.nn.softmax(jnp.einsum("bthk,bshk->bhts", query, key))
        return jnp.einsum("bhts,bshk,hkd->btd", weights, value, _get(name, "out", 2, 4, 8))

    return run


def prelu(name):
    return lambda x: jnp.where(x > 0, x, x * _get(name, "w", x.shape[-1]))


def embed(name):
    return lambda x: _get(name, "w", 10, 8)[x]


def attend(name):
    return lambda x: x @ _get(name, "w", 10, 8).T


def max_pool(x):
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))


def made(model, kit, x):
    """The model as `apply`, and its parameters."""
    global _params
    _params = {}
    model(kit, x)
    params = _params

    def apply(params, x):
        global _params
        _params = params
        return model(kit, x)

    return apply, params
