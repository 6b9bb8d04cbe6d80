import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.keys import seed_keys
from pliant.methods import build, defaults, find
from pliant.networks import mlp, t5
from pliant.training import init_state, switch_task
from pliant.types import leaf_path

NETWORK = mlp((3,), 4, widths=(5, 6), norm="layer")
ADAM = find("adam")
PARTS = build(ADAM, NETWORK.wiring, defaults(ADAM) | {"learning_rate": 0.1})
HEAD = {"head/kernel", "head/bias"}


def _trained(seed=0):
    """A learner whose parameters and moments are no more what they were."""
    keys = seed_keys(seed)
    state = init_state(NETWORK, PARTS, keys.network)
    for _ in range(3):
        updates, optimizer = PARTS.optimizer.update(jax.tree.map(jnp.ones_like, state.params), state.optimizer)
        state = state._replace(params=optax.apply_updates(state.params, updates), optimizer=optimizer)
    return state, keys


def _leaves(tree):
    return {leaf_path(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _changed(before, after):
    before, after = _leaves(before), _leaves(after)
    assert before.keys() == after.keys()
    return {name for name in before if before[name].tobytes() != after[name].tobytes()}


def _switch(state, keys, index=1, *, optimizer="keep", head="keep"):
    return switch_task(NETWORK, PARTS, state, keys, index, optimizer=optimizer, head=head)[0]


def test_nothing_is_touched_by_default():
    state, keys = _trained()
    assert not _changed(state, _switch(state, keys))


@pytest.mark.parametrize("head", ["zero", "fresh"])
def test_only_the_head_changes(head):
    state, keys = _trained()
    after = _switch(state, keys, head=head)
    assert _changed(state.params, after.params) == HEAD
    assert not _changed(state._replace(params=()), after._replace(params=()))


def test_a_zero_head_is_zero():
    state, keys = _trained()
    after = _switch(state, keys, head="zero")
    assert all(not _leaves(after.params)[name].any() for name in HEAD)
    output, _, _ = NETWORK.apply(after.params, {}, jnp.ones((2, 3)), train=False, key=None)
    assert not output.any()


def test_a_fresh_head_is_drawn_as_the_first_was():
    """Orthonormal columns, bias 0; another for each task and seed, and not that of the start."""
    state, keys = _trained()
    start = init_state(NETWORK, PARTS, keys.network).params
    kernels = [start["head"]["kernel"]]
    kernels += [_switch(state, keys, index, head="fresh").params["head"]["kernel"] for index in (1, 2)]
    kernels.append(_switch(state, seed_keys(1), 1, head="fresh").params["head"]["kernel"])
    for kernel in kernels:
        np.testing.assert_allclose(kernel.T @ kernel, np.eye(4), atol=1e-5)
    assert len({np.asarray(kernel).tobytes() for kernel in kernels}) == 4
    again = _switch(state, keys, 1, head="fresh").params["head"]
    np.testing.assert_array_equal(again["kernel"], kernels[1])
    assert not again["bias"].any()


def test_the_optimizer_starts_anew():
    state, keys = _trained()
    after = _switch(state, keys, optimizer="reset")
    assert not _changed(state.params, after.params)
    assert not _changed(after.optimizer, PARTS.optimizer.init(state.params))
    assert _changed(state.optimizer, after.optimizer)
    assert not _changed(state._replace(optimizer=()), after._replace(optimizer=()))


def test_both():
    state, keys = _trained()
    after = _switch(state, keys, optimizer="reset", head="zero")
    assert _changed(state.params, after.params) == HEAD
    assert not _changed(after.optimizer, PARTS.optimizer.init(state.params))


def test_an_optimizer_that_copies_the_parameters_copies_the_new_head():
    """AdamO keeps nothing of them, a schedule-free average would."""
    averaging = optax.contrib.schedule_free_adamw(0.1)
    parts = PARTS._replace(optimizer=optax.with_extra_args_support(averaging))
    state, keys = _trained()
    state = state._replace(optimizer=parts.optimizer.init(state.params))
    after, _ = switch_task(NETWORK, parts, state, keys, 1, optimizer="reset", head="zero")
    assert not _changed(after.optimizer, parts.optimizer.init(after.params))


def test_no_head_of_its_own():
    """A tied head is the embedding, which stays; `make_plan` refuses to ask for it."""
    network = t5((4, 3), 6, width=4, num_heads=1, head_width=4, mlp_width=8)
    parts = build(ADAM, network.wiring, defaults(ADAM) | {"learning_rate": 0.1})
    keys = seed_keys(0)
    state = init_state(network, parts, keys.network)
    after, _ = switch_task(network, parts, state, keys, 1, optimizer="keep", head="zero")
    assert not _changed(state, after)


def test_compiled_and_mapped_over_seeds():
    states, keys = zip(*[_trained(seed) for seed in range(3)], strict=True)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *zip(states, keys, strict=True))

    @jax.jit
    @jax.vmap
    def switched(item):
        return _switch(*item, jnp.int32(2), optimizer="reset", head="fresh")

    found = switched(stacked)
    for seed in range(3):
        wanted = _switch(states[seed], keys[seed], 2, optimizer="reset", head="fresh")
        for leaf, other in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
            np.testing.assert_allclose(leaf[seed], other, atol=1e-5)
