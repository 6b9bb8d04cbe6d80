import copy
import warnings

import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils import prune

from pliant.errors import UserError
from pliant.torch import HiddenLayer, MaxMin, Reader, ReDo, newton_schulz
from torch_small import FIRST, Reorder, pair, redo_of


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
            "sorted": MaxMin(),
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
            HiddenLayer("feed", "sorted", ["head"]),
            r"got ReDo behind MaxMin \('sorted'\); wanted hidden layers in which",
        ),
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


def test_the_wrong_activation_is_refused():
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 5), torch.nn.ReLU())
    redo = ReDo(module, torch.optim.Adam(module.parameters()), [HiddenLayer("0", "3", ["2"])], every=1)
    with pytest.raises(
        UserError, match=r"got outputs of shape \(2, 5\) behind '0'; wanted a multiple of its 3 units along axis -1\. N"
    ):
        redo.step(torch.zeros(2, 2))


class Standardized(torch.nn.Linear):
    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight - self.weight.mean(), self.bias)


class Noisy(torch.nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight * 1.5, bias)


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
    with pytest.raises(UserError, match=message):  # it became so after ReDo was made
        redo.reset(FIRST)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_layers_that_compute_something_else_with_their_weight_are_refused():
    message = (
        r"got '0', whose class Standardized computes something else with its weight; wanted a layer that multiplies"
    )
    with pytest.raises(UserError, match=message):
        redo_of(pair(feed=Standardized(3, 4)))
    with pytest.raises(UserError, match=r"got '2', whose class Noisy computes something else"):
        redo_of(pair(torch.nn.Conv2d(3, 4, 3), Noisy(4, 2, 3, dilation=2)))

    class Cast(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x.to(self.weight.dtype))

    class Loud(torch.nn.Conv2d):
        def forward(self, x):
            return super().forward(x)

    assert redo_of(pair(feed=Cast(3, 4))).reset(FIRST) == 1
    assert redo_of(pair(Loud(3, 4, 3, padding=1), Loud(4, 2, 3, stride=2))).reset(FIRST) == 1


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


def scored(feed, reorder, reader, x, unit_axis):
    """Scores by ReDo, and by hand from the feed's output."""
    module = torch.nn.Sequential(feed, Reorder(reorder), torch.nn.ReLU(), torch.nn.Linear(1, 1))
    module[3] = torch.nn.Linear(feed.weight.shape[0] * reader.repeats * reader.tiles, 1)
    layer = HiddenLayer("0", "2", [reader])
    redo = ReDo(module, torch.optim.Adam(module.parameters()), [layer])
    module.forward = lambda x: module[2](module[1](module[0](x)))
    means = feed(x).relu().movedim(unit_axis, -1).reshape(-1, feed.weight.shape[0]).mean(dim=0)
    return redo.scores(x)["0"], (means / (means.mean() + 1e-9)).detach()


@pytest.mark.parametrize(
    ("feed", "reorder", "reader", "size", "unit_axis"),
    [
        (torch.nn.Conv2d(2, 3, 1), torch.nn.Identity(), Reader("3", repeats=20), (6, 2, 4, 5), 1),
        (torch.nn.Conv2d(2, 3, 1), torch.nn.Identity(), Reader("3", repeats=20), (2, 4, 5), 0),  # without a batch
        (torch.nn.Conv2d(2, 3, 1), lambda x: x.flatten(1), Reader("3", repeats=20), (6, 2, 4, 5), 1),
        (torch.nn.Conv2d(2, 3, 1), lambda x: x.permute(0, 2, 3, 1).flatten(1), Reader("3", tiles=20), (6, 2, 4, 5), 1),
        (torch.nn.Conv1d(2, 3, 1), lambda x: x.flatten(1), Reader("3", repeats=6), (6, 2, 6), 1),
        (torch.nn.Conv3d(2, 3, 1), torch.nn.Identity(), Reader("3"), (4, 2, 2, 3, 2), 1),
        (torch.nn.Linear(2, 3), lambda x: x.view(2, 5, 3), Reader("3"), (10, 2), -1),
        (torch.nn.Linear(2, 3), lambda x: x.transpose(1, 2).flatten(1), Reader("3", repeats=5), (4, 5, 2), -1),
        (torch.nn.Linear(2, 3), torch.nn.Identity(), Reader("3"), (2,), -1),
    ],
)
def test_units_are_found_by_the_layer_that_makes_them(feed, reorder, reader, size, unit_axis):
    found, wanted = scored(feed, reorder, reader, torch.randn(size), unit_axis)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("feed", "reorder", "size"),
    [
        (torch.nn.Conv2d(2, 4, 1), lambda x: x.permute(0, 2, 3, 1), (3, 2, 8, 8)),  # channels last: 8 rows are no CReLU
        (torch.nn.Conv2d(2, 4, 1), lambda x: x.flatten(1), (3, 2, 8, 8)),  # the reader does not say in which order
        (torch.nn.Linear(2, 4), lambda x: x.transpose(1, 2), (3, 8, 2)),
        (torch.nn.Conv2d(2, 4, 1), lambda x: (x, x), (3, 2, 8, 8)),
    ],
)
def test_outputs_whose_units_are_unclear_are_refused(feed, reorder, size):
    module = torch.nn.Sequential(feed, torch.nn.ReLU(), Reorder(reorder), torch.nn.Linear(4, 1))
    redo = ReDo(module, torch.optim.Adam(module.parameters()), [HiddenLayer("0", "2", ["3"])])
    module.forward = lambda x: module[2](module[0](x))
    with pytest.raises(UserError, match=r"got .* behind '0'; wanted .*Name the activation that comes right behind"):
        redo.scores(torch.randn(size))


def test_a_batch_without_examples_is_refused():
    with pytest.raises(UserError, match=r"got no examples; wanted a batch\. Pass 64 examples"):
        redo_of(pair()).step(torch.zeros(0, 3))
