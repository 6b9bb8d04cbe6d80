import functools
import inspect
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.rl import view
from pliant.rl.environments import ENVIRONMENTS, minatar
from pliant.settings import cast, options
from pliant.types import World

pytest.importorskip("gymnax")

CHANNELS = {"breakout": 4, "asterix": 4, "space-invaders": 6, "freeway": 7, "seaquest": 10}
ACTIONS = {"breakout": 3, "asterix": 5, "space-invaders": 4, "freeway": 3, "seaquest": 6}
GAMES = ["breakout", "asterix", *(pytest.param(name, marks=pytest.mark.whole) for name in list(CHANNELS)[2:])]
COPIES, STEPS = 16, 80
MOMENTS = 4 * STEPS


@functools.cache
def game(name, **options):
    return minatar(games=(name,), **options).environments[0]


def world(order=range(10)):
    return World((), jnp.array(order, jnp.int32))


def random_policy(environment, world, copies, steps, key):
    """What happens to copies: (step, copy) arrays of observations, states, actions, outcomes and keys."""

    def step(key, state, observation):
        of_action, of_step, of_reset = jax.random.split(key, 3)
        action = jax.random.randint(of_action, (), 0, environment.num_actions)
        after, outcome = environment.step(of_step, state, action, world)
        done = outcome.terminated | outcome.truncated
        begun = environment.reset(of_reset, world)
        following = jax.tree.map(lambda new, old: jnp.where(done, new, old), begun, (after, outcome.observation))
        return following, (observation, state, action, after, outcome, jax.random.key_data(of_step))

    def all_copies(carried, key):
        return jax.vmap(step)(jax.random.split(key, copies), *carried)

    first = jax.vmap(environment.reset, (0, None))(jax.random.split(key, copies), world)
    return jax.lax.scan(all_copies, first, jax.random.split(key, steps))[1]


@functools.cache
def played(name):
    """A random policy, with the channels in the game's order."""
    play = jax.jit(functools.partial(random_policy, game(name), world(), COPIES, STEPS))
    return jax.tree.map(np.asarray, play(jax.random.key(0)))


@functools.cache
def stepper(name, **options):
    """Steps of many copies."""
    return jax.jit(jax.vmap(game(name, **options).step, (0, 0, 0, None)))


def channels(boards, number=10):
    """The channels of stored observations."""
    return np.asarray(boards)[..., None] >> np.arange(number) & 1 > 0


def some_states(name):
    """States of many moments of the game, and their keys."""
    _, before, _, _, _, keys = played(name)
    states = jax.tree.map(lambda leaf: leaf[:, :4].reshape(-1, *leaf.shape[2:]), before)
    return jax.random.wrap_key_data(jnp.asarray(keys[:, :4].reshape(-1, 2))), states


def assert_as_original(name, state, action, after, outcome, key):
    """One step of one copy. Where Seaquest has ended, gymnax has surfaced and filled up the oxygen."""
    import original_minatar

    game, native = _original(name), CHANNELS[name]
    minimal = game.minimal_action_set()
    original_minatar.put(name, game, state)
    original_minatar.dictate(name, game, state, after, key)
    assert game.act(minimal[action] if action < len(minimal) else 0) == (outcome.reward, outcome.terminated)
    seen = channels(outcome.observation)
    assert not seen[:, :, native:].any()
    if not (name == "seaquest" and outcome.terminated):
        assert np.array_equal(game.state(), seen[:, :, :native])
        assert original_minatar.get(name, game) == original_minatar.plain(name, after)


@functools.cache
def _original(name):
    pytest.importorskip("minatar")
    import original_minatar

    game = original_minatar.original(name)
    assert (len(game.channels), len(game.minimal_action_set())) == (CHANNELS[name], ACTIONS[name])
    return game


