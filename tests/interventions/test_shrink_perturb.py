import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.interventions import shrink_perturb
from pliant.networks import mlp
from pliant.types import Fresh, Learned, Signals
from strict_types import unchecked

NETWORK = mlp((3,), 2, widths=(8, 8), norm="layer")
FRESH = Fresh(NETWORK.init, lambda params: ())
SIGNALS = Signals(gradients={}, features={}, probe=lambda learned, key, number: {}, fresh=FRESH)
GENTLE = {"shrink": 0.9, "perturb": 0.01}
MODES = {"fresh-init": {}, "to-init": {"shrink": 0.4, "perturb": 0.6}, "per-step-fresh": GENTLE, "gaussian": GENTLE}


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def _learned(seed=0, by=1.0):
    params, state = NETWORK.init(jax.random.key(seed))
    return Learned(jax.tree.map(lambda leaf: leaf + by, params), state, {"mu": jnp.ones(2)})


def _act(method, learned, key=7, start=None):
    """Whatever the method does when it acts."""
    state = method.init(start or learned)
    if method.switch:
        return method.switch(jax.random.key(key), 1, learned, state, FRESH)
    return method.update(jax.random.key(key), 3, learned, state, SIGNALS)


def test_golden():
    """θ ← 0.4 θ + 0.1 ξ with ξ a new draw."""
    learned = _learned()
    after, state, info = _act(shrink_perturb(), learned)
    others, _ = NETWORK.init(jax.random.key(7))
    wanted = jax.tree.map(lambda old, other: 0.4 * old + 0.1 * other, learned.params, others)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), after.params, wanted)
    assert state == ()
    same(after.optimizer, learned.optimizer)
    moved = [np.sum((a - b) ** 2) for a, b in zip(*map(jax.tree.leaves, (after.params, learned.params)), strict=True)]
    np.testing.assert_allclose(info["norm_moved"], np.sqrt(np.sum(moved)), rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_one_and_zero_is_a_bitwise_no_op(mode):
    learned = _learned()
    after, _, info = _act(shrink_perturb(mode=mode, shrink=1.0, perturb=0.0), learned)
    same(after, learned)
    assert float(info["norm_moved"]) == 0.0


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "to-init"])
def test_without_noise_weights_shrink(mode):
    learned = _learned()
    after, _, _ = _act(shrink_perturb(mode=mode, shrink=0.95, perturb=0.0), learned)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 0.95 * b, rtol=1e-6), after.params, learned.params)


def test_back_to_the_start():
    """ "to-init" with c = 1 is θ₀, as saved at the start, not the parameters of the first call."""
    start, learned = _learned(0, by=0.0), _learned(1)
    after, state, _ = _act(shrink_perturb(mode="to-init", shrink=0.0, perturb=1.0), learned, start=start)
    same(after.params, start.params)
    same(state, start.params)
    part = _act(shrink_perturb(mode="to-init", shrink=0.2, perturb=0.8), learned, start=start)[0]
    wanted = 0.2 * learned.params["head"]["kernel"] + 0.8 * start.params["head"]["kernel"]
    np.testing.assert_allclose(part.params["head"]["kernel"], wanted, rtol=1e-5)


@pytest.mark.parametrize("mode", ["fresh-init", "per-step-fresh"])
def test_fresh_noise_has_the_variance_of_the_start(mode):
    """Orthogonal kernels of gain √2: mean square 2/8 for 8 × 8."""
    zero = _learned()._replace(params=jax.tree.map(jnp.zeros_like, _learned().params))
    after, _, _ = _act(shrink_perturb(mode=mode, shrink=0.95, perturb=0.05), zero)
    found = np.mean(np.square(after.params["dense_1"]["kernel"] / 0.05))
    np.testing.assert_allclose(found, 2 / 8, rtol=1e-5)
    assert not np.any(after.params["dense_1"]["bias"])


