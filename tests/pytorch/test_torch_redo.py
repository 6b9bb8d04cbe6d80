import copy
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils import prune

from pliant.diagnostics import dormancy_scores, is_dormant
from pliant.errors import UserError
from pliant.interventions import reset_units
from pliant.torch import AdamO, HiddenLayer, MaxMin, Reader, ReDo, newton_schulz, param_groups
from pliant.types import Learned
from torch_twins import CHANNELS, SIZE, WIDTHS, images, nchw, to_torch, twins

LAYERS = [
    HiddenLayer("conv_0", "conv_relu_0", ["conv_1"]),
    HiddenLayer("conv_1", "conv_relu_1", [Reader("dense_0", repeats=SIZE * SIZE)]),
    HiddenLayer("dense_0", "dense_relu_0", ["dense_1"]),
    HiddenLayer("dense_1", "dense_relu_1", ["head"]),
]
SILENT = {"conv_0": [1], "conv_1": [0, 3], "dense_0": [2, 7, 8], "dense_1": [6]}
SIZES = dict(zip(SILENT, (*CHANNELS, *WIDTHS), strict=True))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def flags(width, units):
    return torch.isin(torch.arange(width), torch.tensor(units))


UNITS = {name: flags(SIZES[name], units) for name, units in SILENT.items()}


def silenced():
    """The twins' module with the chosen units dead, behind one update that leaves no moment at 0."""
    module = copy.deepcopy(twins().module)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.0, foreach=True)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    with torch.no_grad():
        for name, units in UNITS.items():
            module.get_submodule(name).weight[units] = 0.0
            module.get_submodule(name).bias.copy_(torch.where(units, -1.0, 0.5))
    return module, optimizer


def recycler(module, optimizer, **options):
    return ReDo(module, optimizer, LAYERS, **{"threshold": 0.0, "every": 1} | options)


def jax_params(module):
    """The module's parameters in JAX: whatever is turned into the twins' layout must give the module again."""
    wanted = module.state_dict()
    leaves, structure = jax.tree.flatten(twins().params)
    counts = np.cumsum([0, *(leaf.size for leaf in leaves)])
    numbered = structure.unflatten(
        [jnp.arange(a, b).reshape(leaf.shape) for a, b, leaf in zip(counts, counts[1:], leaves, strict=False)]
    )
    flat = np.zeros(counts[-1], np.float32)
    for name, places in to_torch(numbered).items():
        flat[places.numpy()] = wanted[name].numpy()
    return structure.unflatten([jnp.asarray(flat[np.asarray(place)]) for place in jax.tree.leaves(numbered)])


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.6, 1.0, 1e6])
def test_scores_and_masks_agree_with_jax(threshold):
    module, optimizer = silenced()
    x, _ = images(32)
    _, features, _ = twins().network.apply(jax_params(module), {}, jnp.asarray(x, jnp.float32), train=False, key=None)
    redo = recycler(module, optimizer, threshold=threshold)
    scores = redo.scores(nchw(x).float())
    assert list(scores) == [layer.name for layer in twins().network.wiring.layers]
    for name, score in scores.items():
        np.testing.assert_allclose(score, dormancy_scores(features[name]), atol=2e-6)
        np.testing.assert_array_equal(score <= threshold, is_dormant(features[name], threshold))
    total = sum(int(is_dormant(feature, threshold).sum()) for feature in features.values())
    assert redo.step(nchw(x).float()) == total
    assert total >= 7 or threshold < 0


