"""PPO as a source: rollouts, advantages, the objective, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.networks import mlp, side_by_side
from pliant.rl import Budget, ppo
from pliant.rl._ppo import Rollout, advantages
from pliant.types import Fed, Learned, Now, Scene
from rl.counting import counting, stream

NETWORK = side_by_side(
    {"policy": mlp((1,), 2, widths=(4,)), "value": mlp((1,), 1, widths=(4,))}, {"policy": "actor", "value": "critic"}
)
SMALL = {"num_envs": 2, "rollout_length": 5, "epochs": 2}


def _source(*environments, batch_size=5, **options):
    budget = Budget(env_steps=20, batch_size=batch_size, eval_episodes=0, probe_size=4)
    return ppo(stream(*(environments or (counting(),))), budget, **SMALL | options)


def _collected(source, key, which=0):
    """The state after the first rollout, and what the first update learns from."""
    params, statistics = NETWORK.init(key)
    learned = Learned(params, statistics, ())
    facts = jnp.int32(which)
    scene = Scene(key, (), (), facts, source.numbers)
    state = source.init(NETWORK, scene, learned)
    fed = Fed(jnp.arange(5), ())
    now = Now(key, (), (), facts, source.numbers, jnp.int32(1), fed)
    state, lesson, told = jax.jit(lambda state: _without_examples(source.draw(NETWORK, now, state, learned)))(state)
    return params, state, lesson, told


def _without_examples(drawn):
    state, lesson, told = drawn
    return state, (lesson.batch, lesson.task), told


def _value(params, observations):
    flat = jnp.asarray(observations, jnp.float32).reshape(-1, 1)
    return np.asarray(NETWORK.apply(params, {}, flat, train=False, key=None)[0]["value"]).reshape(-1)


@pytest.mark.parametrize("truncates", [False, True])
def test_a_rollout_is_what_its_steps_say(key, truncates):
    """Against a loop in NumPy: observations, returns of episodes, values behind ends and behind time limits."""
    source = _source(counting(3, truncates=truncates), discount=0.9, gae_decay=0.8)
    params, state, _, told = _collected(source, key)
    rollout = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(5, 2, *leaf.shape[1:]), state.rollout)
    np.testing.assert_array_equal(rollout.observations[:, :, 0], np.tile([[0], [1], [2], [0], [1]], 2))
    values = np.stack([_value(params, rollout.observations[:, env, 0]) for env in range(2)], axis=1)
    np.testing.assert_allclose(rollout.values, values, rtol=1e-5)
    rewards, later = rollout.actions.astype(float), np.zeros(2)
    beyond = _value(params, [3.0])[0] if truncates else 0.0
    following = np.full(2, _value(params, [2.0])[0])
    for t in reversed(range(5)):
        is_end = t == 2
        following = beyond if is_end else following
        delta = rewards[t] + 0.9 * following - values[t]
        later = delta + 0.9 * 0.8 * (0.0 if is_end else later)
        np.testing.assert_allclose(rollout.advantages[t], later, rtol=1e-4, atol=1e-6)
        following = values[t]
    np.testing.assert_allclose(rollout.returns, rollout.advantages + rollout.values, rtol=1e-5)
    assert int(told["episode_return"].number) == 2
    assert float(told["episode_return"].total) == rewards[:3].sum()
    assert float(told["episode_length"].total) == 6


def test_only_the_current_environment_goes_on(key):
    source = _source(counting(3), counting(4, bonus=1.0, name="other"))
    _, state, _, _ = _collected(source, key, which=1)
    assert state.episodes[0].lengths.tolist() == [0, 0]
    assert state.episodes[1].lengths.tolist() == [1, 1]
    assert set(np.unique(state.rollout.observations)) == {0.0, 1.0, 2.0, 3.0}


def test_the_log_probabilities_are_those_of_the_actions(key):
    params, state, _, _ = _collected(_source(), key)
    rollout = state.rollout
    logits = NETWORK.apply(params, {}, rollout.observations, train=False, key=None)[0]["policy"]
    found = jax.nn.log_softmax(logits)[jnp.arange(10), rollout.actions]
    np.testing.assert_allclose(rollout.log_probs, found, rtol=1e-5)


def test_a_rollout_serves_all_of_its_epochs(key):
    """Between rollouts the state stays as it is; minibatches are normalised and cover the rollout in every epoch."""
    source = _source()
    params, state, _, _ = _collected(source, key)
    learned = Learned(params, {}, ())
    feed = source.feed([0, 1], 0, 0, 8)
    assert sorted(feed.own[0, :2].ravel().tolist()) == list(range(10))
    assert (feed.own[0] != feed.own[1]).any()
    for step in (2, 3, 4):
        now = Now(key, (), (), jnp.int32(0), source.numbers, jnp.int32(step), Fed(jnp.asarray(feed.own[0, step]), ()))
        after, lesson, told = source.draw(NETWORK, now, state, learned)
        same = jax.tree.map(lambda a, b: bool((a == b).all()), after, state)
        assert all(jax.tree.leaves(same))
        assert int(told["episode_return"].number) == 0
        np.testing.assert_allclose(lesson.batch.targets.advantages.mean(), 0.0, atol=1e-6)
        np.testing.assert_allclose(lesson.batch.targets.advantages.std(), 1.0, rtol=1e-4)
    assert source.num_updates(0) == 8
    assert source.env_steps * source.num_updates(0) == 20


def test_the_objective_by_hand():
    """Two examples: one whose ratio is clipped, one whose is not."""
    numbers = {"clip": 0.2, "value_strength": 0.5, "entropy_strength": 0.01}
    logits = jnp.log(jnp.array([[0.5, 0.5], [0.2, 0.8]]))
    output = {"policy": logits, "value": jnp.array([[1.0], [2.0]])}
    targets = Rollout(
        (),
        jnp.array([0, 1]),
        jnp.log(jnp.array([0.25, 0.8])),
        *map(jnp.array, ([0.0, 2.5],) * 1),
        *map(jnp.array, ([2.0, -1.0], [0.0, 3.0])),
    )
    plain, clipped = (_source(clips_values=flag).objective.losses(output, targets, numbers) for flag in (False, True))
    entropy = [np.log(2), -(0.2 * np.log(0.2) + 0.8 * np.log(0.8))]
    expected = [-1.2 * 2 + 0.25 * 1.0 - 0.01 * entropy[0], 1.0 + 0.25 * 1.0 - 0.01 * entropy[1]]
    np.testing.assert_allclose(plain, expected, rtol=1e-5)
    # The first value moved from 0 to 1, at most 0.2 counts: errors 1 and 0.2² → the larger; the second from 2.5 to 2:
    # 2.3 is further from 3 than 2 is not: errors 1 and 0.7² → the larger.
    np.testing.assert_allclose(clipped, expected, rtol=1e-5)
    reports = _source().objective.reports(output, targets, numbers)
    np.testing.assert_allclose(reports["entropy"], np.mean(entropy), rtol=1e-5)
    np.testing.assert_allclose(reports["clip_fraction"], 0.5)
    np.testing.assert_allclose(reports["approximate_kl"], (2 - 1 - np.log(2)) / 2, rtol=1e-5)
    np.testing.assert_allclose(reports["value_loss"], 0.5, rtol=1e-5)
    np.testing.assert_allclose(reports["policy_loss"], (-2.4 + 1.0) / 2, rtol=1e-5)


def test_a_value_that_moves_too_far_from_the_rollouts_is_held():
    numbers = {"clip": 0.2, "value_strength": 1.0, "entropy_strength": 0.0}
    output = {"policy": jnp.zeros((1, 2)), "value": jnp.array([[3.0]])}
    targets = Rollout(
        (), jnp.array([0]), jnp.log(jnp.array([0.5])), jnp.array([1.0]), jnp.array([0.0]), jnp.array([3.0])
    )
    plain, held = (_source(clips_values=flag).objective.losses(output, targets, numbers)[0] for flag in (False, True))
    np.testing.assert_allclose([plain, held], [0.0, (1.2 - 3.0) ** 2 / 2], rtol=1e-5)


@pytest.mark.parametrize(("kind", "expected"), [("global", [0.3, 0.4]), ("elementwise", [0.5, 0.5])])
def test_gradients_are_clipped_by_norm_or_by_element(kind, expected):
    clip = _source(grad_clip=kind).clip
    found = clip({"a": jnp.array([3.0]), "b": jnp.array([4.0])}, {"max_grad_norm": 0.5})
    np.testing.assert_allclose([found["a"][0], found["b"][0]], expected, rtol=1e-6)
    small = clip({"a": jnp.array([0.03]), "b": jnp.array([0.04])}, {"max_grad_norm": 0.5})
    np.testing.assert_allclose([small["a"][0], small["b"][0]], [0.03, 0.04], rtol=1e-6)
    assert _source(grad_clip="none").clip is None


def test_advantages_with_decay_one_are_returns_less_values():
    rewards, values = jnp.array([[1.0], [2.0], [3.0]]), jnp.array([[0.5], [0.1], [0.2]])
    numbers = {"discount": 0.5, "gae_decay": 1.0}
    found = advantages(rewards, values, jnp.zeros((3, 1), bool), jnp.array([4.0]), numbers)[:, 0]
    np.testing.assert_allclose(found, [1 + 1 + 0.75 + 0.5 - 0.5, 2 + 1.5 + 1 - 0.1, 3 + 2 - 0.2], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 3}, r"got batch_size=3 for rollouts of 2 × 5 = 10 steps; wanted minibatches .* Use 2,"),
        ({"num_envs": 9}, r"got env_steps=20 for rollouts of 9 × 5 = 45 steps; wanted at least one rollout"),
        ({"num_envs": 0}, r"got ppo.num_envs=0; wanted .*1"),
        ({"discount": 1.5}, r"got ppo.discount=1.5; wanted .*\[0, 1\]"),
        ({"clip": 0.0}, r"got ppo.clip=0"),
        ({"grad_clip": "norm"}, r"got ppo.grad_clip='norm'; wanted .*elementwise"),
        ({"trunk": "both"}, r"got ppo.trunk='both'; wanted .*shared"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        _source(**changes)
