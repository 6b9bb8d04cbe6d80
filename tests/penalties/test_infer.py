import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.errors import UserError
from pliant.methods import build, defaults, find, wrapped
from pliant.networks import cnn, mlp, side_by_side, t5, with_heads
from pliant.penalties import infer, with_auxiliary_heads
from pliant.supervised import RunConfig, make_plan
from pliant.types import Forward, Fresh, Learned, Signals

PLAIN = mlp((3,), 2, widths=(5, 4))
NETWORK = with_auxiliary_heads(PLAIN, num_heads=7)
START, _ = NETWORK.init(jax.random.key(0))
X = jax.random.normal(jax.random.key(1), (6, 3))


def forward_of(network, params, x):
    def evaluate(params, inputs):
        return network.apply(params, {}, inputs, train=False, key=None)[:2]

    return Forward(x, *evaluate(params, x), jnp.float32(0.0), evaluate, lambda number: x)


def value_and_gradient(penalty, start, now, network=NETWORK, x=X):
    state = penalty.init(start)
    return jax.value_and_grad(lambda params: penalty.loss(params, state, forward_of(network, params, x))[0])(now)


def said(params):
    return np.asarray(forward_of(NETWORK, params, X).features["dense_1"] @ params["infer"]["kernel"])


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_scale_one_is_nothing_at_the_start():
    value, gradient = value_and_gradient(infer(NETWORK.wiring, scale=1.0), START, START)
    assert float(value) == 0.0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_scale_hundred_at_the_start():
    value, _ = value_and_gradient(infer(NETWORK.wiring, strength=0.1, scale=100.0), START, START)
    np.testing.assert_allclose(value, 0.1 * 99**2 * np.mean(said(START) ** 2), rtol=1e-4)


def test_away_from_the_start():
    """Averaged over heads and examples; heads and features both move."""
    now = jax.tree.map(lambda leaf: leaf + 0.1, START)
    value, gradient = value_and_gradient(infer(NETWORK.wiring, strength=0.3, scale=2.0), START, now)
    error = said(now) - 2 * said(START)
    np.testing.assert_allclose(value, 0.3 * np.mean(error**2), rtol=1e-5)
    features = np.asarray(forward_of(NETWORK, now, X).features["dense_1"])
    np.testing.assert_allclose(
        gradient["infer"]["kernel"], 0.3 * 2 / error.size * features.T @ error, rtol=1e-4, atol=1e-6
    )
    assert np.any(gradient["dense_0"]["kernel"])
    assert not np.any(gradient["head"]["kernel"])


def test_the_frozen_copies_get_no_gradient():
    penalty = infer(NETWORK.wiring)
    state, forward = penalty.init(START), forward_of(NETWORK, START, X)
    gradient = jax.grad(lambda state: penalty.loss(START, state, forward)[0])(state)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_heads_train_and_the_copies_stay():
    penalty, params = infer(NETWORK.wiring), START
    state, tx = penalty.init(START), optax.adam(1e-2)
    opt_state = tx.init(params)
    for _ in range(5):
        gradient, state = jax.grad(
            lambda params, state: penalty.loss(params, state, forward_of(NETWORK, params, X)), has_aux=True
        )(params, state)
        updates, opt_state = tx.update(gradient, opt_state)
        params = optax.apply_updates(params, updates)
    assert np.all(np.asarray(params["infer"]["kernel"]) != START["infer"]["kernel"])
    same(state, START)


def test_strength_zero_is_exactly_zero():
    value, gradient = value_and_gradient(infer(NETWORK.wiring, strength=0.0), START, START)
    assert float(value) == 0.0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


@pytest.mark.exact
def test_the_network_is_as_before():
    params, state = PLAIN.init(jax.random.key(0))
    same({name: value for name, value in START.items() if name != "infer"}, params)
    before = PLAIN.apply(params, state, X, train=False, key=None)
    after = NETWORK.apply(START, state, X, train=False, key=None)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), before, after)


def test_heads_are_drawn_from_the_key_with_variance_one_over_width():
    network = with_auxiliary_heads(mlp((2,), 2, widths=(64,)), num_heads=200)
    kernels = [network.init(jax.random.key(seed))[0]["infer"]["kernel"] for seed in (0, 1)]
    assert not np.array_equal(*kernels)
    np.testing.assert_allclose(np.std(kernels[0]), 1 / 8, rtol=0.03)


def test_wiring_knows_the_heads():
    wiring = NETWORK.wiring
    assert wiring.roles == {**PLAIN.wiring.roles, "infer/kernel": "other"}
    assert [slot.path for slot in wiring.layers[0].readers] == ["dense_1/kernel"]
    assert [slot.path for slot in wiring.layers[1].readers] == ["head/kernel", "infer/kernel"]
    assert not jax.tree.leaves(wiring.head(START)["infer"])[0]


