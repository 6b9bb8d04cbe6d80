import copy
import gc
import io
import weakref

import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.nn import functional

from pliant.errors import UserError
from pliant.torch import AdamO, attach, infer_wiring
from torch_models import Functional, vgg
from torch_small import batches, network, same

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
NAMES = ["redo", "regrama", "continual-backprop", "shrink-perturb", "l2-init", "spectral", "weight-clipping", "adamo"]
OFTEN = {
    "redo": {"every": 2, "threshold": 0.5},
    "regrama": {"every": 2, "threshold": 0.5},
    "continual-backprop": {"replacement_rate": 0.3, "maturity": 1},
    "adamo": {"isometry_every": 2},
}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def attached(name, net, **options):
    return attach(name, net, X, **{"lr": 1e-2, "generator": torch.Generator()} | OFTEN.get(name, {}) | options)


def train(net, optimizer, data):
    infos = []
    for x, y in data:
        optimizer.zero_grad()
        (functional.mse_loss(net(x), y) + optimizer.penalty()).backward()
        optimizer.step()
        infos.append(optimizer.info)
    return infos


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_is_stopped_ends_like_one_that_is_not(name):
    net, data = network(), batches(6)
    optimizer = attached(name, net)
    train(net, optimizer, data[:3])
    optimizer.switch()
    file = io.BytesIO()
    torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, file)
    train(net, optimizer, data[3:])
    optimizer.switch()
    other = network()
    resumed = attached(name, other)
    file.seek(0)
    saved = torch.load(file)
    other.load_state_dict(saved["net"])
    resumed.load_state_dict(saved["optimizer"])
    train(other, resumed, data[3:])
    resumed.switch()
    same(net, other)


@pytest.mark.parametrize(
    ("name", "off"),
    [
        ("redo", {"threshold": -1.0}),
        ("regrama", {"threshold": -1.0}),
        ("continual-backprop", {"replacement_rate": 0.0}),
        ("shrink-perturb", {"shrink": 1.0, "perturb": 0.0}),
        ("l2-init", {"strength": 0.0}),
        ("spectral", {"strength": 0.0}),
        ("weight-clipping", {"kappa": 1e30}),
    ],
)
def test_switched_off_it_is_adam_to_the_bit(name, off):
    net, other = network(), network()
    plain = torch.optim.Adam(other.parameters(), lr=1e-2)
    optimizer = attached(name, net, **off)
    train(net, optimizer, batches(4))
    optimizer.switch()
    for x, y in batches(4):
        plain.zero_grad()
        functional.mse_loss(other(x), y).backward()
        plain.step()
    same(net, other)


def test_schedules_groups_and_closures_reach_the_optimizer():
    net = network()
    optimizer = attached("redo+l2-init", net, every=2, threshold=0.5)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    x, y = batches(1)[0]

    def closure():
        optimizer.zero_grad()
        loss = functional.mse_loss(net(x), y) + optimizer.penalty()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() > 0
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == 5e-3
    optimizer.step(closure)
    assert optimizer.info["units_reset"] > 0
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
    assert len(optimizer.param_groups) == 2


