import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant import diagnostics
from pliant.diagnostics import perturbable
from pliant.errors import UserError
from pliant.networks import convolution, mlp

X = jnp.array([[1.0, -2.0], [0.5, 3.0]])


def chain(x):
    """a = 2x, b = a², c = a·b."""
    a = 2 * x
    b = a**2
    return a * b, {"a": a, "b": b}


def through(function, x, name, change):
    output, features = perturbable(function)(x, {name: change})
    return np.asarray(output), {key: np.asarray(value) for key, value in features.items()}


@pytest.mark.parametrize("function", [chain, jax.jit(chain), jax.jit(jax.jit(chain))])
def test_a_change_goes_where_the_feature_is_read(function):
    output, features = through(function, X, "a", jnp.ones_like(X))
    a = 2 * np.asarray(X) + 1
    np.testing.assert_allclose(features["a"], a)
    np.testing.assert_allclose(features["b"], a**2)
    np.testing.assert_allclose(output, a**3, rtol=1e-6)
    output, features = through(function, X, "b", jnp.ones_like(X))
    np.testing.assert_allclose(features["a"], a - 1)
    np.testing.assert_allclose(output, (a - 1) * ((a - 1) ** 2 + 1), rtol=1e-6)


def test_changes_of_several_features_add_up():
    changes = {"a": jnp.ones_like(X), "b": 3 * jnp.ones_like(X)}
    output, features = perturbable(chain)(X, changes)
    a = 2 * np.asarray(X) + 1
    np.testing.assert_allclose(features["b"], a**2 + 3)
    np.testing.assert_allclose(output, a * (a**2 + 3), rtol=1e-6)


@pytest.mark.parametrize("changes", [{}, {"a": jnp.zeros_like(X)}])
def test_without_a_change_nothing_changes(changes):
    for found, wanted in zip(jax.tree.leaves(perturbable(chain)(X, changes)), jax.tree.leaves(chain(X)), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_under_jit_vmap_and_grad():
    def total(x, change):
        return perturbable(chain)(x, {"b": change})[0].sum()

    def by_change(x, change):
        return jax.grad(total, argnums=1)(x, change)

    wanted = 2 * np.asarray(X)
    zeros = jnp.zeros_like(X)
    np.testing.assert_allclose(by_change(X, zeros), wanted)
    np.testing.assert_allclose(jax.jit(by_change)(X, zeros), wanted)
    np.testing.assert_allclose(jax.vmap(by_change)(X, zeros), wanted)
    np.testing.assert_allclose(jax.jit(jax.vmap(by_change))(X, zeros), wanted)
    by_both = jax.grad(lambda change: by_change(X, change).sum())(zeros)
    np.testing.assert_array_equal(by_both, np.zeros_like(X))
    tangent = jax.jvp(lambda change: total(X, change), (zeros,), (zeros + 1,))[1]
    np.testing.assert_allclose(tangent, wanted.sum())


def test_the_gradient_by_hand(key):
    """∂ Σ output / ∂ h_1 is the head's row sums, and one layer further down those of active units times weights."""
    network = mlp((3,), 2, widths=(5, 4))
    params, state = jax.jit(network.init)(key)
    x = jax.random.normal(key, (6, 3))

    def function(x):
        return network.apply(params, state, x, train=False, key=None)[:2]

    _, features = function(x)
    found = jax.grad(lambda changes: perturbable(function)(x, changes)[0].sum())(jax.tree.map(jnp.zeros_like, features))
    head = np.asarray(params["head"]["kernel"]).sum(axis=1)
    np.testing.assert_allclose(found["dense_1"], np.tile(head, (6, 1)), rtol=1e-6)
    active = np.asarray(features["dense_1"]) > 0
    np.testing.assert_allclose(
        found["dense_0"], (active * head) @ np.asarray(params["dense_1"]["kernel"]).T, rtol=1e-5, atol=1e-6
    )


@jax.custom_vjp
def straight_through(x):
    return jnp.round(x)


straight_through.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (5 * g,))


@pytest.mark.parametrize(("inner", "slopes"), [(jax.nn.relu, [1.0, 0.0]), (straight_through, [5.0, 5.0])])
def test_derivatives_that_functions_define_are_kept(inner, slopes):
    @jax.jit
    def function(x):
        first = x * 2
        second = inner(first)
        return 3 * second, {"first": first, "second": second}

    zeros = jnp.zeros(2)

    def total(change, name):
        return perturbable(function)(jnp.array([1.0, -1.0]), {name: change})[0].sum()

    np.testing.assert_allclose(jax.grad(total)(zeros, "second"), [3.0, 3.0])
    np.testing.assert_allclose(jax.grad(total)(zeros, "first"), 3 * np.array(slopes))


