import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.errors import UserError
from pliant.isometry import gram_deviation, gram_deviation_gradient
from pliant.networks import mlp
from pliant.optimizers import IsometryStepState, adamo, add_isometry_step, optimizer_info

few = settings(max_examples=40, deadline=None, database=None)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def zeros(params):
    return jax.tree.map(jnp.zeros_like, params)


def bases(num_in, num_out, seed=0):
    rng = np.random.default_rng(seed)
    small = min(num_in, num_out)
    left, _ = np.linalg.qr(rng.standard_normal((num_in, small)))
    right, _ = np.linalg.qr(rng.standard_normal((num_out, small)))
    return left, right


def with_singular_values(sigma, num_in, num_out, seed=0):
    left, right = bases(num_in, num_out, seed)
    return jnp.asarray(left @ np.diag(sigma) @ right.T, jnp.float32)


def stepped(kernel, step_size, **options):
    tx = add_isometry_step(step_size, every=1, **options)
    updates, _ = tx.update(jnp.zeros_like(kernel), tx.init(kernel), kernel)
    return kernel + updates


def test_step_golden():
    kernel = jnp.diag(jnp.array([2.0, 1.0, 0.5]))
    updates = stepped(kernel, 0.01) - kernel
    np.testing.assert_allclose(updates, np.diag([-0.24, 0.0, 0.015]), atol=1e-6)


@pytest.mark.parametrize("every", [1, 4])
def test_lockstep_with_the_published_equations(every):
    """Equations 16, 19 and 20 in float64, with gradients of a task, over 100 updates; only the kernel is isometric."""
    rng, rate, strength = np.random.default_rng(0), 1e-2, 0.5
    params = {"kernel": 1.3 * rng.standard_normal((5, 3)) / 5**0.5, "head": rng.standard_normal((3, 2))}
    tx = adamo(rate, isometry_strength=strength, isometry_every=every, mask={"kernel": True, "head": False})
    ours = jax.tree.map(jnp.float32, params)
    state = tx.init(ours)
    m, v = ({name: np.zeros_like(leaf) for name, leaf in params.items()} for _ in range(2))
    for t in range(1, 101):
        gradients = {name: rng.standard_normal(leaf.shape) for name, leaf in params.items()}
        isometry = {"kernel": params["kernel"] @ (params["kernel"].T @ params["kernel"] - np.eye(3)), "head": 0.0}
        for name, g in gradients.items():
            m[name], v[name] = 0.9 * m[name] + 0.1 * g, 0.999 * v[name] + 0.001 * g**2
            step = (m[name] / (1 - 0.9**t)) / (np.sqrt(v[name] / (1 - 0.999**t)) + 1e-8)
            moved = rate * strength * 4 * isometry[name] * (every if t % every == 0 else 0)
            params[name] = params[name] - rate * step - moved
        updates, state = tx.update(jax.tree.map(jnp.float32, gradients), state, ours)
        ours = optax.apply_updates(ours, updates)
        for name, leaf in params.items():
            np.testing.assert_allclose(ours[name], leaf, atol=1e-5)


def test_tells_how_far_the_isometry_step_went():
    tx = adamo(0.01, isometry_strength=1.0, isometry_every=2)
    state = tx.init(KERNEL)
    norms = []
    for _ in range(4):
        updates, state = tx.update(jnp.zeros((3, 3)), state, KERNEL)
        norms.append(float(optimizer_info(state)["isometry_norm"]))
        np.testing.assert_allclose(norms[-1], np.linalg.norm(updates), rtol=1e-6)
    assert [norm > 0 for norm in norms] == [False, True, False, True]


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (3, 3)])
def test_only_the_isometry_moves_without_a_gradient(shape):
    rate, strength = 1e-2, 0.1
    sigma = np.linspace(0.3, 2.0, min(shape))
    params = {"kernel": with_singular_values(sigma, *shape)}
    tx = adamo(rate, isometry_strength=strength, isometry_every=1)
    state = tx.init(params)
    left, right = bases(*shape)
    for _ in range(10):
        updates, state = tx.update(zeros(params), state, params)
        params = optax.apply_updates(params, updates)
        sigma = sigma - 4 * rate * strength * sigma * (sigma**2 - 1)
        seen = left.T @ np.asarray(params["kernel"], np.float64) @ right
        np.testing.assert_allclose(seen, np.diag(sigma), atol=3e-6)
        same((state[0].mu, state[0].nu), (zeros(params), zeros(params)))


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (4, 4), (2, 2, 3, 5)])
@pytest.mark.parametrize("rectangular", ["none", "fan"])
def test_gram_deviation_falls_at_every_step(key, shape, rectangular):
    tx = adamo(1e-2, isometry_strength=0.5, isometry_every=1, gain=1.2, rectangular=rectangular)

    def body(carry, _):
        kernel, state = carry
        updates, state = tx.update(jnp.zeros_like(kernel), state, kernel)
        return (kernel + updates, state), gram_deviation(kernel, 1.2, rectangular)

    start = jax.random.normal(key, shape) / 2
    _, values = jax.jit(lambda: jax.lax.scan(body, (start, tx.init(start)), length=60))()
    assert np.all(np.diff(values) < 0)
    assert values[-1] < values[0] / 2


