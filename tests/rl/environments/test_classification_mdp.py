import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.rl import view
from pliant.rl.environments import ENVIRONMENTS, classification_mdp
from pliant.streams import load_dataset
from pliant.types import World
from strict_types import unchecked

DIGITS = load_dataset("digits", train_size=300)
VARIANTS = ("easy", "sparse", "hard")
STREAMS = {variant: classification_mdp(DIGITS, variant=variant, max_episode_steps=1_000_000) for variant in VARIANTS}


def _world(variant, key, index=0, streams=STREAMS):
    return World(streams[variant].data, streams[variant].task(key, index))


POLICIES = {
    "oracle": lambda key, state: state,
    "uniform": lambda key, state: jax.random.randint(key, (), 0, 10, jnp.int32),
    "held": lambda key, state: jnp.int32(3),
    "jumping": lambda key, state: jnp.where(state < 5, (state + 1) % 10, state),
}


@functools.cache
def _rollouts(variant):
    """One program of 2,000 steps of one copy, for any policy."""
    environment = STREAMS[variant].environments[0]

    def run(key, world, policy):
        def one(carry, key):
            latent, seen = carry
            of_action, of_step = jax.random.split(key)
            action = jax.lax.switch(policy, list(POLICIES.values()), of_action, latent.state)
            after, outcome = environment.step(of_step, latent, action, world)
            return (after, outcome.observation), (latent.state, seen, outcome)

        first, rest = jax.random.split(key)
        return jax.lax.scan(one, environment.reset(first, world), jax.random.split(rest, 2000))[1]

    return jax.jit(run)


@functools.cache
def _rollout(variant, policy):
    """The states, observations and outcomes."""
    key = jax.random.key(0)
    return jax.tree.map(np.asarray, _rollouts(variant)(key, _world(variant, key), list(POLICIES).index(policy)))


def _labels(variant, world):
    """The label of every image, from the lists of members."""
    members = world.task if variant == "hard" else world.data.members
    assert (np.asarray(members.counts) == np.diff([*members.starts, len(members.images)])).all()
    labels = np.empty(len(members.images), int)
    labels[np.asarray(members.images)] = np.repeat(np.arange(10), members.counts)
    assert sorted(np.asarray(members.images)) == list(range(len(labels)))
    return labels


def test_naming_the_class_earns_every_reward():
    for variant in ("easy", "hard"):
        assert (_rollout(variant, "oracle")[2].reward == 1).all()


def test_sparse_rewards_are_every_tenth_of_the_oracle():
    states, _, outcome = _rollout("sparse", "oracle")
    np.testing.assert_array_equal(np.diff(states) % 10, 1)
    windows = np.convolve(outcome.reward, np.ones(10), "valid")
    np.testing.assert_array_equal(windows, 1)
    np.testing.assert_array_equal(outcome.reward, states == 9)


def test_jumping_beats_the_oracle_of_sparse():
    """As the docstring says: acting wrongly in the lower half earns a fifth of a reward a step."""
    _, _, outcome = _rollout("sparse", "jumping")
    assert abs(outcome.reward.mean() - 0.2) < 0.02


def test_acting_blindly_earns_a_tenth():
    for variant in ("easy", "hard"):
        for policy in ("uniform", "held"):
            reward = _rollout(variant, policy)[2].reward
            assert abs(reward.mean() - 0.1) < 4 * np.sqrt(0.09 / len(reward))


def test_only_in_sparse_the_policy_changes_what_is_seen():
    for variant in ("easy", "hard"):
        found = [_rollout(variant, policy) for policy in ("oracle", "uniform")]
        np.testing.assert_array_equal(found[0][0], found[1][0])
        np.testing.assert_array_equal(found[0][1], found[1][1])
        shares = np.bincount(found[0][0], minlength=10) / len(found[0][0])
        assert abs(shares - 0.1).max() < 4 * np.sqrt(0.09 / len(found[0][0]))
    sparse = [_rollout("sparse", policy)[0] for policy in ("oracle", "uniform")]
    assert (sparse[0] != sparse[1]).mean() > 0.5


@pytest.mark.parametrize("variant", VARIANTS)
def test_observations_are_images_of_the_state(variant, key):
    """Uniform ones: 2,000 steps see all 300 images; the same state is seen in different ones."""
    states, seen, outcome = _rollout(variant, "uniform")
    labels = _labels(variant, _world(variant, jax.random.key(0)))
    np.testing.assert_array_equal(labels[seen], states)
    np.testing.assert_array_equal(outcome.observation[:-1], seen[1:])
    assert len(np.unique(seen)) > 290
    of_zero = seen[states == 0]
    assert len(np.unique(of_zero[:20])) > 5


