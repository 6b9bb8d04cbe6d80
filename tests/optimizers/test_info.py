import jax
import jax.numpy as jnp
import optax
import pytest

from pliant.optimizers import adamo, optimizer_info, soft_reset

PARAMS = {"w": jnp.diag(jnp.array([2.0, 1.0]))}
TELLING = {
    "alone": adamo(0.01, isometry_every=1),
    "chain": optax.chain(optax.clip(1.0), adamo(0.01, isometry_every=1)),
    "masked": optax.masked(adamo(0.01, isometry_every=1), {"w": True}),
    "partition": optax.partition({"a": adamo(0.01, isometry_every=1)}, "a"),
    "multi steps": optax.MultiSteps(adamo(0.01, isometry_every=1), 1).gradient_transformation(),
    "injected": optax.inject_hyperparams(adamo, static_args="isometry_every")(0.01, isometry_every=1),
}


def _after(tx):
    return tx.update(jax.tree.map(jnp.zeros_like, PARAMS), tx.init(PARAMS), PARAMS)[1]


@pytest.mark.parametrize("name", TELLING)
def test_found_wherever_it_sits(name):
    told = optimizer_info(_after(TELLING[name]))
    assert {what: round(float(value), 6) for what, value in told.items()} == {"isometry_norm": 0.024}


def test_two_of_a_kind_and_what_others_call_info():
    two = optax.partition({"a": adamo(0.01), "b": adamo(0.01, isometry_every=1)}, {"v": "a", "w": "b"})
    params = PARAMS | {"v": PARAMS["w"]}
    _, state = two.update(jax.tree.map(jnp.zeros_like, params), two.init(params), params)
    told = {what: round(float(value), 6) for what, value in optimizer_info(state).items()}
    assert told == {"isometry_norm": 0.0, "isometry_norm_2": 0.024}
    search = optax.lbfgs()
    assert optimizer_info(search.init(PARAMS)) == {}


def test_several_and_none():
    both = optax.chain(soft_reset(0.1), adamo(0.01))
    assert set(optimizer_info(_after(both))) == {"drift_norm", "isometry_norm"}
    assert optimizer_info(_after(optax.adam(0.1))) == {}
