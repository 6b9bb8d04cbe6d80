"""The original MinAtar in the states of gymnax's games, with its random numbers dictated."""

from importlib import import_module

import jax
import numpy as np

NUMBERS = {
    "breakout": ("ball_y", "ball_x", "ball_dir", "pos", "last_y", "last_x", "strike"),
    "asterix": (
        *("player_x", "player_y", "spawn_speed", "spawn_timer", "move_speed", "move_timer", "ramp_timer"),
        "ramp_index",
    ),
    "space-invaders": (
        *("pos", "alien_dir", "enemy_move_interval", "alien_move_timer", "alien_shot_timer", "shot_timer"),
        "ramp_index",
    ),
    "freeway": ("pos", "move_timer"),
    "seaquest": (
        *("oxygen", "sub_x", "sub_y", "sub_or", "diver_count", "e_spawn_speed", "e_spawn_timer", "d_spawn_timer"),
        *("move_speed", "ramp_index", "shot_timer", "surface"),
    ),
}
BOARDS = {"breakout": ("brick_map",), "space-invaders": ("f_bullet_map", "e_bullet_map", "alien_map")}
LISTS = {  # of entities, with the fields that count them
    "seaquest": {
        "f_bullets": "f_bullet_count",
        "e_bullets": "e_bullet_count",
        "e_fish": "e_fish_count",
        "e_subs": "e_subs_count",
        "divers": "divers_count",
    }
}


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
    game = import_module(f"minatar.environments.{name.replace('-', '_')}").Env()
    game.random = Dictated()
    return game


def plain(name, state):
    """A state of gymnax's as the original has it; of one copy, in NumPy."""
    fields = {field: int(getattr(state, field)) for field in NUMBERS[name]}
    fields |= {field: np.array(getattr(state, field), float).tolist() for field in BOARDS.get(name, ())}
    for field, count in LISTS.get(name, {}).items():
        fields[field] = getattr(state, field)[: int(getattr(state, count))].tolist()
    if name == "asterix":
        fields["entities"] = [row[:4].tolist() if row[4] else None for row in state.entities]
    if name == "freeway":
        fields |= {"cars": state.cars.tolist(), "terminate_timer": 2500 - int(state.time)}
    return fields


def put(name, game, state):
    """Puts the original into a state of gymnax's."""
    for field, value in plain(name, state).items():
        setattr(game, field, np.array(value) if field in BOARDS.get(name, ()) else value)
    game.terminal = False


def get(name, game):
    """The state of the original, as `plain` has it."""
    special = {"asterix": ("entities",), "freeway": ("cars", "terminate_timer")}.get(name, ())
    fields = {field: int(getattr(game, field)) for field in NUMBERS[name]}
    fields |= {field: np.asarray(getattr(game, field)).tolist() for field in BOARDS.get(name, ())}
    return fields | {field: getattr(game, field) for field in (*LISTS.get(name, ()), *special)}


def dictate(name, game, before, after, key):
    """Tells the original what gymnax's game has drawn in the step from `before`."""
    told = {"asterix": _new_entity, "freeway": _speeds, "seaquest": _new_enemies}.get(name)
    game.random.numbers = told(before, after, key) if told else []


def _new_entity(before, after, key):
    """In a row where there was none. The original's numbers explain nothing else, such as another one gone."""
    from pliant.rl.environments._minatar_games import spawned

    if before.spawn_timer:
        return []
    free = [row for row in range(8) if not before.entities[row][4]]
    if not free:
        return [0.0, 0.0]
    entities = np.asarray(jax.jit(spawned)(key, before.entities))
    (row,) = (row for row in free if entities[row, 4])
    return [0.25 if entities[row, 2] else 0.75, 0.1 if entities[row, 3] else 0.9, free.index(row)]


def _speeds(before, after, key):
    speeds = after.cars[:, 3]
    return [np.abs(speeds), np.where(speeds > 0, 0.75, 0.25)]


def _new_enemies(before, after, key):
    enemy, y, diver_to_right, diver_y = (np.asarray(each) for each in _as_gymnax_draws(key))
    numbers = [*enemy, int(y)] if before.e_spawn_timer == 0 else []
    return numbers + ([0.25 if diver_to_right else 0.75, int(diver_y)] if before.d_spawn_timer == 0 else [])


@jax.jit
def _as_gymnax_draws(key):
    of_enemy, of_diver = jax.random.split(key)
    of_choice, of_y = jax.random.split(of_enemy)
    of_direction, of_diver_y = jax.random.split(of_diver)
    return (
        jax.random.uniform(of_choice, (2,)),
        jax.random.randint(of_y, (), 1, 9),
        jax.random.bernoulli(of_direction),
        jax.random.randint(of_diver_y, (), 1, 9),
    )
