import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.diagnostics import DIAGNOSTICS, find_diagnostic, probe_plasticity, sine_targets
from pliant.errors import UserError
from pliant.networks import cnn, mlp
from pliant.sampling import evenly
from pliant.targets import hl_gauss, two_hot, with_zero_head
from pliant.types import Batch, Network, Rule, Text, Wiring
from subjects import measure, subject

few = settings(max_examples=25, deadline=None, database=None)
ONE_CONVOLUTION = {"channels": (2,), "kernel_sizes": (3,), "strides": (1,), "pool": (1,), "widths": ()}
X = jax.random.normal(jax.random.key(1), (16, 3))


def linear(params, inputs):
    return inputs @ params


def constant(params, inputs):
    return jnp.broadcast_to(params, (len(inputs), *params.shape))


def normal(key):
    return jax.random.normal(key, (3, 2))


def probed(key, function=linear, params=None, init=normal, optimizer=None, inputs=X, **options):
    options = {"num_targets": 2, "num_steps": 10, "batch_size": 4} | options
    start = jnp.ones((3, 2)) if params is None else params
    return probe_plasticity(function, start, init, optimizer or optax.sgd(0.01), inputs, key, **options)


@jax.jit
def probed_quickly(key, params=None, learning_rate=0.01):
    """Compiled once for many tests."""
    return probed(key, params=params, optimizer=optax.sgd(learning_rate))


def of_network(network, params, state, inputs, *, batch_size=8, learning_rate=1e-2, **fields):
    rule = Rule(optax.with_extra_args_support(optax.adam(learning_rate)), batch_size)
    return subject(network, params, state, inputs, rule=rule, **fields)


SHORT = DIAGNOSTICS["probe-plasticity"].make(num_targets=2, num_steps=5)


def test_golden_targets():
    """f(x; θ') = 1e-5 x, so g = mean + sin(x), by output."""
    x = jnp.array([[0.0, 1.0], [2.0, 3.0]])
    found = sine_targets(lambda params, x: params * x, jnp.float32(2.0), jnp.float32(1e-5), x)
    wanted = np.array([[2.0, 4.0], [2.0, 4.0]]) + np.sin(np.asarray(x))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@given(st.integers(0, 2**31), st.floats(-100, 100))
@few
def test_targets_lie_within_one_of_the_mean_output(seed, scale):
    keys = jax.random.split(jax.random.key(seed))
    params = scale * normal(keys[0])
    found = sine_targets(linear, params, normal(keys[1]), X)
    offset = linear(params, X).mean(axis=0, keepdims=True)
    assert float(jnp.abs(found - offset).max()) <= 1 + 1e-4
    assert found.dtype == jnp.float32


def test_targets_are_fixed_while_copies_learn(key):
    gradient = jax.grad(lambda params: sine_targets(linear, params, normal(key), X).sum())(jnp.ones((3, 2)))
    np.testing.assert_array_equal(gradient, np.zeros((3, 2)))


def test_variance_of_a_sine_is_a_half(key):
    found = sine_targets(linear, jnp.ones((3, 2)), normal(key), jax.random.normal(key, (4096, 3)))
    np.testing.assert_allclose(found.var(axis=0), [0.5, 0.5], atol=0.03)


def test_a_constant_predictor_has_none(key):
    """A single value for all inputs can reach the variance of the targets, and nothing better."""

    def from_network(params, inputs):
        return constant(params["value"], inputs) + jax.lax.stop_gradient(inputs @ params["kernel"])

    def init(key):
        return {"value": jnp.zeros(2), "kernel": normal(key)}

    params = {"value": jnp.full(2, 3.0), "kernel": jnp.zeros((3, 2))}
    found = probed(key, from_network, params, init, optax.sgd(0.05), num_steps=400, batch_size=16)
    np.testing.assert_allclose(found.plasticity, 0.0, atol=0.02)
    assert float(found.plasticity) <= 1e-6