def test_revives_a_column_that_gets_no_gradient():
    kernel = jnp.array([[1.0, 0.6], [0.0, 0.8]])
    moved = stepped(kernel, 1e-3)
    np.testing.assert_allclose((kernel - moved)[:, 1], [2.4e-3, 0.0], atol=2e-7)


@pytest.mark.parametrize("every", [1, 16])
def test_strength_zero_is_adam_to_the_bit(key, every):
    x = jax.random.normal(key, (32, 5))
    y = jnp.sin(x.sum(1, keepdims=True))
    start = {
        "in": jax.random.normal(key, (5, 8)),
        "bias": jnp.zeros(8),
        "out": jax.random.normal(key, (8, 1)) / 3,
    }

    def loss(params):
        hidden = jax.nn.relu(x @ params["in"] + params["bias"][None])
        return jnp.mean((hidden @ params["out"] - y) ** 2)

    @jax.jit
    def gradient(params):
        return jax.grad(loss)(params)

    def trained(tx):
        update = jax.jit(tx.update)
        params, state = start, tx.init(start)
        for _ in range(50):
            updates, state = update(gradient(params), state, params)
            params = optax.apply_updates(params, updates)
        return params, state[0]

    found = trained(adamo(1e-2, isometry_strength=0.0, isometry_every=every))
    same(found, trained(optax.adam(1e-2)))
    assert not np.array_equal(found[0]["in"], start["in"])


def test_conv_kernels_move_as_their_matrix(key):
    kernel = jax.random.normal(key, (3, 3, 2, 5)) / 3
    moved = stepped(kernel, 1e-2)
    np.testing.assert_array_equal(moved.reshape(18, 5), stepped(kernel.reshape(18, 5), 1e-2))
    assert np.abs(moved - kernel).max() > 1e-3


@pytest.mark.parametrize(("num_in", "num_out"), [(6, 3), (3, 6), (4, 4)])
def test_isometries_stay(num_in, num_out):
    kernel = with_singular_values(np.full(min(num_in, num_out), 1.5), num_in, num_out)
    np.testing.assert_allclose(stepped(kernel, 1e6, gain=1.5), kernel, atol=1e-6)


@jax.jit
def _stepped(kernel, step_size, gain):
    return stepped(kernel, step_size, gain=gain)


magnitudes = st.floats(-3.0, 3.0, width=32).map(lambda e: float(np.float32(10.0**e)))
strengths = st.one_of(st.floats(0.0, 1e6), st.floats(-8.0, 6.0).map(lambda e: 10.0**e))


@given(st.tuples(magnitudes, magnitudes, magnitudes), strengths, st.sampled_from([0.5, 1.0, 2.0**0.5]))
@settings(few, max_examples=300)
def test_no_step_overshoots(sigma, strength, gain):
    sigma = np.float32(sigma)
    moved = np.asarray(_stepped(jnp.diag(sigma), strength, gain))
    same(moved, np.diag(np.diag(moved)))
    low = np.where(sigma >= gain, gain, sigma)
    high = np.where(sigma >= gain, sigma, gain)
    assert np.all(np.diag(moved) >= low * (1 - 1e-6))
    assert np.all(np.diag(moved) <= high * (1 + 1e-6))


@given(st.tuples(magnitudes, magnitudes, magnitudes), strengths, st.booleans(), st.integers(0, 2**31))
@few
def test_no_step_overshoots_in_any_basis(sigma, strength, is_tall, seed):
    kernel = with_singular_values(sigma, *((5, 3) if is_tall else (3, 5)), seed)
    left, sigma, right = np.linalg.svd(np.asarray(kernel, np.float64), full_matrices=False)
    moved = np.diag(left.T @ np.asarray(_stepped(kernel, strength, 1.0), np.float64) @ right.T)
    atol = 3e-6 * max(sigma.max(), 1.0)
    assert np.all(moved >= np.minimum(sigma, 1.0) - atol)
    assert np.all(moved <= np.maximum(sigma, 1.0) + atol)


