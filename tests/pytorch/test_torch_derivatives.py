import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.nn import functional

from pliant.errors import UserError
from pliant.torch._calls import Call, running
from pliant.torch._derivatives import Captured, jacobians, tangent_kernel
from pliant.torch._trace import trace


class Rectify(torch.autograd.Function):
    """Not for vmap: its backward pass leaves PyTorch."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * torch.tensor((x.numpy() > 0).astype("float32"))


class Net(nn.Module):
    def __init__(self, activation):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c, self.activation = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2), activation

    def forward(self, x):
        first = self.activation(self.a(x))
        second = self.b(first)
        second += first
        return self.c(self.activation(second))


def in_place(z):
    z.relu_()
    return z


@pytest.mark.parametrize("activation", [torch.relu, in_place, Rectify.apply, nn.ReLU(inplace=True)])
def test_jacobians_of_functions_and_modules_in_place(activation):
    net, x = Net(activation), torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        layers = trace(lambda: net(x), net, dict(net.named_parameters()), [x]).layers
    calls = {layer.name: layer.call for layer in layers}
    x.requires_grad_()
    with running(net) as scope, Captured(calls, scope) as found:
        output = net(x)
    first, second = calls
    with torch.no_grad():
        h = net.a(x).relu()
        slope = (net.b(h) + h > 0).float()[:, :, None] * (net.b.weight + torch.eye(4))
        wanted = {
            first: (net.a(x) > 0).float()[:, :, None] * net.a.weight,
            second: slope,
            "output": net.c.weight @ slope @ ((net.a(x) > 0).float()[:, :, None] * net.a.weight),
        }
    assert torch.allclose(jacobians(found.value(first), x), wanted[first], atol=1e-6)
    assert torch.allclose(jacobians(found.value(second), found.edge(first)), wanted[second], atol=1e-6)
    assert torch.allclose(jacobians(output, x), wanted["output"], atol=1e-6)


def test_a_layer_that_is_written_over_is_captured_as_it_was():
    x = torch.ones(2, 3, requires_grad=True)
    with Captured({"hidden": Call("", functional.silu, 0)}, lambda: "") as found:
        hidden = functional.silu(x)
        hidden += x
        hidden *= 2
    assert torch.equal(found.value("hidden"), functional.silu(x))
    assert torch.equal(jacobians(hidden, found.edge("hidden")), 2 * torch.eye(3).expand(2, 3, 3))


def test_a_layer_that_does_not_depend_on_another_has_no_jacobian():
    x = torch.ones(2, 3, requires_grad=True)
    with pytest.raises(UserError, match=r"got a layer on which a later one does not depend"):
        jacobians(x * 2, torch.ones(2, 3, requires_grad=True))


@pytest.mark.parametrize("is_full", [True, False])
def test_the_kernel_is_the_product_of_derivatives(is_full):
    net, x = Net(Rectify.apply), torch.randn(3, 3)
    leaves = {name: each.detach().requires_grad_() for name, each in net.named_parameters()}

    def call(params, example):
        return torch.func.functional_call(net, params, (x[example : example + 1],))

    rows = []
    for example in range(3):
        for output in call(leaves, example)[0]:
            rows.append(
                torch.cat(
                    [each.flatten() for each in torch.autograd.grad(output, list(leaves.values()), retain_graph=True)]
                )
            )
    wanted = torch.stack(rows) @ torch.stack(rows).T
    if not is_full:
        wanted = wanted.reshape(3, 2, 3, 2).diagonal(dim1=1, dim2=3).mean(-1)
    for largest in (10_000, 30):
        matrix, traces = tangent_kernel(call, leaves, 3, is_full=is_full, largest=largest)
        assert torch.allclose(matrix, wanted, atol=1e-5)
        assert sum(traces.values()) == pytest.approx(float(wanted.trace()) / len(wanted), rel=1e-5)
