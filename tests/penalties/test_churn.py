import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.networks import mlp
from pliant.penalties import churn
from pliant.types import Forward
from strict_types import unchecked

REFERENCE = jnp.array([[1.0], [2.0]])


def linear(params, inputs):
    return inputs * params[None], {}


def forward(loss=3.0, evaluate=linear, inputs=REFERENCE):
    return Forward(inputs, inputs, {}, jnp.float32(loss), evaluate, lambda num_examples: inputs)


def run(penalty, path, losses=None, **options):
    """The values of the penalty along a path of parameters."""
    state, values = penalty.init(path[0]), []
    for i, params in enumerate(path):
        value, state = penalty.loss(params, state, forward(losses[i] if losses else 3.0, **options))
        values.append(float(value))
    return values, state


def path(*numbers):
    return [jnp.array([float(number)]) for number in numbers]


def test_golden():
    """By hand: D = mean((x Δ)²) = 2.5 Δ² on x = 1, 2; the first D is its own mean, so the term is λ times the loss."""
    values, state = run(churn(0.01, decay=0.5), path(1.0, 1.5, 1.6), losses=[7.0, 3.0, -2.0])
    mean_loss = (0.25 * 3.0 + 0.5 * 2.0) / 0.75
    mean_churn = (0.25 * 2.5 * 0.25 + 0.5 * 2.5 * 0.01) / 0.75
    np.testing.assert_allclose(values, [0.0, 0.03, 0.01 * mean_loss / mean_churn * 2.5 * 0.01], rtol=1e-4)
    assert int(state.updates) == 3


def test_the_term_is_a_hundredth_of_the_loss_whatever_the_size_of_the_churn(key):
    for scale in (1e-2, 1.0, 1e2):
        steps = scale * np.asarray(jax.random.normal(key, (300,)))
        values, _ = run(churn(0.01, decay=0.9), path(*np.cumsum(steps)), losses=[5.0] * 300)
        np.testing.assert_allclose(np.mean(values[50:]), 0.05, rtol=0.15)


@pytest.mark.parametrize("lag", [1, 2, 3])
def test_it_compares_with_the_parameters_of_that_many_updates_ago(lag):
    seen = []

    def evaluate(params, inputs):
        seen.append(float(params[0]))
        return linear(params, inputs)

    values, state = run(churn(0.01, lag=lag), path(1.0, 2.0, 4.0, 8.0, 16.0), evaluate=evaluate)
    assert [value == 0 for value in values] == [i < lag for i in range(5)]
    assert seen[8:] == [{1: 8.0, 2: 4.0, 3: 2.0}[lag], 16.0]
    assert len(state.past) == lag
    assert float(state.past[-1][0]) == 16.0


def test_gradient_flows_through_the_present_outputs_only():
    penalty = churn(0.01)
    _, state = penalty.loss(jnp.array([1.0]), penalty.init(jnp.array([1.0])), forward())

    def value(params):
        found, after = penalty.loss(params, state, forward())
        return found, after

    gradient, after = jax.grad(value, has_aux=True)(jnp.array([1.5]))
    coefficient = 0.01 * 3.0 / (2.5 * 0.25)
    np.testing.assert_allclose(gradient, coefficient * 2.5 * 2 * 0.5, rtol=1e-5)
    np.testing.assert_allclose(after.churn, 0.01 * 2.5 * 0.25, rtol=1e-5)


@pytest.mark.parametrize("strength", [0.0, 0.01])
def test_nothing_before_there_is_a_past(strength):
    penalty = churn(strength, distance="kl")
    params = jnp.array([1.0, -1.0])

    def evaluate(params, inputs):
        return inputs @ params[None], {}

    state = penalty.init(params)
    gradient, state = jax.grad(lambda p: penalty.loss(p, state, forward(evaluate=evaluate)), has_aux=True)(params)
    assert not np.any(gradient)
    assert float(state.churn) == 0.0


def test_strength_zero_is_exactly_zero():
    penalty = churn(0.0)
    _, state = penalty.loss(jnp.array([1.0]), penalty.init(jnp.array([1.0])), forward())
    value, gradient = jax.value_and_grad(lambda p: penalty.loss(p, state, forward())[0])(jnp.array([1.5]))
    assert float(value) == 0.0
    assert not np.any(gradient)


