import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.nn import functional

from pliant.errors import UserError
from pliant.torch import HiddenLayer, Reader, ReDo, infer_wiring
from torch_models import Excited
from torch_small import Reorder, pair

LINEAR = functional.linear


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class Read(nn.Module):
    """Two linear layers that may read one activation; `join` says how."""

    def __init__(self, join):
        super().__init__()
        self.feed, self.act, self.a, self.b = nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 4)
        self.norm, self.join = nn.LayerNorm(4), join

    def forward(self, x):
        return self.join(self, self.act(self.feed(x)))


def read(join, readers=("a",)):
    return infer_wiring(Read(join), torch.randn(5, 3), layers=[HiddenLayer("feed", "act", list(readers))])


def zeroed(net, h):
    with torch.no_grad():
        net.b.weight.zero_()
    return net.a(h) + net.b(h)


@pytest.mark.parametrize(
    ("join", "why"),
    [
        (lambda net, h: net.a(h) + net.b(h), "way around"),
        (lambda net, h: {"actor": net.a(h), "critic": net.b(net.norm(h)).softmax(-1)}, "way around"),
        (lambda net, h: net.a(h + net.b(h)), "multiplies other entries"),
        (lambda net, h: net.a(h * net.b(h).sigmoid()), "multiplies other entries"),
        (lambda net, h: net.b(net.a(h) + h), "way around"),
        (lambda net, h: net.a(h) + h, "way around"),
        (lambda net, h: net.a(h) + functional.dropout(h), "way around"),
    ],
)
def test_ways_around_the_readers_are_refused(join, why):
    with pytest.raises(
        UserError, match=rf"got the declared hidden layer 'feed': .*{why}.*; wanted units whose outputs"
    ):
        read(join)


@pytest.mark.parametrize(
    ("join", "readers"),
    [
        (zeroed, ("a", "b")),
        (lambda net, h: net.a(h * net.b(h).sigmoid()), ("a", "b")),
        (lambda net, h: (net.a(h), h), ("a",)),  # returns features
        (lambda net, h: net.a(functional.dropout(h)), ("a",)),
        (lambda net, h: net.a(h) + torch.randn(4), ("a",)),
        (lambda net, h: LINEAR(h, net.a.weight, net.a.bias), ("a",)),
        (lambda net, h: LINEAR(net.norm(h), net.a.weight) * net.b(h), ("a", "b")),
    ],
)
def test_readers_that_are_declared_are_the_only_way(join, readers):
    (layer,) = [each for each in read(join, readers).layers if each.name == "feed"]
    assert [slot.parameter for slot in layer.readers] == [f"{name}.weight" for name in readers]


def test_weights_that_are_used_twice_are_refused():
    with pytest.raises(UserError, match=r"whose a.weight is used 2 times in a forward pass; wanted weights that are u"):
        read(lambda net, h: net.a(net.a(h)))
    scale = nn.LayerNorm(4)
    net = nn.Sequential(nn.Linear(3, 4), scale, nn.ReLU(), nn.Linear(4, 4), scale, nn.ReLU(), nn.Linear(4, 2))
    assert infer_wiring(net, torch.randn(5, 3)).others["2"] == "1.weight is used 2 times"


@pytest.mark.parametrize(
    ("between", "right", "wrong"),
    [
        (nn.Flatten(), {"repeats": 12}, {"tiles": 12}),
        (lambda x: x.permute(0, 2, 3, 1).flatten(1), {"tiles": 12}, {"repeats": 12}),
        (nn.Flatten(), {"repeats": 12}, {"repeats": 4, "tiles": 3}),
    ],
)
def test_readers_that_find_the_units_elsewhere_are_refused(between, right, wrong):
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), Reorder(between), nn.Linear(36, 2))
    x = torch.randn(5, 2, 3, 4)
    infer_wiring(net, x, layers=[HiddenLayer("0", "1", [Reader("3", **right)])])
    with pytest.raises(UserError, match=r"'0': what reads it multiplies other entries than those found"):
        infer_wiring(net, x, layers=[HiddenLayer("0", "1", [Reader("3", **wrong)])])


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return x * self.scale


@pytest.mark.parametrize(
    ("between", "owned"),
    [
        (nn.BatchNorm1d(4), ["1.weight", "1.bias", "1.running_mean", "1.running_var"]),
        (nn.LayerNorm(4), ["1.weight", "1.bias"]),
        (Scaled(), ["1.scale"]),
        (nn.PReLU(4), []),
    ],
)
def test_what_belongs_to_the_units_between_is_found_without_being_declared(between, owned):
    net = nn.Sequential(nn.Linear(3, 4), between, nn.ReLU(), nn.Linear(4, 2))
    (layer,) = infer_wiring(net, torch.randn(5, 3), layers=[HiddenLayer("0", "2", ["3"])]).layers
    assert [slot.parameter for slot in layer.feeds] == ["0.weight", "0.bias", *owned]


@pytest.mark.parametrize("width", [2, 3, 8])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Hardswish])
def test_norms_between_a_unit_and_its_reader_do_not_hide_it(width, activation):
    net = nn.Sequential(nn.Linear(3, width), activation(), nn.LayerNorm(width), nn.Linear(width, 2))
    redo = ReDo(net, torch.optim.Adam(net.parameters()), [HiddenLayer("0", "1", ["3"])])
    assert redo.scores(torch.randn(8, 3))["0"].shape == (width,)


@pytest.mark.parametrize("seed", range(3))
def test_squeeze_and_excitation_is_followed(seed):
    torch.manual_seed(seed)
    wiring = infer_wiring(Excited(), torch.randn(2, 1, 8, 8))
    assert [layer.name for layer in wiring.layers] == ["conv", "squeeze"]
    assert [slot.parameter for slot in wiring.layers[0].readers] == ["squeeze.weight", "last.weight"]
    assert [slot.parameter for slot in wiring.layers[0].feeds] == [
        f"{name}.{kind}" for name in ("conv", "gate") for kind in ("weight", "bias")
    ]


class Observed(nn.Module):
    """Notes what it sees in evaluation mode too, as observers of quantisation do, and draws."""

    def __init__(self):
        super().__init__()
        self.register_buffer("largest", torch.zeros(()))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.largest.copy_(torch.maximum(self.largest, x.abs().max()))
        self.count = self.count + 1
        return x + 0 * torch.rand(())


def test_what_the_network_counts_and_draws_stays():
    module, x = pair(activation=nn.Sequential(nn.ReLU(), Observed())), torch.randn(5, 3)
    module(x)
    largest, count = module[1][1].largest.clone(), module[1][1].count
    state = torch.random.get_rng_state()
    ReDo(module, torch.optim.Adam(module.parameters())).scores(10 * x)
    assert torch.equal(module[1][1].largest, largest)
    assert module[1][1].count is count
    assert torch.equal(torch.random.get_rng_state(), state)


def test_inference_mode_changes_nothing():
    module = pair(activation=nn.ReLU())
    redo = ReDo(module, torch.optim.Adam(module.parameters()))
    with torch.inference_mode():
        x = torch.randn(5, 3)
        inside = redo.scores(x)["0"]
    torch.testing.assert_close(redo.scores(x.clone())["0"], inside)
