import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pliant.errors import UserError
from pliant.networks import max_min
from pliant.torch import MaxMin


def test_golden():
    assert MaxMin()(torch.tensor([3.0, 1.0, -2.0, 5.0])).tolist() == [1.0, 3.0, -2.0, 5.0]


@pytest.mark.parametrize("dim", [1, -3])
def test_channels_agree_with_jax(dim):
    x = torch.randn(2, 6, 3, 5, generator=torch.Generator().manual_seed(0))
    wanted = np.asarray(max_min(jnp.asarray(x.permute(0, 2, 3, 1).numpy()))).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(MaxMin(dim)(x).numpy(), wanted)


def test_the_gradient_agrees_with_jax_on_ties_too():
    x = torch.tensor([2.0, 1.0, 3.0, 3.0, 0.0, 4.0], requires_grad=True)
    weights = torch.arange(1.0, 7.0)
    (MaxMin()(x) * weights).sum().backward()
    wanted = jax.grad(lambda x: (max_min(x) * weights.numpy()).sum())(jnp.asarray(x.detach().numpy()))
    np.testing.assert_array_equal(x.grad.numpy(), wanted)


def test_it_is_an_isometry():
    x = torch.randn(8, generator=torch.Generator().manual_seed(0))
    jacobian = torch.autograd.functional.jacobian(MaxMin(), x)
    assert torch.equal(jacobian @ jacobian.T, torch.eye(8))


@pytest.mark.parametrize(("dim", "shape"), [(-1, (4, 5)), (1, (2, 3, 4, 4))])
def test_odd_widths_are_refused(dim, shape):
    message = (
        rf"got width {shape[dim]} along axis {dim}; wanted an even width\. Choose a width such as {shape[dim] + 1}"
    )
    with pytest.raises(UserError, match=message):
        MaxMin(dim)(torch.zeros(shape))


def test_it_says_its_axis():
    assert repr(MaxMin(dim=1)) == "MaxMin(dim=1)"


@pytest.mark.parametrize(("dim", "shape"), [(1, (4,)), (-1, ()), (-3, (2, 4))])
def test_refuses_inputs_without_the_axis(dim, shape):
    with pytest.raises(
        UserError, match=r"got an input of shape \(.*\) for dim=.*; wanted an axis of units\. Use dim=-1"
    ):
        MaxMin(dim=dim)(torch.zeros(shape))


def test_channels_counted_from_the_end_need_no_batch():
    x = torch.randn(2, 4, 3, 3)
    assert torch.equal(MaxMin(dim=-3)(x[0]), MaxMin(dim=1)(x)[0])
