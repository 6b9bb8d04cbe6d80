import copy

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch")

from pliant.errors import UserError
from pliant.networks.blocks import _newton_schulz as in_jax
from pliant.torch import newton_schulz, reproject_


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def with_singular_values(sigma, num_out, num_in):
    left, _ = torch.linalg.qr(random(num_out, len(sigma)))
    right, _ = torch.linalg.qr(random(num_in, len(sigma), seed=1))
    return left @ torch.diag(torch.as_tensor(sigma, dtype=torch.float32)) @ right.T


def layer(weight, **options):
    """A linear layer with these weights, and its parametrisation."""
    weight = torch.as_tensor(weight)
    made = newton_schulz(torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False), **options)
    made.weight = weight
    return made, made.parametrizations.weight[0]


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
@pytest.mark.parametrize("options", [{}, {"order": 3}, {"iterations": 2, "gain": 1.4}])
def test_dense_layers_agree_with_jax(shape, options):
    weight, x, cotangent = 2 * random(*shape), random(6, shape[1], seed=2), random(6, shape[0], seed=3)
    ours, guard = layer(weight, **options)
    theirs = in_jax.OrthogonalDense(shape[1], shape[0], use_bias=False, rngs=nnx.Rngs(0), **options)
    theirs.kernel[...] = jnp.asarray(weight.T.numpy())
    with torch.no_grad():
        guard.u.copy_(torch.tensor(np.asarray(theirs.u[...])))
        guard.v.copy_(torch.tensor(np.asarray(theirs.v[...])))
    for train in (True, True, False):
        ours.train(train)
        x.requires_grad_()
        y = ours(x)
        gradient, x_gradient = torch.autograd.grad((y * cotangent).sum(), [ours.parametrizations.weight.original, x])

        def loss(module, inputs, train=train):
            result = module(inputs, train=train)
            return (result * cotangent.numpy()).sum(), result

        (_, wanted), (module_gradient, wanted_x) = nnx.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
            theirs, jnp.asarray(x.detach().numpy())
        )
        np.testing.assert_allclose(y.detach(), wanted, atol=2e-6)
        np.testing.assert_allclose(x_gradient, wanted_x, atol=5e-6)
        np.testing.assert_allclose(gradient.T, module_gradient["kernel"][...], atol=1e-5)
        np.testing.assert_allclose(guard.u, theirs.u[...], atol=2e-6)
        np.testing.assert_allclose(guard.v, theirs.v[...], atol=2e-6)


def test_convolutions_agree_with_jax():
    weight, x = random(5, 2, 3, 3), random(4, 2, 6, 6, seed=1)
    ours = newton_schulz(torch.nn.Conv2d(2, 5, 3, padding=1, bias=False))
    ours.weight = weight
    theirs = in_jax.OrthogonalConv(2, 5, (3, 3), use_bias=False, rngs=nnx.Rngs(0))
    theirs.kernel[...] = jnp.asarray(weight.permute(2, 3, 1, 0).numpy())
    guard = ours.parametrizations.weight[0]
    theirs.u[...] = jnp.asarray(guard.u.reshape(2, 3, 3).permute(1, 2, 0).flatten().numpy())
    theirs.v[...] = jnp.asarray(guard.v.numpy())
    wanted = theirs(jnp.asarray(x.permute(0, 2, 3, 1).numpy()), train=True)
    np.testing.assert_allclose(ours(x).detach().permute(0, 2, 3, 1), wanted, atol=1e-5)
    for _ in range(20):
        matrix = ours.weight.detach().reshape(5, -1)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(5), atol=1e-3, rtol=0.0)


def test_one_iteration_golden():
    made, _ = layer(torch.diag(torch.tensor([0.9, 0.5])), iterations=1)
    torch.testing.assert_close(made.weight.diagonal(), torch.tensor([1.5 * 0.9 - 0.5 * 0.9**3, 0.6875]))


