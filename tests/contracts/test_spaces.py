"""What `pliant tune` tunes of every method: options that it has, legal values, and none that switches it off."""

import math

import pytest

from pliant.errors import UserError
from pliant.methods import METHODS, build, defaults, find, search_space, split_static, wrapped
from pliant.networks import mlp
from pliant.settings import cast
from pliant.tuning import border_of, value_at
from pliant.types import Choice, LogUniform, Method, Uniform

ONLY_THE_RATE = {
    # Changes to the network, or another loss, without a number to choose.
    *("adam", "layernorm", "spectral-norm-layer", "weight-norm", "maxmin", "crelu", "fourier", "leaky", "smooth-leaky"),
    *("rational", "aid", "residual", "mixture-of-experts", "two-hot", "hl-gauss", "adam-per-weight"),
    # At every switch, or once: other periods are off in short runs.
    *("full-reset", "head-reset", "optimizer-reset", "plasticity-injection"),
}
BEYOND = {
    # Defaults that lie outside of what is tuned, and why: none.
}


def ends(of):
    """The values at both ends of a range, and all of a choice."""
    return list(of.values) if isinstance(of, Choice) else [value_at(of, 0.0), value_at(of, 1.0)]


@pytest.mark.parametrize("name", METHODS)
def test_the_space_of_a_method(name):
    method = METHODS[name]
    space, values = search_space(method), defaults(method)
    assert (set(space) == {"learning_rate"}) == (name in ONLY_THE_RATE)
    for option, of in space.items():
        default = values[option]
        if isinstance(of, LogUniform | Uniform):
            assert of.low < of.high
            assert not isinstance(of, LogUniform) or of.low > 0
            assert (option in BEYOND.get(name, ())) != (of.low <= default <= of.high), option
            assert isinstance(default, int) == (isinstance(of, LogUniform) and of.is_whole), option
        else:
            assert default in of.values, option
            assert len(set(of.values)) == len(of.values) > 1
            assert isinstance(of.values[0], str | bool) or list(of.values) == sorted(of.values)
        for value in ends(of):
            assert type(value) is type(default), f"{option} is {type(default).__name__}"
            assert cast(option, str(value), default) == value, "the command line reads what it writes"


@pytest.mark.parametrize("name", METHODS)
def test_all_values_are_legal(name):
    """A wrong one is refused where the method is made; two methods have other networks, but no numbers of their own."""
    method = METHODS[name]
    network = mlp((4, 4, 1), 3, widths=(8, 8, 8), **{"use_bias": False, **method.network})
    for option, of in search_space(method).items():
        for value in ends(of):
            own = defaults(method) | {option: value}
            static, _ = split_static(method, own)
            build(method, wrapped(method, network, static).wiring, own)


def test_an_illegal_value_would_be_found():
    method = METHODS["weight-clipping"]
    with pytest.raises(UserError, match=r"got kappa=-1\.0"):
        build(method, mlp((4,), 3, widths=(8,)).wiring, defaults(method) | {"kappa": -1.0})


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.off])
def test_no_value_switches_the_mechanism_off(name):
    """Otherwise a part of its trials would be trials of another method."""
    method = METHODS[name]
    reach_off = {
        option
        for option, off in method.off.items()
        if (of := search_space(method).get(option)) and min(ends(of)) <= off <= max(ends(of))
    }
    assert not reach_off


def test_combinations_have_the_spaces_of_their_members():
    space = search_space(find("redo+l2+l2-init"))
    assert space["l2_strength"] == METHODS["l2"].space["strength"]
    assert space["l2_init_strength"] == METHODS["l2-init"].space["strength"]
    assert space["threshold"] == METHODS["redo"].space["threshold"]
    assert search_space(find("upgd+l2"))["learning_rate"] == METHODS["upgd"].space["learning_rate"]


def test_a_space_of_something_that_a_method_does_not_have_is_refused():
    mine = METHODS["redo"]._replace(space={"treshold": Uniform(0.0, 1.0)})
    with pytest.raises(UserError, match=r"hyperparameter of 'redo' in its space 'treshold'.*Did you mean 'threshold'"):
        search_space(mine)


def test_a_method_of_ones_own_has_its_learning_rate():
    mine = Method("mine", "", "")
    assert search_space(mine) == {"learning_rate": LogUniform(1e-4, 1e-2)}
    assert border_of(search_space(mine)["learning_rate"], 1e-3) == ""
    assert math.isclose(value_at(search_space(mine)["learning_rate"], 0.5), 1e-3)
