"""Memory that does not grow with the number of examples, with the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.diagnostics import _subject, hessian_vector_product
from pliant.networks import cnn, resnet18, t5
from pliant.types import Text
from subjects import subject


def images(network, number):
    inputs = jax.random.normal(jax.random.key(1), (number, 16, 16, 3))
    return subject(network, *network.init(jax.random.key(0)), inputs, jnp.arange(number) % 10)


def of_loss(of):
    loss = _subject.loss(of)
    gradient = jax.grad(loss)(of.params, of.probe)
    return (
        loss(of.params, of.probe),
        gradient,
        hessian_vector_product(lambda params: loss(params, of.probe), of.params, gradient),
    )


@pytest.mark.parametrize("number", [1, 7, 12])
@pytest.mark.parametrize("network", [cnn((16, 16, 3), 10, widths=(8,)), resnet18((16, 16, 3), 10, width=4)])
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
    network = resnet18((16, 16, 3), 10, width=8)

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
