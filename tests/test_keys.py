import jax

from pliant.keys import Draw, SeedKeys, draw_key, seed_keys


def test_no_two_draws_have_a_number():
    assert len({draw.value for draw in Draw}) == len(Draw)  # an alias would vanish from the iteration
    assert list(Draw.__members__) == [draw.name for draw in Draw]


def test_draws_beside_counts_are_above_them():
    beside = [draw for draw in Draw if draw.name.lower() not in SeedKeys._fields]
    assert beside
    assert all(2**31 <= draw < 2**32 for draw in beside)


def test_every_stream_of_a_seed_is_another():
    keys = [str(jax.random.key_data(key)) for seed in (0, 1) for key in seed_keys(seed)]
    assert len(set(keys)) == 2 * len(SeedKeys._fields)


def test_draws_meet_neither_each_other_nor_the_updates():
    stream = seed_keys(0).method
    drawn = [draw_key(stream, draw, step) for draw in Draw if draw >= 2**31 for step in (1, 2)]
    drawn += [jax.random.fold_in(stream, step) for step in (1, 2, 2**31 - 1)]
    assert len({str(jax.random.key_data(key)) for key in drawn}) == len(drawn)
