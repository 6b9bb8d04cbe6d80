import jax
import jax.numpy as jnp
import pytest

from pliant.errors import UserError, require_choice, require_range, unknown_name


def test_message_says_got_wanted_and_do():
    error = UserError(got="a=0", wanted="a ≥ 1", do="Leave it out.")
    assert str(error) == "got a=0; wanted a ≥ 1. Leave it out."
    assert isinstance(error, ValueError)


def test_unknown_name_offers_the_nearest():
    error = unknown_name("stream", "permuted-pixel", ["random-labels", "permuted-pixels"], do="See the list.")
    wanted = "wanted one of permuted-pixels, random-labels. Did you mean 'permuted-pixels'? See the list."
    assert str(error) == f"got the stream 'permuted-pixel'; {wanted}"


def test_unknown_name_offers_nothing_far_away():
    error = unknown_name("stream", "zzz", ["random-labels"], do="See the list.")
    assert str(error) == "got the stream 'zzz'; wanted one of random-labels. See the list."


@pytest.mark.parametrize("value", [0, 1, 0.5, 0.0, 1.0])
def test_bounds_belong_to_the_range(value):
    assert require_range("b", value, 0, 1, do="") is None


@pytest.mark.parametrize("value", [-1e-9, 1.1, 2, float("nan"), float("inf")])
def test_out_of_range_is_refused(value):
    with pytest.raises(UserError, match=rf"got b={value}; wanted a number in \[0, 1\]. Use 0.9."):
        require_range("b", value, 0, 1, do="Use 0.9.")


def test_no_upper_bound():
    require_range("every", 10**9, 1, do="")
    with pytest.raises(UserError, match="got every=0; wanted a finite number ≥ 1"):
        require_range("every", 0, 1, do="")


def test_traced_values_pass():
    def checked(value):
        require_range("b", value, 0, 1, do="")
        return value + 1

    assert float(jax.jit(checked)(jnp.float32(5.0))) == 6.0


def test_choices_are_listed_with_the_default_first():
    assert require_choice("norm", "layer", "batch", "layer", "none") is None
    with pytest.raises(UserError) as raised:
        require_choice("norm", "Batch", "batch", "layer", "none")
    assert str(raised.value) == "got norm='Batch'; wanted 'batch', 'layer' or 'none'. Leave it out for 'batch'."
