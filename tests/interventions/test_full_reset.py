import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.errors import UserError
from pliant.interventions import full_reset
from pliant.keys import seed_keys
from pliant.methods import METHODS, build, defaults
from pliant.networks import mlp, resnet18
from pliant.training import init_state, switch_task
from pliant.types import Fresh, Learned

NETWORK = resnet18((4, 4, 1), 2, width=2, num_blocks=(1,), norm="batch")
TX = optax.adam(0.1)
FRESH = Fresh(NETWORK.init, TX.init)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@functools.cache
def _trained():
    """A learner of which nothing is as it was at the start."""
    params, state = NETWORK.init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 1, params)
    state = jax.tree.map(lambda leaf: leaf + 1, state)
    return Learned(params, state, TX.update(params, TX.init(params), params)[1])


@pytest.mark.parametrize("index", [1, 2])
def test_everything_begins_again(index):
    key = jax.random.key(7)
    after, state, info = full_reset().switch(key, index, _trained(), (), FRESH)
    params, network = NETWORK.init(key)
    same(after, Learned(params, network, TX.init(params)))
    assert state == ()
    assert float(info["norm_moved"]) > 0


def test_another_key_draws_another_network():
    kernels = [
        np.asarray(full_reset().switch(jax.random.key(seed), 1, _trained(), (), FRESH)[0].params["head"]["kernel"])
        for seed in (0, 1)
    ]
    assert np.all(kernels[0] != kernels[1])


def test_between_resets_nothing_is_touched():
    learned = _trained()
    after, _, info = full_reset(every_tasks=2).switch(jax.random.key(7), 1, learned, (), FRESH)
    same(after, learned)
    assert float(info["norm_moved"]) == 0.0


def test_an_optimizer_that_copies_parameters_copies_the_new_ones():
    tx = optax.contrib.schedule_free_adamw(0.1)
    learned = _trained()._replace(optimizer=tx.init(_trained().params))
    after, _, _ = full_reset().switch(jax.random.key(7), 1, learned, (), FRESH._replace(init_optimizer=tx.init))
    same(after.optimizer, tx.init(after.params))


def test_parameters_keep_their_type():
    learned = _trained()
    learned = learned._replace(params=jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), learned.params))
    learned = learned._replace(optimizer=TX.init(learned.params))
    after, _, _ = full_reset().switch(jax.random.key(7), 1, learned, (), FRESH)
    assert {leaf.dtype for leaf in jax.tree.leaves(after.params)} == {jnp.dtype(jnp.bfloat16)}


def test_it_draws_for_many_seeds_at_once():
    """Orthogonal draws inside a branch, under vmap."""
    learned = _trained()
    keys = jax.random.split(jax.random.key(0), 3)
    many = jax.jit(jax.vmap(lambda key: full_reset().switch(key, 1, learned, (), FRESH)[0].params))(keys)
    one, _ = NETWORK.init(keys[1])
    np.testing.assert_allclose(many["head"]["kernel"][1], one["head"]["kernel"], atol=1e-6)


def test_a_negative_period_is_refused():
    with pytest.raises(UserError, match="got every_tasks=-2"):
        full_reset(every_tasks=-2)


@pytest.mark.parametrize(("every_tasks", "taught"), [(1, 0), (2, -1)])
def test_the_teacher_is_the_network_before_its_reset(every_tasks, taught):
    network, method = mlp((3,), 2, widths=(4,)), METHODS["reset-distill"]
    parts = build(method, network.wiring, defaults(method) | {"every_tasks": every_tasks})
    before = init_state(network, parts, jax.random.key(0))
    before = before._replace(params=jax.tree.map(lambda leaf: leaf + 1, before.params))
    after = switch_task(network, parts, before, seed_keys(0), 1)[0]
    is_reset = bool((after.params["head"]["kernel"] != before.params["head"]["kernel"]).all())
    assert (is_reset, int(after.penalty.taught)) == (taught == 0, taught)
    if is_reset:
        same(after.penalty.teacher, before.params)
