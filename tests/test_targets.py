import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.errors import UserError
from pliant.networks import mlp
from pliant.streams import REGRESSION
from pliant.targets import hl_gauss, two_hot, with_zero_head

CODES = {"two_hot": two_hot, "hl_gauss": hl_gauss}


def test_two_hot_golden():
    bins = two_hot(num_bins=3, low=-1.0, high=1.0)
    np.testing.assert_array_equal(bins.centres, [-1.0, 0.0, 1.0])
    np.testing.assert_allclose(bins.encode(jnp.array([0.25, -1.0, 0.0])), [[0, 0.75, 0.25], [1, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize(
    ("value", "smoothing", "wanted"),
    [(1.5, 0.5, (0.15773, 0.68454, 0.15773)), (1.5, 0.75, (0.2407, 0.5186, 0.2407))],
)
def test_hl_gauss_golden(value, smoothing, wanted):
    bins = hl_gauss(num_bins=3, low=0.0, high=3.0, smoothing=smoothing)
    np.testing.assert_array_equal(bins.centres, [0.5, 1.5, 2.5])
    np.testing.assert_allclose(bins.encode(jnp.float32(value)), wanted, atol=5e-5)


def test_hl_gauss_is_biased_inwards_near_the_ends():
    bins = hl_gauss(num_bins=3, low=0.0, high=3.0)
    np.testing.assert_allclose(bins.decode(bins.encode(jnp.float32(1.9))), 1.788, atol=5e-4)
    wide = hl_gauss(num_bins=51, low=-10.0, high=10.0)
    np.testing.assert_allclose(wide.decode(wide.encode(jnp.float32(1.9))), 1.9, atol=1e-4)


def test_two_hot_is_decoded_to_the_value():
    bins = two_hot()
    values = jnp.linspace(-10.0, 10.0, 777)
    encoded = bins.encode(values)
    assert int((encoded > 0).sum(-1).max()) == 2
    np.testing.assert_allclose(bins.decode(encoded), values, atol=1e-5)


@pytest.mark.parametrize("num_bins", [2, 51])
@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_probabilities_are_finite_and_sum_to_one(code, num_bins):
    values = np.concatenate([np.linspace(-12.0, 12.0, 999), [-1e30, -1e6, 1e6, 1e30]]).astype(np.float32)
    encoded = np.asarray(code(num_bins=num_bins).encode(jnp.asarray(values)))
    assert np.all(encoded >= 0)
    np.testing.assert_allclose(encoded.sum(-1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_values_outside_count_as_the_nearer_end(code):
    bins = code()
    np.testing.assert_array_equal(bins.encode(jnp.array([-1e9, 1e9])), bins.encode(jnp.array([-10.0, 10.0])))


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_any_leading_axes_and_jit(code, key):
    bins = code(num_bins=7)
    values = jax.random.normal(key, (4, 3))
    encoded = jax.jit(bins.encode)(values)
    assert encoded.shape == (4, 3, 7)
    assert encoded.dtype == jnp.float32
    np.testing.assert_allclose(encoded[2, 1], bins.encode(values[2, 1]), atol=1e-6)
    assert bins.decode(encoded).shape == (4, 3)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.int8, jnp.uint8, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_whole_numbers_and_narrow_types_are_computed_in_float32(code, dtype):
    bins = code(num_bins=9, low=0.3, high=4.1)
    values = jnp.arange(6)
    encoded = bins.encode(values.astype(dtype))
    assert encoded.dtype == jnp.float32
    np.testing.assert_array_equal(encoded, bins.encode(values.astype(jnp.float32)))


@pytest.mark.parametrize(
    ("code", "options", "message"),
    [
        (two_hot, {"num_bins": 1}, "got num_bins=1; wanted a finite number ≥ 2. Use 51, as published"),
        (two_hot, {"low": 1.0, "high": 1.0}, "got low=1 and high=1; wanted low < high. Use −10 and 10"),
        (hl_gauss, {"low": 2.0, "high": 1.0}, "got low=2 and high=1; wanted low < high"),
        (hl_gauss, {"smoothing": 0.0}, "got smoothing=0.0; wanted a finite number ≥ 1e-06. 0.75 is usual"),
    ],
)
def test_refuses(code, options, message):
    with pytest.raises(UserError, match=message):
        code(**options)


@pytest.mark.parametrize("name", CODES)
def test_loss_is_the_cross_entropy_and_score_the_error_of_the_mean(name, key):
    """For two values at once: logits come value by value."""
    bins = CODES[name](num_bins=7, low=-3.0, high=3.0)
    new = bins(REGRESSION, 2)
    assert new.num_outputs == 14
    output = jax.random.normal(key, (5, 14))
    targets = jax.random.normal(jax.random.key(1), (5, 2))
    logits = output.reshape(5, 2, 7)
    wanted = optax.softmax_cross_entropy(logits, bins.encode(targets)).mean(-1)
    np.testing.assert_allclose(new.objective.losses(output, targets, ()), wanted, rtol=1e-5)
    values = bins.decode(jax.nn.softmax(logits))
    found = new.objective.scores(output, targets, ())
    np.testing.assert_allclose(found, REGRESSION.scores(values, targets, ()), rtol=1e-5)


@pytest.mark.parametrize("name", CODES)
def test_losses_of_narrow_outputs_are_in_float32(name):
    """Of equal logits the logarithm of the number of bins, which has three digits in bfloat16."""
    new = CODES[name](num_bins=51)(REGRESSION, 1)
    loss = new.objective.losses(jnp.zeros((1, 51), jnp.bfloat16), jnp.zeros((1, 1)), ())
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, np.log(51), rtol=1e-6)


@pytest.mark.parametrize("name", CODES)
def test_the_right_logits_score_nothing(name):
    bins = CODES[name]()
    new = bins(REGRESSION, 1)
    targets = jnp.array([[-2.5], [0.0], [3.3]])
    logits = jnp.log(bins.encode(targets)[:, 0] + 1e-30)
    np.testing.assert_allclose(new.objective.scores(logits, targets, ()), 0.0, atol=1e-6)


@pytest.mark.parametrize("name", CODES)
def test_a_diverged_network_scores_worst(name):
    output = jnp.full((1, 51), jnp.nan)
    assert float(CODES[name]()(REGRESSION, 1).objective.scores(output, jnp.zeros((1, 1)), ())[0]) == np.inf


def test_all_bins_are_equally_probable_at_the_start(key):
    network = mlp((3,), 51, widths=(4,))
    params, state = with_zero_head(network).init(key)
    assert not np.any(network.apply(params, state, jax.random.normal(key, (5, 3)), train=False)[0])
    same = network.init(key)[0]["dense_0"]
    jax.tree.map(np.testing.assert_array_equal, params["dense_0"], same)


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_outputs_are_logits_of_one_value_after_the_other(code):
    bins = code(num_bins=5, low=-2.0, high=2.0)
    coded, output = bins.coded(2), jnp.asarray(np.random.default_rng(0).normal(size=(3, 10)), jnp.float32)
    first, second = output[:, :5], output[:, 5:]
    means = [bins.decode(jax.nn.softmax(each)) for each in (first, second)]
    np.testing.assert_allclose(coded.values(output), np.stack(means, axis=1), rtol=1e-5)
    values = jnp.array([[0.5, -1.0], [0.0, 9.0], [-2.0, 1.0]])
    losses = [
        -(bins.encode(values[:, i]) * jax.nn.log_softmax(each)).sum(axis=-1) for i, each in enumerate((first, second))
    ]
    np.testing.assert_allclose(coded.losses(output, values), np.mean(losses, axis=0), rtol=1e-5)
    posed = bins(REGRESSION, 2)
    assert posed.objective.coded is not None
    np.testing.assert_allclose(posed.objective.losses(output, values, ()), coded.losses(output, values), rtol=1e-6)
