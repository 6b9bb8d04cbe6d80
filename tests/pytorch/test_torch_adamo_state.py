import copy
import io
import pickle

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pliant.errors import UserError
from pliant.torch import AdamO, param_groups
from torch_small import batches, network, one, same, trained


@pytest.mark.parametrize("stop", [3, 4, 7])
def test_a_loaded_state_resumes_to_the_bit(stop):
    data = batches(12)
    whole = network()
    options = {"lr": 1e-2, "isometry_every": 4}
    optimizer = AdamO(param_groups(whole, head="4"), **options)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
    trained(whole, optimizer, data, schedule)

    net = network()
    optimizer = AdamO(param_groups(net, head="4"), **options)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
    trained(net, optimizer, data[:stop], schedule)
    file = io.BytesIO()
    torch.save([net.state_dict(), optimizer.state_dict(), schedule.state_dict()], file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    net = network()
    optimizer = AdamO(param_groups(net, head="4"), isometry_strength=7.0)  # what the file says wins
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
    for part, state in zip((net, optimizer, schedule), states, strict=True):
        part.load_state_dict(state)
    same(trained(net, optimizer, data[stop:], schedule), whole)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_go_on_alike(copied):
    net = network()
    optimizer = AdamO(param_groups(net, head="4"), lr=1e-2, isometry_every=4)
    trained(net, optimizer, batches(3))
    other, other_optimizer = copied((net, optimizer))
    same(trained(net, optimizer, batches(3)), trained(other, other_optimizer, batches(3)))


def test_a_state_of_adam_keeps_what_adam_does_not_know():
    net = network()
    adam = torch.optim.Adam(param_groups(net, head="4"), lr=3e-3)
    trained(net, adam, batches(3))
    state = adam.state_dict()
    for group in state["param_groups"]:
        del group["isometry"]  # Adam keeps what it is given
    optimizer = AdamO(param_groups(net, head="4"), isometry_strength=0.3)
    optimizer.load_state_dict(state)
    first, second = optimizer.param_groups
    assert (first["isometry"], second["isometry"]) == (True, False)
    assert (first["lr"], first["isometry_strength"], int(first["updates"])) == (3e-3, 0.3, 0)
    assert torch.equal(optimizer.state[net[0].weight]["exp_avg"], adam.state[net[0].weight]["exp_avg"])
    trained(net, optimizer, batches(1))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (one(lr=-1.0), r"got lr=-1.0; wanted a finite number ≥ 0\. Use a step size"),
        (one(betas=(0.9, 1.0)), r"got betas=1.0; wanted a number in \[0, 0.999999\]\. \(0.9, 0.999\) is usual"),
        (one(eps=-1.0), r"got eps=-1.0; wanted a finite number ≥ 0\. 1e-8"),
        (one(isometry_strength=-0.1), r"got isometry_strength=-0.1; wanted a finite number ≥ 0\. Use 0 for plain Adam"),
        (one(isometry_every=0), r"got isometry_every=0; wanted a finite number ≥ 1\. Use 1 for the paper's"),
        (one(gain=0.0), r"got gain=0.0; wanted a finite number ≥ 1e-12\. Use 1 for isometry"),
        (one(rectangular="Fan"), r"got rectangular='Fan'; wanted 'none' or 'fan'\. Leave it out"),
        (one(weight_decay=-0.1), r"got weight_decay=-0.1; wanted a finite number ≥ 0\. Use 0 for none"),
        (one(isometry_every=2.5), r"got isometry_every=2.5; wanted a whole number ≥ 1\. Use 1 for the paper's"),
        (one(isometry="yes"), r"got isometry='yes'; wanted True or False\. Leave it out"),
        (one(maximize="no"), r"got maximize='no'; wanted True or False\. Leave it out"),
        (one(betas=0.9), r"got betas=0.9; wanted two numbers\. \(0.9, 0.999\)"),
        (one(betas=(0.9, 0.99, 0.999)), r"got betas=\(0.9, 0.99, 0.999\); wanted two numbers"),
        (one(lr="1e-3"), r"got lr='1e-3'; wanted a finite number\. Use a step size"),
        (one(amsgrad=True), r"got amsgrad=True; wanted amsgrad=False\. Leave it out: AdamO keeps no maximum"),
        (one(fused=True), r"got fused=True; wanted fused=False\. Leave it out: AdamO has no fused kernel"),
        (one(differentiable=True), r"got differentiable=True; wanted differentiable=False\. Leave it out: AdamO does"),
        (
            one(weight_decay=0.1, decoupled_weight_decay=False),
            r"got weight_decay=0.1 that is added to the gradient, as in torch.optim.Adam; wanted decoupled",
        ),
        (one(isometry_strenght=0.1), r"got the option 'isometry_strenght'; .*Did you mean 'isometry_strength'\?"),
        (one(maximise=True), r"got the option 'maximise'; .*Did you mean 'maximize'\?"),
        (one(LR=1e-2), r"got the option 'LR'; wanted one of"),
        (one(isometry_period=2), r"got the option 'isometry_period'; wanted one of"),
        (one(isometry=False), r"got 1 parameter group\(s\), none of which has isometry=True; .*param_groups\(module"),
        (
            one(params=[torch.nn.Parameter(torch.ones(3))]),
            r"got a parameter of shape \(3,\) with isometry=True; wanted weights .*Put biases",
        ),
        (
            one(params=[torch.nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))]),
            r"got a complex parameter of shape \(2, 2\); wanted real numbers\. Give complex",
        ),
    ],
)
def test_refuses(groups, message):
    with pytest.raises(UserError, match=message):
        AdamO(groups)


