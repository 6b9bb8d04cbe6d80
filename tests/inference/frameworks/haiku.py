"""Haiku."""

import haiku as hk
import jax
import jax.numpy as jnp
from tests.inference.frameworks.linen import mean, scaled

__all__ = ["mean", "scaled"]
CHANNELS_FIRST, STATISTICS, SLOPES = False, False, True
_is_training = False
_tables = {}


def dense(name, width):
    return hk.Linear(width, name=name)


def conv(name, width, *, size=3, stride=1, groups=1):
    return hk.Conv2D(width, size, stride, feature_group_count=groups, name=name)


def batch_norm(name):
    layer = hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.9, name=name)
    return lambda x: layer(x, is_training=_is_training)


def layer_norm(name):
    return hk.LayerNorm(-1, create_scale=True, create_offset=True, name=name)


def rms_norm(name):
    return hk.RMSNorm(-1, name=name)


def group_norm(name):
    return hk.GroupNorm(2, name=name)


def attention(name):
    layer = hk.MultiHeadAttention(2, 4, w_init=hk.initializers.RandomNormal(), name=name)
    return lambda x: layer(x, x, x)


class PReLU(hk.Module):
    """With a slope of each unit."""

    def __call__(self, x):
        return jnp.where(x > 0, x, x * hk.get_parameter("w", x.shape[-1:], init=hk.initializers.Constant(0.25)))


def prelu(name):
    return PReLU(name)


def embed(name):
    _tables[name] = hk.Embed(10, 8, name=name)
    return _tables[name]


def attend(name):
    table = _tables.pop(name)
    return lambda x: x @ table.embeddings.T


def max_pool(x):
    return hk.max_pool(x, (2, 2, 1), (2, 2, 1), "VALID")


def made(model, kit, x):
    """The model as `apply`, and its parameters."""
    global _is_training
    network = hk.without_apply_rng(hk.transform_with_state(lambda x: model(kit, x)))
    _is_training = True
    params, state = network.init(jax.random.key(0), x)
    _is_training = False
    return lambda params, x: network.apply(params, state, x)[0], params
