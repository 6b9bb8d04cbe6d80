"""One part that fails leaves the others; and afterwards everything is as before."""

import io
from typing import NamedTuple

import numpy as np
import pytest
from rich.console import Console

torch = pytest.importorskip("torch")

from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from pliant.errors import UserError
from pliant.torch import diagnose
from pliant.torch._loss import loss_of

TABLE = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
TOKENS = torch.arange(24).reshape(8, 3) % 10
CLASSES = torch.arange(8) % 3
OF_FEATURES = ("dormant_fraction", "effective_rank", "srank", "stable_rank", "feature_rank")


def report(net, x=TABLE, y=CLASSES, **options):
    """The numbers and what was printed; the module must be as before."""
    before = state(net)
    console = Console(file=io.StringIO(), width=400)
    try:
        found = diagnose(net, x, y, console=console, **options)
    finally:
        after = state(net)
        assert after.keys() == before.keys()
        for name, value in before.items():
            assert torch.equal(after[name], value) if isinstance(value, torch.Tensor) else after[name] == value, name
    return found.numbers, " ".join(console.file.getvalue().replace("│", " ").split())


def same(one, other):
    """Whether numbers are equal; what is not known in one is not in the other."""
    np.testing.assert_equal(dict(one), dict(other))


def state(net):
    tensors = {name: each.detach().clone() for name, each in (*net.named_parameters(), *net.named_buffers())}
    trained = {f"{name} trained": each.requires_grad for name, each in net.named_parameters()}
    gradients = {f"{name} gradient": each.grad is None for name, each in net.named_parameters()}
    modes = {f"{name} mode": each.training for name, each in net.named_modules()}
    hooks = {
        f"{name} hooks": len(each._forward_hooks) + len(each._forward_pre_hooks) for name, each in net.named_modules()
    }
    return tensors | trained | gradients | modes | hooks | {"random numbers": torch.get_rng_state()}


def mlp(*between):
    return nn.Sequential(nn.Linear(4, 6), *(between or (nn.ReLU(),)), nn.Linear(6, 3))


