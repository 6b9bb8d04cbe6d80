"""Values of penalties in narrow and wide types, against the definitions in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.penalties import (
    churn,
    distillation,
    effective_rank,
    feature_init,
    gram,
    infer,
    l2,
    l2_init,
    parseval,
    spectral,
    wasserstein_init,
)
from pliant.types import Forward, Head, Wiring

WIRING = Wiring((), {"w": "matrix", "infer/kernel": "other"}, {"output": Head((), "h")})
_draw = np.random.default_rng(0)
START, NOW = ({"w": 10 * _draw.normal(size=(400, 6)), "infer": {"kernel": _draw.normal(size=(6, 2))}} for _ in range(2))
"""Sums of 2,400 squares of about 100: beyond the largest number of float16, and where bfloat16 stops counting."""
IS_W = {"w": True, "infer": {"kernel": False}}


def _values(a):
    return np.linalg.svd(a["w"], compute_uv=False)


def _entropy(a):
    p = _values(a) / _values(a).sum()
    return np.exp(-(p * np.log(p)).sum())


def _softmax(a):
    return np.exp(a["w"] - a["w"].max(axis=1, keepdims=True)) / np.exp(a["w"] - a["w"].max(axis=1, keepdims=True)).sum(
        axis=1, keepdims=True
    )


def _infer(now, start):
    return now["w"] @ now["infer"]["kernel"] - 100 * start["w"] @ start["infer"]["kernel"]


CASES = {
    "l2": (l2(0.5, mask=IS_W), lambda now, start: 0.25 * (now["w"] ** 2).sum()),
    "l2-init": (l2_init(0.5, mask=IS_W), lambda now, start: 0.5 * ((now["w"] - start["w"]) ** 2).sum()),
    "l1-init": (l2_init(0.5, norm="l1", mask=IS_W), lambda now, start: 0.5 * np.abs(now["w"] - start["w"]).sum()),
    "gram": (gram(0.5, mask=IS_W), lambda now, start: 0.5 * ((_values(now) ** 2 - 1) ** 2).sum()),
    "parseval": (
        parseval(0.5, mask=IS_W),
        lambda now, start: 0.5 * (64 / 6) ** 2 * ((_values(now) ** 2 - 2) ** 2).sum(),
    ),
    "spectral": (
        spectral(0.5, exponent=1, mask=IS_W, norm_mask=IS_W),
        lambda now, start: 0.5 * ((_values(now).max() - 1) ** 2 + ((now["w"] - start["w"]) ** 2).sum()),
    ),
    "wasserstein-init": (
        wasserstein_init(0.5, reduction="sum", mask=IS_W),
        lambda now, start: 0.5 * ((np.sort(now["w"], axis=None) - np.sort(start["w"], axis=None)) ** 2).sum(),
    ),
    "effective-rank": (
        effective_rank(0.5, l2_strength=0.5, mask=IS_W),
        lambda now, start: 0.25 * (now["w"] ** 2).sum() - 0.5 * _entropy(now),
    ),
    "feature-init": (
        feature_init(WIRING, strength=0.5),
        lambda now, start: 0.5 * ((now["w"] - start["w"]) ** 2).sum(axis=1).mean(),
    ),
    "infer": (infer(WIRING, strength=0.5), lambda now, start: 0.5 * (_infer(now, start) ** 2).mean()),
    "distillation": (
        distillation(0.5, distance="squared"),
        lambda now, start: 0.5 * ((now["w"] - start["w"]) ** 2).mean(),
    ),
    "churn": (
        churn(0.5, decay=0.0),
        lambda now, start: 0.5 * 3.0 * (churned := ((now["w"] - start["w"]) ** 2).mean()) / (churned + 1e-8),
    ),
}


def evaluate(params, inputs):
    """A network whose outputs and features are a parameter: nothing is rounded on the way."""
    return params["w"], {"h": params["w"]}


def found_and_wanted(name, dtype):
    penalty, definition = CASES[name]
    start, now = (jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params) for params in (START, NOW))

    @jax.jit
    def value(start, now):
        state = penalty.init(start)
        if penalty.switch:
            state = penalty.switch(start, state)

        def loss(params, state):
            output, features = evaluate(params, ())
            forward = Forward((), output, features, jnp.float32(3.0), evaluate, lambda number: ())
            return penalty.loss(params, state, forward)

        if name == "churn":
            state = loss(start, state)[1]
        if name == "spectral":  # until the estimate is the norm
            state = jax.lax.fori_loop(0, 3000, lambda _, state: loss(now, state)[1], state)
        return loss(now, state)[0]

    rounded = [jax.tree.map(np.float64, params) for params in (now, start)]
    return value(start, now), definition(*rounded)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_sums_of_narrow_types_are_in_float32(name, dtype):
    found, wanted = found_and_wanted(name, dtype)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, rtol=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_wide_types_are_kept(name):
    with jax.enable_x64(True):
        found, wanted = found_and_wanted(name, jnp.float64)
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, wanted, rtol=1e-6 if name == "churn" else 1e-10)  # its means are float32