def test_without_a_step_size_it_is_baseline_minus_error(key):
    """Against the definition, with the targets drawn again."""
    params = 5.0 * jnp.ones((3, 2))
    found = probed_quickly(key, params, 0.0)
    keys = [jax.random.split(jax.random.fold_in(key, j))[0] for j in range(2)]
    targets = np.stack([sine_targets(linear, params, normal(of_target), X) for of_target in keys])
    errors = np.square(np.asarray(linear(params, X)) - targets).mean(axis=(1, 2))
    np.testing.assert_array_equal(found.curves, np.broadcast_to(found.curves[:, :1], found.curves.shape))
    np.testing.assert_allclose(found.final_losses, errors, rtol=1e-2)
    np.testing.assert_allclose(found.baseline, targets.var(axis=1).mean(), rtol=1e-2)
    np.testing.assert_allclose(found.plasticity, found.baseline - found.final_losses.mean(), rtol=1e-6)
    assert float(found.plasticity) < 0


def test_the_key_decides_everything(key):
    one, again, other = probed_quickly(key), probed_quickly(key), probed_quickly(jax.random.key(5))
    np.testing.assert_array_equal(one.curves, again.curves)
    assert not np.allclose(one.curves, other.curves)
    assert one.steps.tolist() == list(range(11))


def test_a_table_learns_everything(key):
    found = probed(
        key,
        params=jnp.zeros((4, 1)),
        init=lambda key: jax.random.normal(key, (4, 1)),
        optimizer=optax.sgd(0.5),
        inputs=jnp.eye(4),
        num_steps=200,
    )
    np.testing.assert_allclose(found.plasticity, found.baseline, rtol=1e-4)
    assert found.steps.tolist() == list(range(0, 201, 10))
    assert found.curves.shape == (2, 21)
    assert (found.curves[:, 0] > found.curves[:, -1]).all()
    np.testing.assert_array_equal(found.curves[:, -1], found.final_losses)


def test_nan_in_nan_out(key):
    found = probed_quickly(key, jnp.full((3, 2), jnp.nan), 0.01)
    assert np.isnan(found.plasticity)
    assert np.isnan(found.curves).all()
    assert np.isnan(probed_quickly(key, jnp.ones((3, 2)), 1e20).plasticity)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_outputs_are_refused(dtype):
    with pytest.raises(UserError, match=f"got an output of {dtype.dtype.name}; wanted float32 or wider"):
        sine_targets(linear, jnp.ones((3, 2), dtype), jnp.ones((3, 2), dtype), X.astype(dtype))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": jnp.zeros((0, 3))}, "got no inputs; wanted at least one example"),
        ({"num_targets": 0}, "got num_targets=0; wanted a finite number ≥ 1"),
        ({"num_steps": 0}, "got num_steps=0; wanted a finite number ≥ 1"),
        ({"batch_size": 0}, "got batch_size=0; wanted a finite number ≥ 1"),
    ],
)
def test_nothing_to_measure_is_refused(key, changes, message):
    with pytest.raises(UserError, match=message):
        probed(key, **changes)


def test_compiled_and_batched_is_the_same_as_a_loop(key):
    starts = jax.random.normal(key, (2, 3, 2))
    both = jax.jit(jax.vmap(lambda start: probed(key, params=start)))(starts)
    for i in range(2):
        np.testing.assert_allclose(both.curves[i], probed_quickly(key, starts[i]).curves, rtol=0.02)


def test_diagnostic_of_a_fresh_and_a_dead_network(key):
    """Whose ReLUs never fire: all inputs look the same."""
    network, diagnostic = mlp((3,), 2, widths=(32,)), DIAGNOSTICS["probe-plasticity"]
    fresh, state = network.init(key)
    before = jax.tree.map(np.array, fresh)
    of = of_network(network, fresh, state, X[:8])
    measured = jax.jit(lambda params: diagnostic.measure(of._replace(params=params)))
    dead = fresh | {"dense_0": fresh["dense_0"] | {"bias": fresh["dense_0"]["bias"] - 100.0}}
    found, wanting = (diagnostic.summarize(jax.tree.map(np.asarray, measured(params))) for params in (fresh, dead))
    assert set(found.numbers) == {"probe_plasticity", "probe_final_loss", "probe_final_loss/500"}
    assert found.arrays["curves"].shape == (10, 21)
    assert found.arrays["steps"].tolist() == list(range(0, 2001, 100))
    np.testing.assert_allclose(found.numbers["probe_final_loss"], found.arrays["curves"][:, -1].mean(), rtol=1e-6)
    np.testing.assert_allclose(found.numbers["probe_final_loss/500"], found.arrays["curves"][:, 5].mean(), rtol=1e-6)
    assert 0.3 < found.numbers["probe_plasticity"] < 0.6
    assert -0.1 < wanting.numbers["probe_plasticity"] < 0.01
    jax.tree.map(np.testing.assert_array_equal, fresh, before)