def test_what_is_read_and_forgotten_agrees_with_jax():
    module, optimizer = silenced()
    params = jax_params(module)
    tx = optax.adam(0.0)
    state = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)[1]
    units = {name: jnp.asarray(chosen.numpy()) for name, chosen in UNITS.items()}
    new, _, opt = reset_units(jax.random.key(0), Learned(params, {}, state), twins().network.wiring, units)
    before = copy.deepcopy(module).state_dict()
    redo = recycler(module, optimizer, initializer=torch.nn.init.orthogonal_)
    assert redo.reset(UNITS) == 7
    after, wanted, mu, nu = module.state_dict(), to_torch(new), to_torch(opt[0].mu), to_torch(opt[0].nu)
    kept = to_torch(jax.tree.map(lambda a, b: a == b, new, params))
    for name, parameter in module.named_parameters():
        entries = optimizer.state[parameter]
        torch.testing.assert_close(entries["exp_avg"], mu[name])
        torch.testing.assert_close(entries["exp_avg_sq"], nu[name])
        assert entries["step"] == 1
        assert torch.equal(after[name] == 0, wanted[name] == 0)
        assert torch.equal((after[name] == before[name]) | (after[name] == 0), kept[name] | (wanted[name] == 0))
    assert torch.equal(after["head.bias"], before["head.bias"])


@pytest.mark.parametrize("initializer", [None, torch.nn.init.orthogonal_, torch.nn.init.kaiming_normal_])
def test_silent_units_are_reset_and_the_output_stays(initializer):
    module, optimizer = silenced()
    x = nchw(images(32)[0]).float()
    before, output = copy.deepcopy(module), module(x)
    redo = recycler(module, optimizer, initializer=initializer)
    assert all((redo.scores(x)[name][units] == 0).all() for name, units in UNITS.items())
    redo.reset(UNITS)
    torch.testing.assert_close(module(x), output, atol=1e-6, rtol=0.0)
    for name, chosen in UNITS.items():
        layer, old = module.get_submodule(name), before.get_submodule(name)
        changed = (layer.weight != old.weight).flatten(1).any(dim=1)
        assert changed[chosen].all()
        assert torch.equal(layer.bias[~chosen], old.bias[~chosen])
        assert (layer.bias[chosen] == 0).all() if initializer else (layer.bias[chosen].abs() <= 1 / 3).all()


def test_fresh_weights_have_the_scale_of_the_whole_layer():
    module, optimizer = silenced()
    everyone = {"dense_0": torch.ones(9, dtype=torch.bool)}
    recycler(module, optimizer, initializer=torch.nn.init.orthogonal_).reset(everyone)
    weight = module.dense_0.weight.detach()
    torch.testing.assert_close(weight @ weight.T, torch.eye(9), atol=1e-5, rtol=0.0)


def test_the_generator_decides_and_nobody_elses_is_touched():
    results = []
    for seed in (0, 1, 0):
        module, optimizer = silenced()
        redo = recycler(module, optimizer, generator=torch.Generator().manual_seed(seed))
        state = torch.random.get_rng_state()
        redo.reset(UNITS)
        assert torch.equal(torch.random.get_rng_state(), state)
        results.append(module.dense_0.weight[2].detach().clone())
        redo.reset(UNITS)
        assert not torch.equal(module.dense_0.weight[2], results[-1])
    assert torch.equal(results[0], results[2])
    assert not torch.equal(results[0], results[1])


def test_without_a_generator_the_global_one_is_drawn_from():
    module, optimizer = silenced()
    redo = recycler(module, optimizer)
    torch.manual_seed(0)
    redo.reset(UNITS)
    first = module.dense_0.weight[2].detach().clone()
    redo.reset(UNITS)
    assert not torch.equal(module.dense_0.weight[2], first)
    torch.manual_seed(0)
    redo.reset(UNITS)
    assert torch.equal(module.dense_0.weight[2], first)


