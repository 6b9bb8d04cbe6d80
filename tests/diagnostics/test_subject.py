"""Memory that does not grow with the number of examples, with the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.diagnostics import _subject, hessian_vector_product
from pliant.networks import cnn, resnet18, t5
from pliant.types import Text
from subjects import subject

SHAPE = (8, 8, 3)


def images(network, number):
    inputs = jnp.asarray(np.random.default_rng(1).normal(size=(number, *SHAPE)), jnp.float32)
    return subject(network, *jax.jit(network.init)(jax.random.key(0)), inputs, jnp.asarray(np.arange(number) % 10))


def of_loss(of):
    loss = _subject.loss(of)

    @jax.jit
    def derivatives(params, probe):
        gradient = jax.grad(loss)(params, probe)
        product = hessian_vector_product(lambda params: loss(params, probe), params, gradient)
        return loss(params, probe), gradient, product

    return derivatives(of.params, of.probe)


SMALL_CNN = cnn(SHAPE, 10, channels=(4, 4), kernel_sizes=(3, 3), strides=(1, 1), pool=(1, 1), widths=(8,))
SMALL_RESNET = resnet18(SHAPE, 10, width=4, num_blocks=(1, 1))


@pytest.mark.parametrize(("network", "number"), [(SMALL_CNN, 7), (SMALL_CNN, 1), (SMALL_RESNET, 1), (SMALL_RESNET, 12)])
def test_blocks_have_the_same_derivatives(network, number, monkeypatch):
    of = images(network, number)
    whole = of_loss(of)
    numbers = sum(leaf.size for leaf in _subject.features(of).values())
    monkeypatch.setattr(_subject, "_FEATURES_AT_ONCE", numbers // 3)
    blocks = of_loss(of)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), whole, blocks)


def test_texts_too(monkeypatch):
    network = t5((6, 4), 10, width=16, num_heads=2, head_width=8, mlp_width=32)
    inputs = Text(
        jax.random.randint(jax.random.key(1), (5, 6), 0, 10), jax.random.randint(jax.random.key(2), (5, 4), 0, 10)
    )
    of = subject(network, *network.init(jax.random.key(0)), inputs, jnp.zeros((5, 4), jnp.int32))
    whole = _subject.outputs(of)(of.params, inputs)
    monkeypatch.setattr(_subject, "_FEATURES_AT_ONCE", 1000)
    np.testing.assert_allclose(_subject.outputs_in_blocks(of)(of.params, inputs), whole, rtol=1e-4, atol=1e-5)


def test_memory_does_not_grow_with_the_number_of_examples(monkeypatch):
    network = SMALL_CNN

    def megabytes(number):
        of = images(network, number)
        loss = _subject.loss(of)

        def product(params, batch):
            return hessian_vector_product(lambda params: loss(params, batch), params, params)

        analysis = jax.jit(product).lower(of.params, of.probe).compile().memory_analysis()
        return analysis.temp_size_in_bytes / 2**20

    few, many = images(network, 8), 64
    monkeypatch.setattr(_subject, "_FEATURES_AT_ONCE", sum(leaf.size for leaf in _subject.features(few).values()))
    assert megabytes(many) < 1.5 * megabytes(8)
    monkeypatch.undo()
    assert megabytes(many) > 3 * megabytes(8)
