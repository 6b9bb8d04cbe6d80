import copy
import warnings

import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils import prune

from pliant.errors import UserError
from pliant.torch import HiddenLayer, MaxMin, Reader, ReDo, attach, infer_wiring, newton_schulz
from torch_small import FIRST, pair, redo_of


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def parts():
    return torch.nn.ModuleDict(
        {
            "feed": torch.nn.Linear(3, 4),
            "conv": torch.nn.Conv2d(3, 4, 3),
            "transposed": torch.nn.ConvTranspose2d(4, 4, 3),
            "grouped": torch.nn.Conv2d(4, 4, 3, groups=2),
            "act": torch.nn.ReLU(),
            "norm": torch.nn.LayerNorm([4, 2]),
            "orthogonal": newton_schulz(torch.nn.Linear(4, 4)),
            "head": torch.nn.Linear(4, 2),
            "wide": torch.nn.Linear(36, 2),
        }
    )


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (HiddenLayer("fed", "act", ["head"]), r"got the module 'fed'; wanted one of .*Did you mean 'feed'\?"),
        (HiddenLayer("feed", "act", ["hed"]), r"got the module 'hed'; wanted one of .*Did you mean 'head'\?"),
        (HiddenLayer("act", "act", ["head"]), r"got 'act', which is ReLU\(\); wanted a linear layer or a convolution"),
        (
            HiddenLayer("feed", "act", ["grouped"]),
            r"got 'grouped', which is Conv2d\(.*convolution, without groups",
        ),
        (HiddenLayer("conv", "act", ["transposed"]), r"got 'transposed', which is ConvTranspose2d\("),
        (
            HiddenLayer("orthogonal", "act", ["head"]),
            r"got 'orthogonal', whose weight is computed from parametrizations.weight.original; wanted a weight",
        ),
        (HiddenLayer("feed", "act", []), r"got 'feed' without readers; wanted the layers that multiply"),
        (HiddenLayer("feed", "act", [Reader("head", repeats=0)]), r"got repeats=0; wanted a finite number ≥ 1"),
        (
            HiddenLayer("conv", "act", ["wide"]),
            r"got 'wide' with 36 inputs per output, for 4 units of 'conv' × 1 repeats × 1 tiles; wanted as many\. "
            r"Behind a flatten of \(batch, 4, H, W\) it is Reader\('wide', repeats=H \* W\)",
        ),
        (
            HiddenLayer("feed", "act", ["head"], norm="norm"),
            r"got the norm 'norm' with a scale of shape \(4, 2\); wanted",
        ),
    ],
)
def test_refuses_layers(layer, message):
    module = parts()
    with pytest.raises(UserError, match=message):
        ReDo(module, torch.optim.Adam(module.parameters()), [layer])


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        (
            "3",
            r"got outputs of shape \(2, 5\) behind '0'; wanted outputs of its 3 units\. Name the activation that com",
        ),
        (
            "5",
            r"got the activation '5' of '0', called 0 times, never behind it; wanted the module that makes the units'",
        ),
    ],
)
def test_the_wrong_activation_is_refused(activation, message):
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 5), torch.nn.ReLU())
    module.extend([torch.nn.Linear(5, 1), torch.nn.ReLU()])
    module.forward = module[:5].forward
    redo = ReDo(module, torch.optim.Adam(module.parameters()), [HiddenLayer("0", activation, ["2"])], every=1)
    with pytest.raises(UserError, match=message):
        redo.step(torch.zeros(2, 2))


def test_outputs_that_belong_to_no_unit_are_refused():
    with pytest.raises(UserError, match=r"got outputs of shape \(2, 4\) behind '0': it mixes units; wanted outputs of"):
        redo_of(pair(activation=MaxMin())).step(torch.zeros(2, 3))


