"""The games of MinAtar: gymnax's, with one defect fixed, and rewritten for speed.

Loops over entities and writes into single cells are slow to compile and to run; comparisons of whole boards are not.
States and parameters are gymnax's. Observations are boards of bits: bit k of a cell is channel k.

This file imports gymnax: import it where it is used.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments.minatar import asterix, breakout, freeway, seaquest, space_invaders
from jaxtyping import Array, Bool, Float, Int, UInt16

from pliant.types import Key

Board: TypeAlias = UInt16[Array, "10 10"]
_CELLS = np.arange(10)
_ALIENS = (_CELLS < 4)[:, None] & (_CELLS >= 2)[None] & (_CELLS < 8)[None]
"""Where the aliens of Space Invaders begin."""


def _cell(row: Any, column: Any) -> Bool[Array, "10 10"]:
    """A board that is True in one cell."""
    return (jnp.asarray(row) == _CELLS)[:, None] & (jnp.asarray(column) == _CELLS)[None]


def _packed(*channels: Bool[Array, "10 10"]) -> Board:
    """The board whose bit k is channel k."""
    board = channels[0].astype(jnp.uint16)
    for k, channel in enumerate(channels[1:], start=1):
        board = board | (channel.astype(jnp.uint16) << k)
    return board


class Breakout(breakout.MinBreakout):
    """Breakout."""

    def get_obs(self, state: breakout.EnvState, params: Any = None, key: Any = None) -> Board:
        """Paddle, ball, trail, bricks."""
        del params, key
        paddle = _cell(9, state.pos)
        ball, trail = _cell(state.ball_y, state.ball_x), _cell(state.last_y, state.last_x)
        return _packed(paddle, ball, trail, state.brick_map > 0)


class Asterix(asterix.MinAsterix):
    """Asterix whose spawns never erase an entity, and do nothing if all rows are filled, as in the original."""

    def step_env(
        self, key: Key, state: asterix.EnvState, action: Int[Array, ""], params: asterix.EnvParams
    ) -> tuple[Board, asterix.EnvState, Float[Array, ""], Bool[Array, ""], dict[str, Any]]:
        """Spawns, moves the player, then the entities."""
        is_time = state.spawn_timer == 0
        state = state.replace(
            entities=jnp.where(is_time, spawned(key, state.entities), state.entities),
            spawn_timer=jnp.where(is_time, state.spawn_speed, state.spawn_timer),
        )
        state = asterix.step_agent(state, self.action_set[action])
        x, y, to_right, gold, filled = state.entities.T
        moves, touches = state.move_timer == 0, filled * (x == state.player_x) * (y == state.player_y)
        reward, is_caught = jnp.sum(touches * gold), jnp.any(touches > gold)
        filled = filled * (1 - touches * gold)
        x = x + moves * (2 * to_right - 1)
        filled = filled * ((x >= 0) & (x <= 9))
        touches = moves * filled * (x == state.player_x) * (y == state.player_y)
        reward, is_caught = reward + jnp.sum(touches * gold), is_caught | jnp.any(touches > gold)
        filled = filled * (1 - touches * gold)
        state = state.replace(
            entities=jnp.stack([x, y, to_right, gold, filled], axis=1) * filled[:, None],
            move_timer=jnp.where(moves, state.move_speed, state.move_timer),
        )
        state = asterix.step_timers(state, params).replace(time=state.time + 1, terminal=is_caught)
        return self.get_obs(state), state, reward.astype(jnp.float32), is_caught, {}

    def get_obs(self, state: asterix.EnvState, params: Any = None, key: Any = None) -> Board:
        """Player, enemies, trails, gold."""
        del params, key
        x, _, to_right, gold, filled = jnp.pad(state.entities, ((1, 1), (0, 0))).T  # entity i is in row i + 1
        body = (x[:, None] == _CELLS[None]) * (filled * (2 + 6 * gold))[:, None]
        trail = ((x - 2 * to_right + 1)[:, None] == _CELLS[None]) * (filled * 4)[:, None]
        return (body + trail + _cell(state.player_y, state.player_x)).astype(jnp.uint16)


def spawned(key: Key, entities: Int[Array, "8 5"]) -> Int[Array, "8 5"]:
    """The entities and a new one, in one of the free rows, all equally likely; the same ones if no row is free.

    Stock gymnax writes the new one over another if 7 rows are filled and the free one comes first in its random order,
    and always if all 8 are.
    """
    bits = jax.random.bits(key, (2,), jnp.uint32)
    to_right, gold = bits[0] >> 31, (bits[0] & 0x7FFFFFFF) % 3 == 0
    free = entities[:, 4] == 0
    place = bits[1] % jnp.maximum(jnp.sum(free), 1).astype(jnp.uint32)
    is_new = free & (jnp.cumsum(free) - 1 == place)
    x, *rest = [jnp.broadcast_to(each, (8,)) for each in (9 * (1 - to_right), to_right, gold, 1)]
    made = jnp.stack([x, 1 + np.arange(8), *rest], axis=1).astype(entities.dtype)
    return jnp.where(is_new[:, None], made, entities)


class SpaceInvaders(space_invaders.MinSpaceInvaders):
    """Space Invaders; the boards of its state are bool."""

    def step_env(
        self, key: Key, state: space_invaders.EnvState, action: Int[Array, ""], params: space_invaders.EnvParams
    ) -> tuple[Board, space_invaders.EnvState, Float[Array, ""], Bool[Array, ""], dict[str, Any]]:
        """Moves the player, all bullets, then the aliens; aliens that meet a bullet are removed."""
        del key
        action = self.action_set[action]
        fires = (action == 5) & (state.shot_timer == 0)
        pos = jnp.clip(state.pos + (action == 3) - (action == 1), 0, 9)
        here = pos == _CELLS
        ours = jnp.pad(state.f_bullet_map[1:], ((0, 1), (0, 0))) | (fires & _cell(8, pos))
        theirs = jnp.pad(state.e_bullet_map[:-1], ((1, 0), (0, 0)))

        aliens, to_left, moves = state.alien_map, state.alien_dir < 0, state.alien_move_timer == 0
        turns = jnp.any(jnp.where(to_left, aliens[:, 0], aliens[:, 9]))
        aside = jnp.where(to_left, jnp.roll(aliens, -1, axis=1), jnp.roll(aliens, 1, axis=1))
        moved = jnp.where(moves, jnp.where(turns, jnp.roll(aliens, 1, axis=0), aside), aliens)
        has_landed = moves & turns & jnp.any(aliens[9])
        terminal = has_landed | jnp.any((theirs[9] | aliens[9] | moved[9]) & here)
        fewest = jnp.minimum(jnp.sum(aliens), state.enemy_move_interval)

        shoots = state.alien_shot_timer == 0
        theirs = theirs | (shoots & nearest(moved, pos))
        killed = moved & ours
        left = moved & ~killed
        is_cleared = ~jnp.any(left)
        ramps = (is_cleared & state.ramping & (state.enemy_move_interval > 6)).astype(jnp.int32)
        state = state.replace(
            pos=pos,
            f_bullet_map=ours & ~killed,
            e_bullet_map=theirs,
            alien_map=jnp.where(is_cleared, _ALIENS, left),
            alien_dir=jnp.where(moves & turns, -state.alien_dir, state.alien_dir),
            enemy_move_interval=state.enemy_move_interval - ramps,
            alien_move_timer=jnp.where(moves, fewest, state.alien_move_timer) - 1,
            alien_shot_timer=jnp.where(shoots, params.enemy_shot_interval, state.alien_shot_timer) - 1,
            ramp_index=state.ramp_index + ramps,
            shot_timer=jnp.maximum(jnp.where(fires, params.shot_cool_down, state.shot_timer) - 1, 0),
            time=state.time + 1,
            terminal=terminal,
        )
        return self.get_obs(state), state, jnp.sum(killed).astype(jnp.float32), terminal, {}

    def reset_env(self, key: Key, params: space_invaders.EnvParams) -> tuple[Board, space_invaders.EnvState]:
        """As in gymnax."""
        _, state = super().reset_env(key, params)
        boards = {name: getattr(state, name) > 0 for name in ("f_bullet_map", "e_bullet_map", "alien_map")}
        state = state.replace(**boards)
        return self.get_obs(state), state

    def get_obs(self, state: space_invaders.EnvState, params: Any = None, key: Any = None) -> Board:
        """Cannon, aliens, aliens that go left, and right, the player's bullets, theirs."""
        del params, key
        aliens, to_left = state.alien_map > 0, jnp.asarray(state.alien_dir) < 0
        boards = _cell(9, state.pos), aliens, aliens & to_left, aliens & ~to_left
        return _packed(*boards, state.f_bullet_map > 0, state.e_bullet_map > 0)