def test_it_fires_at_its_period_only_and_resumes():
    module, optimizer = silenced()
    redo = recycler(module, optimizer, every=3, generator=torch.Generator())
    x = nchw(images(8)[0]).float()
    assert [redo.step(x) for _ in range(2)] == [0, 0]
    state = redo.state_dict()
    other_module, other_optimizer = copy.deepcopy((module, optimizer))
    assert redo.step(x) >= 7
    other = recycler(other_module, other_optimizer, every=3, generator=torch.Generator().manual_seed(9))
    other.load_state_dict(state)
    assert other.step(x) >= 7
    for a, b in zip(module.parameters(), other_module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_nothing_dormant_is_a_bitwise_no_op():
    module, optimizer = silenced()
    before = copy.deepcopy((module.state_dict(), optimizer.state_dict()["state"]))
    redo = recycler(module, optimizer, threshold=-1.0)
    assert redo.step(nchw(images(8)[0]).float()) == 0
    after = (module.state_dict(), optimizer.state_dict()["state"])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.numpy(), b.numpy()), dict(before[0]), dict(after[0]))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.numpy(), b.numpy()), before[1], after[1])


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


def test_a_convolution_with_norm_pooling_and_crelu():
    class CReLU(torch.nn.Module):
        def forward(self, x):
            return torch.cat([x.relu(), (-x).relu()], dim=1)

    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3),
        torch.nn.BatchNorm2d(3),
        CReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(24, 2),
    )
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.randn(4, 1, 6, 6)).sum().backward()
    optimizer.step()
    layers = [HiddenLayer("0", "2", [Reader("5", repeats=4, tiles=2)], norm="1")]
    with torch.no_grad():
        module[1].weight[1], module[1].bias[1] = 0.0, 0.0
    module[1].eval()  # users freeze norms: the mode of every part is put back
    redo = ReDo(module, optimizer, layers, threshold=0.0, every=1)
    x = torch.randn(4, 1, 6, 6)
    before, running = module.eval()(x).detach(), module[1].running_mean.clone()
    module.train()
    module[1].eval()
    assert redo.step(x) == 1
    assert [module.training, module[0].training, module[1].training] == [True, True, False]
    assert torch.equal(module[1].running_mean, running)
    assert (module[1].weight[1].item(), module[1].bias[1].item()) == (1.0, 0.0)
    assert not optimizer.state[module[1].weight]["exp_avg"][1]
    columns = (module[5].weight == 0).all(dim=0).nonzero().flatten().tolist()
    assert columns == [4, 5, 6, 7, 16, 17, 18, 19]
    torch.testing.assert_close(module.eval()(x), before, atol=1e-6, rtol=0.0)


def test_channels_last_flatten_is_tiled():
    class Flatten(torch.nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1).flatten(1)

    module = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1), torch.nn.ReLU(), Flatten(), torch.nn.Linear(12, 1))
    redo = ReDo(module, torch.optim.SGD(module.parameters(), 0.1), [HiddenLayer("0", "1", [Reader("3", tiles=4)])])
    redo.reset({"0": torch.tensor([False, True, False])})
    assert (module[3].weight[0] == 0).nonzero().flatten().tolist() == [1, 4, 7, 10]


def test_tokens_are_positions_and_two_readers_are_both_cut():
    module = torch.nn.ModuleDict(
        {"feed": torch.nn.Linear(3, 4), "act": torch.nn.GELU(), "a": torch.nn.Linear(4, 2), "b": torch.nn.Linear(4, 1)}
    )
    module.forward = lambda x: (lambda h: (module["a"](h), module["b"](h)))(module["act"](module["feed"](x)))
    redo = ReDo(module, torch.optim.SGD(module.parameters(), 0.1), [HiddenLayer("feed", "act", ["a", "b"])])
    x = torch.randn(5, 7, 3)
    hidden = module["act"](module["feed"](x)).abs().mean(dim=(0, 1))
    torch.testing.assert_close(redo.scores(x)["feed"], (hidden / hidden.mean()).detach())
    redo.reset({"feed": torch.tensor([True, False, False, False])})
    assert (module["a"].weight[:, 0] == 0).all()
    assert (module["b"].weight[:, 0] == 0).all()