def test_below_the_cap_the_step_is_the_published_one():
    kernel = jnp.diag(jnp.array([2.0, 1.0, 0.5]))
    gradient, bound = gram_deviation_gradient(kernel)
    cap = 1 / (8 * float(bound))
    np.testing.assert_allclose(kernel - stepped(kernel, 0.9 * cap), 0.9 * cap * gradient, rtol=1e-6)
    np.testing.assert_allclose(kernel - stepped(kernel, 1e3 * cap), cap * gradient, rtol=1e-6)


def sizes_of_steps(tx, kernel, num_updates, steps=None):
    """How many gradients of the Gram deviation each update took, always from the same kernel."""
    gradient, _ = gram_deviation_gradient(kernel)
    state, sizes = tx.init(kernel), []
    for number in range(1, num_updates + 1):
        extra = {} if steps is None else {"step": steps[number - 1]}
        updates, state = tx.update(jnp.zeros_like(kernel), state, kernel, **extra)
        sizes.append(float(-(updates * gradient).sum() / (gradient**2).sum()))
    return sizes


KERNEL = jnp.diag(jnp.array([2.0, 1.5, 0.5]))


@pytest.mark.parametrize(("every", "wanted"), [(1, [1, 1, 1, 1, 1, 1]), (2, [0, 2, 0, 2, 0, 2]), (3, [0, 0, 3] * 2)])
def test_lazy_step_fires_at_its_period_with_that_many_times_the_size(every, wanted):
    sizes = sizes_of_steps(add_isometry_step(1e-3, every=every), KERNEL, 6)
    np.testing.assert_allclose(sizes, 1e-3 * np.array(wanted), rtol=1e-5)


def test_lazy_step_follows_a_schedule():
    sizes = sizes_of_steps(add_isometry_step(lambda count: 1e-3 * (count + 1), every=2), KERNEL, 6)
    np.testing.assert_allclose(sizes, 1e-3 * np.array([0, 4, 0, 8, 0, 12]), rtol=1e-5)


def test_adamo_follows_the_schedule_of_the_learning_rate():
    tx = adamo(lambda count: 1e-2 / (count + 1), isometry_strength=0.1, isometry_every=1)
    np.testing.assert_allclose(sizes_of_steps(tx, KERNEL, 4), 1e-3 / np.arange(1, 5), rtol=1e-5)


def test_step_argument_replaces_the_count():
    sizes = sizes_of_steps(add_isometry_step(1e-3, every=4), KERNEL, 5, steps=[8, 1, 2, 4, 6])
    np.testing.assert_allclose(sizes, 4e-3 * np.array([1, 0, 0, 1, 0]), rtol=1e-5)


def test_step_argument_keeps_a_branch_under_vmap():
    tx = adamo(1e-2, isometry_every=4)
    params = jnp.stack([KERNEL, 2 * KERNEL])
    state = jax.vmap(tx.init)(params)

    def with_step(params, state, step):
        return jax.vmap(lambda p, s: tx.update(jnp.zeros_like(p), s, p, step=step))(params, state)

    def with_count(params, state):
        return jax.vmap(lambda p, s: tx.update(jnp.zeros_like(p), s, p))(params, state)

    assert "stablehlo.case" in jax.jit(with_step).lower(params, state, jnp.int32(4)).as_text()
    assert "stablehlo.case" not in jax.jit(with_count).lower(params, state).as_text()  # the check can fail
    for step in (3, 4):
        updates, _ = jax.jit(with_step)(params, state, jnp.int32(step))
        assert np.any(np.asarray(updates) != 0, axis=(1, 2)).tolist() == [step == 4] * 2