@pytest.mark.parametrize("name", GAMES)
def test_lockstep_with_the_original(name):
    """1,280 steps of play."""
    boards, before, actions, after, outcome, keys = played(name)
    for place in np.ndindex(STEPS, COPIES):
        state, then, end = (jax.tree.map(lambda leaf, at=place: leaf[at], each) for each in (before, after, outcome))
        key = jax.random.wrap_key_data(keys[place])
        assert_as_original(name, state, actions[place], then, end, key)
        if state.time:
            assert np.array_equal(boards[place], outcome.observation[place[0] - 1, place[1]])
        else:
            assert np.array_equal(channels(boards[place])[:, :, : CHANNELS[name]], _shown(name, state))
    assert not outcome.truncated.any()
    assert outcome.terminated.any() == (name != "freeway")


def _shown(name, state):
    import original_minatar

    original_minatar.put(name, _original(name), state)
    return _original(name).state()


@pytest.mark.parametrize("name", list(CHANNELS)[:4])
def test_lockstep_from_rare_states(name):
    """Which random play does not reach: the last alien, aliens that land, walls without bricks, eight entities."""
    keys, states = jax.random.split(jax.random.key(0), MOMENTS), rare(name, np.random.default_rng(0))
    actions = np.random.default_rng(1).integers(0, 6, MOMENTS)
    after, outcome = stepper(name)(keys, jax.tree.map(jnp.asarray, states), jnp.asarray(actions), world())
    after, outcome = jax.tree.map(np.asarray, (after, outcome))
    for place in range(MOMENTS):
        state, then, end = (jax.tree.map(lambda leaf, at=place: leaf[at], each) for each in (states, after, outcome))
        assert_as_original(name, state, actions[place], then, end, keys[place])
    assert outcome.reward.any()
    assert outcome.terminated.any() == (name != "freeway")


