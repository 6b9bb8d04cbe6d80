"""Flax NNX."""

from flax import nnx
from tests.inference.frameworks.linen import max_pool, mean, scaled

__all__ = ["max_pool", "mean", "scaled"]
CHANNELS_FIRST, STATISTICS, SLOPES = False, True, False
_RNGS = nnx.Rngs(0)


class Model(nnx.Module):
    """Layers, added by name."""


_model = Model()


def _layer(name, make):
    def call(x):
        if not hasattr(_model, name):
            setattr(_model, name, make(x.shape[-1]))
        return getattr(_model, name)(x)

    return call


def dense(name, width):
    return _layer(name, lambda old: nnx.Linear(old, width, rngs=_RNGS))


def conv(name, width, *, size=3, stride=1, groups=1):
    return _layer(name, lambda old: nnx.Conv(old, width, (size, size), stride, feature_group_count=groups, rngs=_RNGS))


def batch_norm(name):
    return _layer(name, lambda old: nnx.BatchNorm(old, use_running_average=True, rngs=_RNGS))


def layer_norm(name):
    return _layer(name, lambda old: nnx.LayerNorm(old, rngs=_RNGS))


def rms_norm(name):
    return _layer(name, lambda old: nnx.RMSNorm(old, rngs=_RNGS))


def group_norm(name):
    return _layer(name, lambda old: nnx.GroupNorm(old, num_groups=2, rngs=_RNGS))


def attention(name):
    return _layer(name, lambda old: nnx.MultiHeadAttention(2, old, decode=False, rngs=_RNGS))


def prelu(name):
    return _layer(name, lambda _: nnx.PReLU(0.25))


def embed(name):
    return _layer(name, lambda _: nnx.Embed(10, 8, rngs=_RNGS))


def attend(name):
    return lambda x: getattr(_model, name).attend(x)


def made(model, kit, x):
    """The model as `apply`, and its parameters."""
    global _model
    _model = Model()
    model(kit, x)
    graph, state = nnx.split(_model)

    def apply(state, x):
        global _model
        _model = nnx.merge(graph, state)
        return model(kit, x)

    return apply, state
