import jax

from pliant.keys import Draw, SeedKeys, draw_key, seed_keys


def test_no_two_draws_of_a_key_have_a_number():
    assert list(Draw.__members__) == [draw.name for draw in Draw]  # a second name of the same would vanish
    assert {draw.key for draw in Draw} == {"seed", "layer", *SeedKeys._fields}


def test_draws_beside_counts_are_above_them():
    beside = [draw for draw in Draw if draw.key not in ("seed", "tasks")]
    assert beside
    assert all(2**31 <= draw.number < 2**32 for draw in beside)
    assert [draw.name.lower() for draw in Draw if draw.key == "seed"] == list(SeedKeys._fields)


def test_every_stream_of_a_seed_is_another():
    keys = [str(jax.random.key_data(key)) for seed in (0, 1) for key in seed_keys(seed)]
    assert len(set(keys)) == 2 * len(SeedKeys._fields)


def test_draws_meet_neither_each_other_nor_the_updates():
    stream = seed_keys(0).method
    drawn = [draw_key(stream, draw, step) for draw in Draw if draw.key == "method" for step in (1, 2)]
    drawn += [jax.random.fold_in(stream, step) for step in (1, 2, 2**31 - 1)]
    assert len({str(jax.random.key_data(key)) for key in drawn}) == len(drawn)
