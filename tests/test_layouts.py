import equinox as eqx
import jax
import numpy as np
import optax
import pytest

from pliant.errors import UserError
from pliant.layouts import find_output_axes, select_kernels
from pliant.types import Feed, HiddenLayer, Slot, Wiring


def shaped(**shapes):
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (3, 3, 8, 16), (5, 5, 1, 6), (1, 7, 64, 64), (3, 3, 3, 8, 16)])
def test_matrices_and_convolutions_end_in_their_outputs(shape):
    assert select_kernels(None, shaped(kernel=shape)) == [(-1,)]


@pytest.mark.parametrize(
    "shape", [(8, 2, 4), (3, 8, 16), (8, 4, 3, 3), (32, 3, 3, 3), (64, 3, 7, 7), (16, 16, 1, 1), (8, 4, 3, 3, 3)]
)
def test_shapes_that_leave_room_for_doubt_are_refused(shape):
    with pytest.raises(UserError, match=r"got the kernel 'kernel' of shape .* several axes .*; wanted .* output_axes="):
        select_kernels(None, shaped(kernel=shape))
    assert select_kernels({"kernel": False, "other": True}, shaped(kernel=shape, other=(2, 3))) == [None, (-1,)]


@pytest.mark.parametrize(
    ("output_axes", "wanted"),
    [
        (0, [None, (0,), (0,)]),
        ((-2, -1), [None, (-2, -1), (-2, -1)]),
        ({"conv": (0,)}, [None, (0,), (-1,)]),
        ({"conv": 0, "query": (-2, -1)}, [None, (0,), (-2, -1)]),
    ],
)
def test_nothing_is_guessed_where_axes_are_given(output_axes, wanted):
    assert select_kernels(None, shaped(bias=(8,), conv=(8, 4, 3, 3), query=(6, 2, 4)), output_axes) == wanted


def test_axes_and_paths_that_do_not_exist_are_refused():
    params = shaped(conv=(8, 4, 3, 3))
    with pytest.raises(UserError, match=r"got output_axes=\(4,\) for a kernel of shape \(8, 4, 3, 3\)"):
        select_kernels(None, params, 4)
    with pytest.raises(UserError, match=r"got the path in output_axes 'cov'; wanted one of conv. Did you mean 'conv'"):
        select_kernels(None, params, {"cov": (0,)})
    assert select_kernels(None, params | {"cov": optax.MaskedNode()}, {"cov": (0,), "conv": (0,)}) == [(0,)]


def test_equinox_modules_begin_with_their_outputs(key):
    keys = jax.random.split(key, 4)
    model = {
        "plain": np.ones((3, 3, 2, 5), np.float32),
        "theirs": (
            eqx.nn.Conv1d(3, 4, 2, key=keys[0]),
            eqx.nn.Conv2d(3, 4, 2, key=keys[1]),
            eqx.nn.Linear(3, 4, key=keys[2]),
            eqx.nn.LayerNorm((3, 4)),
        ),
    }
    params = eqx.filter(model, eqx.is_array)
    wanted = [(-1,), (0,), None, (0,), None, (0,), None, None, None]
    assert select_kernels(None, params) == wanted


def hidden(name, path, axis, reader, reader_axis):
    return HiddenLayer(
        name, 8, (Feed(Slot(path, axis), jax.nn.initializers.ones),), (Slot(reader, reader_axis),), "relu", True
    )


def test_a_wiring_tells_by_its_field_and_by_the_axes_of_its_units():
    params = shaped(
        bias=(8, 1, 1), conv_0=(8, 3, 2, 2), conv_1=(4, 8, 2, 2), head=(2, 4), query=(8, 2, 4), small=(3, 3, 2, 2)
    )
    roles = dict.fromkeys(params, "matrix") | {"bias": "bias"}
    layers = (hidden("one", "conv_0", 0, "conv_1", 1), hidden("two", "conv_2", -1, "head", 1))
    wiring = Wiring(layers, roles, output_axes={"query": (-2, -1)})
    found = dict(zip(params, find_output_axes(wiring, params, [True] * len(params)), strict=True))
    assert found == {
        "bias": (),
        "conv_0": (0,),
        "conv_1": (0,),
        "head": (0,),
        "query": (-2, -1),
        "small": (-1,),  # what a wiring says nothing of is (…, in, out)
    }


def test_three_axes_that_a_wiring_says_nothing_of_are_refused():
    wiring = Wiring((), {"query": "matrix"})
    with pytest.raises(UserError, match=r"got the kernel 'query' of shape \(8, 2, 4\).* set the output_axes of"):
        select_kernels(None, shaped(query=(8, 2, 4)), wiring)