def test_our_convolution(key):
    """With more than three channels, so that it is the primitive of its own."""
    kernel = jax.random.normal(key, (3, 3, 4, 5))

    def function(x):
        first = x**2
        return convolution(first, kernel), {"first": first}

    x = jax.random.normal(key, (2, 4, 4, 4))
    found = jax.grad(lambda change: perturbable(function)(x, {"first": change})[0].sum())(jnp.zeros_like(x))
    wanted = jax.grad(lambda first: convolution(first, kernel).sum())(x**2)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_scan_inside():
    """h ← h/2 + x three times, from the feature on: its change is halved three times."""

    def function(x):
        start = 4 * x
        end, _ = jax.lax.scan(lambda h, _: (h / 2 + x, None), start, length=3)
        return end, {"start": start, "end": end}

    found = jax.jacobian(lambda change: perturbable(function)(jnp.ones(2), {"start": change})[1]["end"])(jnp.zeros(2))
    np.testing.assert_allclose(found, np.eye(2) / 8)


def test_what_a_compiled_function_hands_through_is_the_same_value():
    def function(x):
        hidden, more = jax.jit(lambda a: (a, a + 1))(2 * x)
        return hidden + more, {"hidden": hidden}

    output, _ = through(function, X, "hidden", jnp.ones_like(X))
    np.testing.assert_allclose(output, 4 * np.asarray(X) + 3)


@pytest.mark.parametrize(
    ("copy", "undo"),
    [
        (lambda h: h.reshape(-1), lambda c: c.reshape(2, 2)),
        (lambda h: h.T, lambda c: c.T),
        (jax.lax.stop_gradient, lambda c: c),
        (lambda h: jax.lax.stop_gradient(h.astype(jnp.bfloat16)).T[None], lambda c: c[0].T),
    ],
)
def test_a_copy_stands_for_what_it_is_a_copy_of(copy, undo):
    def function(x):
        hidden = 2 * x
        return 3 * hidden, {"copy": copy(hidden)}

    change = jnp.arange(4.0).reshape(copy(X).shape)
    output, features = through(function, X, "copy", change)
    moved = 2 * np.asarray(X) + np.asarray(undo(change))
    np.testing.assert_allclose(output, 3 * moved)
    np.testing.assert_allclose(undo(features["copy"]), moved)
    own = jax.jacobian(lambda change: perturbable(function)(X, {"copy": change})[1]["copy"].astype(float))(change)
    np.testing.assert_array_equal(own.reshape(4, 4), np.eye(4))


def test_layers_that_are_computed_again_for_their_gradient():
    def function(x):
        def block(h):
            inner = jnp.sin(h)
            return inner**2, inner

        out, inner = jax.checkpoint(block)(2 * x)
        return 3 * out, {"inner": inner}

    found = jax.grad(lambda change: perturbable(function)(X, {"inner": change})[0].sum())(jnp.zeros_like(X))
    np.testing.assert_allclose(found, 6 * np.sin(2 * np.asarray(X)), rtol=1e-6)


def test_nan_stays_nan():
    output, _ = through(chain, X.at[0, 0].set(jnp.nan), "b", jnp.zeros_like(X))
    assert np.isnan(output).tolist() == [[True, False], [False, False]]


def twice(x):
    hidden = 2 * x
    return hidden, {"one": hidden, "other": hidden}


@pytest.mark.parametrize("wrap", [lambda function: function, jax.jit])
@pytest.mark.parametrize(
    ("function", "names"),
    [
        (chain, ["unknown"]),
        (chain, ["a", "unknown"]),
        (lambda x: (2 * x, {"input": x}), ["input"]),
        (lambda x: (2 * x, {"constant": X}), ["constant"]),
        (twice, ["one", "other"]),
    ],
)
def test_what_is_no_value_of_its_own_is_refused(wrap, function, names):
    changes = {name: jnp.ones_like(X) for name in names}
    with pytest.raises(UserError, match=f"got perturbations of {', '.join(names)}; wanted features that are computed"):
        perturbable(wrap(function))(X, changes)


def test_one_of_two_names_of_a_value_may_be_used():
    output, features = through(twice, X, "other", jnp.ones_like(X))
    np.testing.assert_allclose(output, 2 * np.asarray(X) + 1)
    np.testing.assert_allclose(features["one"], output)


def test_the_old_name_is_refused_with_the_new_one():
    with pytest.raises(UserError, match=r"'tapped'.*pliant\.diagnostics\.perturbable"):
        diagnostics.tapped  # noqa: B018