@pytest.mark.parametrize(
    "make",
    [
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=4),
        lambda optimizer: torch.optim.lr_scheduler.CyclicLR(optimizer, 0.01, 0.1, step_size_up=2, cycle_momentum=False),
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 2),
    ],
)
def test_schedules_may_keep_their_numbers_in_the_groups(make):
    ours, plain = network(), network()
    pair = (
        (ours, AdamO(param_groups(ours, head="4"), lr=1e-2, isometry_strength=0.0)),
        (plain, torch.optim.Adam(plain.parameters(), lr=1e-2)),
    )
    for net, optimizer in pair:
        trained(net, optimizer, batches(3), make(optimizer))
    same(ours, plain)
    fresh = AdamO(param_groups(network(), head="4"))
    fresh.load_state_dict(pair[0][1].state_dict())
    assert fresh.param_groups[0]["lr"] == pair[1][1].param_groups[0]["lr"]


def test_misspelt_strings_and_lists_for_numbers_are_refused():
    for lr in ("1e-3", None, [1e-3, 1e-3], 1e-3j):
        with pytest.raises(UserError, match=r"got lr=.*; wanted a finite number"):
            AdamO(one(lr=lr))


def test_keys_of_other_programs_are_kept():
    keys = {
        "rho": 0.05,
        "adaptive": True,
        "lr0": 0.1,
        "initial_lr": 0.1,
        "max_lr": 0.1,
        "name": "trunk",
        "lr_scale": 0.5,
    }
    neutral = {"foreach": None, "fused": None, "amsgrad": False, "differentiable": False, "beta1": None}
    neutral |= {"decoupled_weight_decay": True}
    plain, foreign = network(), network()
    optimizer = AdamO(param_groups(plain, head="4"), weight_decay=0.1, isometry_every=1)
    other = AdamO(
        [group | keys | neutral for group in param_groups(foreign, head="4")], weight_decay=0.1, isometry_every=1
    )
    same(trained(plain, optimizer, batches(3)), trained(foreign, other, batches(3)))
    assert all(group[name] == value for group in other.param_groups for name, value in (keys | neutral).items())
    fresh = AdamO(param_groups(network(), head="4"))
    fresh.load_state_dict(other.state_dict())
    assert fresh.param_groups[1]["rho"] == 0.05


