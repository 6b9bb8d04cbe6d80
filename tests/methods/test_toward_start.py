import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.methods import METHODS, build, defaults, find, split_static, wrapped
from pliant.networks import mlp
from pliant.training import RunConfig, make_plan
from pliant.types import Fresh, Learned, Signals

NETWORK = mlp((3,), 2, widths=(5, 4), norm="layer")
START, _ = NETWORK.init(jax.random.key(0))
NOW = jax.tree.map(lambda leaf: leaf + 0.5, START)


def parts(name, wiring=NETWORK.wiring, **values):
    method = find(name)
    return build(method, wiring, defaults(method, 0.1) | values)


def roles_moved(before, after):
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), before, after)
    found = {True: set(), False: set()}
    for path, moved in jax.tree_util.tree_leaves_with_path(changed):
        found[moved].add(NETWORK.wiring.roles[jax.tree_util.keystr(path, simple=True, separator="/")])
    return found


@pytest.mark.parametrize("name", ["l2-init", "wasserstein-init"])
def test_penalties_leave_norms_out(name):
    penalty = parts(name, strength=1.0).penalty
    state = penalty.init(START)
    gradients = jax.grad(lambda params: penalty.loss(params, state, None)[0])(NOW)
    zeros = jax.tree.map(jnp.zeros_like, NOW)
    assert roles_moved(zeros, gradients) == {True: {"matrix", "head", "bias"}, False: {"norm"}}


def test_the_decoupled_pull_leaves_norms_out():
    pull = parts("l2-init-decoupled", strength=1.0).intervention
    learned, _, _ = pull.update(jax.random.key(0), 1, Learned(NOW, {}, ()), pull.init(Learned(START, {}, ())), None)
    assert roles_moved(NOW, learned.params) == {True: {"matrix", "head", "bias"}, False: {"norm"}}


def test_the_decoupled_pull_follows_the_learning_rate():
    method = METHODS["l2-init-decoupled"]
    pull = build(method, NETWORK.wiring, defaults(method, 0.1) | {"strength": 1.0}, rate=0.5).intervention
    learned, _, _ = pull.update(jax.random.key(0), 1, Learned(NOW, {}, ()), START, None)
    head, start = learned.params["head"]["kernel"], START["head"]["kernel"]
    np.testing.assert_allclose(head - start, np.full(head.shape, 0.5 * (1 - 2 * 0.05)), rtol=1e-5)


def test_the_decoupled_pull_goes_behind_any_optimizer():
    values = defaults(find("sgd+l2-init-decoupled"), 0.1)
    assert (values["learning_rate"], values["momentum"], "l2_init_decoupled_learning_rate" in values) == (
        0.1,
        0.0,
        False,
    )


def test_infer_sizes_its_heads_by_a_static_number():
    static, traced = split_static(METHODS["infer"], defaults(METHODS["infer"]))
    assert static == {"num_heads": 10}
    assert (traced["strength"], traced["scale"]) == (0.1, 100.0)


def test_a_unit_that_is_reset_leaves_the_auxiliary_heads():
    """They read the unit as the head does: what a fresh unit says must reach neither."""
    method = find("redo+infer")
    network = wrapped(method, NETWORK, defaults(method))
    params, _ = network.init(jax.random.key(0))
    features = {"dense_0": jnp.ones((2, 5)), "dense_1": jnp.array([[0.0, 1.0, 1.0, 1.0]] * 2)}
    signals = Signals(params, features, lambda learned, key, number: features, Fresh(network.init, lambda params: ()))
    redo = parts("redo+infer", network.wiring, every=1, threshold=0.0).intervention
    learned = Learned(params, {}, ())
    learned, _, info = redo.update(jax.random.key(1), 1, learned, redo.init(learned), signals)
    assert int(info["units_reset"]) == 1
    kernel = learned.params["infer"]["kernel"]
    np.testing.assert_array_equal(kernel[0], np.zeros(10))
    np.testing.assert_array_equal(kernel[1:], params["infer"]["kernel"][1:])


@pytest.mark.parametrize("name", ["infer", "feature-init"])
def test_linear_models_are_refused(name):
    with pytest.raises(UserError, match="reads the inputs; wanted"):
        make_plan(RunConfig(methods=(name,), widths=()))
