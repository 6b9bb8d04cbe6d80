import importlib.util
import sys
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.rl.environments import octax
from pliant.rl.environments._octax import GAMES, _draw, _machine, _packed, _quiet, _screen
from pliant.settings import cast, options
from pliant.types import World

pytestmark = pytest.mark.skipif(importlib.util.find_spec("octax") is None, reason="Octax is not installed")
LIMIT = 20
COPIES = 4
NO_KEY = 2  # of brix, which has two keys


@pytest.fixture(scope="module")
def stream():
    return octax(num_tasks=2, games=("brix",), max_episode_steps=LIMIT)


@pytest.fixture(scope="module")
def play(stream):
    return _player(stream)


def _player(stream, place=0):
    """Steps of several copies, compiled once: `play(keys, actions) -> (states, first observations, outcomes)`."""
    environment = stream.environments[place]

    @jax.jit
    def play(keys, actions, data):
        world = World(data, ())

        def of_one(key, actions):
            state, first = environment.reset(key, world)

            def step(state, action):
                state, outcome = environment.step(key, state, action, world)
                return state, (state, outcome)

            return first, *jax.lax.scan(step, state, actions)[1]

        return jax.vmap(of_one)(keys, actions)

    return lambda keys, actions: play(keys, jnp.asarray(actions, jnp.int32), stream.data)


def _keys(seed=0):
    return jax.random.split(jax.random.key(seed), COPIES)


def _actions(seed=0, steps=LIMIT):
    return np.random.default_rng(seed).integers(0, 6, (COPIES, steps))