def test_vmap_is_a_loop_over_seeds(key):
    tx = adamo(1e-2, isometry_strength=1.0, isometry_every=2)
    params, gradients = jax.random.normal(key, (2, 3, 5, 4))

    def three_steps(params, gradient):
        state = tx.init(params)
        for step in range(1, 4):
            updates, state = tx.update(gradient, state, params, step=step)
            params = params + updates
        return params

    together = jax.vmap(three_steps)(params, gradients)
    for seed in range(3):
        np.testing.assert_allclose(together[seed], three_steps(params[seed], gradients[seed]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_in", [4, 9])
def test_gram_is_float32_under_bfloat16(key, num_in):
    kernel = (jax.random.normal(key, (num_in, 6)) / 2).astype(jnp.bfloat16)
    updates = (jax.random.normal(key, kernel.shape) / 100).astype(jnp.bfloat16)
    tx = add_isometry_step(0.01, every=1)
    found, _ = tx.update(updates, tx.init(kernel), kernel)
    wanted, _ = tx.update(updates.astype(jnp.float32), tx.init(kernel), kernel.astype(jnp.float32))
    assert found.dtype == jnp.bfloat16
    same(found, wanted.astype(jnp.bfloat16))
    low = kernel if num_in >= 6 else kernel.T
    rough = 4 * low @ (low.T @ low - jnp.eye(6 if num_in >= 6 else num_in, dtype=jnp.bfloat16))
    assert not np.array_equal(found, updates - jnp.bfloat16(0.01) * (rough if num_in >= 6 else rough.T))


PARAMS = {"bias": jnp.ones(3), "head": 2 * jnp.ones((3, 2)), "kernel": KERNEL}
ONLY_KERNEL = {"bias": False, "head": False, "kernel": True}
FAST = {"isometry_strength": 0.5, "isometry_every": 1}

COMPOSITIONS = {
    "alone": adamo(1e-2, mask=ONLY_KERNEL, **FAST),
    "chain": optax.chain(optax.clip_by_global_norm(1.0), adamo(1e-2, mask=ONLY_KERNEL, **FAST)),
    "inject_hyperparams": optax.inject_hyperparams(adamo)(1e-2, mask=ONLY_KERNEL, **FAST),
    "inject_schedule": optax.inject_hyperparams(adamo)(lambda _: 1e-2, mask=ONLY_KERNEL, **FAST),
    "masked": optax.masked(adamo(1e-2, **FAST), ONLY_KERNEL),
    "partition": optax.partition(
        {"isometry": adamo(1e-2, **FAST), "adam": optax.adam(1e-2)},
        {"bias": "adam", "head": "adam", "kernel": "isometry"},
    ),
    "multi_steps": optax.MultiSteps(adamo(1e-2, mask=ONLY_KERNEL, **FAST), 2).gradient_transformation(),
}


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_composes_with_optax(name):
    tx = COMPOSITIONS[name]

    def body(carry, step):
        params, state = carry
        updates, state = tx.update(zeros(params), state, params)
        return (optax.apply_updates(params, updates), state), gram_deviation(params["kernel"])

    start = (PARAMS, tx.init(PARAMS))
    (params, _), deviations = jax.jit(lambda start: jax.lax.scan(body, start, jnp.arange(6)))(start)
    same((params["bias"], params["head"]), (PARAMS["bias"], PARAMS["head"]))
    falls = np.diff(deviations)[:4] < 0
    assert falls.tolist() == ([False, True] * 2 if name == "multi_steps" else [True] * 4)

    if name == "alone":
        eager = start
        for step in range(6):
            eager, _ = body(eager, step)
        np.testing.assert_allclose(params["kernel"], eager[0]["kernel"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["chain", "partition", "masked", "multi_steps"])
def test_step_argument_passes_through_optax(name):
    tx = {
        "chain": optax.chain(optax.clip(1.0), adamo(1e-2, isometry_every=4)),
        "partition": optax.partition({"isometry": adamo(1e-2, isometry_every=4)}, "isometry"),
        "masked": optax.masked(adamo(1e-2, isometry_every=4), True),
        "multi_steps": optax.MultiSteps(adamo(1e-2, isometry_every=4), 1).gradient_transformation(),
    }[name]
    for step in (3, 4):
        updates, _ = tx.update(jnp.zeros((3, 3)), tx.init(KERNEL), KERNEL, step=step)
        assert np.any(np.asarray(updates) != 0) == (step == 4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_carry_keeps_structure_shape_and_dtype(dtype):
    tx = adamo(1e-2, isometry_every=1)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), PARAMS)
    old = params, tx.init(params)
    updates, state = tx.update(zeros(params), old[1], params)
    new = optax.apply_updates(params, updates), state
    for first in (True, False):
        same(jax.lax.cond(first, lambda *pair: pair[0], lambda *pair: pair[1], old, new), old if first else new)
    assert isinstance(state[2], IsometryStepState)
    assert int(state[2].count) == 1


def test_traced_hyperparameters_share_a_program():
    def update(rate, strength, every, gain):
        tx = adamo(rate, isometry_strength=strength, isometry_every=every, gain=gain)
        return tx.update(jnp.zeros((3, 3)), tx.init(KERNEL), KERNEL)[0]

    compiled = jax.jit(update)
    for numbers in ((1e-2, 0.1, 1, 1.0), (1e-3, 0.5, 2, 2.0)):
        np.testing.assert_allclose(compiled(*numbers), update(*numbers), rtol=1e-6, atol=1e-9)
    assert compiled._cache_size() == 1


MASKS = {
    "pytree": (ONLY_KERNEL, {"kernel"}),
    "callable": (lambda params: jax.tree.map(lambda leaf: leaf.shape == (3, 2), params), {"head"}),
    "default": (None, {"head", "kernel"}),
}


@pytest.mark.parametrize("name", MASKS)
def test_mask_selects_what_moves(name):
    mask, wanted = MASKS[name]
    tx = add_isometry_step(1e-2, every=1, mask=mask)
    updates, _ = tx.update(zeros(PARAMS), tx.init(PARAMS), PARAMS)
    assert {leaf for leaf, update in updates.items() if np.any(np.asarray(update) != 0)} == wanted


def test_mask_from_a_wiring_leaves_the_head_out(key):
    network = mlp((4,), 3, widths=(6, 6), norm="layer")
    params, _ = network.init(key)
    tx = adamo(1e-2, isometry_every=1, gain=1.0, mask=lambda params: network.wiring.mask(params, "matrix"))
    updates, _ = tx.update(zeros(params), tx.init(params), params)
    moved = {module: {k for k, v in leaves.items() if np.any(np.asarray(v) != 0)} for module, leaves in updates.items()}
    wanted = {"dense_0": {"kernel"}, "dense_1": {"kernel"}, "head": set(), "norm_0": set(), "norm_1": set()}
    assert moved == wanted


def test_mask_that_selects_nothing_is_refused():
    with pytest.raises(UserError, match=r"got a mask that selects none of 3 .*wanted at least one.*Check the mask"):
        adamo(1e-2, mask=lambda params: jax.tree.map(lambda _: False, params)).init(PARAMS)
    with pytest.raises(UserError, match="selects none of 1 parameter leaves"):
        adamo(1e-2).init({"bias": jnp.ones(3)})


def test_mask_that_selects_a_vector_is_refused():
    tx = add_isometry_step(1e-2, every=1, mask={"bias": True, "head": False, "kernel": True})
    with pytest.raises(UserError, match=r"got a parameter of shape \(3,\); wanted a dense .*Leave biases"):
        tx.update(zeros(PARAMS), tx.init(PARAMS), PARAMS)


def test_params_are_required():
    tx = adamo(1e-2)
    wanted = r"got update\(gradients, state\); wanted update\(gradients, state, params\)\. Pass the parameters"
    with pytest.raises(UserError, match=wanted):
        tx.update(zeros(PARAMS), tx.init(PARAMS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -1.0}, r"got learning_rate=-1.0; wanted a finite number ≥ 0. Use a step size"),
        ({"isometry_strength": -0.1}, r"got isometry_strength=-0.1; wanted a finite number ≥ 0. Use 0"),
        ({"isometry_every": 0}, r"got every=0; wanted a finite number ≥ 1. Use 1"),
        ({"gain": 0.0}, r"got gain=0.0; wanted a finite number ≥ 1e-12. Use 1 for isometry"),
        ({"gain": float("nan")}, "got gain=nan"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        adamo(**{"learning_rate": 1e-3} | options)


def test_negative_step_size_is_refused():
    with pytest.raises(UserError, match=r"got step_size=-0.1; wanted a finite number ≥ 0. The penalty is descended"):
        add_isometry_step(-0.1)


def test_unknown_rectangular_is_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' type checker would be first
    with pytest.raises(UserError, match=r"got rectangular='Fan'; wanted 'none' or 'fan'\. Leave it out"):
        adamo(1e-3, rectangular="Fan")


def test_strength_zero_is_adam_in_float64():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        params, gradients = ({"kernel": jnp.asarray(rng.standard_normal((5, 4)))} for _ in range(2))
        ours, plain = adamo(1e-3, isometry_strength=0.0, isometry_every=1), optax.adam(1e-3)
        found, _ = ours.update(gradients, ours.init(params), params)
        wanted, _ = plain.update(gradients, plain.init(params), params)
        assert found["kernel"].dtype == jnp.float64
        same(found, wanted)


def drifted(params, num_steps=200, **options):
    """Where steps towards isometry alone lead."""
    tx = adamo(1e-2, isometry_strength=1.0, isometry_every=1, **options)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(zeros(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda params: jax.lax.scan(step, (params, tx.init(params)), length=num_steps)[0][0])(params)


def isometry(num_in, num_out):
    left, _, right = np.linalg.svd(np.random.default_rng(3).normal(size=(num_in, num_out)), full_matrices=False)
    return jnp.asarray(left @ right, jnp.float32)


def equinox_conv(weight):
    conv = eqx.filter(eqx.nn.Conv2d(4, 8, 3, key=jax.random.key(0)), eqx.is_array)
    return eqx.tree_at(lambda conv: conv.weight, conv, weight)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda: equinox_conv(isometry(8, 36).reshape(8, 4, 3, 3)), {}),
        (lambda: {"conv": isometry(8, 36).reshape(8, 4, 3, 3)}, {"output_axes": 0}),
        (lambda: {"query": isometry(16, 16).reshape(16, 2, 8)}, {"output_axes": {"query": (-2, -1)}}),
        (lambda: {"out": isometry(16, 16).reshape(2, 8, 16)}, {"output_axes": (-1,)}),
    ],
    ids=["equinox", "channels first", "attention", "attention's output"],
)
def test_an_isometry_stays_one_in_any_layout(make, options):
    params = make()
    after = drifted(params, **options)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), after, params)