def rare(name, rng):
    """States of which every part is drawn by itself."""
    number = MOMENTS

    def whole(low, high):
        return rng.integers(low, high, number, dtype=np.int32)

    state, _ = jax.eval_shape(game(name).reset, jax.random.key(0), world())
    states = jax.tree.map(lambda leaf: np.zeros((number, *leaf.shape), leaf.dtype), state).replace(time=whole(1, 900))

    if name == "breakout":
        bricks = np.zeros((number, 10, 10), np.float32)
        bricks[:, 1:4] = rng.random((number, 3, 10)) < rng.choice([0, 0.1, 0.8], (number, 1, 1))
        places = {field: whole(0, 10) for field in ("ball_x", "last_x", "last_y", "pos")}
        fields = {"ball_y": whole(0, 9), "ball_dir": whole(0, 4), "brick_map": bricks, "strike": whole(0, 2) > 0}
        return states.replace(**places, **fields)
    if name == "asterix":
        level, filled = whole(0, 9), rng.random((number, 8)) < rng.choice([0.3, 0.9, 1], (number, 1))
        entities = rng.integers(0, 2, (number, 8, 5), dtype=np.int32)
        entities[:, :, 0], entities[:, :, 1] = rng.integers(0, 10, (number, 8)), np.arange(1, 9)
        entities[:, :, 4] = 1
        timers = {"spawn_timer": whole(0, 3), "move_timer": whole(0, 2), "ramp_timer": whole(-1, 2)}
        speeds = {"spawn_speed": 10 - level, "move_speed": 5 - level // 2, "ramp_index": level}
        fields = {"entities": entities * filled[:, :, None], "player_x": whole(0, 10), "player_y": whole(1, 9)}
        return states.replace(**timers, **speeds, **fields)
    if name == "space-invaders":
        boards = rng.random((3, number, 10, 10)) < rng.choice([0.01, 0.05, 0.4], (3, number, 1, 1))
        boards[2, np.arange(number), whole(0, 10), whole(0, 10)] = True
        boards[0] |= boards[2] & (rng.random((number, 1, 1)) < 0.1)  # all aliens are shot at once
        boards[0] = np.roll(boards[0], 1, axis=1)
        boards[0, :, 0] = False
        timers = {field: whole(0, 3) for field in ("alien_move_timer", "alien_shot_timer", "shot_timer")}
        fields = dict(zip(("f_bullet_map", "e_bullet_map", "alien_map"), boards, strict=True))
        interval = {"enemy_move_interval": whole(6, 13), "ramp_index": whole(0, 7)}
        turns = {"alien_dir": 2 * whole(0, 2) - 1, "ramping": np.ones(number, bool)}
        return states.replace(**timers, **fields, **interval, **turns, pos=whole(0, 10))
    speed = rng.integers(1, 6, (number, 8)) * rng.choice([-1, 1], (number, 8))
    cars = [
        rng.integers(0, 10, (number, 8)),
        np.tile(np.arange(1, 9), (number, 1)),
        rng.integers(0, 2, (number, 8)),
        speed,
    ]
    return states.replace(cars=np.stack(cars, -1).astype(np.int32), pos=whole(1, 10), move_timer=whole(0, 2))


@pytest.mark.parametrize("name", GAMES)
def test_the_inverse_permutation_recovers_the_games_own_channels(name):
    """And nothing else depends on the permutation; a pixel has as many channels as before."""
    keys, states = some_states(name)
    actions = jnp.arange(len(keys)) % 6
    order = np.random.default_rng(0).permutation(10)
    plain, permuted = (stepper(name)(keys, states, actions, world(each)) for each in (range(10), order))
    own, seen = (channels(outcome.observation) for _, outcome in (plain, permuted))
    assert own.any()
    np.testing.assert_array_equal(seen, own[..., order])
    np.testing.assert_array_equal(seen[..., np.argsort(order)], own)
    np.testing.assert_array_equal(seen.sum(-1), own.sum(-1))
    for one, other in zip(
        *(jax.tree.leaves((state, outcome[1:])) for state, outcome in (plain, permuted)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", GAMES)
def test_actions_that_the_game_lacks_do_nothing(name):
    keys, states = some_states(name)
    found = [jax.tree.leaves(stepper(name)(keys, states, jnp.full(len(keys), a), world())) for a in range(6)]
    same_as_none = [
        all(np.array_equal(one, other) for one, other in zip(leaves, found[0], strict=True)) for leaves in found
    ]
    assert same_as_none == [True] + [False] * (ACTIONS[name] - 1) + [True] * (6 - ACTIONS[name])


@pytest.mark.parametrize("name", GAMES)
def test_specification(name):
    environment = game(name)
    observations, before, _, after, outcome, _ = played(name)
    inputs = view(environment, jnp.asarray(observations[3]), world())
    assert inputs.dtype == jnp.float32
    np.testing.assert_array_equal(inputs, channels(observations[3]))
    assert (environment.name, environment.num_actions) == (name, 6)
    assert environment.observation == jax.ShapeDtypeStruct((10, 10), jnp.uint16)
    assert observations.dtype == outcome.observation.dtype == np.uint16
    assert outcome.reward.dtype == np.float32
    assert environment.dead_below == (0.5 if name == "breakout" else None)
    one, other = (jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), each) for each in (before, after))
    assert one == other


@pytest.mark.parametrize("name", GAMES)
def test_time_limit(name):
    """The last step allowed is truncated, not terminated."""
    limit = 2500 if name == "freeway" else 1000
    assert game(name).max_episode_steps == limit
    keys, states = some_states(name)
    for time, is_last in ((limit - 2, False), (limit - 1, True)):
        _, outcome = stepper(name)(
            keys, states.replace(time=jnp.full(len(keys), time)), jnp.zeros(len(keys), int), world()
        )
        assert (outcome.truncated == (is_last & ~outcome.terminated)).all()
        assert not outcome.terminated.all()


def test_freeway_ends_one_step_earlier_than_the_original():
    """A known difference."""
    pytest.importorskip("minatar")
    from minatar.environments.freeway import Env

    original = Env()
    ends = [original.act(0)[1] for _ in range(2501)]
    assert ends.index(True) == 2500


@pytest.mark.parametrize("num_filled", [0, 6, 7, 8])
def test_a_new_entity_of_asterix_erases_none(num_filled):
    """With stock gymnax this fails for 7 and 8: the new one may take the row of another."""
    copies = 64
    rng = np.random.default_rng(0)
    rows = [rng.permutation(8)[:num_filled] for _ in range(copies)]
    entities = np.zeros((copies, 8, 5), np.int32)
    for copy, filled in enumerate(rows):
        entities[copy, filled] = np.stack(
            [np.full(num_filled, 2), filled + 1, *rng.integers(0, 2, (2, num_filled)), np.ones(num_filled)], 1
        )
    _, before, *_ = played("asterix")
    states = jax.tree.map(lambda leaf: jnp.asarray(np.repeat(leaf[0, :1], copies, 0)), before)
    states = states.replace(entities=jnp.array(entities), spawn_timer=jnp.zeros(copies, jnp.int32))
    after, _ = stepper("asterix")(jax.random.split(jax.random.key(0), copies), states, jnp.zeros(copies, int), world())
    found = np.asarray(after.entities)
    was_there = entities[:, :, 4] == 1
    np.testing.assert_array_equal(found[was_there], entities[was_there])
    assert (found[:, :, 4].sum(1) == min(num_filled + 1, 8)).all()
    assert (after.spawn_timer == after.spawn_speed - 1).all()
    new = found[(found[:, :, 4] == 1) & ~was_there]
    assert set(new[:, 0]) <= {0, 9}
    if num_filled < 8:
        assert len(new) == copies
        np.testing.assert_array_equal(new[:, 0] == 0, new[:, 2] == 1)  # from the left it goes to the right


def test_what_is_drawn_is_drawn_evenly():
    """Rows among the free ones, directions, gold in a third; ten velocities of cars. Five standard errors."""
    from pliant.rl.environments._minatar_games import spawned, speeds

    keys = jax.random.split(jax.random.key(0), 4096)
    filled = jnp.zeros((8, 5), jnp.int32).at[jnp.array([0, 3, 7]), 4].set(1)
    entities = np.asarray(jax.vmap(spawned, (0, None))(keys, filled))
    new = entities[:, [1, 2, 4, 5, 6]]
    _is_share(new[:, :, 4].mean(0), 1 / 5, len(keys))
    _is_share(new[:, :, 2].sum(1).mean(), 1 / 2, len(keys))
    _is_share(new[:, :, 3].sum(1).mean(), 1 / 3, len(keys))
    velocities = np.asarray(jax.vmap(speeds)(keys))
    _is_share(np.stack([(velocities == v).mean(0) for v in range(-5, 6) if v]), 1 / 10, len(keys))
    assert (velocities != 0).all()


def _is_share(found, share, number):
    np.testing.assert_allclose(found, share, atol=5 * np.sqrt(share * (1 - share) / number))


@pytest.mark.whole
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("breakout", 0.4, 0.7),
        ("asterix", 0.3, 0.8),
        ("space-invaders", 2.3, 3.7),
        ("freeway", 0.03, 0.4),
        ("seaquest", 0.01, 0.2),
    ],
)
def test_returns_of_a_random_policy(name, low, high):
    """Per episode; of Freeway, which only time ends, per 2,500 steps. Longer play gives 0.54, 0.53, 3.0, 0.12, 0.06."""
    copies, steps = (32, 128) if name == "seaquest" else (256, 256)

    @jax.jit
    def play(key):
        *_, outcome, _ = random_policy(game(name), world(), copies, steps, key)
        return outcome.reward.sum(), outcome.terminated.sum()

    rewards, ends = play(jax.random.key(1))
    assert low < rewards / (ends or copies * steps / 2500) < high


