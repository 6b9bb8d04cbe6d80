import math
import re
import tomllib
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pliant
from pliant.errors import (
    MissingExtraError,
    UserError,
    extra,
    require_choice,
    require_range,
    require_whole,
    unknown_name,
)


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


@pytest.mark.parametrize("value", [np.float32(0.5), np.array(0.5), jnp.float32(0.5), np.int64(1), Fraction(1, 2)])
def test_numbers_of_other_types_are_numbers(value):
    require_range("b", value, 0, 1, do="")
    with pytest.raises(UserError, match=r"got b=(0.5|1|1.0); wanted a number in \[2, 3\]"):
        require_range("b", value, 2, 3, do="")


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.float16])
def test_bounds_are_rounded_as_the_number_is(dtype):
    require_range("b", jnp.asarray(0.9, dtype), 0.9, 1, do="")
    require_range("b", jnp.asarray(0.1, dtype), 0, 0.1, do="")
    with pytest.raises(UserError, match=r"wanted a number in \[0.9, 1\]"):
        require_range("b", jnp.asarray(0.8, dtype), 0.9, 1, do="")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.array(-1.0), "-1"),
        (np.float32("nan"), "nan"),
        (jnp.array(jnp.inf), "inf"),
        (jnp.ones(2), r"an array of shape \(2,\)"),
        (np.ones(1), r"an array of shape \(1,\)"),
        ([0.1, 0.2], r"\[0.1, 0.2\]"),
        ("0.1", "'0.1'"),
        (True, "True"),
        (np.array(True), r"array\(True\)"),
        (1j, "1j"),
        (10**400, "inf"),
    ],
)
def test_what_is_no_number_in_range_is_refused(value, shown):
    with pytest.raises(UserError, match=f"got rate={shown}; wanted a finite number ≥ 0. Use 1e-3."):
        require_range("rate", value, 0, do="Use 1e-3.")


def test_any_finite_number_where_there_are_no_bounds():
    require_range("threshold", -3.0, -math.inf, do="")
    with pytest.raises(UserError, match=r"got threshold=nan; wanted a finite number\. Use 0"):
        require_range("threshold", math.nan, -math.inf, do="Use 0.")


@pytest.mark.parametrize("value", [1, 16.0, np.int32(3), np.float32(2.0), jnp.int32(5), None, lambda count: count])
def test_whole_numbers_pass(value):
    assert require_whole("every", value, 1, do="") == value


def test_whole_numbers_become_integers_of_python():
    assert [type(require_whole("n", value, 1, do="")) for value in (16.0, np.float32(2.0), jnp.int32(5))] == [int] * 3


@pytest.mark.parametrize("value", [2.5, np.float32(2.5), jnp.float32(2.5)])
def test_a_period_between_two_whole_numbers_is_refused(value):
    with pytest.raises(UserError, match=r"got every=2\.5; wanted a whole number ≥ 1\. Use 16"):
        require_whole("every", value, 1, do="Use 16.")


def test_choices_are_listed_with_the_default_first():
    assert require_choice("norm", "layer", "batch", "layer", "none") is None
    with pytest.raises(UserError) as raised:
        require_choice("norm", "Batch", "batch", "layer", "none")
    assert str(raised.value) == "got norm='Batch'; wanted 'batch', 'layer' or 'none'. Leave it out for 'batch'."


def test_a_package_that_is_missing_names_its_extra():
    wanted = r"got a Python without nowhere; wanted the packages for nothing\. .*pip install 'pliant\[data\]'\."
    with pytest.raises(UserError, match=wanted) as raised, extra("data", "nothing"):
        import nowhere.at.all  # noqa: F401
    assert isinstance(raised.value, ModuleNotFoundError)
    assert raised.value.name == "nowhere"


def test_a_package_that_cannot_be_imported_says_why():
    with (
        pytest.raises(MissingExtraError, match=r"got a package that cannot be imported \(cannot import name 'nothing'"),
        extra("data", "nothing"),
    ):
        from math import nothing  # noqa: F401


def test_extras_named_in_the_code_exist_and_those_of_all_are_complete():
    root = Path(pliant.__file__).parents[2]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    used = {name for file in (root / "src").rglob("*.py") for name in re.findall(r'extra\("(\w+)"', file.read_text())}
    assert used == set(extras) - {"all", "docs", "parity", "test"}
    assert extras["all"] == [f"pliant[{','.join(sorted(used))}]"]
