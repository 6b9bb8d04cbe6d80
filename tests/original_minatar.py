"""The original MinAtar, put into the states of gymnax's games, with its random numbers dictated."""

from importlib import import_module

import jax
import numpy as np

MODULES = {name: name.replace("-", "_") for name in ("breakout", "asterix", "space-invaders", "freeway", "seaquest")}


class Dictated:
    """In place of NumPy's random state: gives the numbers that it is told."""

    def __init__(self):
        self.numbers = []

    def rand(self, *shape):
        return self.numbers.pop(0)

    def randint(self, *args, **kwargs):
        return self.numbers.pop(0)


def original(name):
    """A game whose random numbers are dictated once it has been made."""
    game = import_module(f"minatar.environments.{MODULES[name]}").Env()
    game.random = Dictated()
    return game


def put(name, game, state):
    """Puts the original game into a state of gymnax's; numbers of one copy, as NumPy arrays."""
    _PUT[name](game, state)
    game.terminal = False
    game.random.numbers = []


def _breakout(game, state):
    for field in ("ball_y", "ball_x", "ball_dir", "pos", "last_y", "last_x"):
        setattr(game, field, int(getattr(state, field)))
    game.brick_map, game.strike = np.array(state.brick_map, float), bool(state.strike)


def _asterix(game, state):
    for field in ("player_x", "player_y", "spawn_speed", "spawn_timer", "move_speed", "move_timer"):
        setattr(game, field, int(getattr(state, field)))
    game.ramp_timer, game.ramp_index = int(state.ramp_timer), int(state.ramp_index)
    game.entities = [_entity(row) for row in state.entities]


def _entity(row):
    return [int(row[0]), int(row[1]), bool(row[2]), bool(row[3])] if row[4] else None


def _space_invaders(game, state):
    for field in ("pos", "alien_dir", "enemy_move_interval", "alien_move_timer", "alien_shot_timer", "shot_timer"):
        setattr(game, field, int(getattr(state, field)))
    for field in ("f_bullet_map", "e_bullet_map", "alien_map"):
        setattr(game, field, np.array(getattr(state, field), float))
    game.ramp_index = int(state.ramp_index)


def _freeway(game, state):
    game.pos, game.move_timer = int(state.pos), int(state.move_timer)
    game.cars = [[int(number) for number in car] for car in state.cars]
    game.terminate_timer = 2500 - int(state.time)


def _seaquest(game, state):
    for field in ("oxygen", "sub_x", "sub_y", "diver_count", "e_spawn_speed", "e_spawn_timer", "d_spawn_timer"):
        setattr(game, field, int(getattr(state, field)))
    for field in ("move_speed", "ramp_index", "shot_timer"):
        setattr(game, field, int(getattr(state, field)))
    game.sub_or, game.surface = bool(state.sub_or), bool(state.surface)
    for field, count in {
        "f_bullets": "f_bullet",
        "e_bullets": "e_bullet",
        "e_fish": "e_fish",
        "e_subs": "e_subs",
    }.items():
        _list(game, state, field, f"{count}_count")
    _list(game, state, "divers", "divers_count")


def _list(game, state, field, count):
    rows = getattr(state, field)[: int(getattr(state, count))]
    setattr(game, field, [[int(row[0]), int(row[1]), bool(row[2]), *map(int, row[3:])] for row in rows])


_PUT = {
    "breakout": _breakout,
    "asterix": _asterix,
    "space-invaders": _space_invaders,
    "freeway": _freeway,
    "seaquest": _seaquest,
}


def dictate(name, game, before, after, key):
    """Tells the original what gymnax's game has drawn in the step from `before`."""
    told = _DICTATE.get(name)
    game.random.numbers = told(game, before, after, key) if told else []


def _asterix_draws(game, before, after, key):
    """An entity in a row where there was none; no other is ever told of, so nothing else can be explained by it."""
    from pliant.rl.environments._minatar_games import spawned

    if before.spawn_timer:
        return []
    free = [row for row in range(8) if not before.entities[row][4]]
    if not free:
        return [0.0, 0.0]
    new = np.asarray(jax.jit(spawned)(key, before.entities))
    (row,) = (row for row in free if new[row, 4])
    return [0.25 if new[row, 2] else 0.75, 0.1 if new[row, 3] else 0.9, free.index(row)]


def _freeway_draws(game, before, after, key):
    speeds = after.cars[:, 3]
    return [np.abs(speeds), np.where(speeds > 0, 0.75, 0.25)]


def _seaquest_draws(game, before, after, key):
    """As gymnax draws them."""
    enemy, y, diver_to_right, diver_y = (np.asarray(each) for each in _drawn(key))
    numbers = [*enemy, int(y)] if before.e_spawn_timer == 0 else []
    return numbers + ([0.25 if diver_to_right else 0.75, int(diver_y)] if before.d_spawn_timer == 0 else [])


_DICTATE = {"asterix": _asterix_draws, "freeway": _freeway_draws, "seaquest": _seaquest_draws}


@jax.jit
def _drawn(key):
    of_enemy, of_diver = jax.random.split(key)
    of_choice, of_y = jax.random.split(of_enemy)
    of_direction, of_diver_y = jax.random.split(of_diver)
    return (
        jax.random.uniform(of_choice, (2,)),
        jax.random.randint(of_y, (), 1, 9),
        jax.random.bernoulli(of_direction),
        jax.random.randint(of_diver_y, (), 1, 9),
    )