class Written(nn.Module):
    """A network whose forward pass is a function."""

    def __init__(self, forward, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.computation, self.calls = forward, 0

    def forward(self, x):
        self.calls += 1
        return self.computation(self, x)


def two(forward):
    return Written(forward, a=nn.Linear(4, 6), b=nn.Linear(6, 3))


def embedded(**options):
    return Written(lambda net, x: net.b(net.a(net.e(x)).mean(1).relu()), e=nn.Embedding(10, 4, **options), **parts())


def parts():
    return {"a": nn.Linear(4, 6), "b": nn.Linear(6, 3)}


class Rectify(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (ctx.saved_tensors[0] > 0)


class Broken(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        raise NotImplementedError("there is no backward pass")


def branching(net, x):
    if x.abs().sum().item() < 1e9:
        return net.b(net.a(x).relu())
    return x


def compiled_inside():
    net = mlp()
    net[1] = torch.compile(net[1], backend="eager")
    return net


def pruned():
    net = mlp()
    prune.l1_unstructured(net[0], "weight", 0.5)
    return net


@pytest.mark.parametrize(
    ("net", "x", "missing"),
    [
        (embedded(), TOKENS, "jacobian"),
        (embedded(max_norm=0.1), TOKENS, "jacobian"),
        (two(lambda net, x: net.b(net.a(x / 255).relu())), TABLE.to(torch.uint8), "jacobian"),
        (two(branching), TABLE, None),
        (two(lambda net, x: net.b(Rectify.apply(net.a(x)))), TABLE, None),
        (two(lambda net, x: net.b(Broken.apply(net.a(x)))), TABLE, "jacobian gradient-norm ntk"),
        (two(lambda net, x: net.b(functional.dropout(net.a(x).relu(), training=True))), TABLE, "jacobian ntk"),
        (mlp(nn.BatchNorm1d(6, track_running_stats=False), nn.ReLU()), TABLE, "jacobian ntk"),
        (mlp(nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout()), TABLE, None),
        (nn.DataParallel(mlp()), TABLE, None),
        (torch.compile(mlp(), backend="eager"), TABLE, None),
        (compiled_inside(), TABLE, None),
        (pruned(), TABLE, None),
        (
            nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), nn.Linear(4, 3)),
            TABLE[:, None],
            "gradient-norm ntk",
        ),
        (mlp().to(torch.bfloat16), TABLE.to(torch.bfloat16), None),
    ],
)
def test_features_are_always_measured(net, x, missing):
    numbers, text = report(net, x)
    assert all(np.isfinite(numbers[name]) for name in OF_FEATURES)
    reasons = {name for name in ("jacobian", "gradient-norm", "ntk") if f"{name} not measured" in text}
    assert reasons == set((missing or "").split())
    assert ("ntk_trace" in numbers) == ("ntk" not in reasons)
    assert numbers.get("ntk_trace", 1.0) > 0


def test_reasons_are_one_line_each():
    _, text = report(two(lambda net, x: net.b(Broken.apply(net.a(x)))))
    assert "gradient-norm not measured: NotImplementedError: there is no backward pass" in text
    _, text = report(two(lambda net, x: net.b(functional.dropout(net.a(x), training=True).relu())))
    assert "ntk not measured: the network draws random numbers in evaluation mode" in text
    assert "random numbers are drawn in evaluation mode: this is one draw" in text
    _, text = report(mlp(nn.BatchNorm1d(6, track_running_stats=False), nn.ReLU()))
    assert "jacobian not measured: one example alone cannot be measured: ValueError: Expected more than 1" in text
    centred = two(lambda net, x: net.b((net.a(x) - x.mean()).relu()))
    assert "jacobian not measured: the output of an example depends on the others of its batch" in report(centred)[1]


def test_a_network_is_left_as_it_was_though_it_fails():
    def fails(net, x):
        net.e.weight.mul_(2.0)
        torch.rand(1)
        raise RuntimeError("out of order")

    net = Written(fails, e=nn.Embedding(3, 4)).train()
    with pytest.raises(
        UserError, match=r"got a module that cannot be called with x: RuntimeError: out of order; wanted"
    ):
        report(net)
    assert net.calls == 0


def test_it_measures_where_gradients_are_off():
    net = mlp()
    wanted, _ = report(net)
    with torch.no_grad():
        same(report(net)[0], wanted)
    with torch.inference_mode():
        same(report(net)[0], wanted)
        made = mlp()
    numbers, _ = report(made)
    assert numbers["ntk_trace"] > 0
    assert numbers["probe_gradient_norm"] > 0


def test_frozen_parameters_are_left_out_of_all():
    net = mlp()
    net[0].requires_grad_(False)
    numbers, text = report(net, head="0")
    assert "frozen parameters 2 of 4 are left out" in text
    for metric in ("weight_norm", "probe_gradient_norm"):
        assert {name for name in numbers if name.startswith(f"{metric}/")} == {f"{metric}/2.weight", f"{metric}/2.bias"}
    assert {name for name in numbers if name.startswith("ntk_trace/")} == {"ntk_trace/2"}
    assert {name for name in numbers if name.startswith("weight_sigma_max/")} == {"weight_sigma_max/2.weight"}
    weight = net[2].weight.detach().numpy()
    sigma = np.linalg.svd(weight, compute_uv=False)
    assert numbers["isometry_deviation"] == pytest.approx(np.mean((sigma**2 - 1) ** 2), rel=1e-5)


def test_if_all_are_frozen_all_count():
    net = mlp()
    wanted, _ = report(net)
    numbers, text = report(net.requires_grad_(False))
    same(numbers, wanted)
    assert "all are frozen" in text


def test_weights_are_measured_as_they_are_applied():
    net = mlp()
    parametrizations.orthogonal(net[0])
    numbers, _ = report(net)
    assert numbers["isometry_deviation"] == pytest.approx(0.0, abs=1e-5)
    assert "weight_norm/0.parametrizations.weight.original" in numbers
    net = mlp()
    prune.custom_from_mask(net[0], "weight", torch.zeros(6, 4))
    numbers, _ = report(net)
    assert numbers["weight_sigma_max/0.weight"] == 0.0
    assert numbers["weight_norm/0.weight_orig"] > 0


def test_what_the_report_says_of_the_network():
    _, text = report(nn.Sequential(*mlp(), nn.Softmax(-1)))
    assert "head 2 (found; name another with head=) hidden layers 1" in text
    _, text = report(nn.Sequential(*mlp(), nn.Sigmoid()), head="2")
    assert "head 2 hidden layers 1 output, not hidden 3" in text
    attention = Written(
        lambda net, x: net.b(net.m(x, x, x)[0].tanh())[:, 0], m=nn.MultiheadAttention(4, 2), b=nn.Linear(4, 3)
    )
    _, text = report(attention, TABLE[:, None].expand(8, 2, 4), head="b")
    assert "kernels not seen 1: m.in_proj_weight" in text
    _, text = report(nn.Linear(4, 3))
    assert "hidden layers none" in text
    assert "dormant not measured: no hidden layer was found: name modules with layers=" in text


def test_a_layer_without_units_is_left_out():
    empty = nn.Linear(4, 6)
    empty.weight, empty.bias = nn.Parameter(torch.zeros(0, 4)), nn.Parameter(torch.zeros(0))
    reader = nn.Linear(6, 3)
    reader.weight = nn.Parameter(torch.zeros(3, 0))
    numbers, text = report(nn.Sequential(empty, nn.ReLU(), reader))
    assert "layers not seen 1: 1 (it is empty)" in text
    assert numbers["weight_norm"] == pytest.approx(float(reader.bias.detach().norm()))


@pytest.mark.parametrize(
    ("y", "is_class"),
    [
        (CLASSES.to(torch.int32), True),
        (CLASSES.to(torch.uint8), True),
        (CLASSES[:, None], True),
        (CLASSES.tolist(), True),
        (CLASSES.numpy(), True),
        (functional.one_hot(CLASSES), True),
        (functional.one_hot(CLASSES).double(), False),
    ],
)
def test_targets_of_many_types(y, is_class):
    torch.manual_seed(0)
    net = mlp()
    loss = functional.cross_entropy(net(TABLE), CLASSES) if is_class else (net(TABLE) - y).square().mean()
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    norm = torch.cat([each.flatten() for each in gradients]).norm()
    assert report(net, y=y)[0]["probe_gradient_norm"] == pytest.approx(float(norm), rel=1e-5)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (CLASSES.float(), r"got y of shape (8,) from 0.0 to 2.0; wanted a class below 3, or 3 value(s)"),
        (CLASSES[:4], r"got y of shape (4,) from 0 to 2"),
        ("classes", r"got y of type str; wanted numbers"),
    ],
)
def test_targets_that_do_not_fit(y, message):
    numbers, text = report(mlp(), y=y)
    assert f"gradient-norm not measured: {message}" in text
    assert np.isfinite(numbers["input_output_sigma_max"])


