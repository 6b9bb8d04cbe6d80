import copy

import pytest

torch = pytest.importorskip("torch")

from pliant.errors import UserError
from pliant.torch import HiddenLayer, ReDo
from torch_small import FIRST, after_two_updates, pair, redo_of


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


OPTIMIZERS = {
    "adam": (torch.optim.Adam, {}),
    "foreach": (torch.optim.Adam, {"foreach": True}),
    "fused": (torch.optim.Adam, {"fused": True}),
    "amsgrad": (torch.optim.AdamW, {"amsgrad": True}),
    "momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "sgd": (torch.optim.SGD, {"lr": 0.1}),
    "rmsprop": (torch.optim.RMSprop, {"centered": True, "momentum": 0.9}),
    "adagrad": (torch.optim.Adagrad, {}),
    "adamax": (torch.optim.Adamax, {}),
    "nadam": (torch.optim.NAdam, {}),
    "rprop": (torch.optim.Rprop, {}),
    "asgd": (torch.optim.ASGD, {}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_statistics_are_forgotten_wherever_they_are(name):
    make, options = OPTIMIZERS[name]
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    optimizer = make(module.parameters(), **options)
    for _ in range(2):
        for parameter in module.parameters():
            parameter.grad = torch.rand_like(parameter) + 0.5
        optimizer.step()
    before = copy.deepcopy(optimizer.state_dict()["state"])
    redo = ReDo(module, optimizer, [HiddenLayer("0", "1", ["2"])])
    redo.reset({"0": torch.tensor([True, False, False, False])})
    masks = [torch.zeros(4, 3), torch.zeros(4), torch.zeros(2, 4), torch.zeros(2)]
    masks[0][0], masks[1][0], masks[2][:, 0] = 1, 1, 1
    for i, mask in enumerate(masks):
        for key, value in optimizer.state_dict()["state"].get(i, {}).items():
            if torch.is_tensor(value) and value.shape == mask.shape and key not in ("step_size", "ax"):
                assert torch.equal(value, torch.where(mask.bool(), 0.0, before[i][key]))
            elif value is not None:
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(before[i][key]))


class Factored(torch.optim.Optimizer):
    """Statistics of rows under a name of its own."""

    def __init__(self, params, entries):
        super().__init__(params, {})
        self.entries = entries

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter].update(self.entries(parameter))


REFUSED = {
    "row": (
        lambda p: {"rows": p.abs().sum(-1)},
        r"an optimizer's 'rows', which may be statistics, for weights of shape",
    ),
    "moment of rows": (lambda p: {"exp_avg_sq": p.sum(-1)}, r"an optimizer's 'exp_avg_sq' of shape \(4,\) for weights"),
    "moment of the layer": (
        lambda p: {"exp_avg_sq": p.sum()},
        r"an optimizer's 'exp_avg_sq' of shape \(\) for weights",
    ),
    "codes": (lambda p: {"exp_avg": torch.zeros_like(p, dtype=torch.uint8)}, r"an optimizer's 'exp_avg' of shape"),
    "unknown": (lambda p: {"secret": torch.ones_like(p)}, r"an optimizer's 'secret', which may be statistics"),
    "list": (lambda p: {"GG": [p @ p.T if p.ndim > 1 else p]}, r"an optimizer's 'GG', which may be statistics"),
    "object": (lambda p: {"projector": object()}, r"an optimizer's 'projector', which may be statistics"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_statistics_that_weights_share_are_refused(name):
    entries, message = REFUSED[name]
    module = pair()
    optimizer = Factored(module.parameters(), entries)
    redo = redo_of(module, optimizer)
    after_two_updates(optimizer, module)
    before = copy.deepcopy(module)
    with pytest.raises(
        UserError, match=rf"got {message}.*; wanted statistics with one entry a weight.*Use Adam, AdamO"
    ):
        redo.reset(FIRST)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), before.parameters(), strict=True))
    with pytest.raises(UserError, match=message):
        redo_of(module, optimizer)