class SAM(torch.optim.Optimizer):
    """As in davda54/sam: a base optimizer whose groups it shares, and a state of its own."""

    def __init__(self, params, base_optimizer, rho=0.05, **options):
        super().__init__(params, {"rho": rho, "adaptive": False, **options})
        self.base_optimizer = base_optimizer(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups
        self.defaults.update(self.base_optimizer.defaults)

    @torch.no_grad()
    def first_step(self):
        for group in self.param_groups:
            norm = torch.stack([p.grad.norm() for p in group["params"]]).norm()
            for p in group["params"]:
                self.state[p]["old_p"] = p.data.clone()
                p.add_(p.grad * (group["rho"] / (norm + 1e-12)))

    @torch.no_grad()
    def second_step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.data = self.state[p]["old_p"]
        self.base_optimizer.step()

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.base_optimizer.param_groups = self.param_groups


def sam_steps(net, optimizer, data):
    for x, y in data:
        for step in (optimizer.first_step, optimizer.second_step):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(net(x), y).backward()
            step()


def test_sam_wraps_it():
    ours, by_hand = network(), network()
    optimizer = SAM(param_groups(ours, head="4"), AdamO, lr=1e-2, isometry_every=2)
    sam_steps(ours, optimizer, batches(4))
    assert [int(group["updates"]) for group in optimizer.base_optimizer.param_groups] == [4, 4]
    plain = SAM(param_groups(by_hand, head="4"), AdamO, lr=1e-2, isometry_strength=0.0)
    sam_steps(by_hand, plain, batches(4))
    assert not torch.equal(ours[2].weight, by_hand[2].weight)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    sam_steps(ours, optimizer, batches(1))
    assert [int(group["updates"]) for group in optimizer.base_optimizer.param_groups] == [5, 5]


def test_a_wrapper_that_shares_the_state_does_not_hide_the_moments():
    net, plain = network(), network()
    optimizer = AdamO(param_groups(net, head="4"))
    for parameter in net.parameters():
        optimizer.state[parameter]["old_p"] = parameter.detach().clone()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    same(trained(net, optimizer, batches(2)), trained(plain, AdamO(param_groups(plain, head="4")), batches(2)))
    AdamO(param_groups(network(), head="4")).load_state_dict(optimizer.state_dict())


def test_groups_that_a_wrapper_replaced_are_refused():
    net = network()
    optimizer = AdamO(param_groups(net, head="4"))
    groups = optimizer.param_groups
    optimizer.param_groups = [{"params": list(net.parameters()), "lr": 1e-3}]
    with pytest.raises(
        UserError, match=r"got a parameter group without betas, .*updates; wanted groups that AdamO made"
    ):
        optimizer.step()
    optimizer.param_groups = groups
    groups[0]["params"] = [torch.nn.Parameter(torch.zeros(60))]  # flattened, as sharding programs do
    with pytest.raises(UserError, match=r"got a parameter of shape \(60,\) with isometry=True"):
        optimizer.step()
    assert int(groups[1]["updates"]) == 0


@pytest.mark.parametrize("overflow", [False, True])
def test_a_gradient_scaler_skips_updates_that_overflow(overflow):
    net, plain = network(), network()
    optimizer = AdamO(param_groups(net, head="4"), isometry_every=1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before = copy.deepcopy(net)
    x, y = batches(1)[0]
    scaler.scale(torch.nn.functional.mse_loss(net(x), y)).backward()
    if overflow:
        net[0].weight.grad[0, 0] = float("inf")
    scaler.step(optimizer)
    scaler.update()
    assert int(optimizer.param_groups[0]["updates"]) == (not overflow)
    reference = AdamO(param_groups(plain, head="4"), isometry_every=1)
    same(net, before if overflow else trained(plain, reference, batches(1)))


def checkpoint(make, **options):
    """The state that an optimizer has after two updates, with the same groups as AdamO's."""
    net = network()
    optimizer = make([{"params": group["params"]} for group in param_groups(net, head="4")], **options)
    trained(net, optimizer, batches(2))
    return copy.deepcopy(optimizer.state_dict())


def changed(state, place, value):
    *path, last = place
    part = state
    for name in path:
        part = part[name]
    part[last] = value
    return state


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (torch.optim.Adam, {}),
        (torch.optim.AdamW, {}),
        (torch.optim.AdamW, {"fused": True}),
        (torch.optim.Adam, {"foreach": True}),
        (torch.optim.Adam, {"betas": (0.8, 0.9), "eps": 1e-6}),
    ],
)
def test_a_state_of_adam_or_adamw_goes_on_as_it_would_there(make, options):
    nets = network(), network()
    adam = make([{"params": group["params"]} for group in param_groups(nets[0], head="4")], lr=1e-2, **options)
    trained(nets[0], adam, batches(3))
    nets[1].load_state_dict(nets[0].state_dict())
    optimizer = AdamO(param_groups(nets[1], head="4"), isometry_strength=0.0)
    optimizer.load_state_dict(copy.deepcopy(adam.state_dict()))
    assert optimizer.param_groups[0]["weight_decay"] == adam.param_groups[0]["weight_decay"]
    for net, other in zip(nets, (adam, optimizer), strict=True):
        trained(net, other, batches(3))
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0.0)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            lambda: checkpoint(torch.optim.SGD, lr=0.1, momentum=0.9),
            r"whose groups have no betas, eps, amsgrad; wanted",
        ),
        (lambda: checkpoint(torch.optim.SGD, lr=0.1), r"whose groups have no betas, eps, amsgrad"),
        (lambda: checkpoint(torch.optim.RMSprop), r"whose groups have no betas, amsgrad; wanted the state of AdamO"),
        (lambda: checkpoint(torch.optim.NAdam), r"whose groups have no amsgrad; .*Start AdamO without it"),
        (lambda: checkpoint(torch.optim.RAdam), r"whose groups have no amsgrad"),
        (lambda: checkpoint(torch.optim.Adamax), r"whose groups have no amsgrad"),
        (lambda: checkpoint(torch.optim.Adam, amsgrad=True), r"got amsgrad=True; wanted amsgrad=False\. Leave it out"),
        (lambda: checkpoint(torch.optim.Adam, weight_decay=0.1), r"got weight_decay=0.1 that is added to the gradient"),
        (lambda: checkpoint(torch.optim.Adam, maximize=True), r"got a state with maximize=True for a group with maxi"),
        (
            lambda: changed(checkpoint(torch.optim.Adam), ("state", 0, "max_exp_avg_sq"), torch.ones(6, 4)),
            r"got a state with step, exp_avg, exp_avg_sq, max_exp_avg_sq for a parameter of shape \(6, 4\); wanted",
        ),
        (
            lambda: changed(
                checkpoint(torch.optim.Adam), ("state", 0), {"step": 1.0, "momentum_buffer": torch.ones(6)}
            ),
            r"got a state with step, momentum_buffer for a parameter of shape \(6, 4\)",
        ),
        (
            lambda: changed(checkpoint(torch.optim.Adam), ("state", 1, "exp_avg"), torch.ones(6, 4)),
            r"got exp_avg of shape \(6, 4\) for a parameter of shape \(6, 6\); wanted one entry a weight",
        ),
        (
            lambda: changed(checkpoint(torch.optim.Adam), ("state", 0, "step"), torch.tensor(float("nan"))),
            r"got step=nan; wanted a finite number.*damaged",
        ),
        (
            lambda: changed(checkpoint(torch.optim.Adam), ("state", 0, "step"), torch.tensor(-1.0)),
            r"got step=-1.0; wanted a finite number ≥ 0",
        ),
        (
            lambda: changed(checkpoint(torch.optim.Adam), ("param_groups", 0, "lr"), float("nan")),
            r"got lr=nan; wanted a finite number ≥ 0",
        ),
        (
            lambda: changed(checkpoint(torch.optim.Adam), ("param_groups",), []),
            r"got a state that is not loaded \(loaded state dict has a different number of parameter groups\); wanted",
        ),
        (
            lambda: {"model": {}, "optimizer": {}},
            r"got a state that is not loaded \('param_groups'\); wanted the state_",
        ),
    ],
)
def test_states_that_mean_something_else_are_refused(state, message):
    net = network()
    optimizer = AdamO(param_groups(net, head="4"))
    trained(net, optimizer, batches(1))
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(UserError, match=message):
        optimizer.load_state_dict(state())
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for a, b in zip(after["state"].values(), before["state"].values(), strict=True):
        assert all(torch.equal(a[name], b[name]) for name in b)


