import copy
import functools
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

torch = pytest.importorskip("torch")

from pliant.errors import UserError
from pliant.optimizers import adamo, add_isometry_step
from pliant.torch import AdamO, newton_schulz, param_groups
from strict_types import unchecked
from torch_small import batches, network, same, trained
from torch_twins import images, nchw, to_torch, twins


def stepped(weight, **options):
    """A weight after one update without a gradient."""
    weight = torch.nn.Parameter(weight.clone())
    AdamO([weight], **{"lr": 1e-2, "isometry": True, "isometry_strength": 1.0, "isometry_every": 1} | options).step()
    return weight.detach()


@functools.cache
def jax_update():
    """One update of the twins by AdamO in JAX, as one program for all strengths and periods."""
    net = twins().network

    def loss(params, x, y):
        output, _, _ = net.apply(params, {}, x, train=True, key=None)
        return optax.softmax_cross_entropy_with_integer_labels(output, y).mean()

    @jax.jit
    def update(params, state, x, y, strength, every):
        mask = net.wiring.mask(params, "matrix")
        tx = adamo(5e-4, isometry_strength=strength, isometry_every=every, mask=mask)
        updates, state = tx.update(jax.grad(loss)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    return update


def lockstep(dtype, strength, every):
    """The largest difference of any parameter of the twins after a hundred updates on the same batches."""
    x, y = images(64)
    x = x.astype(dtype)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), twins().params)
    state = adamo(5e-4).init(params)
    module = copy.deepcopy(twins().module).to(nchw(x).dtype)
    optimizer = AdamO(param_groups(module, head="head"), 5e-4, isometry_strength=strength, isometry_every=every)
    rng = np.random.default_rng(2)
    for _ in range(100):
        rows = rng.integers(0, 64, 16)
        params, state = jax_update()(params, state, jnp.asarray(x[rows]), jnp.asarray(y[rows]), strength, every)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(nchw(x[rows])), torch.tensor(y[rows])).backward()
        optimizer.step()
    wanted, start = to_torch(params), to_torch(twins().params)
    assert max((wanted[name] - start[name]).abs().max() for name in wanted) > 0.02
    return max((wanted[name] - found).abs().max().item() for name, found in module.state_dict().items())


@pytest.mark.parametrize(("strength", "every"), [(0.0, 1), (0.0, 16), (0.1, 1), (0.1, 16), (10.0, 1)])
def test_a_hundred_updates_agree_with_jax(strength, every):
    assert lockstep(np.float32, strength, every) < 1e-6


@pytest.mark.parametrize(("strength", "every"), [(0.1, 1), (0.1, 16), (10.0, 1)])
def test_a_hundred_updates_agree_with_jax_in_float64(strength, every):
    with jax.enable_x64(True):
        assert lockstep(np.float64, strength, every) < 1e-12


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (3, 3), (5, 2, 3, 3), (40, 2, 3, 3)])
@pytest.mark.parametrize("options", [{}, {"gain": 1.4}, {"rectangular": "fan"}, {"lr": 1e3}])
def test_one_step_agrees_with_jax(shape, options):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    kernel = jnp.asarray(weight.numpy().transpose(2, 3, 1, 0) if len(shape) == 4 else weight.numpy().T)
    rest = {name: value for name, value in options.items() if name != "lr"}
    tx = add_isometry_step(options.get("lr", 1e-2), every=1, **rest)
    wanted = np.asarray(kernel + tx.update(jnp.zeros_like(kernel), tx.init(kernel), kernel)[0])
    found = stepped(weight, **options).numpy()
    np.testing.assert_allclose(found.transpose(2, 3, 1, 0) if len(shape) == 4 else found.T, wanted, atol=2e-6)
    assert not np.array_equal(found, weight.numpy())


def test_step_golden():
    weight = torch.diag(torch.tensor([2.0, 1.0, 0.5]))
    torch.testing.assert_close(stepped(weight) - weight, torch.diag(torch.tensor([-0.24, 0.0, 0.015])))


def test_revives_a_row_that_gets_no_gradient():
    weight = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    torch.testing.assert_close((weight - stepped(weight, lr=1e-3))[1], torch.tensor([2.4e-3, 0.0]), atol=2e-7, rtol=0.0)


