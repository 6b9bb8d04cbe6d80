import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

torch = pytest.importorskip("torch")

import pliant
from pliant.errors import UserError
from pliant.torch import MaxMin, diagnose
from pliant.torch import _diagnose as module_under_test
from pliant.types import Diagnostic, Measured
from torch_twins import images, nchw, twins


def report(*arguments, **options):
    """The numbers and what was printed."""
    console = Console(file=io.StringIO(), width=160)
    found = diagnose(*arguments, console=console, **options)
    return found, console.file.getvalue()


@pytest.fixture(scope="module")
def both():
    """What JAX and what PyTorch finds in the same convolutional network."""
    x, y = images(40)
    x = x.astype(np.float32)
    network = twins().network

    def apply(params, x):
        return network.apply(params, {}, x, train=False, key=None)[:2]

    names = ("dormant", "dead", "saturated", "effective-rank", "srank", "stable-rank", "feature-rank")
    names += ("isometry-deviation", "weight-spectra", "weight-norm", "gradient-norm", "jacobian", "ntk")
    quiet = Console(quiet=True)
    ours = pliant.diagnose(apply, twins().params, jnp.asarray(x), y, network.wiring, diagnostics=names, console=quiet)
    theirs = diagnose(twins().module, nchw(x), torch.tensor(y), head="head", console=quiet)
    return ours, theirs


def test_numbers_agree_with_those_of_jax(both):
    ours, theirs = ({name: value for name, value in each.numbers.items() if "/" not in name} for each in both)
    assert set(ours) == set(theirs)
    near_singular = {"ntk_condition_log10", "ntk_smallest_normalized"}  # quotients with float32's smallest eigenvalue
    for name in set(ours) - near_singular:
        np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert theirs["ntk_condition_log10"] == pytest.approx(ours["ntk_condition_log10"], abs=0.05)


def _forward(subject):
    return subject.network.apply(subject.params, subject.state, subject.probe.inputs, train=False, key=None)


def _own(name, measure, **fields):
    return Diagnostic(name, name, "cheap", measure, lambda found: Measured({name: float(found)}), **fields)


def test_diagnostics_of_ones_own():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    x = torch.randn(8, 3)
    asked = [
        "dormant",
        "hessian-top",
        _own("output", lambda s: _forward(s)[0].sum()),
        _own("features", lambda s: sum(each.sum() for each in _forward(s)[1].values())),
        _own("head", lambda s: s.params["2.weight"].sum()),
        _own("layers", lambda s: jnp.float32(len(s.network.wiring.layers))),
        _own("other", lambda s: _forward(s._replace(params=jax.tree.map(lambda leaf: 2 * leaf, s.params)))[0].sum()),
        _own("slope", lambda s: jax.grad(lambda p: _forward(s._replace(params=p))[0].sum())(s.params)["2.bias"].sum()),
        _own("loss", lambda s: s.losses(_forward(s)[0], s.probe.targets).sum()),
        _own("start", lambda s: 0.0, needs=("initial",)),
    ]
    found, printed = report(net, x, diagnostics=asked)
    with torch.no_grad():
        hidden = net[1](net[0](x))
        wanted = {"output": net(x).sum(), "features": hidden.sum(), "head": net[2].weight.sum(), "layers": 1.0}
    assert {name for name in found.numbers if "/" not in name and "dormant" not in name} == set(wanted)
    for name, value in wanted.items():
        assert found.numbers[name] == pytest.approx(float(value), rel=1e-5, abs=1e-5)
    words = " ".join(printed.replace("│", " ").split())
    for name, why in {
        "hessian-top": "needs a network in JAX or a run: pliant.diagnose or pliant.run measures it",
        "other": "asks for derivatives, or for other parameters or inputs than those of PyTorch",
        "slope": "asks for derivatives, or for other parameters or inputs than those of PyTorch",
        "loss": "asks for the loss, which PyTorch computes",
        "start": "needs a network in JAX or a run",
    }.items():
        assert f"{name} not measured: {why}" in words


def test_spectra_agree_with_those_of_jax(both):
    ours, theirs = (each.arrays for each in both)
    for name in ("ntk/eigenvalues", "jacobian/input_output"):
        largest = ours[name].max()
        np.testing.assert_allclose(theirs[name], ours[name], atol=1e-4 * largest, err_msg=name)
    for layer, relu in (("conv_0", "conv_relu_0"), ("conv_1", "conv_relu_1"), ("dense_1", "dense_relu_1")):
        wanted = ours[f"jacobian/singular_values/{layer}"]
        found = theirs[f"jacobian/singular_values/{relu}"]
        np.testing.assert_allclose(found, wanted, atol=1e-4 * wanted.max())


def test_a_dead_unit_is_found():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    with torch.no_grad():
        net[0].bias.copy_(torch.tensor([9.0, -1e6, 9.0, 9.0]))
    found, text = report(net, torch.randn(20, 3), torch.arange(20) % 2, head="2")
    assert found.numbers["never_active_fraction"] == 0.25
    assert found.numbers["ntk_trace/0"] > 0
    assert "fraction of ReLU units that fire" in text