def test_a_state_of_adamw_from_before_it_said_so_is_refused():
    state = checkpoint(torch.optim.AdamW)
    for group in state["param_groups"]:
        group.pop("decoupled_weight_decay", None)
    optimizer = AdamO(param_groups(network(), head="4"))
    with pytest.raises(UserError, match=r"got weight_decay=0.01 .*If AdamW made the state, set decoupled_weight_decay"):
        optimizer.load_state_dict(state)
    for group in state["param_groups"]:
        group["decoupled_weight_decay"] = True
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["weight_decay"] == 0.01


def test_a_state_of_another_machine_loads():
    net, copied = network(), network()
    optimizer = AdamO(param_groups(net, head="4"))
    trained(net, optimizer, batches(2))
    state = copy.deepcopy(optimizer.state_dict())
    copied.load_state_dict(net.state_dict())
    for group in state["param_groups"]:
        group["capturable"] = True  # as torch.compile leaves it on a GPU
    other = AdamO(param_groups(copied, head="4"))
    other.load_state_dict(state)
    same(trained(net, optimizer, batches(2)), trained(copied, other, batches(2)))


def test_states_before_weight_decay_load():
    optimizer = AdamO(param_groups(network(), head="4"))
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        del group["weight_decay"], group["maximize"]
    other = AdamO(param_groups(network(), head="4"), weight_decay=0.1)
    other.load_state_dict(state)
    assert other.param_groups[0]["weight_decay"] == 0.1
    pickled = AdamO.__new__(AdamO)
    options = {"lr": 1e-3}
    pickled.__setstate__({"defaults": options, "state": {}, "param_groups": [{"params": []}]})
    assert (pickled.param_groups[0]["weight_decay"], pickled.defaults["maximize"]) == (0.0, False)