def test_narrow_weights_stay_narrow():
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).bfloat16()
    redo = ReDo(
        module,
        torch.optim.Adam(module.parameters()),
        [HiddenLayer("0", "1", ["2"])],
        threshold=1e6,
        every=1,
        initializer=torch.nn.init.orthogonal_,
    )
    assert redo.step(torch.randn(5, 3).bfloat16()) == 4
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}


def test_it_goes_with_adamo():
    module = copy.deepcopy(twins().module)
    optimizer = AdamO(param_groups(module, head="head"), lr=1e-2, isometry_every=2)
    redo = recycler(module, optimizer, threshold=0.5, every=3)
    x, y = images(16)
    counts = []
    for _ in range(6):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(nchw(x).float()), torch.tensor(y)).backward()
        optimizer.step()
        counts.append(redo.step(nchw(x).float()))
    assert [count > 0 for count in counts] == [False, False, True, False, False, True]


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


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        (LAYERS, {"every": 2.5}, r"got every=2.5; wanted a whole number ≥ 1\. Use the period in updates"),
        (LAYERS, {"every": torch.tensor([2, 3])}, r"got every=tensor\(\[2, 3\]\); wanted a finite number"),
        (LAYERS, {"threshold": float("nan")}, r"got threshold=nan; wanted a finite number\. Use 0.025"),
        (LAYERS, {"threshold": torch.tensor([0.1, 0.2])}, r"got threshold=tensor\(.*; wanted a finite number"),
        (LAYERS, {"threshold": np.array(np.inf)}, r"got threshold=inf; wanted a finite number\. Use 0.025"),
        (LAYERS[:1] * 2, {}, r"got 2 hidden layers fed by 'conv_0'; wanted one\. List all readers"),
        ([], {}, r"got ReDo without hidden layers; wanted at least one\. Pass \[HiddenLayer"),
        (LAYERS, {"every": 0}, r"got every=0; wanted a finite number ≥ 1\. Use the period in updates"),
    ],
)
def test_refuses(layers, options, message):
    module = twins().module
    with pytest.raises(UserError, match=message):
        ReDo(module, torch.optim.Adam(module.parameters()), layers, **options)


def test_activations_that_are_shared_or_never_called_are_refused():
    shared = torch.nn.ReLU()
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), shared, torch.nn.Linear(3, 3), shared, torch.nn.Linear(3, 1))
    module.append(torch.nn.Identity())
    layers = [HiddenLayer("0", "1", ["2"]), HiddenLayer("2", "3", ["4"])]
    redo = ReDo(module, torch.optim.Adam(module.parameters()), layers, every=1)
    with pytest.raises(UserError, match=r"got the activation behind '0' called 2 times in a forward pass; wanted one"):
        redo.step(torch.zeros(2, 2))
    assert not shared._forward_hooks
    module.forward = lambda x: x
    with pytest.raises(UserError, match="called 0 times"):
        redo.step(torch.zeros(2, 2))


def test_the_wrong_activation_is_refused():
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 5), torch.nn.ReLU())
    redo = ReDo(module, torch.optim.Adam(module.parameters()), [HiddenLayer("0", "3", ["2"])], every=1)
    with pytest.raises(
        UserError, match=r"got outputs of shape \(2, 5\) behind '0'; wanted a multiple of its 3 units along axis -1\. N"
    ):
        redo.step(torch.zeros(2, 2))


def pair(feed=None, reader=None, activation=None):
    return torch.nn.Sequential(
        feed or torch.nn.Linear(3, 4), activation or torch.nn.ReLU(), reader or torch.nn.Linear(4, 2)
    )


def redo_of(module, optimizer=None, **options):
    optimizer = optimizer or torch.optim.Adam(module.parameters())
    return ReDo(module, optimizer, [HiddenLayer("0", "1", ["2"])], **{"threshold": 1e6, "every": 1} | options)


FIRST = {"0": torch.tensor([True, False, False, False])}


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