def test_sticky_actions():
    """The environment repeats the action that it took before, after a reset none."""
    always, sometimes = game("breakout", sticky_actions=1.0), game("breakout", sticky_actions=0.25)
    number = 512
    keys = jax.random.split(jax.random.key(0), number)

    @jax.jit
    def two_steps(keys):
        def of_copy(key):
            begun, _ = sometimes.reset(key, world())
            once, _ = sometimes.step(key, begun, jnp.int32(1), world())
            twice, _ = sometimes.step(jax.random.fold_in(key, 1), once, jnp.int32(2), world())
            stuck, _ = always.step(key, begun, jnp.int32(1), world())
            return begun, once, twice, stuck

        return jax.vmap(of_copy)(keys)

    begun, once, twice, stuck = two_steps(keys)
    assert (begun.action == 0).all()
    np.testing.assert_array_equal(once.state.pos, begun.state.pos - once.action)
    _is_share((once.action == 0).mean(), 0.25, number)
    is_stuck = np.asarray(twice.action == once.action)
    assert set(np.asarray(twice.action)[~is_stuck]) == {2}
    np.testing.assert_array_equal(twice.state.pos, once.state.pos + (twice.action == 2) - (twice.action == 1))
    _is_share(is_stuck.mean(), 0.25, number)
    assert (stuck.state.pos == begun.state.pos).all()