def test_arrays_and_lists_are_examples_too():
    net = mlp()
    wanted = report(net)[0]
    for x in (TABLE.numpy(), TABLE.double().numpy(), TABLE.tolist()):
        assert report(net, x)[0] == pytest.approx(wanted, nan_ok=True)


def test_examples_by_keyword():
    net = Written(lambda net, x: net.b(net.a(x).relu()), **parts())
    wanted = report(net)[0]
    numbers, text = report(net, {"x": TABLE})
    same(numbers, {name: each for name, each in wanted.items() if not name.startswith(("jacobian", "input_output"))})
    assert "jacobian not measured: x is a dictionary, which has no derivatives" in text


def returns(wrap):
    return two(lambda net, x: wrap(net.b(net.a(x).relu())))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda output: (output, output.sum()),
        lambda output: {"logits": output, "features": output * 2},
        lambda output: {"whatever": output},
        lambda output: torch.return_types.max((output, output)),
    ],
)
def test_outputs_among_others(wrap):
    torch.manual_seed(0)
    wanted = report(returns(lambda output: output))[0]
    torch.manual_seed(0)
    same(report(returns(wrap))[0], wanted)


class Outputs(NamedTuple):
    value: torch.Tensor
    logits: torch.Tensor


def test_an_output_by_its_name_goes_before_the_first():
    torch.manual_seed(0)
    wanted = report(returns(lambda output: output))[0]
    torch.manual_seed(0)
    same(report(returns(lambda output: Outputs(output.sum(1), output)))[0], wanted)