def test_kernels_whose_outputs_are_in_doubt_are_refused_when_training_begins():
    for shape in ((16, 2, 8), (8, 4, 3, 3)):
        with pytest.raises(UserError, match=r"got the kernel 'kernel' of shape .*Pass output_axes"):
            adamo(1e-2).init({"kernel": jnp.ones(shape)})


def test_a_mask_that_does_not_fit_is_refused_when_training_begins():
    with pytest.raises(UserError, match="got a mask without an entry for 'kernel'"):
        adamo(1e-2, mask={"bias": False, "head": True}).init(PARAMS)


def test_a_prefix_moves_the_kernels_below_and_nothing_else():
    params = {"hidden": {"bias": jnp.ones(3), "kernel": 2 * jnp.eye(3)}, "head": {"kernel": jnp.ones((3, 1))}}
    after = drifted(params, 1, mask={"hidden": True, "head": False})
    moved = jax.tree.map(lambda old, new: bool((old != new).any()), params, after)
    assert moved == {"hidden": {"bias": False, "kernel": True}, "head": {"kernel": False}}


@pytest.mark.parametrize("mask", [None, {"bias": False, "head": False, "kernel": True}])
def test_inside_masks_and_partitions_the_others_stay(mask):
    inner = adamo(1e-2, isometry_strength=1.0, isometry_every=1, mask=mask)
    labels = {"bias": "still", "head": "still", "kernel": "moved"}
    parted = optax.partition({"moved": inner, "still": optax.set_to_zero()}, labels)
    for tx in (parted, optax.masked(inner, {"bias": False, "head": False, "kernel": True})):
        updates, _ = tx.update(zeros(PARAMS), tx.init(PARAMS), PARAMS)
        assert {name for name, update in updates.items() if np.any(np.asarray(update) != 0)} == {"kernel"}


def test_masks_made_of_a_flax_state_go_with_its_optimizer():
    model = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
    model.kernel[...] = 2 * jnp.eye(3)
    mask = jax.tree.map(lambda leaf: leaf.ndim == 2, nnx.state(model, nnx.Param))
    optimizer = nnx.Optimizer(model, adamo(1e-2, isometry_strength=1.0, isometry_every=1, mask=mask), wrt=nnx.Param)
    optimizer.update(model, jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param)))
    np.testing.assert_allclose(jnp.diag(model.kernel[...]), 1.76, rtol=1e-5)
    assert not model.bias[...].any()


@pytest.mark.parametrize("options", [{"isometry_every": 2.5}, {"isometry_every": jnp.float32(1.5)}])
def test_periods_are_whole_numbers(options):
    with pytest.raises(UserError, match=r"got every=(2|1)\.5; wanted a whole number ≥ 1"):
        adamo(1e-3, **options)


@pytest.mark.parametrize("rate", [jnp.array(-0.1), np.float32("nan"), jnp.ones(2)])
def test_rates_that_are_arrays_are_checked(rate, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' type checker would be first
    with pytest.raises(UserError, match=r"got learning_rate=.*; wanted a finite number ≥ 0"):
        adamo(rate)