@pytest.mark.parametrize("name", ["lr", "eps", "weight_decay", "isometry_strength", "gain"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), (1e-3, 1e-3)])
def test_numbers_that_are_tensors_or_arrays_are_checked(name, value):
    for array in (torch.tensor(value), np.float32(value), np.array(value), jnp.array(value)):
        with pytest.raises(UserError, match=f"got {name}="):
            AdamO(one(**{name: array}))


def test_betas_and_periods_that_are_tensors_are_checked():
    for betas in (torch.tensor([0.9, 1.0]), (torch.tensor(0.9), torch.tensor(float("nan"))), np.array([0.9, -0.1])):
        with pytest.raises(UserError, match=r"got betas=.*; wanted a .*number"):
            AdamO(one(betas=betas))
    with pytest.raises(UserError, match=r"got isometry_every=2.5; wanted a whole number"):
        AdamO(one(isometry_every=torch.tensor(2.5)))


def test_numbers_may_be_tensors_or_arrays():
    plain, arrays, tensors = network(), network(), network()
    numbers = {"lr": 0.0078125, "betas": (0.875, 0.96875), "eps": 2**-20, "weight_decay": 0.125, "gain": 1.5}
    as_arrays = {name: np.array(value, np.float32) for name, value in numbers.items()} | {"isometry_every": np.int64(2)}
    as_tensors = {name: torch.tensor([value]) for name, value in numbers.items() if name != "betas"}
    as_tensors |= {"betas": tuple(map(torch.tensor, numbers["betas"])), "isometry_every": torch.tensor(2)}
    for net, options in ((plain, numbers | {"isometry_every": 2}), (arrays, as_arrays), (tensors, as_tensors)):
        trained(net, AdamO(param_groups(net, head="4"), **options), batches(6))
    same(plain, arrays)
    for a, b in zip(plain.parameters(), tensors.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0.0)


def test_named_parameters_and_generators():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False))
    optimizer = AdamO((parameter for parameter in net.parameters()), isometry=True)
    assert len(optimizer.param_groups[0]["params"]) == 2
    if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 6):
        named = AdamO(net.named_parameters(), isometry=True, isometry_every=1)
        assert named.param_groups[0]["param_names"] == ["0.weight", "1.weight"]
        named.step()
        named.load_state_dict(optimizer.state_dict())
        assert named.param_groups[0]["param_names"] == ["0.weight", "1.weight"]


def test_a_refused_group_is_not_added():
    optimizer = AdamO(one())
    with pytest.raises(UserError, match="got lr=-1"):
        optimizer.add_param_group(one(lr=-1.0)[0])
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group(one()[0])
    optimizer.step()
    assert [int(group["updates"]) for group in optimizer.param_groups] == [1, 1]
