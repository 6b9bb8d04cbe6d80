"""Equinox: layers of one example, channels first, mapped over the batch."""

import equinox as eqx
import jax

CHANNELS_FIRST, STATISTICS, SLOPES = True, False, False
_KEY = jax.random.key(0)
_layers, _states = {}, {}


def _layer(name, make, run=lambda layer, x: layer(x), *, axis=-1):
    def call(x):
        if name not in _layers:
            _layers[name] = make(x.shape[axis])
        return jax.vmap(lambda x: run(_layers[name], x))(x)

    return call


def _by_position(layer, x):
    return jax.vmap(layer)(x) if x.ndim > 1 else layer(x)


def dense(name, width):
    return _layer(name, lambda old: eqx.nn.Linear(old, width, key=_KEY), _by_position)


def conv(name, width, *, size=3, stride=1, groups=1):
    def make(old):
        return eqx.nn.Conv2d(old, width, size, stride, padding="SAME", groups=groups, key=_KEY)

    return _layer(name, make, axis=1)


def batch_norm(name):
    def make(width):
        layer, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(width, "batch", mode="ema")
        _states[name] = jax.tree.map(jax.numpy.ones_like, state)
        return layer

    return _layer(name, make, lambda layer, x: layer(x, _states[name], inference=True)[0], axis=1)


def layer_norm(name):
    return _layer(name, eqx.nn.LayerNorm, _by_position)


def rms_norm(name):
    return _layer(name, eqx.nn.RMSNorm, _by_position)


def group_norm(name):
    return _layer(name, lambda old: eqx.nn.GroupNorm(2, old), axis=1)


def attention(name):
    return _layer(name, lambda old: eqx.nn.MultiheadAttention(2, old, key=_KEY), lambda layer, x: layer(x, x, x))


def prelu(name):
    return _layer(name, lambda _: eqx.nn.PReLU(0.25))


def embed(name):
    return _layer(name, lambda _: eqx.nn.Embedding(10, 8, key=_KEY), _embedded)


def _embedded(layer, x):
    return jax.vmap(layer)(x)


def attend(name):
    return lambda x: x @ _layers[name].weight.T


def max_pool(x):
    return jax.vmap(eqx.nn.MaxPool2d(2, 2))(x)


def mean(x):
    return x.mean((2, 3))


def scaled(x, gate):
    return x * gate[..., None, None]


def made(model, kit, x):
    """The model as `apply`, and its parameters."""
    global _layers
    _layers = {}
    model(kit, x)
    layers = _layers

    def apply(layers, x):
        global _layers
        _layers = layers
        return model(kit, x)

    return apply, layers