def test_counts_and_copies_are_kept():
    module = pair()

    def entries(parameter):
        counts = {"step": 3, "count": torch.ones(()), "ratio": torch.ones(1), "none": None, "flags": [1, "a"]}
        return counts | {"param_init": parameter.detach().clone(), "exp_avg": torch.ones_like(parameter)}

    optimizer = after_two_updates(Factored(module.parameters(), entries), module)
    start = module[0].weight.detach().clone()
    assert redo_of(module, optimizer).reset(FIRST) == 1
    state = optimizer.state[module[0].weight]
    assert torch.equal(state["param_init"], start)
    assert state["exp_avg"].sum(dim=1).tolist() == [0, 3, 3, 3]
    assert (state["step"], state["count"].item(), state["ratio"].item()) == (3, 1.0, 1.0)


def test_adafactor_and_lbfgs_are_refused_before_the_first_update():
    module = pair()
    for make in (torch.optim.LBFGS, getattr(torch.optim, "Adafactor", torch.optim.LBFGS)):
        with pytest.raises(
            UserError, match=rf"got {make.__name__}, whose statistics belong to more than one weight; wanted"
        ):
            redo_of(module, make(module.parameters()))


def test_memory_of_the_whole_network_is_refused_wherever_it_is():
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), *pair())
    optimizer = Factored(module.parameters(), lambda p: {})
    optimizer.state[module[0].weight]["history"] = [torch.zeros(40)]
    layers = [HiddenLayer("1", "2", ["3"])]
    with pytest.raises(UserError, match=r"got memory of Factored that belongs to several parameters; wanted"):
        ReDo(module, optimizer, layers)


def test_adagrads_sum_returns_to_its_start():
    module = pair()
    optimizer = torch.optim.Adagrad(module.parameters(), initial_accumulator_value=0.25)
    after_two_updates(optimizer, module)
    redo_of(module, optimizer).reset(FIRST)
    total = optimizer.state[module[0].weight]["sum"]
    assert total[0].tolist() == [0.25] * 3
    assert (total[1:] > 0.5).all()


class Wrapper(torch.optim.Optimizer):
    """Shares the groups of the optimizer that it keeps in an attribute, and has copies of parameters itself."""

    def __init__(self, inner):
        super().__init__([{"params": group["params"]} for group in inner.param_groups], {})
        self.base_optimizer = inner
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] |= {name: torch.ones_like(parameter) for name in ("old_p", "old")}

    def step(self, closure=None):
        self.base_optimizer.step()


@pytest.mark.parametrize("several", [False, True])
def test_wrapped_and_several_optimizers_forget(several):
    module = pair()
    feed, head = torch.optim.Adam(module[0].parameters()), torch.optim.SGD(module[2].parameters(), 0.1, momentum=0.9)
    adam = torch.optim.Adam(module.parameters())
    used = [feed, head] if several else [Wrapper(adam)]
    for optimizer in used:
        after_two_updates(optimizer, module)
    redo_of(module, used if several else used[0]).reset(FIRST)
    moments = (feed if several else adam).state[module[0].weight]["exp_avg"]
    assert moments.sum(dim=1).ne(0).tolist() == [False, True, True, True]
    if several:
        assert head.state[module[2].weight]["momentum_buffer"].sum(dim=0).ne(0).tolist() == [False, True, True, True]
    else:
        assert all(copied.all() for copied in used[0].state[module[0].weight].values())


def test_parameters_that_the_optimizer_does_not_have_are_refused():
    module = pair()
    optimizer = torch.optim.Adam(module[2].parameters())
    message = (
        r"got '0.weight', a parameter of a hidden layer that the optimizer does not have; wanted the optimizers that"
    )
    with pytest.raises(UserError, match=message):
        redo_of(module, optimizer)
    module[0].requires_grad_(False)
    assert redo_of(module, optimizer).reset(FIRST) == 0
    with pytest.raises(
        UserError, match=r"got dict in place of an optimizer; wanted a torch.optim.Optimizer, or several"
    ):
        redo_of(module, {"lr": 0.1})
