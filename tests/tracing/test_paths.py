import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.tracing._paths import jacobian_shape, layer_starts, segment

X = jnp.ones((2, 3))


def forked(x):
    """Two parallel layers behind a stem, joined; a copy that nothing reads."""
    stem = x[:, :2] + 1
    left, right = stem * 2, jax.nn.relu(stem)
    joined = jnp.concatenate([left, right], axis=1)
    return joined.sum(axis=1), {"stem": stem, "left": left, "right": right, "copy": right * 1, "joined": joined}


@pytest.mark.parametrize("function", [forked, jax.jit(forked)])
def test_the_nearest_earlier_layer_that_is_read(function):
    found = layer_starts(function, X, ["stem", "left", "right", "copy", "joined"])
    assert found == {"stem": None, "left": "stem", "right": "stem", "copy": "right", "joined": "copy"}
    assert layer_starts(function, X, ("left", "joined")) == {"left": None, "joined": "left"}


def test_numbers_do_not_matter():
    """A relu that is shut everywhere still reads what is before it."""

    def shut(x):
        first = -1 - x**2
        second = jax.nn.relu(first)
        return second, {"first": first, "second": second}

    assert layer_starts(shut, X, ("first", "second")) == {"first": None, "second": "first"}


def test_shapes_are_those_of_one_example():
    assert jacobian_shape(forked, X, None, None) == (1, 3)
    assert jacobian_shape(forked, X, None, "joined") == (4, 3)
    assert jacobian_shape(forked, X, "stem", "joined") == (4, 2)
    assert jacobian_shape(forked, X, "stem", None) == (1, 2)


def test_a_segment_begins_where_the_network_is():
    output, features = forked(X)
    for start, at in ((None, X), ("stem", jnp.zeros_like(features["stem"]))):
        for end, wanted in ((None, output), ("joined", features["joined"])):
            path, zero = segment(forked, X, start, end)
            np.testing.assert_array_equal(zero, at)
            np.testing.assert_array_equal(path(zero), wanted)


@pytest.mark.parametrize(
    ("inputs", "layers", "message"),
    [
        (X, (), "got no layers; wanted at least one"),
        (X[:0], ("stem",), "got an empty batch; wanted at least one example"),
        (X, ("stem", "lefd"), "got the feature 'lefd'; wanted one of copy, .*Did you mean 'left'"),
    ],
)
def test_what_cannot_be_measured_is_refused(inputs, layers, message):
    with pytest.raises(UserError, match=message):
        layer_starts(forked, inputs, layers)