@pytest.mark.parametrize("frozen", ["0.weight", "0.bias", "1.weight", "3.weight"])
def test_layers_with_frozen_parameters_are_left_alone(frozen):
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.ReLU(), torch.nn.Linear(4, 4))
    module.extend([torch.nn.ReLU(), torch.nn.Linear(4, 2)])
    module.get_parameter(frozen).requires_grad_(False)
    before = copy.deepcopy(module)
    optimizer = torch.optim.Adam(module.parameters())
    layers = [HiddenLayer("0", "2", ["3"], norm="1"), HiddenLayer("3", "4", ["5"])]
    redo = ReDo(module, optimizer, layers, threshold=1e6, every=1)
    assert redo.step(torch.randn(5, 3)) == (0 if frozen == "3.weight" else 4)
    for name, parameter in module.named_parameters():
        is_second = name.startswith(("3.", "5.weight")) and frozen != "3.weight"
        assert torch.equal(parameter, before.get_parameter(name)) != is_second
    module.requires_grad_(True)
    assert redo.step(torch.randn(5, 3)) == 8


def test_a_frozen_bias_of_the_reader_does_not_matter():
    module = pair()
    module[2].bias.requires_grad_(False)
    assert redo_of(module).reset(FIRST) == 1


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


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (
            {"1": torch.ones(4, dtype=torch.bool)},
            r"got the hidden layer '1'; wanted one of 0\. .*the name of a layer's feed",
        ),
        (
            {"0": torch.ones(3, dtype=torch.bool)},
            r"got units of shape \(3,\) and type torch.bool for '0'; wanted 4 bool",
        ),
        ({"0": torch.tensor([0, 2])}, r"got units of shape \(2,\) and type torch.int64 for '0'; wanted 4 booleans"),
        ({"0": torch.tensor([1, 0, 0, 1])}, r"got units of shape \(4,\) and type torch.int64"),
    ],
)
def test_refuses_units(units, message):
    with pytest.raises(UserError, match=message):
        redo_of(pair()).reset(units)


def test_numbers_may_be_tensors_or_arrays():
    redo = redo_of(pair(), threshold=torch.tensor([0.5]), every=np.int64(3))
    assert (redo.threshold, redo.every) == (0.5, 3)
    with pytest.raises(UserError, match=r"got updates=nan; wanted a finite number ≥ 0"):
        redo.load_state_dict({"updates": torch.tensor(float("nan")), "generator": None})


def after_two_updates(optimizer, module):
    for _ in range(2):
        for parameter in module.parameters():
            parameter.grad = torch.rand_like(parameter) + 0.5
        optimizer.step(lambda: 1.0)
    return optimizer


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
                self.state[parameter]["old_p"] = torch.ones_like(parameter)

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
        assert used[0].state[module[0].weight]["old_p"].all()


def test_parameters_that_the_optimizer_does_not_have_are_refused():
    module = pair()
    optimizer = torch.optim.Adam(module[2].parameters())
    message = r"got a parameter of shape \(4, 3\) at '0', which the optimizer does not have; wanted the optimizers that"
    with pytest.raises(UserError, match=message):
        redo_of(module, optimizer)
    module[0].requires_grad_(False)
    assert redo_of(module, optimizer).reset(FIRST) == 0
    with pytest.raises(
        UserError, match=r"got dict in place of an optimizer; wanted a torch.optim.Optimizer, or several"
    ):
        redo_of(module, {"lr": 0.1})


class Reorder(torch.nn.Module):
    def __init__(self, reorder):
        super().__init__()
        self.reorder = reorder

    def forward(self, x):
        return self.reorder(x)


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
    assert module.calls == 3
    redo.scores(torch.randn(5, 2, 3, 4))
    assert module.calls == 4  # places are found out once


def test_a_layer_that_reads_nothing_of_the_unit_changes_nothing():
    module = pair(activation=torch.nn.LayerNorm(4))
    with torch.no_grad():
        module[1].weight.zero_()  # as networks start whose residual branches are silent at first
    assert redo_of(module).step(torch.randn(5, 3)) == 4
