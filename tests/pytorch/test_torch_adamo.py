import copy
import functools
import io
import os
import pickle
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
from torch_twins import images, nchw, to_torch, twins


def network():
    torch.manual_seed(0)
    hidden = [torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 6), torch.nn.ReLU()]
    return torch.nn.Sequential(*hidden, torch.nn.Linear(6, 2))


def batches(num):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 4, generator=generator), torch.randn(8, 2, generator=generator)) for _ in range(num)]


def trained(net, optimizer, data, schedule=None):
    for x, y in data:
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(net(x), y).backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
    return net


def same(a, b):
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(x, y)


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


def one(**options):
    return [{"params": [torch.nn.Parameter(torch.eye(2))], "isometry": True} | options]


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