def test_gradients_add_up_and_may_be_scaled():
    net = network()
    optimizer = attached("redo+l2-init", net, every=1, threshold=-1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for x, y in batches(3):
        scaler.scale(functional.mse_loss(net(x), y) + optimizer.penalty()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert optimizer.updates == 1


def test_an_optimizer_of_ones_own_makes_the_updates():
    net = network()
    sgd = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    optimizer = attach("redo", net, X, optimizer=sgd, every=1, threshold=1e6)
    train(net, optimizer, batches(1))
    assert optimizer.info == {"units_reset": 12}
    assert not sgd.state[net[0].weight]["momentum_buffer"].any()
    assert not net[4].weight.any()


def test_adamo_takes_hidden_kernels():
    optimizer = attached("adamo+l2-init", network())
    assert isinstance(optimizer._base, AdamO)
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 4]


def test_batches_are_kept_only_until_the_update_that_looks_at_them():
    net = network()
    optimizer = attached("redo", net, every=2)
    for step, (x, y) in enumerate(batches(4)):
        x = x.clone()
        functional.mse_loss(net(x), y).backward()
        assert (optimizer._batch is not None) == (step % 2 == 1)
        kept = weakref.ref(x)
        optimizer.step()
        del x
        gc.collect()
        assert kept() is None
    with torch.no_grad():
        net(X)
    optimizer.detach()
    net(X)
    assert optimizer._batch is None
    assert not net._forward_pre_hooks


def test_copies_of_the_network_are_not_attached():
    net = network()
    optimizer = attached("redo", net, every=1)
    other = copy.deepcopy(net)
    file = io.BytesIO()
    torch.save(net, file)
    other(X)
    assert optimizer._batch is None
    with pytest.raises(UserError, match=r"got a copy or a pickle of an attached optimizer; wanted its state_dict"):
        copy.deepcopy(optimizer)


def test_running_statistics_of_replaced_units_start_again():
    net, images = vgg(), torch.randn(6, 3, 8, 8)
    optimizer = attach("continual-backprop", net, images, lr=1e-2, replacement_rate=1.0, maturity=0)
    net(images).square().mean().backward()
    assert net[1].running_mean.any()
    optimizer.step()
    assert not net[1].running_mean.any()
    assert (net[1].running_var == 1).all()
    assert optimizer.info["units_reset"] == 20


def test_frozen_layers_are_left_alone():
    net = network()
    net[0].weight.requires_grad_(False)
    before = copy.deepcopy(net)
    optimizer = attached("redo+shrink-perturb", net, every=1, threshold=1e6)
    assert train(net, optimizer, batches(1)) == [{"units_reset": 6}]
    optimizer.switch()
    assert torch.equal(net[0].weight, before[0].weight)
    net.requires_grad_(False)
    optimizer.detach()
    with pytest.raises(UserError, match=r"got ReDo on hidden layers that all have frozen parameters; wanted a layer"):
        attach("redo", net, X, optimizer=torch.optim.SGD([torch.ones(1)], 0.1))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("redoo", {}, r"got the method 'redoo'; wanted one of .*Did you mean 'redo'\?"),
        ("redo", {"evry": 3}, r"got the option 'evry'; wanted one of .*Did you mean 'every'\?"),
        ("redo", {"every": 0}, r"got every=0; wanted a finite number ≥ 1"),
        ("redo+redo", {}, r"got the combination 'redo\+redo': redo twice; wanted every method once"),
        ("adam+adamo", {}, r"got the combination 'adam\+adamo': adam and adamo; wanted every method once"),
        ("nap", {}, r"got Normalize-and-Project on 0, 2 without a norm of its own; wanted hidden layers"),
        ("shrink-perturb", {"mode": "to-init"}, r"got shrink=0.4 and perturb=0.1 with mode='to-init'; wanted the sh"),
        ("shrink-perturb", {"mode": "gaussian"}, r"got shrink=0.4; wanted a number in \[0.9, 1\]"),
    ],
)
def test_refuses(name, options, message):
    with pytest.raises(UserError, match=message):
        attach(name, network(), X, **options)


def test_refuses_networks():
    with pytest.raises(UserError, match=r"got ReDo on a network without a hidden layer whose units can be reset"):
        attach("redo", nn.Linear(4, 2), X)
    with pytest.raises(UserError, match=r"got 'weight', which is not initialised"):
        attach("redo", nn.LazyLinear(2), X)
    with pytest.raises(UserError, match=r"on the device 'meta'"):
        attach("l2-init", nn.Linear(4, 2, device="meta"), X)
    with pytest.raises(UserError, match=r"got no examples; wanted a batch to find the layers with"):
        attach("redo", network())
    net = network()
    first = attach("redo", net, X)
    with pytest.raises(UserError, match=r"got a network with 'redo' attached; wanted one optimizer for a network"):
        attach("l2-init", net, X)
    first.detach()
    wiring = infer_wiring(net, X)
    assert attach("l2-init", net, wiring=wiring).wiring is wiring


def test_what_is_forgotten_in_the_loop_is_said():
    net = network()
    optimizer = attached("l2-init", net)
    net(X).sum().backward()
    with pytest.raises(UserError, match=r"got an update of 'l2-init' without its penalty; wanted the penalty in the"):
        optimizer.step()
    optimizer.detach()
    optimizer = attached("continual-backprop", net)
    net.forward(X).sum().backward()
    with pytest.raises(UserError, match=r"got update 1 of continual-backprop without a forward pass before it"):
        optimizer.step()
    state = optimizer.state_dict()
    optimizer.detach()
    with pytest.raises(UserError, match=r"got a state of continual-backprop; wanted one of redo"):
        attached("redo", net).load_state_dict(state)


def test_functional_networks_are_reset_too():
    net = Functional()
    optimizer = attach("redo", net, X, every=1, threshold=1e6, initializer=nn.init.orthogonal_)
    net(X).sum().backward()
    optimizer.step()
    assert not net.b.weight.any()
    torch.testing.assert_close(net.a.weight.T @ net.a.weight, torch.eye(4))