def test_seven_iterations_orthogonalise():
    made, _ = layer(with_singular_values(np.linspace(0.3, 1.0, 16), 16, 16))
    weight = made.weight
    torch.testing.assert_close(weight.T @ weight, torch.eye(16), atol=1e-3, rtol=0.0)


def test_the_guard_moves_in_training_mode_only():
    made, guard = layer(random(5, 3))
    with torch.no_grad():
        made.parametrizations.weight.original.add_(random(5, 3, seed=1))
    made.eval()
    before = copy.deepcopy(guard.state_dict())
    first = made.weight
    assert torch.equal(made.weight, first)
    assert all(torch.equal(guard.state_dict()[name], before[name]) for name in ("u", "v"))
    made.train()
    assert made.weight is not None
    assert not torch.equal(guard.u, before["u"])


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(20))
def test_weights_that_are_assigned_are_met_by_the_guard(order, seed):
    """One power iteration from a random start is low by up to 2.9 for such small matrices, and the map diverges."""
    made, _ = layer(5 * random(4, 4, seed=seed), order=order, iterations=30)
    weight = made.weight
    torch.testing.assert_close(weight.T @ weight, torch.eye(4), atol=1e-3, rtol=0.0)


def test_two_calls_before_one_backward():
    made, _ = layer(random(5, 3))
    loss = made(random(2, 3)).sum() + made(random(2, 3, seed=1)).sum()
    made.eval()
    loss = loss + made(random(2, 3)).sum()
    made.train()
    (loss + made(random(2, 3)).sum()).backward()
    assert made.parametrizations.weight.original.grad.isfinite().all()


def test_autocast_and_narrow_weights_are_computed_in_float32():
    weight = with_singular_values(np.linspace(0.3, 1.0, 8), 8, 8)
    made, _ = layer(weight)
    made.eval()
    wanted = made.weight
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(made.weight, wanted)
        assert made(random(2, 8)).dtype == torch.bfloat16
    narrow, _ = layer(weight)
    narrow.bfloat16().eval()
    assert narrow.weight.dtype == torch.bfloat16
    assert (narrow.weight.float() - wanted).abs().max() < 0.02


def test_a_state_dict_carries_weights_and_guard():
    ours, _ = layer(random(5, 3))
    assert ours(random(2, 3)) is not None
    other = newton_schulz(torch.nn.Linear(3, 5, bias=False))
    other.load_state_dict(ours.state_dict())
    assert torch.equal(ours.eval()(random(2, 3)), other.eval()(random(2, 3)))
    assert set(ours.state_dict()) == {f"parametrizations.weight.{name}" for name in ("original", "0.u", "0.v")}


def test_an_evaluated_layer_stays_evaluated():
    made = newton_schulz(torch.nn.Linear(3, 2).eval())
    assert not made.parametrizations.weight[0].training


def test_dead_weights_stay_finite():
    made, _ = layer(torch.zeros(4, 3))
    made(random(2, 3)).sum().backward()
    assert torch.equal(made.weight, torch.zeros(4, 3))
    assert made.parametrizations.weight.original.grad.isfinite().all()


def test_reprojection_agrees_with_jax_and_keeps_the_map():
    weight = 3 * with_singular_values(np.linspace(0.2, 1.0, 4), 6, 4)
    net = torch.nn.Sequential(layer(weight)[0], torch.nn.ReLU(), newton_schulz(torch.nn.Conv2d(2, 3, 3)))
    with torch.no_grad():
        for _ in range(20):
            before = net[0].weight
        assert reproject_(net) == 2
        raw = net[0].parametrizations.weight.original.detach()
        np.testing.assert_allclose(raw.T, in_jax.reproject(jnp.asarray(weight.T.numpy())), atol=2e-6)
        torch.testing.assert_close(net[0].weight, before, atol=1e-3, rtol=0.0)
        torch.testing.assert_close(raw.T @ raw, torch.eye(4), atol=1e-5, rtol=0.0)