def _differs(one, other):
    return any(bool((a != b).any()) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def test_what_is_seen_is_as_stated(stream, play):
    first, _, outcomes = play(_keys(), _actions())
    spec = stream.observation
    assert (spec.shape, spec.dtype) == ((32, 64, 4), jnp.bool_)
    assert (first.shape, first.dtype) == ((COPIES, *spec.shape), spec.dtype)
    assert (outcomes.observation.shape, outcomes.observation.dtype) == ((COPIES, LIMIT, *spec.shape), spec.dtype)
    assert not first[..., :3].any()  # before the game there was nothing
    assert outcomes.observation[:, -1, ..., -1].any()
    assert not outcomes.observation.all()


def test_rewards_sum_to_the_score(play):
    _, states, outcomes = play(_keys(1), _actions(1))
    np.testing.assert_array_equal(outcomes.reward.sum(axis=1), states.current_score[:, -1])
    assert states.current_score[:, -1].any()
    assert outcomes.reward.dtype == jnp.float32


def test_actions_without_a_key_are_one(play):
    """Pressing nothing, and the actions that the game does not have; those that it has are others."""
    nothing = play(_keys(), np.full((COPIES, LIMIT), NO_KEY))
    for invalid in (3, 4, 5):
        assert not _differs(play(_keys(), np.full((COPIES, LIMIT), invalid)), nothing)
    left, right = (play(_keys(), np.full((COPIES, LIMIT), key)) for key in (0, 1))
    assert _differs(left, nothing)
    assert _differs(right, nothing)
    assert _differs(left, right)


def test_the_same_key_is_the_same_game(play):
    again = play(_keys(), _actions())
    assert not _differs(play(_keys(), _actions()), again)
    assert _differs(play(_keys(1), _actions())[2], again[2])


def test_the_limit_truncates(play):
    _, _, outcomes = play(_keys(1), _actions(1))
    assert not outcomes.truncated[:, :-1].any()
    np.testing.assert_array_equal(outcomes.truncated[:, -1], ~outcomes.terminated[:, -1])
    assert set(np.unique(outcomes.terminated[:, -1])) == {False, True}  # a game that is over is not cut


def _lockstep(name, first, states, outcomes, actions):
    """Plays the same actions with Octax itself; all of its state is the same but for the packed screen."""
    with _quiet():
        bare = sys.modules["octax.environments"].create_environment(name)[0]
    actions = np.minimum(actions, bare.num_actions - 1)

    @jax.jit
    def replay(rngs, actions):
        def of_one(rng, actions):
            state, first, _ = bare.reset(rng)

            def step(state, action):
                state, *outcome, _ = bare.step(state, action)
                return state, (state, *outcome)

            return first, *jax.lax.scan(step, state.replace(time=jnp.int32(0)), actions)[1]

        return jax.vmap(of_one)(rngs, actions)

    with _quiet():
        rngs = jax.vmap(lambda key: jax.random.bits(key, (2,), jnp.uint32))(_keys())
        seen, wanted, frames, rewards, terminated, _ = replay(rngs, jnp.asarray(actions))
    np.testing.assert_array_equal(first, np.transpose(seen, (0, 3, 2, 1)))
    np.testing.assert_array_equal(outcomes.observation, np.transpose(frames, (0, 1, 4, 3, 2)))
    np.testing.assert_array_equal(outcomes.reward, rewards)
    np.testing.assert_array_equal(outcomes.terminated, terminated)
    rest = [jax.tree.leaves(each.replace(display=None)) for each in (states, wanted)]
    for ours, theirs in zip(*rest, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_in_lockstep_with_octax(play):
    actions = _actions()
    _lockstep("brix", *play(_keys(), actions), actions)


@pytest.mark.whole
@pytest.mark.parametrize("name", GAMES)
def test_games_in_lockstep_with_octax(name):
    stream = octax(num_tasks=1, games=(name,))
    actions = _actions(steps=40)
    _lockstep(name, *_player(stream)(_keys(), actions), actions)


@pytest.mark.whole
def test_all_games_are_one_program():
    """What an agent's program does: the game is a number that is known when it runs."""
    stream = octax(num_tasks=16)
    assert [each.name for each in stream.environments] == list(GAMES)
    assert [stream.which(index) for index in range(16)] == [*range(8), *range(8)]

    @jax.jit
    def step(which, data):
        world = World(data, ())

        def of(environment):
            def play(keys):
                state, _ = jax.vmap(environment.reset, (0, None))(keys, world)
                return jax.vmap(environment.step, (0, 0, None, None))(keys, state, jnp.int32(0), world)

            return play

        return jax.lax.switch(which, [of(each) for each in stream.environments], _keys())

    pictures = [np.asarray(step(which, stream.data)[1].observation) for which in range(8)]
    assert all(picture.any() for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == 8


def test_as_the_authors_do(stream, play):
    """Channels first, and an action that the game does not have presses its first key."""
    theirs = octax(num_tasks=1, games=("brix",), max_episode_steps=LIMIT, compat=True)
    assert theirs.observation.shape == (4, 32, 64)
    first, states, outcomes = _player(theirs)(_keys(), np.full((COPIES, LIMIT), 4))
    wanted = play(_keys(), np.full((COPIES, LIMIT), 0))
    np.testing.assert_array_equal(np.moveaxis(first, 1, -1), wanted[0])
    np.testing.assert_array_equal(np.moveaxis(outcomes.observation, 2, -1), wanted[2].observation)
    assert not _differs(states, wanted[1])


def test_sprites_are_cut_at_edges_as_in_octax():
    """All positions, of a sprite on top of others, against Octax's own function."""
    machine, draw = _machine(), np.random.default_rng(0)
    assert machine.games
    from octax import create_state, decode
    from octax.instructions.display import execute_display

    memory = jnp.asarray(draw.integers(0, 256, 4096), jnp.uint8)
    screen = jnp.asarray(draw.integers(0, 2, (64, 32)), bool)
    state = create_state().replace(memory=memory, I=jnp.uint16(4085), display=screen)
    x, y = np.meshgrid([0, 1, 24, 25, 31, 32, 33, 56, 57, 63, 64, 255], [0, 1, 17, 30, 31, 32, 255])
    places = jnp.asarray(np.stack([x.ravel(), y.ravel()], axis=1), jnp.uint8)

    def both(place, rows):
        here = state.replace(V=state.V.at[:2].set(place))
        instruction = decode(jnp.uint16(0xD010) + rows.astype(jnp.uint16))
        ours = _draw(here.replace(display=_packed(screen)), instruction)
        theirs = execute_display(here, instruction)
        return (_screen(ours.display), ours.V), (theirs.display.T, theirs.V)

    with _quiet():
        ours, theirs = jax.jit(jax.vmap(jax.vmap(both, (0, None)), (None, 0)))(places, jnp.arange(16))
    for mine, wanted in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, wanted)
    assert set(np.unique(ours[1][..., 15])) == {0, 1}


def test_games_in_any_order():
    stream = octax(num_tasks=4, games=("ufo", "filter", "ufo"))
    assert [stream.environments[stream.which(index)].name for index in range(4)] == ["ufo", "filter", "ufo", "ufo"]
    assert {each.max_episode_steps for each in stream.environments} == {4500}
    assert {each.num_actions for each in stream.environments} == {6}


def test_games_are_read_from_text():
    assert cast("octax.games", "brix,wipe_off", options(octax)["games"].default) == ("brix", "wipe_off")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_tasks": 0}, "got tasks=0; wanted a finite number ≥ 1. Leave it out for the default of 8."),
        (
            {"max_episode_steps": 0},
            "got max_episode_steps=0; wanted a finite number ≥ 1. Leave it out for the default of 4500.",
        ),
        ({"games": ()}, "got no games; wanted at least one. Leave games out for the eight of the paper."),
        ({"games": ("brics",)}, "got the game 'brics'; wanted one of .*Did you mean 'brix'?"),
        (
            {"games": ("cavern77",)},
            "got the game 'cavern77'; wanted a game with a level that Octax has, such as 'cavern1'. Change the number "
            "behind its name.",
        ),
    ],
)
def test_errors(options, message):
    with pytest.raises(UserError) as caught:
        octax(**options)
    start, _, end = message.partition(".*")
    assert str(caught.value).startswith(start)
    assert end in str(caught.value)


def test_games_with_too_many_keys_are_refused(monkeypatch):
    _machine()
    monkeypatch.setattr(importlib.import_module("octax.environments.filter"), "action_set", list(range(6)))
    with pytest.raises(UserError, match=r"got the game 'filter' with 6 keys; wanted at most 5\. Leave it out\."):
        octax(games=("filter",))


def test_without_octax(monkeypatch):
    monkeypatch.setitem(sys.modules, "octax", None)
    with pytest.raises(UserError, match=r"got a Python without octax; wanted .* Octax\. Install .*'pliant\[rl\]'"):
        octax()


@pytest.fixture
def not_imported(monkeypatch):
    """Forgets that Octax was imported, and remembers it afterwards."""
    _machine()
    for name in [name for name in sys.modules if name.split(".")[0] == "octax"]:
        monkeypatch.delitem(sys.modules, name)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "octax"]:
        del sys.modules[name]


def test_opencv_is_not_needed(not_imported, monkeypatch):
    """A stand-in exists while Octax is imported, where OpenCV is missing; other packages do not find it."""
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cv2" else found(name))
    assert _machine().games
    assert "octax.rendering" in sys.modules
    assert "cv2" not in sys.modules


def test_opencv_is_left_alone(not_imported, monkeypatch):
    theirs = ModuleType("cv2")
    monkeypatch.setitem(sys.modules, "cv2", theirs)
    assert _machine().games
    assert sys.modules["cv2"] is theirs
    assert sys.modules["octax.rendering"].cv2 is theirs