def test_gaussian_noise_has_variance_one_in_every_leaf():
    big = Learned({"a": jnp.zeros((64, 64)), "b": jnp.zeros((64, 64))}, {}, ())
    params = _act(shrink_perturb(mode="gaussian", shrink=1.0, perturb=0.05), big)[0].params
    for leaf in params.values():
        np.testing.assert_allclose(np.std(leaf / 0.05), 1.0, rtol=0.05)
    assert np.all(np.asarray(params["a"] != params["b"]))


@pytest.mark.parametrize("mode", ["fresh-init", "per-step-fresh", "gaussian"])
def test_the_key_decides_the_noise(mode):
    method = shrink_perturb(mode=mode, **MODES[mode])
    a, b, c = (_act(method, _learned(), key)[0].params["head"]["kernel"] for key in (1, 2, 1))
    same(a, c)
    assert np.all(np.asarray(a != b))


def test_a_mask_leaves_norms_alone():
    """γ would go from 1 to 0.5."""
    learned = _learned(by=0.0)
    mask = lambda params: NETWORK.wiring.mask(params, "matrix", "head", "bias")  # noqa: E731
    for method, scale in ((shrink_perturb(), 0.5), (shrink_perturb(mask=mask), 1.0)):
        after, _, _ = _act(method, learned)
        np.testing.assert_allclose(after.params["norm_0"]["scale"], scale * np.ones(8))
    assert np.any(np.asarray(after.params["dense_0"]["kernel"] != learned.params["dense_0"]["kernel"]))


def test_it_acts_when_its_mode_says():
    assert [bool(shrink_perturb(mode=mode, **more).switch) for mode, more in MODES.items()] == [
        True,
        True,
        False,
        False,
    ]
    assert [bool(shrink_perturb(mode=mode, **more).update) for mode, more in MODES.items()] == [
        False,
        False,
        True,
        True,
    ]
    learned = _learned()
    method = shrink_perturb(every_tasks=2)
    same(method.switch(jax.random.key(0), 1, learned, (), FRESH)[0], learned)


@pytest.mark.parametrize("mode", MODES)
def test_parameters_keep_their_type(mode):
    learned = _learned()
    learned = learned._replace(params=jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), learned.params))
    shrink, perturb = (jnp.float32(MODES[mode].get(name, 0.5)) for name in ("shrink", "perturb"))
    after, _, _ = _act(shrink_perturb(mode=mode, shrink=shrink, perturb=perturb), learned)
    assert {leaf.dtype for leaf in jax.tree.leaves(after.params)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shrink": 1.1}, r"got shrink=1.1; wanted a number in \[0, 1\]\. 0.4 is usual"),
        ({"perturb": -0.1}, r"got perturb=-0.1; wanted a number in \[0, 1\]\. 0.1 is usual"),
        ({"every_tasks": -1}, "got every_tasks=-1"),
        ({"mode": "gaussian"}, r"got shrink=0.4; wanted a number in \[0.9, 1\]\. 'gaussian' acts after every update"),
        (
            {"mode": "per-step-fresh", "shrink": 0.999},
            r"got perturb=0.1; wanted a number in \[0, 0.05\]\. 'per-step-fresh' acts after every update",
        ),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        shrink_perturb(**options)


def test_unknown_modes_are_refused():
    with pytest.raises(UserError, match=r"got the mode 'gausian'; wanted one of .*Did you mean 'gaussian'"):
        unchecked(shrink_perturb)(mode="gausian")


def test_a_mask_that_selects_nothing_is_refused():
    method = shrink_perturb(mask=lambda params: jax.tree.map(lambda _: False, params))
    with pytest.raises(UserError, match="got a mask that selects none of"):
        method.init(_learned())


def test_to_init_is_a_mean_of_now_and_the_start():
    with pytest.raises(UserError, match=r"got shrink=0.4 and perturb=0.1 with mode='to-init'; .* Use shrink=0.2 and"):
        shrink_perturb(mode="to-init")