def test_reprojection_in_evaluation_mode_and_narrow():
    made, _ = layer(random(4, 3))
    made.bfloat16().eval()
    assert reproject_(made) == 1
    raw = made.parametrizations.weight.original
    assert raw.dtype == torch.bfloat16
    torch.testing.assert_close((raw.T @ raw).float(), torch.eye(3), atol=0.03, rtol=0.0)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: torch.nn.Linear(2, 2), {"iterations": 0}, r"got iterations=0; wanted a finite number ≥ 1\. Use 7"),
        (lambda: torch.nn.Linear(2, 2), {"order": 5}, r"got order=5; wanted a number in \[1, 4\]\. Use 1"),
        (lambda: torch.nn.Linear(2, 2), {"gain": 0.0}, r"got gain=0.0; wanted a finite number ≥ 1e-12"),
        (
            lambda: torch.nn.Linear(2, 2),
            {"name": "bias"},
            r"got bias of shape \(2,\) in Linear\(.*Leave out biases, norms",
        ),
        (lambda: torch.nn.Linear(2, 2), {"iterations": 2.5}, r"got iterations=2.5; wanted a whole number ≥ 1\. Use 7"),
        (
            lambda: torch.nn.Linear(2, 2),
            {"gain": torch.tensor([1.0, 2.0])},
            r"got gain=tensor\(.*; wanted a finite number",
        ),
        (lambda: torch.nn.Linear(2, 2), {"name": "wieght"}, r"got 'wieght' of Linear\(.*not a parameter of its own"),
        (
            lambda: torch.nn.utils.spectral_norm(torch.nn.Linear(2, 2)),
            {},
            r"got 'weight' of Linear\(.*not a parameter of",
        ),
        (
            lambda: torch.nn.LazyLinear(2),
            {},
            r"got LazyLinear\(.*, which is not initialized; wanted .* that has a shape",
        ),
        (
            lambda: torch.nn.ConvTranspose2d(4, 2, 3),
            {},
            r"got weight of shape \(4, 2, 3, 3\) in ConvTranspose2d.*transposed",
        ),
        (lambda: torch.nn.Linear(2, 2, dtype=torch.complex64), {}, r"got weight of shape \(2, 2\) .*; wanted the real"),
        (lambda: torch.nn.Conv2d(4, 4, 3, groups=2), {}, r"got weight of shape \(4, 2, 3, 3\) .*without groups"),
    ],
)
def test_refuses(make, options, message):
    with pytest.raises(UserError, match=message):
        newton_schulz(make(), **options)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("size", [(8, 0), (0, 8)])
def test_refuses_layers_without_weights(size):
    with pytest.raises(UserError, match=r"got weight of shape .*; wanted the real weight .*empty layers"):
        newton_schulz(torch.nn.Linear(*size))


def test_reprojection_leaves_frozen_weights_alone():
    net = torch.nn.Sequential(layer(3 * random(4, 3))[0], layer(3 * random(4, 4))[0])
    frozen = net[0].parametrizations.weight.original.requires_grad_(False)
    before = frozen.clone()
    assert reproject_(net) == 1
    assert torch.equal(frozen, before)


def test_reprojection_wants_such_a_layer():
    with pytest.raises(UserError, match=r"got Linear without Newton–Schulz layers; wanted at least one\. Make them"):
        reproject_(torch.nn.Linear(2, 2))
    with pytest.raises(UserError, match=r"got iterations=-1; wanted a finite number ≥ 0\. Use 20"):
        reproject_(newton_schulz(torch.nn.Linear(2, 2)), iterations=-1)


def test_constants_are_those_of_jax():
    from pliant.torch import _newton_schulz as ours

    assert (ours._BJORCK, ours._MARGIN) == (in_jax._BJORCK, in_jax._MARGIN)