def test_every_strength_is_stable():
    weight = 50 * torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    for _ in range(100):
        weight = stepped(weight, lr=1e6)
    torch.testing.assert_close(weight @ weight.T, torch.eye(6), atol=1e-5, rtol=0.0)


def test_narrow_weights_stay_narrow_and_move():
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = stepped(weight)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), stepped(weight.float()), atol=1e-2, rtol=1e-2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(stepped(weight), found)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("rate", [1e-2, torch.tensor(1e-2)])
def test_strength_zero_is_adamw_to_the_bit(decay, maximize, rate):
    ours, plain = network(), network()
    options = {"lr": rate, "weight_decay": decay, "maximize": maximize}
    adamw = torch.optim.AdamW(plain.parameters(), **options)
    optimizer = AdamO(param_groups(ours, head="4"), isometry_strength=0.0, isometry_every=1, **options)
    same(trained(ours, optimizer, batches(10)), trained(plain, adamw, batches(10)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_strength_zero_is_adam_to_the_bit_with_weights_that_are_not_finite(value):
    ours, plain = (torch.nn.Parameter(torch.tensor([[value, 1.0], [0.5, -value]])) for _ in range(2))
    optimizer = AdamO([ours], isometry=True, isometry_strength=0.0, isometry_every=1)
    adam = torch.optim.Adam([plain], foreach=True)
    for _ in range(3):
        ours.grad, plain.grad = torch.ones(2, 2), torch.ones(2, 2)
        optimizer.step()
        adam.step()
    assert torch.equal(torch.nan_to_num(ours), torch.nan_to_num(plain))


@pytest.mark.parametrize("every", [1, 4])
def test_weight_decay_agrees_with_jax(every):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(5, 4)).astype(np.float32), rng.normal(size=(12, 5, 4)).astype(np.float32)
    weight = torch.nn.Parameter(torch.tensor(start))
    options = {"isometry_strength": 1.0, "isometry_every": every}
    optimizer = AdamO([weight], lr=1e-2, weight_decay=0.5, isometry=True, **options)
    tx = optax.chain(adamo(1e-2, **options), optax.masked(optax.add_decayed_weights(-5e-3), True))
    params = jnp.asarray(start.T)
    state, update = tx.init(params), jax.jit(tx.update)
    for gradient in gradients:
        weight.grad = torch.tensor(gradient)
        optimizer.step()
        updates, state = update(jnp.asarray(gradient.T), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(weight.detach(), params.T, atol=2e-6)


def test_maximize_turns_the_gradient_only():
    weights = [torch.nn.Parameter(torch.tensor([[2.0, 0.0], [0.0, 0.5]])) for _ in range(2)]
    for weight, sign in zip(weights, (1.0, -1.0), strict=True):
        weight.grad = sign * torch.tensor([[1.0, -2.0], [3.0, 0.5]])
        AdamO([weight], isometry=True, isometry_strength=1.0, isometry_every=1, maximize=sign < 0).step()
    assert torch.equal(*weights)
    assert stepped(torch.eye(2) * 2, maximize=True)[0, 0] < 2


@pytest.mark.parametrize("every", [1, 16])
def test_strength_zero_is_adam_to_the_bit(every):
    ours, plain = network(), network()
    options = {"lr": 1e-2, "betas": (0.8, 0.99), "eps": 1e-6}
    optimizer = AdamO(param_groups(ours, head="4"), isometry_strength=0.0, isometry_every=every, **options)
    adam = torch.optim.Adam(plain.parameters(), foreach=True, **options)
    same(trained(ours, optimizer, batches(50)), trained(plain, adam, batches(50)))
    for p, q in zip(ours.parameters(), plain.parameters(), strict=True):
        for name in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[p][name], adam.state[q][name])


def test_only_groups_with_isometry_move_without_a_gradient_and_never_what_is_frozen():
    net = network()
    before = copy.deepcopy(net)
    optimizer = AdamO(param_groups(net, head="4"), isometry_every=1)
    net[2].weight.requires_grad_(False)
    optimizer.step()
    moved = {name for name, p in net.named_parameters() if not torch.equal(p, before.get_parameter(name))}
    assert moved == {"0.weight"}
    assert not optimizer.state


def test_moments_do_not_see_the_isometry():
    net = network()
    optimizer = AdamO(param_groups(net, head="4"), isometry_every=1)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert all(not state["exp_avg"].any() and not state["exp_avg_sq"].any() for state in optimizer.state.values())


def test_every_group_has_its_own_options():
    weights = [torch.nn.Parameter(torch.eye(2) * 2) for _ in range(4)]
    optimizer = AdamO(
        [
            {"params": weights[:1], "isometry": True, "isometry_every": 2},
            {"params": weights[1:2], "isometry": True, "isometry_every": 3, "isometry_strength": 0.2, "lr": 1e-2},
            {"params": weights[2:3], "isometry": True, "isometry_every": 1, "gain": 2.0},
            {"params": weights[3:]},
        ],
        lr=1e-3,
    )
    moves = []
    for _ in range(6):
        before = [weight.detach().clone() for weight in weights]
        optimizer.step()
        moves.append([round((a - b)[0, 0].item(), 5) for a, b in zip(before, weights, strict=True)])
    assert [move[0] > 0 for move in moves] == [False, True, False, True, False, True]
    assert [move[1] > 0 for move in moves] == [False, False, True, False, False, True]
    assert moves[1][0] == round(2 * 1e-3 * 0.1 * 24, 5)
    assert moves[2][1] == round(3 * 1e-2 * 0.2 * 24, 5)
    assert all(move[2:] == [0, 0] for move in moves)


def test_the_isometry_follows_a_schedule():
    weight = torch.nn.Parameter(torch.eye(2) * 2)
    optimizer = AdamO([weight], lr=1e-2, isometry=True, isometry_every=1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda count: [1.0, 0.5, 0.0][count])
    moves = []
    for _ in range(3):
        before = weight.detach().clone()
        optimizer.step()
        schedule.step() if len(moves) < 2 else None
        moves.append((before - weight)[0, 0].item())
    second = 2 - moves[0]
    np.testing.assert_allclose(moves, [1e-3 * 24, 5e-4 * 4 * second * (second**2 - 1), 0.0], rtol=1e-5)


def test_a_learning_rate_may_be_a_tensor():
    number, tensor = network(), network()
    for net, rate in ((number, 1e-2), (tensor, torch.tensor(1e-2))):
        trained(net, AdamO(param_groups(net, head="4"), lr=rate, isometry_every=2), batches(10))
    for a, b in zip(number.parameters(), tensor.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0.0)


def test_a_closure_sees_the_weights_before_the_update():
    plain, closed = network(), network()
    trained(plain, AdamO(param_groups(plain, head="4"), lr=1e-2, isometry_every=1), batches(5))
    optimizer = AdamO(param_groups(closed, head="4"), lr=1e-2, isometry_every=1)
    for x, y in batches(5):

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(closed(x), y)
            loss.backward()
            return loss

        with torch.no_grad():
            wanted = torch.nn.functional.mse_loss(closed(x), y)
        assert torch.equal(optimizer.step(closure).detach(), wanted)
    same(plain, closed)


def test_step_hooks_run_once():
    torch.optim.Adam([torch.nn.Parameter(torch.eye(2))])
    weight = torch.nn.Parameter(torch.eye(2))
    optimizer = AdamO([weight], isometry=True)
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    optimizer.step()
    assert calls == ["before", "after"]


class Classifier(torch.nn.Module):
    """A network of the kind that Hugging Face's Trainer is given: it returns its own loss."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(11, 8)
        self.block = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.classifier = torch.nn.Linear(8, 3)

    def forward(self, input_ids, labels):
        logits = self.classifier(self.block(self.embed(input_ids)).mean(dim=1))
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


class TrainerLoop:
    """What Trainer does: accumulate gradients, clip them, step the optimizer and the schedule, save and load."""

    def __init__(self):
        self.model = Classifier()
        self.optimizer = AdamO(param_groups(self.model, head="classifier"), lr=1e-2, isometry_every=3)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1 - step / 40)

    def run(self, first, last):
        generator = torch.Generator().manual_seed(5)
        input_ids = torch.randint(0, 11, (16, 5), generator=generator)
        labels = torch.randint(0, 3, (16,), generator=generator)
        losses = []
        for _ in range(first, last):
            for rows in (slice(0, 8), slice(8, 16)):
                loss = self.model(input_ids[rows], labels[rows])["loss"] / 2
                loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
            losses.append(loss.item())
        return losses

    def save(self, folder):
        torch.save(self.model.state_dict(), folder / "model.pt")
        torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")
        torch.save(self.schedule.state_dict(), folder / "scheduler.pt")

    def load(self, folder):
        self.model.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
        self.optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
        self.schedule.load_state_dict(torch.load(folder / "scheduler.pt", weights_only=True))


def test_a_trainer_loop_learns_and_resumes_to_the_bit(tmp_path):
    whole, begun, resumed = TrainerLoop(), TrainerLoop(), TrainerLoop()
    losses = whole.run(0, 40)
    assert losses[-1] < 0.5 * losses[0]
    begun.run(0, 20)
    begun.save(tmp_path)
    resumed.load(tmp_path)
    assert resumed.run(20, 40) == losses[20:]
    same(resumed.model, whole.model)


def test_groups_of_a_transformer():
    model = Classifier()
    groups = param_groups(model, head="classifier")
    names = {parameter: name for name, parameter in model.named_parameters()}
    wanted = {"block.self_attn.out_proj.weight", "block.linear1.weight", "block.linear2.weight"}
    assert {names[parameter] for parameter in groups[0]["params"]} == wanted
    assert len(groups[0]["params"]) + len(groups[1]["params"]) == len(names)


def test_groups_leave_out_what_is_no_single_hidden_matrix():
    net = torch.nn.ModuleDict(
        {
            "embed": torch.nn.Embedding(7, 4),
            "conv": torch.nn.Conv2d(4, 6, 3),
            "grouped": torch.nn.Conv2d(6, 6, 3, groups=6),
            "norm": torch.nn.LayerNorm([4, 4]),
            "free": torch.nn.Linear(4, 4),
            "frozen": torch.nn.Linear(4, 4).requires_grad_(False),
            "orthogonal": newton_schulz(torch.nn.Linear(4, 4)),
            "tied": torch.nn.Linear(4, 7, bias=False),
            "heads": torch.nn.ModuleList([torch.nn.Linear(4, 2), torch.nn.Linear(4, 3)]),
        }
    )
    net["tied"].weight = net["embed"].weight
    groups = param_groups(net, head=["heads"])
    assert [id(p) for p in groups[0]["params"]] == [id(net["conv"].weight), id(net["free"].weight)]
    everything = {id(p) for p in net.parameters() if p.requires_grad}
    assert {id(p) for group in groups for p in group["params"]} == everything
    backbone = torch.nn.Sequential(torch.nn.Linear(3, 4, bias=False))
    (group,) = param_groups(backbone, head=())
    assert group["isometry"]
    assert len(group["params"]) == 1


COMPILED = """
import warnings
import torch
from pliant.torch import AdamO, param_groups

torch.set_num_threads(1)

def learned(compiled):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    options = {"weight_decay": 0.1, "maximize": True}
    optimizer = AdamO(param_groups(net, head="2"), lr=torch.tensor(1e-2), isometry_every=4, **options)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=12)

    def update(x):
        optimizer.zero_grad()
        (-net(x).square().mean()).backward()
        optimizer.step()

    run = torch.compile(update) if compiled else update
    for i in range(12):
        if compiled and i == 2 and hasattr(torch.compiler, "set_stance"):
            torch.compiler.set_stance("fail_on_recompile")
        run(torch.randn(5, 4))
        schedule.step()
    assert [int(group["updates"]) for group in optimizer.param_groups] == [12, 12]
    return torch.cat([p.detach().flatten() for p in net.parameters()])

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    eager, compiled = learned(False), learned(True)
print((eager - compiled).abs().max().item(), len(torch._dynamo.utils.counters["stats"]))
"""


def test_a_compiled_training_step_is_the_same_and_is_compiled_once(tmp_path):
    if not any(shutil.which(name) for name in ("g++", "clang++")):
        pytest.skip("torch.compile wants a C++ compiler, and this machine has none")
    settings = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    command = [sys.executable, "-c", COMPILED]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    difference, num_compiled = done.stdout.split()
    assert float(difference) < 1e-6
    assert int(num_compiled) > 0


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_frozen_parameters_stay_though_they_have_an_old_gradient(decay):
    net = network()
    optimizer = AdamO(param_groups(net, head="4"), isometry_every=1, weight_decay=decay)
    trained(net, optimizer, batches(1))
    net[0].requires_grad_(False)
    before = copy.deepcopy(net)
    assert net[0].weight.grad is not None
    optimizer.step()
    same(net[0], before[0])
    assert not torch.equal(net[2].weight, before[2].weight)


def test_copies_of_parameters_in_mixed_precision_are_trained():
    copies = [torch.eye(2) * 2, torch.eye(2) * 2]  # as some programs make them: no gradient required
    optimizer = AdamO(copies, isometry=True, isometry_every=1)
    copies[0].grad = torch.zeros(2, 2)
    optimizer.step()
    assert copies[0][0, 0] < 2
    assert torch.equal(copies[1], torch.eye(2) * 2)


@pytest.mark.parametrize(("shape", "rate"), [((0, 4), 1e-2), ((4, 0), 1e-2), ((0, 3, 2, 2), torch.tensor(1e-2))])
def test_weights_without_entries_are_left_alone(shape, rate):
    empty, full = torch.nn.Parameter(torch.zeros(shape)), torch.nn.Parameter(torch.eye(2) * 2)
    optimizer = AdamO([empty, full], lr=rate, isometry=True, isometry_every=1, weight_decay=0.1)
    empty.grad, full.grad = torch.zeros(shape), torch.zeros(2, 2)
    optimizer.step()
    assert full[0, 0] < 2 - 24e-3 * 0.04
    assert optimizer.state[empty]["exp_avg"].shape == shape


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_network_with_a_layer_without_units_trains():
    net = torch.nn.Sequential(torch.nn.Linear(4, 0), torch.nn.ReLU(), torch.nn.Linear(0, 3), torch.nn.Linear(3, 2))
    before = net[3].bias.detach().clone()
    trained(net, AdamO(param_groups(net, head="3"), isometry_every=1), batches(2))
    assert not torch.equal(net[3].bias, before)


def test_lazy_modules_are_refused_until_they_are_called():
    net = torch.nn.Sequential(torch.nn.LazyLinear(3), torch.nn.ReLU(), torch.nn.LazyLinear(2))
    with pytest.raises(
        UserError, match=r"got '0.weight', a parameter of a lazy module that is not initialized; .*batch"
    ):
        param_groups(net, head="2")
    with pytest.raises(
        UserError, match=r"got a parameter that is not initialized, of a lazy module; .*Call the module"
    ):
        AdamO(net.parameters(), isometry=True)
    net(torch.zeros(1, 4))
    assert [tuple(p.shape) for p in param_groups(net, head="2")[0]["params"]] == [(3, 4)]


@pytest.mark.parametrize("head", [None, 2, torch.nn.Linear(2, 2), ["4", None]])
def test_heads_that_are_no_names_are_refused(head):
    with pytest.raises(UserError, match=r"got head=.*; wanted the output layer's name, or several names\. .*head=\(\)"):
        unchecked(param_groups)(network(), head=head)


@pytest.mark.parametrize("params", [[], torch.nn.Parameter(torch.eye(2)), iter(()), {"weight": torch.eye(2)}])
def test_no_parameters_are_refused(params):
    with pytest.raises(
        UserError, match=r"got params that are empty or no list .*; wanted a list of tensors, or of groups"
    ):
        AdamO(params, isometry=True)


def test_sparse_gradients_are_refused():
    embed = torch.nn.Embedding(5, 2, sparse=True)
    optimizer = AdamO([embed.weight], isometry=True, isometry_every=1)
    before = embed.weight.detach().clone()
    embed(torch.tensor([1])).sum().backward()
    with pytest.raises(UserError, match=r"got a sparse gradient for a parameter of shape \(5, 2\); wanted dense"):
        optimizer.step()
    assert torch.equal(embed.weight, before)
    assert int(optimizer.param_groups[0]["updates"]) == 0


def test_unknown_heads_and_networks_without_hidden_kernels_are_refused():
    with pytest.raises(UserError, match=r"got the module 'haed'; wanted one of .*, head\. Did you mean 'head'\?"):
        param_groups(twins().module, head="haed")
    with pytest.raises(
        UserError, match=r"got a module without hidden kernels beside 0; wanted .*Check the head's name"
    ):
        param_groups(torch.nn.Sequential(torch.nn.Linear(2, 2)), head="0")