def test_every_cycle_has_every_game_once():
    stream = minatar()
    assert [environment.name for environment in stream.environments] == list(CHANNELS)[:4]
    cycles = np.array([stream.which(index) for index in range(40)]).reshape(10, 4)
    assert (np.sort(cycles, axis=1) == np.arange(4)).all()
    assert len({tuple(cycle) for cycle in cycles}) > 5
    assert [stream.which(index) for index in range(40)[::-1]] == cycles.ravel()[::-1].tolist()
    assert type(stream.which(3)) is int


def test_orders_are_told_apart_by_their_seed():
    of_two = functools.partial(minatar, games=("breakout", "asterix"))
    orders = [of_two(**each) for each in ({}, {"order_seed": 1}, {"order": "fixed"}, {"num_tasks": 3})]
    first, second, fixed, shorter = ([stream.which(index) for index in range(20)] for stream in orders)
    assert first != second
    assert fixed == [0, 1] * 10
    assert shorter == first


def test_every_task_has_a_permutation_of_its_own():
    stream = minatar(num_tasks=8, games=("breakout",))
    keys = jax.random.split(jax.random.key(0), 3)
    orders = np.array([jax.jit(jax.vmap(stream.task, (0, None)))(keys, index) for index in range(8)])
    assert orders.dtype == np.int32
    assert (np.sort(orders, axis=-1) == np.arange(10)).all()
    assert len({tuple(order) for order in orders.reshape(-1, 10)}) == 24
    np.testing.assert_array_equal(stream.task(keys[1], 5), orders[5, 1])
    np.testing.assert_array_equal(minatar(num_tasks=9, games=("asterix",)).task(keys[1], 5), orders[5, 1])
    np.testing.assert_array_equal(minatar(games="breakout", permute=False).task(keys[1], 5), np.arange(10))


def test_one_game_in_all_tasks():
    stream = minatar(num_tasks=3, games=("freeway",), num_channels=7)
    assert [stream.environments[stream.which(index)].name for index in range(3)] == ["freeway"] * 3
    assert (stream.inputs.shape, stream.num_actions) == ((10, 10, 7), 6)
    assert minatar(games="freeway").environments[0].name == "freeway"


def test_games_are_set_by_name():
    option = options(minatar)["games"]
    assert cast("minatar.games", "breakout", option.default, option.annotation) == ("breakout",)
    assert cast("minatar.games", "breakout,freeway", option.default, option.annotation) == ("breakout", "freeway")
    assert ENVIRONMENTS["minatar"] is minatar


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"games": ("brakeout",)}, r"got the game 'brakeout'; wanted one of asterix, .* Did you mean 'breakout'\?"),
        ({"games": ("asterix", "asterix")}, "got games=asterix,asterix; wanted one or more games, each once"),
        ({"games": ()}, "got games=; wanted one or more games"),
        ({"num_channels": 6}, r"got num_channels=6; wanted a number in \[7, 16\]. These games have up to 7 channels"),
        ({"num_channels": 17, "games": ("breakout",)}, r"got num_channels=17; wanted a number in \[4, 16\]"),
        ({"num_tasks": 0}, "got tasks=0; wanted a finite number ≥ 1"),
        ({"order": "shuffled"}, "got order='shuffled'; wanted 'random' or 'fixed'"),
        ({"order_seed": -1}, "got order_seed=-1; wanted a finite number ≥ 0"),
        ({"sticky_actions": 1.5}, r"got sticky_actions=1.5; wanted a number in \[0, 1\]"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        inspect.unwrap(minatar)(**options)


def test_refuses_where_gymnax_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnax.environments.minatar", None)
    with pytest.raises(UserError, match=r"got a Python without gymnax; .*pip install 'pliant\[rl\]'"):
        minatar()
