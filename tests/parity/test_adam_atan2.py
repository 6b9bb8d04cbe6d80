"""The pulls towards the start of `adam-atan2-pytorch`. Where the gradient is 0, its optimizers do nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.interventions import pull_to_init
from pliant.penalties import wasserstein_init
from pliant.types import Learned

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("adam_atan2_pytorch")
from adam_atan2_pytorch.adam_atan2_with_wasserstein_reg import AdamAtan2 as WassersteinAdamAtan2  # noqa: E402

_draw = np.random.default_rng(0)
START, AWAY = (_draw.normal(size=(4, 5)).astype(np.float32) for _ in range(2))
RATE, PULL, STEPS = 0.1, 0.2, 20


def _pulled(optimizer_class, **options):
    """Their parameters after each step, from `AWAY`, with `START` as the start."""
    parameter = torch.nn.Parameter(torch.tensor(START))
    optimizer = optimizer_class([parameter], lr=RATE, **options)
    parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    with torch.no_grad():
        parameter.copy_(torch.tensor(AWAY))
    path = []
    for _ in range(STEPS):
        optimizer.step()
        path.append(parameter.detach().numpy().copy())
    return path


def test_decoupled_l2_init():
    method = pull_to_init(learning_rate=RATE, strength=PULL / 2)  # ours is the gradient of the square: 2ηλ
    state, learned = method.init(Learned(jnp.asarray(START), {}, ())), Learned(jnp.asarray(AWAY), {}, ())
    for expected in _pulled(theirs.AdamAtan2, regen_reg_rate=PULL):
        learned, state, _ = method.update(jax.random.key(0), 1, learned, state, None)
        np.testing.assert_allclose(learned.params, expected, atol=1e-6)


def test_wasserstein_init():
    """Their step is linear in the distance to the sorted start: half of the gradient of the sum of squares."""
    penalty = wasserstein_init(1.0, reduction="sum")
    state, params = penalty.init(jnp.asarray(START)), jnp.asarray(AWAY)
    for expected in _pulled(WassersteinAdamAtan2, regen_reg_rate=PULL):
        params = params - PULL / 2 * jax.grad(lambda now: penalty.loss(now, state, None)[0])(params)
        np.testing.assert_allclose(params, expected, atol=1e-6)
