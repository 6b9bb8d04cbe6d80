import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.streams import CLASSIFICATION, REGRESSION, TEXT, is_correct, masked_classification
from pliant.streams._objectives import mean_over_tokens, smoothed

LOGITS = 3 * jax.random.normal(jax.random.key(0), (4, 5))
TARGETS = jnp.array([0, 4, 2, 2])
TEXTS = jnp.array([[3, 2, 1, 0], [4, 1, 0, 0]])  # three and two tokens, then padding
TEXT_LOGITS = 3 * jax.random.normal(jax.random.key(1), (2, 4, 5))
SEEN = jnp.array([True, False, True, False, True])
MASKED = masked_classification(lambda task: task)
NOT_FINITE = [np.nan, np.inf, -np.inf]


def _log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def _cross_entropies(logits, targets):
    return -np.take_along_axis(_log_softmax(logits), np.asarray(targets)[..., None], axis=-1)[..., 0]


def test_classification_by_hand():
    losses = CLASSIFICATION.losses(LOGITS, TARGETS, None)
    np.testing.assert_allclose(losses, _cross_entropies(LOGITS, TARGETS), rtol=1e-5)
    right = jax.nn.one_hot(jnp.array([3]), 5)
    assert CLASSIFICATION.scores(right, jnp.array([3]), None).tolist() == [1.0]
    assert CLASSIFICATION.scores(right, jnp.array([2]), None).tolist() == [0.0]


def test_regression_by_hand():
    output, targets = jnp.array([[1.0, 2.0], [0.0, 0.0]]), jnp.array([[0.0, 4.0], [0.0, 1.0]])
    assert REGRESSION.losses(output, targets, None).tolist() == [2.5, 0.5]
    assert REGRESSION.scores(output, targets, None).tolist() == [2.5, 0.5]


def test_text_by_hand():
    """Means over the tokens of each text: a short one counts as much as a long one, and padding not at all."""
    each = _cross_entropies(TEXT_LOGITS, TEXTS)
    expected = [each[0, :3].mean(), each[1, :2].mean()]
    np.testing.assert_allclose(TEXT.losses(TEXT_LOGITS, TEXTS, None), expected, rtol=1e-5)
    half = jax.nn.one_hot(jnp.array([[3, 2, 4, 4], [4, 4, 4, 4]]), 5)
    np.testing.assert_allclose(TEXT.scores(half, TEXTS, None), [2 / 3, 1 / 2], rtol=1e-6)


def test_padding_has_no_gradient():
    gradient = jax.grad(lambda logits: TEXT.losses(logits, TEXTS, None).sum())(TEXT_LOGITS)
    is_padding = np.asarray(TEXTS) == 0
    assert (np.asarray(gradient)[is_padding] == 0).all()
    assert (np.asarray(gradient)[~is_padding] != 0).all()


def test_a_text_without_tokens_counts_as_zero():
    assert mean_over_tokens(jnp.ones((1, 3)), jnp.zeros((1, 3), jnp.int32)).tolist() == [0.0]


@pytest.mark.parametrize("wrong", NOT_FINITE)
@pytest.mark.parametrize("place", [0, 3])
def test_outputs_that_are_not_finite_are_never_right(wrong, place):
    """Neither where the largest output is the target's, nor where NaN would be called the largest."""
    output = jnp.full((1, 5), -1.0).at[0, 3].set(1.0).at[0, place].set(wrong)
    for target in range(5):
        targets = jnp.array([target])
        assert not is_correct(output, targets).any()
        assert CLASSIFICATION.scores(output, targets, None).tolist() == [0.0]
        assert MASKED.scores(output, targets, SEEN).tolist() == [0.0]
        assert TEXT.scores(output[:, None], targets[:, None], None).tolist() == [0.0]


@pytest.mark.parametrize("wrong", NOT_FINITE)
def test_a_masked_output_that_is_not_finite_is_divergence_too(wrong):
    output = jnp.full((1, 5), -1.0).at[0, 2].set(1.0).at[0, 1].set(wrong)
    assert not SEEN[1]
    assert MASKED.scores(output, jnp.array([2]), SEEN).tolist() == [0.0]


@pytest.mark.parametrize("wrong", NOT_FINITE)
def test_errors_of_values_that_are_not_finite_are_infinite(wrong):
    assert REGRESSION.scores(jnp.array([[wrong, 0.0]]), jnp.zeros((1, 2)), None).tolist() == [np.inf]


def test_masked_logits_have_a_gradient_of_exactly_zero():
    gradient = np.asarray(jax.grad(lambda logits: MASKED.losses(logits, TARGETS, SEEN).sum())(LOGITS))
    assert (gradient[:, ~np.asarray(SEEN)] == 0).all()
    assert (gradient[:, np.asarray(SEEN)] != 0).all()


def test_masked_classification_is_classification_among_the_allowed():
    places = np.array([0, 2, 1, 1])  # of the targets among the three that are allowed
    losses = MASKED.losses(LOGITS, TARGETS, SEEN)
    np.testing.assert_allclose(MASKED.losses(LOGITS - 1e3, TARGETS, SEEN), losses, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(losses, _cross_entropies(LOGITS[:, np.asarray(SEEN)], places), rtol=1e-5, atol=1e-6)
    loud = jnp.full((1, 5), 0.0).at[0, 1].set(9.0).at[0, 4].set(1.0)  # class 1 is not allowed
    assert MASKED.scores(loud, jnp.array([4]), SEEN).tolist() == [1.0]
    assert MASKED.scores(loud, jnp.array([1]), SEEN).tolist() == [0.0]


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("logits", "targets"), [(LOGITS, TARGETS), (TEXT_LOGITS, TEXTS)])
def test_smoothed_cross_entropy_by_hand(weight, logits, targets):
    soft = (1 - weight) * np.eye(5)[np.asarray(targets)] + weight / 5
    expected = -(soft * _log_softmax(logits)).sum(axis=-1)
    np.testing.assert_allclose(smoothed(logits, targets, weight), expected, rtol=1e-5)


def test_scores_have_names():
    scores = [each.score for each in (CLASSIFICATION, REGRESSION, TEXT, MASKED)]
    assert scores == ["accuracy", "squared_error", "token_accuracy", "accuracy"]


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_losses_of_narrow_outputs_are_in_float32(dtype):
    """A squared error of 90,000 is beyond float16; a cross-entropy of 6.9 has two digits after the point in neither."""
    far = REGRESSION.losses(jnp.full((1, 2), 300.0, dtype), jnp.zeros((1, 2)), None)
    assert (far.dtype, far.tolist()) == (jnp.float32, [90000.0])
    many, target, targets = jnp.zeros((1, 1000), dtype), jnp.array([3]), jnp.array([[3]])
    found = [
        CLASSIFICATION.losses(many, target, None),
        masked_classification(lambda task: jnp.ones(1000, bool)).losses(many, target, None),
        TEXT.losses(many[None], targets, None),
        smoothed(many, target, 0.1),
    ]
    assert {loss.dtype for loss in found} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(np.stack(found), np.log(1000) * np.ones((4, 1)), rtol=1e-6)
