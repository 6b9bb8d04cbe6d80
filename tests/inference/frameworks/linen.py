"""Flax Linen."""

import flax.linen as nn
import jax

CHANNELS_FIRST, STATISTICS, SLOPES = False, True, False


def dense(name, width):
    return nn.Dense(width, name=name)


def conv(name, width, *, size=3, stride=1, groups=1):
    return nn.Conv(width, (size, size), stride, feature_group_count=groups, name=name)


def batch_norm(name):
    return nn.BatchNorm(use_running_average=True, name=name)


def layer_norm(name):
    return nn.LayerNorm(name=name)


def rms_norm(name):
    return nn.RMSNorm(name=name)


def group_norm(name):
    return nn.GroupNorm(2, name=name)


def attention(name):
    layer = nn.MultiHeadDotProductAttention(2, name=name)
    return lambda x: layer(x, x)


def prelu(name):
    return nn.PReLU(negative_slope_init=0.25, name=name)


def embed(name):
    layer = nn.Embed(10, 8, name=name)
    _tables[name] = layer
    return layer


def attend(name):
    return _tables.pop(name).attend


def max_pool(x):
    return nn.max_pool(x, (2, 2), (2, 2))


def mean(x):
    return x.mean((1, 2))


def scaled(x, gate):
    return x * gate[:, None, None]


def made(model, kit, x):
    """The model as `apply`, and its parameters."""

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return model(kit, x)

    return Model().apply, Model().init(jax.random.key(0), x)


_tables = {}