def test_the_network_is_left_as_it_was():
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Tanh(), torch.nn.Dropout(), torch.nn.Linear(4, 2)
    )
    net[3].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found, _ = report(net, torch.randn(20, 3), torch.arange(20) % 2)
    assert [part.training for part in net] == [True, True, True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(part._forward_hooks for part in net)
    assert np.isfinite(found.numbers["ntk_trace"])
    assert np.isfinite(found.numbers["saturated_fraction"])


def test_a_sigmoid_saturates_where_the_tanh_of_half_its_input_does():
    x, y = 8 * torch.randn(50, 3), torch.arange(50) % 2
    layers, found = (torch.nn.Linear(3, 16), torch.nn.Linear(16, 2)), []
    for activation, scale in ((torch.nn.Tanh(), 0.5), (torch.nn.Sigmoid(), 2.0)):
        with torch.no_grad():
            layers[0].weight.mul_(scale)
            layers[0].bias.mul_(scale)
        net = torch.nn.Sequential(layers[0], activation, layers[1])
        found.append(report(net, x, y)[0].numbers["saturated_fraction"])
    assert 0.05 < found[0] < 0.95
    assert found[0] == pytest.approx(found[1], abs=1e-3)


def test_without_targets_what_needs_a_loss_is_left_out():
    found, text = report(torch.nn.Sequential(torch.nn.Linear(3, 4), MaxMin(), torch.nn.Linear(4, 2)), torch.randn(9, 3))
    assert "ntk_trace" not in found.numbers
    assert np.isnan(found.numbers["dormant_fraction"])  # MaxMin
    assert np.isfinite(found.numbers["jacobian_sigma_max"])
    assert "got no targets; wanted one for each example. Give y." in " ".join(text.replace("│", " ").split())


def test_values_are_targets_too():
    net = torch.nn.Linear(3, 1)
    x, y = torch.randn(9, 3), torch.randn(9)
    found, _ = report(torch.nn.Sequential(net, torch.nn.Tanh()), x, y)
    residual = torch.tanh(net(x))[:, 0] - y
    slopes = 2 * residual * (1 - torch.tanh(net(x))[:, 0] ** 2) / 9
    gradient = torch.cat([slopes @ x, slopes.sum()[None]])
    assert found.numbers["probe_gradient_norm"] == pytest.approx(gradient.norm().item(), rel=1e-5)


def test_the_kernel_in_blocks_is_the_kernel(monkeypatch):
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.GELU(), torch.nn.Linear(8, 2))
    x, y = torch.randn(12, 3), torch.arange(12) % 2
    for rows in (1024, 4):  # full, and its trace over outputs
        monkeypatch.setattr(module_under_test, "_MOST_ROWS", rows)
        whole = report(net, x, y)[0].arrays["ntk/eigenvalues"]
        monkeypatch.setattr(module_under_test, "_LARGEST_BLOCK", 100)
        np.testing.assert_allclose(report(net, x, y)[0].arrays["ntk/eigenvalues"], whole, atol=1e-5 * whole.max())
        monkeypatch.undo()


def test_what_does_not_fit_is_said_and_the_rest_measured():
    class Odd(torch.nn.Module):
        """No layer with kernels; a parameter that is not used."""

        def __init__(self):
            super().__init__()
            self.scale, self.unused = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))

        def forward(self, x):
            return x * self.scale

    found, text = report(Odd(), torch.randn(6, 3), torch.arange(6) % 3)
    assert found.numbers["ntk_trace/scale"] > 0
    assert found.numbers["probe_gradient_norm/unused"] == 0.0
    assert "effective_rank" not in found.numbers
    assert "not measured" in text
    frozen = torch.nn.Linear(3, 2).requires_grad_(False)
    found, text = report(frozen, torch.randn(6, 3), torch.tensor([0, 1, 7, 0, 1, 0]))
    assert "probe_gradient_norm" not in found.numbers
    assert "from 0 to 7" in text


def test_half_precision_is_measured():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).to(torch.bfloat16)
    found, _ = report(net, torch.randn(6, 3, dtype=torch.bfloat16))
    assert np.isfinite(found.numbers["weight_norm"])


class Shared(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.relu = torch.nn.Linear(3, 3), torch.nn.Linear(3, 2), torch.nn.ReLU()

    def forward(self, x):
        return self.two(self.relu(self.one(self.relu(self.one(x)))))


@pytest.mark.parametrize(
    ("net", "number", "options", "message"),
    [
        (torch.nn.Linear(3, 2), 0, {}, r"got x of shape \(0, 3\); wanted at least one example"),
        (torch.nn.Linear(3, 2), 4, {"head": "x"}, r"got the module 'x'; wanted some of"),
        (torch.nn.Linear(3, 2), 4, {"layers": ["relu"]}, r"got the module 'relu'"),
        (torch.nn.Flatten(0), 4, {}, r"got an output of shape \(12,\) for 4 examples; wanted \(batch, out\)"),
    ],
)
def test_errors(net, number, options, message):
    with pytest.raises(UserError, match=message):
        report(net, torch.ones(number, 3), **options)