@pytest.mark.parametrize(("shape", "axis"), [((6, 5, 3), -1), ((6, 3, 5), 1), ((6, 3, 5, 4), 1), ((6, 3), 1)])
def test_classes_of_positions(shape, axis):
    output = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    classes = output.movedim(axis, -1).argmax(-1)
    chosen = [1, 4]
    found = loss_of(classes, output)(output[chosen], chosen)
    logits = output.movedim(axis, -1)[chosen].log_softmax(-1)
    assert torch.allclose(found, -logits.amax(-1).flatten(1).mean(1) if logits.ndim > 2 else -logits.amax(-1))


def test_classes_that_fit_two_axes_are_refused():
    with pytest.raises(UserError, match=r"got y of shape \(6, 3\) for an output of shape \(6, 3, 3\); wanted classes"):
        loss_of(torch.zeros(6, 3, dtype=torch.int64), torch.zeros(6, 3, 3))


lazy = nn.Sequential(nn.LazyLinear(3))


@pytest.mark.parametrize(
    ("net", "x", "message"),
    [
        (lazy, TABLE, r"got '0.weight', which is not initialised; wanted parameters with values"),
        (nn.Linear(4, 3, device="meta"), TABLE, r"got 'weight' on the device 'meta'"),
        (mlp(), TABLE[0], r"got an output of shape \(3,\) for 4 examples; wanted \(batch, out\)"),
        (nn.Linear(4, 4), TABLE[0], r"got x of shape \(4,\) which is one example: one example alone"),
        (nn.Conv2d(3, 3, 1), torch.ones(3, 5, 5), r"got x of shape \(3, 5, 5\) which is one example"),
        (mlp(), torch.tensor(1.0), r"got x of shape \(\); wanted at least one example"),
        (mlp(), object(), r"got x of type object; wanted a tensor or an array"),
        (mlp(), {"x": TABLE, "y": TABLE[:2]}, r"wanted as many examples in each"),
        (mlp(), TABLE[:, :3], r"got a module that cannot be called with x: RuntimeError: mat1 and mat2"),
        (returns(lambda output: {"one": output, "two": output}), TABLE, r"a module that returns dict with one, two;"),
        (returns(lambda output: None), TABLE, r"a module that returns NoneType; wanted a tensor \(batch, out\)"),
        (returns(lambda output: output.sum()), TABLE, r"an output of shape \(\) for 8 examples"),
    ],
)
def test_what_cannot_be_measured_at_all(net, x, message):
    with pytest.raises(UserError, match=message):
        diagnose(net, x, console=Console(quiet=True))


def test_jacobians_that_are_missing_are_named():
    def forward(net, x):
        hidden = net.a(x.transpose(0, 1)).relu()  # positions first, examples second
        return net.b(hidden.transpose(0, 1).flatten(1).tanh())

    net = Written(forward, a=nn.Linear(4, 6), b=nn.Linear(48, 3))
    x = TABLE.expand(8, 8, 4) + TABLE[:, None]
    numbers, text = report(net, x)
    assert "jacobian/relu not measured: relu is in compiled code, or examples are not its first axis" in text
    assert "jacobian_sigma_max/relu" not in numbers
    assert np.isfinite(numbers["input_output_sigma_max"])
    assert np.isfinite(numbers["dormant_fraction/relu"])


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("is_frozen", [False, True])
def test_compiled_code_has_the_numbers_of_what_was_compiled(is_frozen):
    net = mlp()
    wanted, _ = report(net)
    compiled = torch.jit.trace(net, TABLE, check_trace=False).requires_grad_(not is_frozen)
    numbers, text = report(compiled)
    for name in ("dead_fraction", "effective_rank", "isometry_deviation", "weight_norm", "probe_gradient_norm"):
        assert numbers[name] == pytest.approx(wanted[name], rel=1e-5), name
    assert numbers["ntk_trace"] == pytest.approx(wanted["ntk_trace"], rel=1e-5)
    assert "jacobian/relu not measured: relu is in compiled code" in text


def test_units_of_operations_that_are_not_pytorchs_own():
    @torch.library.custom_op("pliant_test::doubled", mutates_args=())
    def doubled(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x], -1)

    class Foreign(nn.Module):
        out_features = 8

        def forward(self, x):
            return torch.ops.pliant_test.doubled(x)

    net = nn.Sequential(Foreign(), nn.ReLU(), nn.Linear(8, 3))
    numbers, text = report(net, TABLE[:, None].expand(8, 2, 4), y=None)
    assert np.isfinite(numbers["dormant_fraction/1"])
    assert "hidden layers 1" in text