def test_kl_of_the_earlier_from_the_present_softmax():
    def evaluate(params, inputs):
        return jnp.broadcast_to(params[None], (2, 3)), {}

    start, now = jnp.log(jnp.array([0.5, 0.25, 0.25])), jnp.log(jnp.array([0.25, 0.5, 0.25]))
    penalty = churn(1.0, decay=0.0, distance="kl")
    _, state = penalty.loss(start, penalty.init(start), forward(evaluate=evaluate))
    _, state = penalty.loss(now, state, forward(evaluate=evaluate))
    np.testing.assert_allclose(state.churn, 0.25 * np.log(2.0), rtol=1e-5)
    value, _ = penalty.loss(now + 5.0, state, forward(evaluate=evaluate))  # a softmax knows no constants
    np.testing.assert_allclose(value, 0.0, atol=1e-4)


def test_it_asks_for_other_examples_than_the_batch(key):
    asked = []

    def sample(num_examples):
        asked.append(num_examples)
        return REFERENCE

    penalty = churn(0.01, num_examples=17)
    penalty.loss(jnp.array([1.0]), penalty.init(jnp.array([1.0])), forward()._replace(sample=sample))
    assert asked == [17]


def test_descending_it_lowers_the_churn(key):
    """The next update moves outputs elsewhere less than without the term."""
    network = mlp((4,), 2, widths=(16,))
    start, state = network.init(key)
    x = jax.random.normal(key, (32, 4))

    def evaluate(params, inputs):
        return network.apply(params, state, inputs, train=False, key=None)[:2]

    def loss(params):
        return jnp.square(evaluate(params, x[:8])[0] - 1.0).mean()

    def moved(params, rate):
        return jax.tree.map(lambda leaf, g: leaf - rate * g, params, jax.grad(loss)(params))

    penalty = churn(1.0)
    seen = Forward(x[:8], x, {}, loss(start), evaluate, lambda num_examples: x[8:])
    _, after = penalty.loss(start, penalty.init(start), seen)
    second = moved(start, 0.1)
    gradient = jax.grad(lambda params: penalty.loss(params, after, seen)[0])(second)
    third = jax.tree.map(lambda leaf, g: leaf - 0.01 * g, second, gradient)

    def churned(params):
        return float(jnp.square(evaluate(params, x[8:])[0] - evaluate(start, x[8:])[0]).mean())

    assert churned(third) < churned(second)


def test_bfloat16_parameters_keep_their_type():
    params = jnp.ones(1, jnp.bfloat16)
    penalty = churn(0.01)
    value, state = penalty.loss(params, penalty.init(params), forward(inputs=REFERENCE.astype(jnp.bfloat16)))
    assert value.dtype == jnp.float32
    assert state.past[0].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -1.0}, "got strength=-1.0; wanted a finite number ≥ 0. Use 0 to switch"),
        ({"decay": 1.0}, r"got decay=1.0; wanted a number in \[0, 0.999999\]. 0.99 is usual"),
        ({"lag": 0}, "got lag=0; wanted a finite number ≥ 1. Use 1, as published"),
        ({"num_examples": 0}, "got num_examples=0; wanted a finite number ≥ 1. Use the size of the batch"),
        ({"distance": "l1"}, "got distance='l1'; wanted 'squared' or 'kl'. Leave it out for 'squared'"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        unchecked(churn)(**options)


def test_outputs_are_needed_and_kl_wants_several():
    params = jnp.array([1.0])
    with pytest.raises(UserError, match="got no Forward; wanted the forward pass of the batch"):
        churn().loss(params, churn().init(params), None)
    with pytest.raises(UserError, match=r"got distance='kl' between outputs of size 1.*; wanted logits of several"):
        churn(distance="kl").loss(params, churn().init(params), forward())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_batch_stays_out_of_the_means(bad):
    """By hand as the golden case, with an update between whose loss is not finite."""
    wanted, _ = run(churn(0.01, decay=0.5), path(1.0, 1.5, 1.6), losses=[7.0, 3.0, -2.0])
    found, state = run(churn(0.01, decay=0.5), path(1.0, 1.5, 1.5, 1.6), losses=[7.0, 3.0, bad, -2.0])
    np.testing.assert_allclose([found[0], found[1], found[3]], wanted, rtol=1e-5)
    assert np.isfinite([state.loss, state.churn]).all()