def test_diagnostic_of_images(key):
    network = cnn((8, 8, 1), 3, **ONE_CONVOLUTION)
    params, state = network.init(key)
    found = measure(SHORT, of_network(network, params, state, jax.random.normal(key, (6, 8, 8, 1))))
    assert np.isfinite(found.numbers["probe_plasticity"])
    assert found.arrays["curves"].shape == (2, 6)


def test_targets_do_not_depend_on_the_moment(key):
    """The subject's key changes from task to task."""
    network = mlp((3,), 2, widths=(8,))
    of = of_network(network, *network.init(key), X)
    curves = jax.jit(lambda key: SHORT.measure(of._replace(key=key)).now.curves)
    np.testing.assert_array_equal(curves(key), curves(jax.random.key(99)))


def test_targets_come_from_networks_with_statistics_of_their_own(key):
    """Running statistics that have moved far do not change them."""

    def apply(params, state, inputs, *, train, key):
        return inputs @ params + state["shift"], {}, state

    network = Network(lambda key: (normal(key), {"shift": jnp.zeros(())}), apply, Wiring((), {}))
    of = of_network(network, jnp.ones((3, 2)), None, X)
    measured = jax.jit(lambda shift: SHORT.measure(of._replace(state={"shift": shift})).now)
    np.testing.assert_allclose(measured(0.0).baseline, measured(0.3).baseline, rtol=1e-6)
    np.testing.assert_allclose(measured(0.0).curves, measured(0.3).curves, rtol=1e-4)


def test_seeds_can_be_batched(key):
    """New networks are drawn inside: were their QR decompositions batched, XLA:CPU would hang."""
    network = mlp((3,), 2, widths=(4,))
    params, state = jax.vmap(network.init)(jax.random.split(key, 2))
    of = of_network(network, None, state, X)
    measured = jax.jit(jax.vmap(lambda params: SHORT.measure(of._replace(params=params)).now))
    found, swapped = measured(params).curves, measured(jax.tree.map(lambda leaf: leaf[::-1], params)).curves
    np.testing.assert_allclose(found, swapped[::-1], rtol=1e-3)
    assert not np.allclose(found[0], found[1], rtol=1e-2)


def test_at_most_512_examples_are_learned(key):
    seen = []

    def apply(params, state, inputs, *, train, key):
        seen.append(len(inputs))
        return inputs @ params, {}, state

    of = of_network(Network(lambda key: (normal(key), {}), apply, Wiring((), {})), None, {}, jnp.ones((2000, 3)))
    jax.eval_shape(lambda params: DIAGNOSTICS["probe-plasticity"].measure(of._replace(params=params)), normal(key))
    assert set(seen) == {8, 512}


def test_texts_are_refused():
    tokens = jnp.zeros((2, 3), jnp.int32)
    network = mlp((3,), 2, widths=())
    of = of_network(network, {}, {}, jnp.zeros((2, 3)))._replace(probe=Batch(Text(tokens, tokens), tokens))
    with pytest.raises(UserError, match="got texts; wanted inputs that are numbers"):
        SHORT.measure(of)


def test_a_quarter_of_the_steps_is_a_run_of_so_few(key):
    """So one run tells of both budgets."""
    network = mlp((3,), 2, widths=(8,))
    of = of_network(network, *network.init(key), X)
    long, few = (measure(f"probe-plasticity:num_targets=2:num_steps={steps}", of).numbers for steps in (40, 10))
    np.testing.assert_allclose(long["probe_final_loss/10"], few["probe_final_loss"], rtol=1e-3)
    assert long["probe_final_loss/10"] != long["probe_final_loss"]
    assert set(measure("probe-plasticity:num_steps=1:num_targets=1", of).numbers) == {
        "probe_plasticity",
        "probe_final_loss",
    }


