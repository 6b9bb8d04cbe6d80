import copy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

torch = pytest.importorskip("torch")

from pliant.diagnostics import dormancy_scores, is_dormant
from pliant.errors import UserError
from pliant.interventions import reset_units
from pliant.torch import AdamO, HiddenLayer, Reader, ReDo, infer_wiring, param_groups
from pliant.types import Learned
from torch_small import FIRST, pair, redo_of
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


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        (LAYERS, {"every": 2.5}, r"got every=2.5; wanted a whole number ≥ 1\. Use the period in updates"),
        (LAYERS, {"every": torch.tensor([2, 3])}, r"got every=tensor\(\[2, 3\]\); wanted a finite number"),
        (LAYERS, {"threshold": float("nan")}, r"got threshold=nan; wanted a finite number\. Use 0.025"),
        (LAYERS, {"threshold": torch.tensor([0.1, 0.2])}, r"got threshold=tensor\(.*; wanted a finite number"),
        (LAYERS, {"threshold": np.array(np.inf)}, r"got threshold=inf; wanted a finite number\. Use 0.025"),
        (LAYERS[:1] * 2, {}, r"got 2 hidden layers fed by 'conv_0'; wanted one\. List all readers"),
        (LAYERS, {"every": 0}, r"got every=0; wanted a finite number ≥ 1\. Use the period in updates"),
    ],
)
def test_refuses(layers, options, message):
    module = twins().module
    with pytest.raises(UserError, match=message):
        ReDo(module, torch.optim.Adam(module.parameters()), layers, **options)


def test_a_relu_used_twice_is_two_layers_found_or_declared():
    shared = torch.nn.ReLU()
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), shared, torch.nn.Linear(3, 3), shared, torch.nn.Linear(3, 1))
    optimizer, x = torch.optim.Adam(module.parameters()), torch.randn(5, 2)
    found = ReDo(module, optimizer, threshold=-1.0).scores(x)
    declared = ReDo(module, optimizer, [HiddenLayer("2", "1", ["4"]), HiddenLayer("0", "1", ["2"])]).scores(x)
    assert list(found) == ["0", "2"]
    for name, score in found.items():
        assert torch.equal(score, declared[name])
    first = module[0](x).relu().abs().mean(dim=0)
    torch.testing.assert_close(found["0"], (first / first.mean()).detach())


def test_what_is_missing_is_named():
    module = pair()
    redo = ReDo(module, torch.optim.Adam(module.parameters()))
    with pytest.raises(UserError, match=r"got a reset before the hidden layers are found; .* Call scores\(x\) first"):
        redo.reset(FIRST)
    module.forward = lambda x: x
    with pytest.raises(UserError, match="got a module that computes nothing with x"):
        redo.scores(torch.zeros(2, 3))
    del module.forward
    wiring = infer_wiring(module, torch.randn(5, 3))
    assert ReDo(module, redo.optimizer, wiring=wiring).reset(FIRST) == 1


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
