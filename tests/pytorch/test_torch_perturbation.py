import copy

import pytest

torch = pytest.importorskip("torch")

from pliant.errors import UserError
from pliant.torch import HiddenLayer, Reader, ReDo
from torch_small import Reorder, pair, redo_of


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class Flat(torch.nn.Module):
    """A convolution in front of a linear layer, and what comes between them."""

    def __init__(self, between, width=4, after=None):
        super().__init__()
        self.conv = torch.nn.Conv2d(2, width, 1)
        self.act = torch.nn.ReLU()
        self.between = Reorder(between)
        self.after = after or torch.nn.Identity()
        self.head = torch.nn.Linear(width * 12, 2)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.head(self.after(self.between(self.act(self.conv(x)))))


def flatten_channels_last(x):
    return x.permute(0, 2, 3, 1).flatten(1)


@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize(
    ("between", "right", "wrong"),
    [
        (torch.nn.Flatten(), {"repeats": 12}, {"tiles": 12}),
        (flatten_channels_last, {"tiles": 12}, {"repeats": 12}),
        (torch.nn.Flatten(), {"repeats": 12}, {"repeats": 4, "tiles": 3}),
    ],
)
def test_readers_that_find_the_units_elsewhere_are_refused(between, right, wrong, width):
    module = Flat(between, width)
    optimizer = torch.optim.Adam(module.parameters())
    x = torch.randn(5, 2, 3, 4)
    ReDo(module, optimizer, [HiddenLayer("conv", "act", [Reader("head", **right)])]).scores(x)
    before = copy.deepcopy(module)
    redo = ReDo(module, optimizer, [HiddenLayer("conv", "act", [Reader("head", **wrong)])], threshold=1e6, every=1)
    with pytest.raises(
        UserError, match=r"got 'head', where a change of one unit of 'conv' shows in other entries than"
    ):
        redo.step(x)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), before.parameters(), strict=True))


