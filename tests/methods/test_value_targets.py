import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.errors import UserError
from pliant.methods import METHODS, defaults, retarget, wrapped
from pliant.networks import mlp
from pliant.streams import REGRESSION, load_dataset, random_labels, random_seq2seq, slowly_changing_regression
from pliant.targets import hl_gauss, two_hot

NAMES = ["two-hot", "hl-gauss"]


def posed(name, stream, **settings):
    return retarget(METHODS[name], stream, defaults(METHODS[name]) | settings)


@pytest.fixture(scope="module")
def stream():
    return slowly_changing_regression(num_examples=40)


@pytest.mark.parametrize("name", NAMES)
def test_only_outputs_and_objective_change(stream, name):
    new = posed(name, stream, num_bins=11)
    assert new.num_outputs == 11
    assert new.objective.score == "squared_error"
    assert new._replace(num_outputs=stream.num_outputs, objective=stream.objective) == stream


@pytest.mark.parametrize(("name", "code"), [("two-hot", two_hot), ("hl-gauss", hl_gauss)])
def test_loss_is_the_cross_entropy_and_score_the_error_of_the_mean(stream, name, code, key):
    """For two values at once: logits come value by value."""
    double = stream._replace(num_outputs=2)
    new, bins = posed(name, double, num_bins=7, low=-3.0, high=3.0), code(num_bins=7, low=-3.0, high=3.0)
    assert new.num_outputs == 14
    output = jax.random.normal(key, (5, 14))
    targets = jax.random.normal(jax.random.key(1), (5, 2))
    logits = output.reshape(5, 2, 7)
    wanted = optax.softmax_cross_entropy(logits, bins.encode(targets)).mean(-1)
    np.testing.assert_allclose(new.objective.losses(output, targets, ()), wanted, rtol=1e-5)
    values = bins.decode(jax.nn.softmax(logits))
    found = new.objective.scores(output, targets, ())
    np.testing.assert_allclose(found, REGRESSION.scores(values, targets, ()), rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_losses_of_narrow_outputs_are_in_float32(stream, name):
    """Of equal logits the logarithm of the number of bins, which has three digits in bfloat16."""
    new = posed(name, stream, num_bins=51)
    loss = new.objective.losses(jnp.zeros((1, 51), jnp.bfloat16), jnp.zeros((1, 1)), ())
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, np.log(51), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_right_logits_score_nothing(stream, name):
    new = posed(name, stream)
    bins = two_hot() if name == "two-hot" else hl_gauss()
    targets = jnp.array([[-2.5], [0.0], [3.3]])
    logits = jnp.log(bins.encode(targets)[:, 0] + 1e-30)
    np.testing.assert_allclose(new.objective.scores(logits, targets, ()), 0.0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_diverged_network_scores_worst(stream, name):
    output = jnp.full((1, 51), jnp.nan)
    assert float(posed(name, stream).objective.scores(output, jnp.zeros((1, 1)), ())[0]) == np.inf


@pytest.mark.parametrize("name", NAMES)
def test_streams_without_values_are_refused(name):
    for other, score in ((random_labels(load_dataset("digits")), "accuracy"), (random_seq2seq(), "token_accuracy")):
        message = (
            f"got the method '{name}' on '{other.name}', which is scored by its {score}; wanted a stream of values"
        )
        with pytest.raises(UserError, match=message):
            posed(name, other)


@pytest.mark.parametrize("name", ["two-hot", "hl-gauss"])
def test_all_bins_are_equally_probable_at_the_start(name, key):
    network = mlp((3,), 51, widths=(4,))
    params, state = wrapped(METHODS[name], network, {}).init(key)
    assert not np.any(network.apply(params, state, jax.random.normal(key, (5, 3)), train=False)[0])
    same = network.init(key)[0]["dense_0"]
    jax.tree.map(np.testing.assert_array_equal, params["dense_0"], same)


def test_the_old_name_of_retarget_is_refused_with_the_new_one():
    with pytest.raises(UserError, match=r"got pliant\.methods\.reshape; wanted pliant\.methods\.retarget"):
        exec("from pliant.methods import reshape")  # as a user's file would