def test_options_are_those_of_the_function(key):
    """Examples, batch and number of targets, against the function called by hand."""
    network = mlp((3,), 2, widths=(8,))
    params, state = network.init(key)
    of = of_network(network, params, state, X)
    found = measure("probe-plasticity:num_targets=3:num_steps=4:num_examples=8:batch_size=5", of)
    assert found.arrays["curves"].shape == (3, 5)

    def function(params, inputs):
        return network.apply(params, state, inputs, train=False, key=key)[0]

    def init(key):
        return network.init(key)[0]

    options = {"num_targets": 3, "num_steps": 4, "batch_size": 5}
    wanted = probe_plasticity(function, params, init, of.rule.optimizer, X[evenly(16, 8)], jax.random.key(0), **options)
    np.testing.assert_allclose(found.arrays["curves"], wanted.curves, rtol=0.03)


def test_the_increase_is_over_the_network_as_it_began(key):
    """On the same examples and functions: without training there is none."""
    network = mlp((3,), 2, widths=(8,))
    initial = network.init(key)
    later = network.init(jax.random.key(9))
    names = "probe-plasticity:num_targets=2:num_steps=5", "probe-plasticity:num_targets=2:num_steps=5:initial=true"
    diagnostic = find_diagnostic(names[1])
    assert diagnostic.needs == ("rule", "initial")
    unchanged = measure(names[1], of_network(network, *initial, X, initial=initial)).numbers
    np.testing.assert_allclose(unchanged["probe_loss_increase"], 0.0, atol=1e-6)
    of = of_network(network, *later, X, initial=initial)
    found, began = measure(names[1], of), measure(names[0], of_network(network, *initial, X))
    np.testing.assert_allclose(found.numbers["probe_initial_loss"], began.numbers["probe_final_loss"], rtol=1e-2)
    np.testing.assert_allclose(found.arrays["initial_curves"], began.arrays["curves"], rtol=3e-2)
    increase = found.numbers["probe_final_loss"] - found.numbers["probe_initial_loss"]
    assert found.numbers["probe_loss_increase"] == increase != 0.0


@pytest.mark.parametrize("option", ["num_targets", "num_steps", "num_examples", "batch_size"])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(UserError, match=f"got probe-plasticity:{option}=0; wanted a finite number ≥ 1"):
        find_diagnostic(f"probe-plasticity:{option}=0")


@pytest.mark.parametrize("output", ["policy", "value"])
def test_named_outputs(output, key):
    """The copy fits that output alone; the others are free."""

    def apply(params, state, inputs, *, train, key):
        return {name: inputs @ kernel for name, kernel in params.items()}, {}, state

    def init(key):
        keys = jax.random.split(key)
        return {"policy": jax.random.normal(keys[0], (3, 2)), "value": jax.random.normal(keys[1], (3, 1))}, {}

    params, _ = init(key)
    of = of_network(Network(init, apply, Wiring((), {})), params, {}, X, output=output)
    with pytest.raises(UserError, match="got a network with the outputs policy, value; wanted the name of the one"):
        SHORT.measure(of._replace(output=None))
    found = measure(SHORT, of)
    other = "value" if output == "policy" else "policy"
    moved = of._replace(params=params | {other: params[other] + 9.0})
    np.testing.assert_allclose(measure(SHORT, moved).arrays["curves"], found.arrays["curves"], rtol=1e-3)


def test_a_head_that_begins_at_zero_has_targets_all_the_same(key):
    """With the head's own zeros they would be constant, and any network perfect."""
    network = mlp((3,), 2, widths=(8,))
    params, state = network.init(key)
    found, again = (
        measure(SHORT, of_network(each, params, state, X))
        for each in (network, with_zero_head(mlp((3,), 2, widths=(8,))))
    )
    assert abs(again.numbers["probe_plasticity"] + again.numbers["probe_final_loss"] - 0.5) < 0.2
    assert again.numbers["probe_final_loss"] != found.numbers["probe_final_loss"]


@pytest.mark.parametrize("code", [two_hot, hl_gauss])
def test_values_as_distributions_learn_by_their_cross_entropy(code, key):
    """Errors are those of the means; the offsets of the targets as well."""
    bins = code(num_bins=21, low=-4.0, high=4.0)
    network = with_zero_head(mlp((3,), 2 * 21, widths=(32,)))
    params, state = network.init(key)
    of = of_network(network, params, state, X[:8], coded=bins.coded(2))
    found = measure("probe-plasticity:num_targets=2:num_steps=400", of)
    assert 0.2 < found.numbers["probe_plasticity"] < 0.6
    start = found.arrays["curves"][:, 0]
    np.testing.assert_allclose(start, 0.5, atol=0.25)  # a constant at the mean: the variance of a sine