COMPUTED = {
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "pruned bias": lambda layer: prune.l1_unstructured(layer, "bias", 0.5),
    "spectral": torch.nn.utils.spectral_norm,
    "new spectral": torch.nn.utils.parametrizations.spectral_norm,
    "weight norm": torch.nn.utils.parametrizations.weight_norm,
    "orthogonal": torch.nn.utils.parametrizations.orthogonal,
    "newton_schulz": newton_schulz,
}


def old_weight_norm(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nn.utils.weight_norm(layer)


@pytest.mark.parametrize("name", [*COMPUTED, "old weight norm"])
@pytest.mark.parametrize("place", [0, 2])
def test_weights_that_are_computed_are_refused(name, place):
    module = pair()
    redo = redo_of(module)
    compute = COMPUTED.get(name, old_weight_norm)
    compute(module[place])
    if place == 2 and name == "pruned bias":
        assert redo.reset(FIRST) == 1  # a reader's bias is not rewritten
        return
    message = rf"got '{place}', whose (weight|bias) is computed from .*; wanted a \w+ that is a parameter of its own"
    with pytest.raises(UserError, match=message):
        redo_of(module)
    before = copy.deepcopy(module.state_dict())
    message = rf"got '{place}.(weight|bias)', which was replaced or is computed from other parameters by now; wanted"
    with pytest.raises(UserError, match=message):  # it became so after ReDo was made
        redo.reset(FIRST)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


class Standardized(torch.nn.Linear):
    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight - self.weight.mean(), self.bias)


class Cast(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x.to(self.weight.dtype))


def test_layers_that_compute_something_else_with_their_weight_are_refused():
    with pytest.raises(
        UserError, match=r"got the declared hidden layer '0': what feeds a unit changes other units too"
    ):
        redo_of(pair(feed=Standardized(3, 4))).step(torch.randn(5, 3))
    assert redo_of(pair(feed=Cast(3, 4))).step(torch.randn(5, 3)) == 4


def test_shared_parameters_are_refused():
    module = torch.nn.ModuleDict(
        {
            "embed": torch.nn.Embedding(5, 4),
            "feed": torch.nn.Linear(4, 4),
            "act": torch.nn.ReLU(),
            "head": torch.nn.Linear(4, 5),
        }
    )
    module["head"].weight = module["embed"].weight
    with pytest.raises(
        UserError,
        match=r"got 'feed', where a parameter of shape \(5, 4\) is shared by embed.weight, head.weight; wanted",
    ):
        ReDo(module, torch.optim.Adam(module.parameters()), [HiddenLayer("feed", "act", ["head"])])


def test_a_module_with_two_names_is_not_shared():
    module = pair()
    module.add_module("alias", module[0])
    assert redo_of(module).reset(FIRST) == 1


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_layers_without_units_and_lazy_ones_are_refused():
    with pytest.raises(UserError, match=r"got '0' without units; wanted at least one\. Leave this hidden layer out"):
        redo_of(pair(torch.nn.Linear(8, 0), torch.nn.Linear(0, 2)))
    module = pair(torch.nn.LazyLinear(4), torch.nn.LazyLinear(2))
    with pytest.raises(
        UserError, match=r"got '0', a lazy module that is not initialized; .*Call the network on a batch"
    ):
        redo_of(module, torch.optim.SGD([torch.zeros(1)], 0.1))
    module(torch.zeros(1, 3))
    assert redo_of(module).reset(FIRST) == 1
    module = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.LazyBatchNorm1d(), torch.nn.ReLU(), torch.nn.Linear(4, 2)
    )
    with pytest.raises(UserError, match=r"got '1', a lazy module that is not initialized"):
        ReDo(module, torch.optim.SGD([torch.zeros(1)], 0.1), [HiddenLayer("0", "2", ["3"], norm="1")])


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_layer_without_inputs_is_reset():
    module = pair(feed=torch.nn.Linear(0, 4))
    assert redo_of(module).reset(FIRST) == 1
    assert (module[2].weight[:, 0] == 0).all()


