"""Models in terms of a kit: the layers of a library, each with a name. First calls make their parameters."""

import jax
import jax.numpy as jnp

relu = jax.nn.relu


def mlp(kit, x):
    return kit.dense("head", 3)(jnp.tanh(kit.dense("b", 5)(relu(kit.dense("a", 6)(x)))))


def cnn(kit, x):
    x = kit.max_pool(relu(kit.batch_norm("norm")(kit.conv("conv", 4)(x))))
    return kit.dense("head", 3)(jax.nn.gelu(kit.dense("dense", 6)(x.reshape(len(x), -1))))


def transformer(kit, x):
    x = kit.dense("embed", 8)(x)
    x = x + kit.attention("attention")(kit.layer_norm("norm1")(x))
    x = x + kit.dense("down", 8)(jax.nn.gelu(kit.dense("up", 12)(kit.layer_norm("norm2")(x))))
    return kit.dense("head", 3)(kit.layer_norm("norm3")(x).mean(1))


def gated(kit, x):
    x = kit.dense("embed", 8)(x)
    y = kit.rms_norm("norm")(x)
    x = x + kit.dense("down", 8)(jax.nn.silu(kit.dense("gate", 12)(y)) * kit.dense("up", 12)(y))
    return kit.dense("head", 3)(x.mean(1))


def resnet(kit, x):
    x = relu(kit.batch_norm("norm0")(kit.conv("stem", 4)(x)))
    y = relu(kit.batch_norm("norm1")(kit.conv("conv1", 4)(x)))
    x = relu(x + kit.batch_norm("norm2")(kit.conv("conv2", 4)(y)))
    y = relu(kit.batch_norm("norm3")(kit.conv("conv3", 6, stride=2)(x)))
    short = kit.batch_norm("norm5")(kit.conv("short", 6, size=1, stride=2)(x))
    return kit.dense("head", 3)(kit.mean(relu(kit.batch_norm("norm4")(kit.conv("conv4", 6)(y)) + short)))


def separable(kit, x):
    x = relu(kit.batch_norm("norm1")(kit.conv("stem", 4, stride=2)(x)))
    x = relu(kit.batch_norm("norm2")(kit.conv("depthwise", 4, groups=4)(x)))
    gate = jax.nn.sigmoid(kit.dense("excite", 4)(relu(kit.dense("squeeze", 2)(kit.mean(x)))))
    x = kit.batch_norm("norm3")(kit.conv("pointwise", 6, size=1)(kit.scaled(x, gate)))
    return kit.dense("head", 3)(kit.mean(relu(x)))


def dueling(kit, x):
    x = relu(kit.dense("torso", 6)(x))
    value = kit.dense("head_v", 1)(relu(kit.dense("v", 5)(x)))
    advantage = kit.dense("head_a", 3)(relu(kit.dense("a", 4)(x)))
    return value + advantage - advantage.mean(-1, keepdims=True)


def group_norm(kit, x):
    x = relu(kit.group_norm("norm")(kit.conv("conv1", 4)(x)))
    return kit.dense("head", 3)(kit.mean(relu(kit.conv("conv2", 6, stride=2)(x))))


def prelu(kit, x):
    x = kit.prelu("slope1")(kit.dense("a", 6)(x))
    return kit.dense("head", 3)(kit.prelu("slope2")(kit.dense("b", 5)(x)))


def grouped(kit, x):
    x = relu(kit.conv("grouped", 6, groups=2)(relu(kit.conv("conv", 4)(x))))
    return kit.dense("head", 3)(x.reshape(len(x), -1))


def tied(kit, x):
    embed = kit.embed("embed")
    x = embed(x)
    x = x + kit.dense("down", 8)(relu(kit.dense("up", 12)(kit.layer_norm("norm")(x))))
    return kit.attend("embed")(x)