def test_true_labels_are_those_of_the_data_set(key):
    for variant in ("easy", "sparse"):
        np.testing.assert_array_equal(_labels(variant, _world(variant, key)), DIGITS.train.labels)


def test_random_labels_are_fixed_for_a_seed_and_balanced(key):
    labels = [_labels("hard", _world("hard", jax.random.key(seed))) for seed in range(40)]
    assert (labels[0] != labels[1]).mean() > 0.8
    assert abs((labels[0] == DIGITS.train.labels).mean() - 0.1) < 4 * np.sqrt(0.09 / 300)
    for index in (1, 7):
        np.testing.assert_array_equal(_labels("hard", _world("hard", jax.random.key(0), index)), labels[0])
    together = np.concatenate(labels)
    assert abs(np.bincount(together, minlength=10) / len(together) - 0.1).max() < 4 * np.sqrt(0.09 / len(together))
    assert len({tuple(np.bincount(each, minlength=10)) for each in labels}) > 1  # not balanced exactly


def test_redraw_makes_hard_a_sequence_of_tasks(key):
    stream = classification_mdp(DIGITS, variant="hard", redraw=True)
    task = jax.jit(stream.task)
    first, second = (_labels("hard", World(stream.data, task(key, index))) for index in (0, 1))
    assert (first != second).mean() > 0.8
    np.testing.assert_array_equal(first, _labels("hard", _world("hard", key)))


def test_episodes_are_cut_and_never_end(key):
    environment = classification_mdp(DIGITS, max_episode_steps=3).environments[0]
    world = _world("easy", key)
    latent, _ = environment.reset(key, world)
    for number in range(1, 4):
        latent, outcome = environment.step(key, latent, jnp.int32(0), world)
        assert (bool(outcome.terminated), bool(outcome.truncated)) == (False, number == 3)
    assert environment.max_episode_steps == 3


def test_the_network_sees_the_images_of_the_data_set(key):
    stream, world = STREAMS["easy"], _world("easy", key)
    indices = np.array([[5, 0, 9], [5, 5, 299]], np.int32)
    seen = jax.jit(lambda indices, world: view(stream.environments[0], indices, world))(indices, world)
    assert seen.shape[2:] == stream.inputs.shape
    assert seen.dtype == stream.inputs.dtype
    np.testing.assert_allclose(seen, (DIGITS.train.images[indices] - DIGITS.mean) / DIGITS.std, rtol=1e-5, atol=1e-5)
    assert stream.data.images.train.images.dtype == np.uint8
    assert not len(stream.data.images.test.images)


@pytest.mark.parametrize("variant", VARIANTS)
def test_copies_and_seeds_are_mapped(variant):
    stream = STREAMS[variant]
    environment = stream.environments[0]

    def one(key):
        """One seed with five copies."""
        world = World(stream.data, stream.task(key, 0))
        keys = jax.random.split(key, 5)
        state, seen = jax.vmap(environment.reset, (0, None))(keys, world)
        return seen, jax.vmap(environment.step, (0, 0, 0, None))(keys, state, state.state, world)[1]

    seen, outcome = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 3))
    assert seen.shape == outcome.observation.shape == (3, 5)
    assert seen.dtype == stream.observation.dtype
    assert outcome.reward.dtype == jnp.float32
    if variant != "sparse":
        assert (outcome.reward == 1).all()


def test_errors():
    with pytest.raises(UserError, match="variant='medium'; wanted 'easy', 'hard' or 'sparse'"):
        unchecked(classification_mdp)(DIGITS, variant="medium")
    with pytest.raises(UserError, match="redraw=True with variant='sparse'; wanted random labels"):
        classification_mdp(DIGITS, variant="sparse", redraw=True)
    with pytest.raises(UserError, match="max_episode_steps=0"):
        classification_mdp(DIGITS, max_episode_steps=0)
    with pytest.raises(UserError, match="tasks=0"):
        classification_mdp(DIGITS, num_tasks=0)
    with pytest.raises(UserError, match="200 training images of 'digits' for random labels of 10 classes"):
        classification_mdp(load_dataset("digits", train_size=200), variant="hard")
    labels = np.where(DIGITS.train.labels == 4, 5, DIGITS.train.labels)
    with pytest.raises(UserError, match="no training image of class 4 in 'digits'"):
        classification_mdp(DIGITS._replace(train=DIGITS.train._replace(labels=labels)))
    with pytest.raises(UserError, match="classes=1"):
        classification_mdp(
            DIGITS._replace(
                num_classes=1,
                train=DIGITS.train._replace(labels=labels * 0),
                test=DIGITS.test._replace(labels=DIGITS.test.labels * 0),
            )
        )


def test_is_registered():
    assert ENVIRONMENTS["classification-mdp"] is classification_mdp