class Between(torch.nn.Module):
    """A layer, its activation and its reader, with functions between them."""

    def __init__(self, feed, before, behind, num_read):
        super().__init__()
        self.feed, self.before, self.act, self.behind = feed, before, torch.nn.ReLU(), behind
        self.head = torch.nn.Linear(num_read, 1)

    def forward(self, x):
        return self.head(self.behind(self.act(self.before(self.feed(x)))))


def same(x):
    return x


def flat(x):
    return x.flatten(1)


@pytest.mark.parametrize(
    ("feed", "before", "behind", "reader", "size", "unit_axis"),
    [
        (torch.nn.Conv2d(2, 3, 1), same, flat, Reader("head", repeats=20), (6, 2, 4, 5), 1),
        (torch.nn.Conv2d(2, 3, 1), same, lambda x: x.flatten(), Reader("head", repeats=20), (2, 4, 5), 0),
        (torch.nn.Conv2d(2, 3, 1), flat, same, Reader("head", repeats=20), (6, 2, 4, 5), 1),
        (
            torch.nn.Conv2d(2, 3, 1),
            lambda x: x.permute(0, 2, 3, 1).flatten(1),
            same,
            Reader("head", tiles=20),
            (6, 2, 4, 5),
            1,
        ),
        (torch.nn.Conv2d(2, 3, 1), lambda x: x.permute(0, 2, 3, 1), same, Reader("head"), (3, 2, 3, 3), 1),
        (torch.nn.Conv3d(2, 3, 1), same, lambda x: x.mean(dim=(2, 3, 4)), Reader("head"), (4, 2, 2, 3, 2), 1),
        (torch.nn.Linear(2, 3), lambda x: x.view(2, 5, 3), same, Reader("head"), (10, 2), -1),
        (torch.nn.Linear(2, 3), lambda x: x.transpose(1, 2).flatten(1), same, Reader("head", repeats=5), (4, 5, 2), -1),
        (torch.nn.Linear(2, 3), same, same, Reader("head"), (2,), -1),
    ],
)
def test_units_are_found_by_the_layer_that_makes_them(feed, before, behind, reader, size, unit_axis):
    x = torch.randn(size)
    module = Between(feed, before, behind, 3 * reader.repeats * reader.tiles)
    optimizer = torch.optim.Adam(module.parameters())
    means = feed(x).relu().movedim(unit_axis, -1).reshape(-1, 3).mean(dim=0)
    for layers in ([HiddenLayer("feed", "act", [reader])], []):
        found = ReDo(module, optimizer, layers).scores(x)["feed"]
        torch.testing.assert_close(found, (means / (means.mean() + 1e-9)).detach())


def test_declared_layers_replace_those_that_are_found_or_are_added():
    module = Between(torch.nn.Linear(3, 4), same, lambda x: torch.tensor(x.detach().numpy()), 4)
    x = torch.randn(5, 3)
    assert "its computation is not PyTorch's" in str(infer_wiring(module, x))
    layers = [HiddenLayer("feed", "act", ["head"])]
    wiring = infer_wiring(module, x, layers=layers)
    assert [layer.name for layer in wiring.layers] == ["feed"]
    optimizer = attach("redo", module, x, layers=layers, every=1, threshold=1e6)
    module(x).sum().backward()
    optimizer.step()
    assert optimizer.info == {"units_reset": 4}
    with pytest.raises(
        UserError, match=r"got the declared hidden layer '0': what reads it multiplies other entries th"
    ):
        infer_wiring(deep(), x, layers=[HiddenLayer("0", "1", ["4"])])


def deep():
    hidden = [torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4), torch.nn.ReLU()]
    return torch.nn.Sequential(*hidden, torch.nn.Linear(4, 2))


def test_a_batch_without_examples_is_refused():
    with pytest.raises(UserError, match=r"got no examples; wanted a batch\. Pass 64 examples"):
        redo_of(pair()).step(torch.zeros(0, 3))
