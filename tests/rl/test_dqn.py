"""Deep Q-learning as a source: steps, targets, the target network, bins, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pliant
from pliant.errors import UserError
from pliant.rl import AgentConfig, Budget, dqn, make_plan
from pliant.rl._dqn import Targets
from pliant.targets import hl_gauss, two_hot
from pliant.training._trainer import Trainer
from pliant.types import Environment, Fed, Learned, Network, Now, Scene, Wiring
from rl.counting import counting, stream

SMALL = {"num_envs": 2, "steps_per_update": 4, "replay_size": 60, "min_replay": 10, "target_every": 3}
NOTHING = Fed((), ())
EVAL = {"epsilon_start": 0.0, "epsilon_final": 0.0}


def _table(params, statistics, inputs, *, train, key):
    """Outputs by the number that is seen; in training mode, which no target may use, they are much larger."""
    del key
    return params[inputs[:, 0].astype(int)] + statistics["shift"] + 100.0 * train, {}, statistics


NETWORK = Network(lambda key: (jax.random.normal(key, (5, 2)), {"shift": jnp.float32(0.5)}), _table, Wiring((), {}, {}))


def _source(*environments, values=None, env_steps=40, batch_size=64, **options):
    budget = Budget(env_steps, batch_size, eval_episodes=0, probe_size=16)
    return dqn(stream(*(environments or (counting(),))), budget, values, **SMALL | options)


def _learned(number, network=NETWORK):
    return Learned(*network.init(jax.random.key(number)), ())


def _begun(source, network=NETWORK, which=0):
    scene = Scene(jax.random.key(9), (), (), jnp.int32(which), source.numbers)
    return source.init(network, scene, _learned(0, network)), scene


def _drawing(source, network=NETWORK, which=0):
    """`draw(state, learned, step=1)`, compiled once."""

    @jax.jit
    def draw(state, learned, step):
        now = Now(jax.random.fold_in(jax.random.key(0), step), (), (), jnp.int32(which), source.numbers, step, NOTHING)
        state, lesson, told = source.draw(network, now, state, learned)
        return state, lesson.batch, told, lesson.examples(jax.random.key(3), 4)

    return lambda state, learned, step=1: draw(state, learned, jnp.int32(step))


def test_steps_before_the_first_update_and_in_each():
    source = _source()
    state, _ = _begun(source)
    assert int(state.replay.number) == 5  # of each of two copies
    assert state.phase.number == 0
    state, batch, told, _ = _drawing(source)(state, _learned(1))
    assert int(state.replay.number) == 7
    assert source.num_updates(0) == 10
    assert source.env_steps == 4.0
    assert batch.inputs.shape == (64, 1)
    assert set(told) == {"episode_return", "episode_length", "epsilon"}
    assert float(told["episode_length"].total) == 3 * int(told["episode_length"].number)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("truncates", [True, False])
def test_targets_against_numpy(double, truncates):
    """Where an episode has ended nothing follows; where it was cut, what its last observation is worth."""
    source = _source(counting(3, truncates=truncates), double=double, discount=0.9)
    state, _ = _begun(source)
    old, new = _learned(0), _learned(1)
    state = state._replace(target=(old.params, old.statistics))
    _, batch, _, some = _drawing(source)(state, new, step=2)
    seen, actions = np.asarray(batch.inputs[:, 0], int), np.asarray(batch.targets.actions)
    assert set(seen) == {0, 1, 2}
    table, chooser = np.asarray(old.params) + 0.5, np.asarray(new.params if double else old.params)
    following = table[seen + 1, chooser.argmax(axis=1)[seen + 1]]
    goes_on = 1.0 if truncates else seen < 2
    np.testing.assert_allclose(batch.targets.values, actions + 0.9 * goes_on * following, rtol=1e-5)
    assert some.inputs.shape == (4, 1)


def test_the_target_network_is_copied_when_due():
    source = _source(target_every=3)
    state, _ = _begun(source)
    draw, versions = _drawing(source), [_learned(step) for step in range(5)]
    found = []
    for step in (1, 2, 3, 4):
        state, *_ = draw(state, versions[step], step)
        found.append([bool((state.target[0] == each.params).all()) for each in versions].index(True))
    assert found == [1, 1, 1, 4]


def test_a_copy_that_is_due_stays_a_branch_when_seeds_are_batched():
    source = _source()
    state, _ = _begun(source)
    now = Now(jax.random.key(0), (), (), jnp.int32(0), source.numbers, jnp.int32(1), NOTHING)

    def draw(state, learned, step):
        return source.draw(NETWORK, now._replace(step=step), state, learned)[0]

    twice = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), (state, _learned(0)))
    traced = str(jax.make_jaxpr(jax.vmap(draw, (0, 0, None)))(*twice, jnp.int32(1)))
    is_due = [line for line in traced.splitlines() if " cond[" in line]
    assert is_due, "the copy is selected for every seed at every update"


@pytest.mark.parametrize("kept", ["keep", "clear"])
def test_a_switch_gives_the_target_network_what_was_learned(kept):
    """Of the engine it gets the learner after all resets; the replay is kept, or filled again."""
    source = _source(counting(3), counting(4), replay_at_switch=kept)
    state, scene = _begun(source)
    state, *_ = _drawing(source)(state, _learned(1))
    scene = scene._replace(facts=jnp.int32(1))
    after = jax.jit(lambda state: source.switch(NETWORK, scene, state, _learned(2)))(state)
    np.testing.assert_array_equal(after.target[0], _learned(2).params)
    valid = np.asarray(after.replay.number - after.replay.oldest)
    np.testing.assert_array_equal(valid, [7, 7] if kept == "keep" else [5, 5])
    assert after.phase.number == 0
    assert set(np.asarray(after.episodes[1].lengths)) == ({0} if kept == "keep" else {1})  # 5 steps are 4 and 1
    _, batch, *_ = _drawing(source, which=1)(after, _learned(2), step=2)
    assert set(np.asarray(batch.inputs[:, 0])) == ({0, 1, 2} if kept == "keep" else {0, 1, 2, 3})


def test_exploration_decreases_linearly_and_numbers_are_traced():
    source = _source(epsilon_start=0.8, epsilon_final=0.2, epsilon_steps=16.0)
    state, _ = _begun(source)
    draw = _drawing(source)
    found = [float(draw(state, _learned(0), step)[2]["epsilon"]) for step in (1, 3, 5, 9)]
    np.testing.assert_allclose(found, [0.8, 0.5, 0.2, 0.2], rtol=1e-6)

    def explored(numbers):
        now = Now(jax.random.key(0), (), (), jnp.int32(0), numbers, jnp.int32(1), NOTHING)
        return source.draw(NETWORK, now, state, _learned(0))[2]["epsilon"]

    numbers = {name: jnp.array([value, value / 2]) for name, value in source.numbers.items()}
    np.testing.assert_allclose(jax.vmap(explored)(numbers), [0.8, 0.4], rtol=1e-6)


@pytest.mark.parametrize("epsilon", [0.0, 1.0])
def test_actions_are_the_best_ones_or_random_ones(epsilon):
    source = _source(epsilon_start=epsilon, epsilon_final=epsilon, min_replay=2, steps_per_update=40, replay_size=42)
    state, _ = _begun(source)
    learned = _learned(1)._replace(params=jnp.array([[0.0, 1], [1, 0], [0, 1], [0, 1], [0, 1]]))
    state, *_ = _drawing(source)(state, learned)
    replay = jax.device_get(state.replay)
    actions = replay.actions[1:21]
    best = np.array([1, 0, 1])[(np.arange(1, 21) % 3)][:, None]
    assert (actions == best).all() if epsilon == 0 else 0.25 < (actions == best).mean() < 0.75


def test_losses_by_hand():
    output = jnp.array([[1.0, 5.0], [0.0, -2.0]])
    targets = _targets([0, 1], [0.5, 1.0])
    errors = np.array([0.5, -3.0])
    mse, huber = _source().objective, _source(loss="huber").objective
    np.testing.assert_allclose(mse.losses(output, targets, ()), errors**2)
    np.testing.assert_allclose(huber.losses(output, targets, ()), [0.125, 2.5])
    told = mse.reports(output, targets, ())
    np.testing.assert_allclose([told["td_error"], told["q_value"]], [1.75, -0.5])


def _targets(actions, values):
    return Targets(jnp.array(actions), jnp.array(values))


def test_values_as_classes_with_the_published_numbers():
    """Two-hot: 0.25 on (−1, 0, 1) is (0, 0.75, 0.25). HL-Gauss: 1.9 on edges 0…3 with σ = 0.75 decodes to 1.788."""
    cases = [
        (two_hot(num_bins=3, low=-1.0, high=1.0), 0.25, 0.25),
        (hl_gauss(num_bins=3, low=0.0, high=3.0), 1.9, 1.788),
    ]
    for bins, value, decoded in cases:
        source = _source(values=bins)
        assert source.num_outputs == 6
        code = np.asarray(bins.encode(jnp.array(value)))
        logits = np.log(np.maximum(code, 1e-30))
        output = jnp.array(np.concatenate([np.zeros(3), logits])[None], jnp.float32)  # of action 1
        told = source.objective.reports(output, _targets([1], [decoded]), ())
        np.testing.assert_allclose(told["q_value"], decoded, atol=5e-4)
        np.testing.assert_allclose(told["td_error"], 0, atol=5e-4)
        entropy = -np.sum(code * logits)
        np.testing.assert_allclose(source.objective.losses(output, _targets([1], [value]), ()), [entropy], rtol=1e-5)
        worse = source.objective.losses(output, _targets([0], [value]), ())  # the other action is uniform
        np.testing.assert_allclose(worse, [np.log(3)], rtol=1e-5)


def test_targets_and_actions_are_read_from_distributions():
    """The mean of a distribution is what is bootstrapped from, and what actions are chosen by."""
    bins = two_hot(num_bins=3, low=-1.0, high=1.0)
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), (5, 2)).astype(np.float32)
    params = jnp.log(probabilities).reshape(5, 6)
    network = NETWORK._replace(init=lambda key: (params, {"shift": jnp.float32(0)}))
    source = _source(values=bins, discount=0.5, **EVAL)
    state, _ = _begun(source, network)
    state, batch, *_ = _drawing(source, network)(state, _learned(0, network))
    means = probabilities @ np.array([-1.0, 0.0, 1.0])
    seen, actions = np.asarray(batch.inputs[:, 0], int), np.asarray(batch.targets.actions)
    expected = actions + 0.5 * (seen < 2) * means[seen + 1].max(axis=1)
    np.testing.assert_allclose(batch.targets.values, expected, rtol=1e-4, atol=1e-5)


def test_diagnostics_look_at_transitions_of_the_replay():
    source = _source()
    state, scene = _begun(source)
    batch, _ = jax.jit(lambda state: source.probe(NETWORK, scene, state))(state)
    assert batch.inputs.shape == (16, 1)
    table, seen = np.asarray(state.target[0]) + 0.5, np.asarray(batch.inputs[:, 0], int)
    expected = np.asarray(batch.targets.actions) + 0.99 * (seen < 2) * table.max(axis=1)[seen + 1]
    np.testing.assert_allclose(batch.targets.values, expected, rtol=1e-5)


RUN = {
    "environment": stream(counting(3), counting(4, truncates=True), num_tasks=3),
    "agent": "dqn",
    "seeds": 2,
    "tasks": 2,
    "env_steps": 24,
    "batch_size": 8,
    "widths": (4, 4),
    "eval_episodes": 1,
    "probe_size": 8,
    "learning_rate": 1e-2,
}
STEPS = ("dqn.num_envs=2", "dqn.steps_per_update=2", "dqn.min_replay=10", "dqn.replay_size=20")
OPTIONS = (*STEPS, "dqn.target_every=100")


def _trained(method, settings=(), **changes):
    """Trainers after the first task, and after the second one."""
    chosen = {name: value for name, value in RUN.items() if name != "environment"} | changes
    config = AgentConfig(environment="counting", methods=(method,), settings=(*OPTIONS, *settings), **chosen)
    plan = make_plan(config, objects=pliant.specs.Objects(environment={"counting": RUN["environment"]}))
    trainer = Trainer(config, plan.methods[0], range(2), {})
    found = []
    for index in range(2):
        told = trainer.learn(index, lambda *_: None)
        found.append(jax.device_get((trainer._carry.learner.params, trainer._source_state.target[0], told.numbers)))
    return found


def _same(left, right, name):
    return all(map(np.array_equal, jax.tree.leaves(left[name]), jax.tree.leaves(right[name])))


@pytest.mark.parametrize(
    ("method", "changes", "reset"),
    [
        pytest.param("adam", {}, set(), marks=pytest.mark.whole),
        ("head-reset", {}, {"head"}),
        pytest.param("last-k-reset", {}, {"head", "dense_1"}, marks=pytest.mark.whole),
        pytest.param("full-reset", {}, {"head", "dense_0", "dense_1"}, marks=pytest.mark.whole),
        ("adam", {"head_at_switch": "fresh"}, {"head"}),
    ],
)
def test_resets_at_a_switch_reach_the_target_network(method, changes, reset):
    """Everything else of it is the trained network at the switch. No copy is due in the second task."""
    (before, _, _), (_, target, _) = _trained(method, **changes)
    assert {name for name in before if not _same(before, target, name)} == reset


def test_resets_during_a_task_reach_the_target_network_with_the_next_copy():
    """ReDo resets units in every second update; the target network stays what it was at the switch."""
    (before, first, _), (_, target, told) = _trained("redo", ("redo.every=2", "redo.threshold=10"))
    assert told["units_reset"].min() > 0
    assert all(_same(before, target, name) for name in before)
    assert not all(_same(first, target, name) for name in before)


def _run(out, **changes):
    return pliant.run(**{**RUN, "methods": ["adam"], "settings": OPTIONS, "out": out} | changes)


def _values(folder):
    return folder.metrics.pivot_table(index=["method", "task", "seed"], columns="metric", values="value")


def test_a_run_that_is_killed_ends_with_the_same_numbers(tmp_path):
    """The replay, running episodes and the target network go on where the checkpoint left them."""
    settings = (*STEPS, "dqn.target_every=5")
    whole = _run(tmp_path / "whole", tasks=3, settings=settings)

    def kill(now):
        if now.task == 3 and now.task_done >= 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path / "run", tasks=3, settings=settings, report=kill)
    again = _run(tmp_path / "run", tasks=3, settings=settings)
    np.testing.assert_array_equal(_values(again), _values(whole))
    assert {"td_error", "q_value", "epsilon", "episode_return", "episode_length", "loss"} <= set(_values(whole))
    assert whole.configuration["task"] == {"num_updates": 12, "env_steps": 24}
    assert whole.configuration["agent"]["options"]["min_replay"] == 10


@pytest.mark.whole
def test_a_grid_over_numbers_of_the_agent(tmp_path):
    folder = _run(tmp_path / "run", tasks=1, grid=("dqn.discount=0.1,0.9",))
    q_values = _values(folder)["td_error"].unstack("seed")
    assert list(q_values.index.get_level_values("method")) == ["adam[dqn.discount=0.1]", "adam[dqn.discount=0.9]"]
    assert (q_values.iloc[0] != q_values.iloc[1]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"discount": 1.5}, r"got dqn.discount=1.5; wanted a number in \[0, 1\]. See `pliant show dqn`."),
        ({"epsilon_steps": 0.0}, r"got dqn.epsilon_steps=0"),
        ({"target_every": 0}, r"got dqn.target_every=0"),
        ({"loss": "l1"}, r"got dqn.loss='l1'"),
        ({"grad_clip": "both"}, r"got dqn.grad_clip='both'"),
        ({"replay_at_switch": "drop"}, r"got dqn.replay_at_switch='drop'"),
        (
            {"steps_per_update": 3},
            r"got dqn.steps_per_update=3 for 2 copies of the environment, which step together; "
            r"wanted a multiple of dqn.num_envs. Use 4, for example.",
        ),
        ({"min_replay": 7}, r"got dqn.min_replay=7 for 2 copies"),
        (
            {"min_replay": 80},
            r"got dqn.replay_size=60 with dqn.min_replay=80; wanted a replay that holds the steps before the first "
            r"update. Use a larger replay",
        ),
        (
            {"steps_per_update": 50},
            r"got env_steps=40 for 50 steps an update; wanted at least one update in a task. Give a task more steps",
        ),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        _source(**options)


def test_environments_with_different_stacks_share_no_replay():
    plain = Environment("a", jax.ShapeDtypeStruct((4,), np.uint8), 2, None, None, 9)
    with pytest.raises(UserError, match="got environments with and without stacks of frames, or with stacks of diff"):
        _source(plain, plain._replace(frames=4))


def test_targets_that_are_no_bins_are_refused(tmp_path):
    own = pliant.types.Method(name="own", summary="", reference="", targets=lambda: "more")
    message = r"got the method 'own', whose targets are str, for an agent; wanted .*ValueBins. Leave the method out"
    with pytest.raises(UserError, match=message):
        _run(tmp_path / "run", methods=[own])