def nearest(aliens: Bool[Array, "10 10"], pos: Int[Array, ""]) -> Bool[Array, "10 10"]:
    """The lowest alien of the column nearest to the player, of two the left one; no cell if there is no alien."""
    columns = jnp.any(aliens, axis=0)
    column = jnp.argmin(jnp.where(columns, 2 * jnp.abs(_CELLS - pos) + (pos < _CELLS), 99))
    there = aliens & (column == _CELLS)[None]
    return there & (jnp.max(jnp.where(there, _CELLS[:, None], -1)) == _CELLS)[:, None]


class Freeway(freeway.MinFreeway):
    """Freeway."""

    def step_env(
        self, key: Key, state: freeway.EnvState, action: Int[Array, ""], params: freeway.EnvParams
    ) -> tuple[Board, freeway.EnvState, Float[Array, ""], Bool[Array, ""], dict[str, Any]]:
        """Moves the player, draws new speeds if it has crossed, then moves the cars."""
        state, reward, has_crossed = freeway.step_agent(self.action_set[action], state, params)
        x, y, timer, speed = state.cars.T
        new = speeds(key)
        speed, timer = jnp.where(has_crossed, new, speed), jnp.where(has_crossed, jnp.abs(new), timer)
        moves = timer == 0
        after = jnp.where(moves, (x + jnp.sign(speed)) % 10, x)
        # Cars are in rows 1 to 8. A player that is hit goes to row 9, where no second car can hit it.
        is_hit = jnp.any((y == state.pos) & ((x == 4) | (after == 4)))
        state = state.replace(
            pos=jnp.where(is_hit, 9, state.pos),
            cars=jnp.stack([after, y, jnp.where(moves, jnp.abs(speed), timer - 1), speed], axis=1),
            move_timer=jnp.maximum(state.move_timer - 1, 0),
            time=state.time + 1,
        )
        return self.get_obs(state), state, reward.astype(jnp.float32), jnp.array(False), {}

    def reset_env(self, key: Key, params: freeway.EnvParams) -> tuple[Board, freeway.EnvState]:
        """The player at the bottom, cars at the left, with new speeds."""
        speed = speeds(key)
        cars = jnp.stack([jnp.zeros_like(speed), jnp.int32(1 + np.arange(8)), jnp.abs(speed), speed], axis=1)
        state = freeway.EnvState(pos=9, cars=cars, move_timer=params.player_speed, time=0, terminal=False)
        return self.get_obs(state), state

    def get_obs(self, state: freeway.EnvState, params: Any = None, key: Any = None) -> Board:
        """Player, cars, and their trails by speed, 1 to 5."""
        del params, key
        x, _, _, speed = jnp.pad(state.cars, ((1, 1), (0, 0))).T  # car i is in row i + 1
        is_car = speed != 0
        body = (x[:, None] == _CELLS[None]) * (2 * is_car)[:, None]
        trail = (((x - jnp.sign(speed)) % 10)[:, None] == _CELLS[None]) * (is_car * (2 << jnp.abs(speed)))[:, None]
        return (body + trail + _cell(state.pos, 4)).astype(jnp.uint16)


def speeds(key: Key) -> Int[Array, "8"]:
    """Speeds of cars: 1 to 5 to the right or to the left, all ten equally likely."""
    draws = (jax.random.bits(key, (8,), jnp.uint32) % 10).astype(jnp.int32)
    return jnp.where(draws < 5, draws - 5, draws - 4)


class Seaquest(seaquest.MinSeaquest):
    """Seaquest."""

    def get_obs(self, state: seaquest.EnvState, params: Any = None, key: Any = None) -> Board:
        """Ten channels, see gymnax."""
        channels = super().get_obs(state, params, key) > 0
        return _packed(*(channels[:, :, k] for k in range(10)))


GAMES: Mapping[str, Callable[[], Any]] = {
    "breakout": Breakout,
    "asterix": Asterix,
    "space-invaders": SpaceInvaders,
    "freeway": Freeway,
    "seaquest": Seaquest,
}
"""By the names that `minatar` gives them."""