def test_heads_behind_crelu_and_maps_read_what_the_head_reads(key):
    crelu = with_auxiliary_heads(mlp((3,), 2, widths=(4,), activation="crelu"))
    maps = with_auxiliary_heads(
        cnn((4, 4, 1), 2, channels=(3,), kernel_sizes=(3,), strides=(1,), pool=(1,), widths=()), num_heads=2
    )
    for network, x, width in ((crelu, X, 8), (maps, jax.random.normal(key, (5, 4, 4, 1)), 48)):
        params, _ = network.init(key)
        assert params["infer"]["kernel"].shape[0] == width
        value, _ = value_and_gradient(infer(network.wiring, scale=3.0), params, params, network, x)
        read = np.asarray(forward_of(network, params, x).features[network.wiring.head_reads()]).reshape(len(x), -1)
        wanted = 0.1 * 4 * np.mean((read @ params["infer"]["kernel"]) ** 2)
        np.testing.assert_allclose(value, wanted, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -1.0}, r"got strength=-1.0; wanted a finite number ≥ 0. Use 0 to switch"),
        ({"scale": -1.0}, r"got scale=-1.0; wanted a finite number ≥ 0. 100 is the authors'"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        infer(NETWORK.wiring, **options)


def test_a_network_without_the_heads_is_refused():
    with pytest.raises(UserError, match="got InFeR on a network without auxiliary heads; wanted a network made by"):
        infer(PLAIN.wiring)


def test_heads_that_cannot_be_added_are_refused():
    with pytest.raises(UserError, match="got num_heads=0; wanted a finite number ≥ 1"):
        with_auxiliary_heads(PLAIN, num_heads=0)
    with pytest.raises(UserError, match=r"whose output layer \(head/kernel\) reads the inputs; wanted an output layer"):
        with_auxiliary_heads(mlp((3,), 2, widths=(), use_bias=False))
    with pytest.raises(
        UserError, match=r"got a network whose output layer \(tied to an embedding\) reads features of 0"
    ):
        with_auxiliary_heads(t5((3, 2), 5, width=4, num_heads=1, head_width=4, mlp_width=4))


def test_parameters_that_are_no_dictionary_are_refused():
    network = mlp((2,), 3, widths=(4,))
    listed = network._replace(init=lambda key: ([jnp.zeros(1)], {}))
    with pytest.raises(UserError, match=r"whose parameters are a list; wanted a dictionary"):
        with_auxiliary_heads(listed)


def test_a_unit_that_is_reset_leaves_the_auxiliary_heads():
    """They read the unit as the head does: what a fresh unit says must reach neither."""
    method = find("redo+infer")
    network = wrapped(method, PLAIN, defaults(method))
    params, _ = network.init(jax.random.key(0))
    features = {"dense_0": jnp.ones((2, 5)), "dense_1": jnp.array([[0.0, 1.0, 1.0, 1.0]] * 2)}
    signals = Signals(params, features, lambda learned, key, number: features, Fresh(network.init, lambda params: ()))
    redo = build(method, network.wiring, defaults(method) | {"every": 1, "threshold": 0.0}).intervention
    learned = Learned(params, {}, ())
    learned, _, info = redo.update(jax.random.key(1), 1, learned, redo.init(learned), signals)
    assert int(info["units_reset"]) == 1
    kernel = learned.params["infer"]["kernel"]
    np.testing.assert_array_equal(kernel[0], np.zeros(10))
    np.testing.assert_array_equal(kernel[1:], params["infer"]["kernel"][1:])


def test_the_method_refuses_linear_models():
    with pytest.raises(UserError, match="reads the inputs; wanted"):
        make_plan(RunConfig(methods=("infer",), widths=()))


def test_every_feature_that_heads_read_gets_auxiliary_heads():
    parts = {"policy": mlp((3,), 2, widths=(5, 4)), "value": mlp((3,), 1, widths=(6,))}
    network = with_auxiliary_heads(side_by_side(parts, {"policy": "actor", "value": "critic"}), num_heads=7)
    params, state = network.init(jax.random.key(0))
    kernels = params["infer"]
    assert {name: kernel.shape for name, kernel in kernels.items()} == {"kernel_policy": (4, 7), "kernel_value": (6, 7)}
    readers = {layer.name: [slot.path for slot in layer.readers] for layer in network.wiring.layers}
    assert readers["actor/dense_1"] == ["actor/head/kernel", "infer/kernel_policy"]
    assert readers["critic/dense_0"] == ["critic/head/kernel", "infer/kernel_value"]
    assert readers["actor/dense_0"] == ["actor/dense_1/kernel"]
    penalty = infer(network.wiring, strength=0.5, scale=2.0)

    def evaluate(params, x):
        return network.apply(params, state, x, train=False)[:2]

    x = jax.random.normal(jax.random.key(1), (8, 3))
    moved = jax.tree.map(lambda leaf: leaf + 0.1, params)
    forward = Forward(x, *evaluate(moved, x), jnp.float32(0), evaluate, lambda number: x)
    value, _ = penalty.loss(moved, penalty.init(params), forward)
    start, now = evaluate(params, x)[1], forward.features
    wanted = 0.0
    for name, feature in {"kernel_policy": "actor/dense_1", "kernel_value": "critic/dense_0"}.items():
        error = now[feature] @ moved["infer"][name] - 2.0 * start[feature] @ kernels[name]
        wanted += 0.5 * np.mean(np.square(error))
    np.testing.assert_allclose(value, wanted, rtol=1e-5)


def test_heads_of_a_trunk_share_their_auxiliary_heads():
    trunk = with_auxiliary_heads(with_heads(mlp((3,), 2, widths=(5, 4)), {"policy": 2, "value": 1}), num_heads=7)
    assert trunk.init(jax.random.key(0))[0]["infer"]["kernel"].shape == (4, 7)
    readers = [slot.path for slot in trunk.wiring.layers[-1].readers]
    assert readers == ["head/kernel", "head_value/kernel", "infer/kernel"]