@pytest.mark.parametrize(
    ("feed", "reorder", "size"),
    [
        (torch.nn.Conv2d(2, 4, 1), lambda x: x.permute(0, 2, 3, 1), (3, 2, 4, 4)),
        (torch.nn.Linear(2, 4), lambda x: x.transpose(1, 2), (3, 4, 2)),
    ],
)
def test_axes_of_the_same_length_are_told_apart(feed, reorder, size):
    module = torch.nn.Sequential(feed, Reorder(reorder), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    module.forward = lambda x: module[2](module[1](module[0](x)))
    redo = ReDo(module, torch.optim.Adam(module.parameters()), [HiddenLayer("0", "2", ["3"])])
    with pytest.raises(
        UserError, match=r"got the activation, where a change of one unit of '0' shows in other entries"
    ):
        redo.scores(torch.randn(size))


@pytest.mark.parametrize(
    "after",
    [
        torch.nn.LayerNorm(48),
        torch.nn.Sequential(torch.nn.Unflatten(1, (4, 12)), torch.nn.GroupNorm(2, 4), torch.nn.Flatten()),
        torch.nn.Sequential(torch.nn.Unflatten(1, (4, 3, 4)), torch.nn.BatchNorm2d(4), torch.nn.Flatten()),
        torch.nn.Dropout(),
        torch.nn.ReLU(inplace=True),
    ],
)
def test_norms_between_a_unit_and_its_reader_are_no_other_places(after):
    module = Flat(torch.nn.Flatten(), after=after)
    redo = ReDo(
        module, torch.optim.Adam(module.parameters()), [HiddenLayer("conv", "act", [Reader("head", repeats=12)])]
    )
    redo.scores(torch.randn(5, 2, 3, 4))
    assert module.calls == 4
    redo.scores(torch.randn(5, 2, 3, 4))
    assert module.calls == 5  # places are found out once


def test_a_layer_that_reads_nothing_of_the_unit_changes_nothing():
    module = pair(activation=torch.nn.LayerNorm(4))
    with torch.no_grad():
        module[1].weight.zero_()  # as networks start whose residual branches are silent at first
    layers = [HiddenLayer("0", "1", ["2"], norm="1")]
    redo = ReDo(module, torch.optim.Adam(module.parameters()), layers, threshold=1e6, every=1)
    assert redo.step(torch.randn(5, 3)) == 4


@pytest.mark.parametrize("width", [2, 3, 8])
@pytest.mark.parametrize("activation", [torch.nn.ReLU, torch.nn.GELU, torch.nn.Tanh, torch.nn.Hardswish])
def test_narrow_norms_do_not_hide_a_unit(width, activation):
    for seed in range(5):
        torch.manual_seed(seed)
        norm = torch.nn.LayerNorm(width)
        module = torch.nn.Sequential(torch.nn.Linear(3, width), activation(), norm, torch.nn.Linear(width, 2))
        redo = ReDo(module, torch.optim.Adam(module.parameters()), [HiddenLayer("0", "1", ["3"])])
        assert redo.scores(torch.randn(8, 3))["0"].shape == (width,)


class Observed(torch.nn.Module):
    """Notes what it sees in evaluation mode too, as observers of quantisation do, and draws."""

    def __init__(self):
        super().__init__()
        self.register_buffer("largest", torch.zeros(()))

    def forward(self, x):
        self.largest.copy_(torch.maximum(self.largest, x.abs().max()))
        return x + 0 * torch.rand(())


def test_what_the_network_counts_and_draws_stays():
    module, x = pair(activation=torch.nn.Sequential(torch.nn.ReLU(), Observed())), torch.randn(5, 3)
    redo = redo_of(module)
    torch.manual_seed(1)
    module(x)
    state, largest = torch.random.get_rng_state(), module[1][1].largest.clone()
    torch.manual_seed(1)
    redo.scores(x)
    assert torch.equal(module[1][1].largest, largest)
    assert torch.equal(torch.random.get_rng_state(), state)


class Gated(torch.nn.Module):
    """Squeeze and excitation: every unit changes how much of all others passes."""

    def __init__(self):
        super().__init__()
        self.conv, self.act = torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.ReLU()
        self.squeeze, self.gate, self.last = torch.nn.Linear(8, 4), torch.nn.Linear(4, 8), torch.nn.Conv2d(8, 2, 1)

    def forward(self, x):
        h = self.act(self.conv(x))
        gate = self.gate(self.squeeze(h.mean(dim=(2, 3))).relu()).sigmoid()
        return self.last(h * gate[:, :, None, None])


@pytest.mark.parametrize("seed", range(10))
def test_gates_that_close_do_not_hide_a_unit(seed):
    torch.manual_seed(seed)
    module = Gated()
    redo = ReDo(module, torch.optim.Adam(module.parameters()), [HiddenLayer("conv", "act", ["squeeze", "last"])])
    assert redo.scores(torch.randn(2, 1, 8, 8))["conv"].shape == (8,)


class Read(torch.nn.Module):
    """Two linear layers that may read one activation; `join` says how."""

    def __init__(self, join):
        super().__init__()
        self.feed, self.act, self.a, self.b = (
            torch.nn.Linear(3, 4),
            torch.nn.ReLU(),
            torch.nn.Linear(4, 4),
            torch.nn.Linear(4, 4),
        )
        self.norm, self.join = torch.nn.LayerNorm(4), join

    def forward(self, x):
        return self.join(self, self.act(self.feed(x)))


def read(join, readers=("a",)):
    module = Read(join)
    layers = [HiddenLayer("feed", "act", list(readers))]
    return ReDo(module, torch.optim.Adam(module.parameters()), layers).scores(torch.randn(5, 3))


LINEAR = torch.nn.functional.linear


@pytest.mark.parametrize(
    ("join", "way"),
    [
        (lambda net, h: net.a(h) + net.b(h), "'b'"),
        (lambda net, h: {"actor": net.a(h), "critic": net.b(net.norm(h)).softmax(-1)}, "output 1 of the network"),
        (lambda net, h: net.a(h + net.b(h)), "'b'"),
        (lambda net, h: net.a(h * net.b(h).sigmoid()), "'b'"),
        (lambda net, h: net.b(net.a(h) + h), "'b'"),
        (lambda net, h: net.a(h) + h, "output 0 of the network"),
        (lambda net, h: (net.a(h), LINEAR(h.detach(), net.b.weight)), "output 1 of the network"),
        (lambda net, h: LINEAR(h, net.a.weight) + h, "output 0 of the network"),
        (lambda net, h: net.a(h) + torch.nn.functional.dropout(h), "output 0 of the network"),
    ],
)
def test_ways_around_the_readers_are_refused(join, way):
    with pytest.raises(
        UserError,
        match=rf"got {way}, where a change of one unit of 'feed' shows although what 'a' gives does not change; "
        r"wanted all layers .* Add the others to the readers",
    ):
        read(join)


def test_zero_weights_do_not_hide_a_reader():
    def join(net, h):
        with torch.no_grad():
            net.b.weight.zero_()
        return net.a(h) + net.b(h)

    with pytest.raises(UserError, match="got 'b', where a change"):
        read(join)


@pytest.mark.parametrize(
    ("join", "readers"),
    [
        (lambda net, h: net.a(h) + net.b(h), ("a", "b")),
        (lambda net, h: net.a(h * net.b(h).sigmoid()), ("a", "b")),
        (lambda net, h: net.b(net.a(h)).relu().softmax(-1), ("a",)),
        (lambda net, h: (net.a(net.norm(h)), h, net.norm(h)), ("a",)),  # returns features
        (lambda net, h: net.a(torch.nn.functional.dropout(h)), ("a",)),
        (lambda net, h: net.a(h) + torch.randn(4), ("a",)),
        (lambda net, h: net.a(h) + next(NOISE), ("a",)),
        (lambda net, h: LINEAR(h, net.a.weight, net.a.bias), ("a",)),
        (lambda net, h: LINEAR(net.norm(h), net.a.weight) * net.b(h), ("a", "b")),
        (lambda net, h: net.a(net.a(h)), ("a",)),
        (lambda net, h: (net.a(input=h) / 0).nan_to_num(nan=float("nan")), ("a",)),
    ],
)
def test_readers_that_are_declared_are_the_only_way(join, readers):
    assert read(join, readers)["feed"].shape == (4,)


NOISE = iter(range(100))


def test_layers_that_mix_positions_read_no_units():
    module = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(4, 4, 3, groups=4, padding=1),
        torch.nn.Linear(5, 5),
        torch.nn.Conv2d(4, 2, 1),
    )
    layers = [HiddenLayer("0", "1", ["4"])]
    redo = ReDo(module, torch.optim.Adam(module.parameters()), layers)
    assert redo.scores(torch.randn(2, 2, 5, 5))["0"].shape == (4,)


def test_buffers_that_a_network_replaces_stay():
    module = pair()
    module[1].register_buffer("count", torch.zeros(()))

    def count(part, inputs):
        part.count = part.count + module[0].weight.sum()

    module[1].register_forward_pre_hook(count)
    redo_of(module).scores(torch.randn(5, 3))
    torch.testing.assert_close(module[1].count, module[0].weight.sum().detach())  # scored once
    assert not module[1].count.requires_grad
