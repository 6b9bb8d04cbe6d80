import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from pliant.errors import UserError
from pliant.torch import attach, infer_wiring
from torch_models import STRANGE, Functional, Gated, Joined, ResNet, Transformer, vgg
from torch_small import Reorder

IMAGES, ROWS = torch.randn(5, 3, 8, 8), torch.randn(5, 4)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def found(module, x=ROWS):
    """By layer: its width, what feeds it, what reads it."""
    wiring = infer_wiring(module, x)
    return {
        layer.name: (
            layer.width,
            [slot.parameter for slot in layer.feeds],
            [slot.parameter for slot in layer.readers],
        )
        for layer in wiring.layers
    }, wiring


def test_functional_calls_are_found():
    layers, wiring = found(Functional())
    assert layers == {"a": (6, ["a.weight", "a.bias"], ["b.weight"]), "b": (5, ["b.weight", "b.bias"], ["c.weight"])}
    assert wiring.heads == ("c.weight", "c.bias")
    assert (wiring.roles["a.weight"], wiring.roles["c.bias"]) == ("matrix", "bias")
    assert wiring.fans_in == {"a.weight": 4, "b.weight": 6, "c.weight": 5}
    assert str(wiring).splitlines()[1].split() == ["a", "6", "weight,", "bias", "b", "relu"]


def test_autocast_and_narrow_weights_change_nothing():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert list(found(Functional())[0]) == ["a", "b"]
    assert list(found(Functional().bfloat16(), ROWS.bfloat16())[0]) == ["a", "b"]


def test_norms_pooling_and_flatten_are_followed():
    layers, wiring = found(vgg(), IMAGES)
    statistics = ["1.weight", "1.bias", "1.running_mean", "1.running_var"]
    assert layers["0"] == (4, ["0.weight", "0.bias", *statistics], ["4.weight"])
    assert layers["4"] == (6, ["4.weight", "4.bias"], ["8.weight"])
    assert layers["8"][2] == ["11.weight"]
    assert wiring.layers[1].readers[0].units[0].tolist() == [unit for unit in range(6) for _ in range(4)]
    assert wiring.norms == {"0.weight": ("1.weight", "1.bias")}
    assert "(× 4)" in str(wiring)


def test_a_relu_used_twice_is_two_layers_and_residual_streams_are_named():
    layers, wiring = found(ResNet(), IMAGES)
    assert {name: reads for name, (_, _, reads) in layers.items()} == {
        "blocks.0.conv1": ["blocks.0.conv2.weight"],
        "blocks.1.conv1": ["blocks.1.conv2.weight"],
        "blocks.1.conv2": ["fc.weight"],  # a sum of two convolutions
    }
    assert "blocks.1.down.weight" in layers["blocks.1.conv2"][1]
    assert wiring.others["relu"] == "it goes into a residual sum"
    assert wiring.others["blocks.0.relu"] == "it is a sum of several tensors"


class Folded(nn.Module):
    """Each of six units is made of two outputs of a kernel."""

    def __init__(self, activation):
        super().__init__()
        self.a, self.b, self.activation = nn.Linear(4, 12), nn.Linear(6, 3), activation

    def forward(self, x):
        return self.b(self.activation(self.a(x)))


@pytest.mark.parametrize(
    ("activation", "units"),
    [
        (nn.GLU(), [*range(6), *range(6)]),
        (lambda x: x.reshape(-1, 6, 2).max(-1).values, [unit for unit in range(6) for _ in range(2)]),
        (lambda x: x.reshape(-1, 2, 6).amax(1), [*range(6), *range(6)]),
    ],
    ids=["glu", "neighbours", "halves"],
)
def test_units_of_two_outputs(activation, units):
    net = Folded(activation)
    (layer,) = infer_wiring(net, ROWS).layers
    assert (layer.width, layer.outputs) == (6, 1)
    assert {slot.parameter: slot.units.flatten().tolist() for slot in layer.feeds} == {
        "a.weight": units,
        "a.bias": units,
    }
    assert layer.readers[0].units.flatten().tolist() == [*range(6)]
    with torch.no_grad():
        net.a.weight[torch.tensor(units) == 2] = 0.0
        net.a.bias[torch.tensor(units) == 2] = 0.0
        net.b.bias.zero_()
    before = net(ROWS).detach()
    optimizer = attach("redo", net, ROWS, every=1, threshold=0.0)
    net(ROWS)
    optimizer.step()
    assert int(optimizer.info["units_reset"]) == 1
    assert torch.equal(net(ROWS), before)
    assert torch.flatten((net.b.weight == 0).all(0).nonzero()).tolist() == [2]
    assert bool((net.a.weight[torch.tensor(units) == 2] != 0).all())


class Shared(nn.Module):
    """Towers or blocks that share all parameters, or a bias apart from them."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.a, self.b, self.c = kind, nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(4, 2)
        self.bias = nn.Parameter(torch.zeros(6))

    def forward(self, x):
        if self.kind == "towers":
            return self.c(self.b(self.a(x).relu()).tanh() * self.b(self.a(-2 * x).relu()).tanh())
        for i in range(2):
            bias = self.bias if i and self.kind == "another bias" else 0.0
            x = x + self.b((self.a(x) + bias).relu())
        return self.c(x)


@pytest.mark.parametrize("kind", ["towers", "blocks"])
def test_a_layer_that_is_used_twice_is_one(kind):
    net = Shared(kind)
    with torch.no_grad():
        net.a.weight[:2] = torch.ones(2, 4) * torch.tensor([[-1.0], [0.0]])
        net.a.bias[:2] = torch.tensor([0.0, -1.0])  # unit 0 fires in the second tower only, unit 1 never
    layer = infer_wiring(net, ROWS).layers[0]
    assert (layer.name, layer.width, len(layer.uses)) == ("a", 6, 2)
    assert [slot.parameter for slot in (*layer.feeds, *layer.readers)] == ["a.weight", "a.bias", "b.weight"]
    optimizer = attach("redo", net, ROWS, every=1, threshold=0.0)
    before = net(ROWS.abs()).detach()
    optimizer.step()
    assert torch.equal(net(ROWS.abs()), before)
    silent = (net.b.weight == 0).all(0).nonzero().flatten().tolist()
    assert silent == ([1] if kind == "towers" else silent)
    assert 1 in silent


def test_a_layer_that_shares_a_part_is_refused():
    wiring = infer_wiring(Shared("another bias"), ROWS)
    assert not wiring.layers
    assert "a.weight is used 2 times" in wiring.others.values()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_torchscript_runs_is_refused():
    net = nn.Sequential(nn.Linear(4, 6), torch.jit.script(nn.ReLU()), nn.Linear(6, 2))
    for method in ("redo", "continual-backprop"):
        with pytest.raises(UserError, match=r"on the layer '0', whose activation 'relu' runs out of sight of Python"):
            attach(method, net, ROWS)
    attach("regrama", net, ROWS)  # looks at gradients
    with pytest.raises(UserError, match="got a network that is compiled by TorchScript; wanted its modules in Python"):
        attach("redo", torch.jit.script(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))), ROWS)


@pytest.mark.parametrize("norm", [nn.Identity, nn.BatchNorm1d, nn.LayerNorm])
def test_a_stream_that_others_read_is_no_sum_of_its_own(norm):
    class Stream(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.up, self.down, self.fc = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 6), nn.Linear(6, 2)
            self.before, self.behind = (nn.Identity() if norm is nn.Identity else norm(6) for _ in range(2))

        def forward(self, x):
            stem = self.stem(x)
            return self.fc(self.behind(stem + self.down(self.up(self.before(stem).relu()).relu())).relu())

    assert list(found(Stream())[0]) == ["up"]


def test_a_transformer_block():
    layers, wiring = found(Transformer(), torch.randint(0, 11, (3, 5)))
    assert layers == {"up": (16, ["up.weight", "up.bias"], ["down.weight"])}
    kinds = {"embed.weight": "embed", "position": "other", "norm.bias": "norm", "head.weight": "head"}
    kinds |= {"attention.in_proj_weight": "matrix", "attention.in_proj_bias": "bias"}
    assert {name: wiring.roles[name] for name in kinds} == kinds


@pytest.mark.parametrize("is_fused", [False, True])
def test_gates(is_fused):
    layers, wiring = found(Gated(is_fused))
    (width, feeds, reads), *_ = layers.values()
    assert (width, reads) == (6, ["down.weight"])
    assert feeds == (
        ["both.weight", "both.bias"]
        if is_fused
        else [f"{a}.{b}" for a in ("gate", "value") for b in ("weight", "bias")]
    )
    if is_fused:
        assert wiring.layers[0].feeds[0].units[:, 0].tolist() == [*range(6), *range(6)]


def test_concatenation_and_crelu():
    layers, wiring = found(Joined())
    assert layers["a"][2] == layers["b"][2] == ["mid.weight"]
    of_a, of_b, of_mid = (layer.readers[0].units[0].tolist() for layer in wiring.layers)
    assert (of_a, of_b, of_mid) == ([0, 1, 2, -1, -1], [-1, -1, -1, 0, 1], [0, 1, 2, 0, 1, 2])
    assert [layer.outputs for layer in wiring.layers] == [1, 1, 2]


@pytest.mark.parametrize(
    ("layers", "reads"),
    [
        ([nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2)], "2.weight"),
        ([nn.Conv2d(3, 4, 1, groups=1), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4)], "2.weight"),
        ([nn.Conv2d(3, 6, 3, groups=3), nn.ReLU(), nn.ConvTranspose2d(6, 4, 3)], "2.weight"),
        ([nn.ConvTranspose2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3, dilation=2)], "2.weight"),
        ([nn.ConvTranspose2d(3, 6, 3, groups=3), nn.PReLU(6), nn.ConvTranspose2d(6, 4, 3, groups=2)], "2.weight"),
    ],
)
def test_grouped_and_transposed_convolutions(layers, reads):
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    wiring = infer_wiring(module, IMAGES)
    assert [slot.parameter for slot in wiring.layers[0].readers] == [reads], str(wiring)


@pytest.mark.parametrize(("make", "layers", "heads"), STRANGE)
def test_networks_of_many_kinds_are_followed_and_trained(make, layers, heads):
    net = make()
    optimizer = attach("redo+l2-init", net, ROWS, every=1, threshold=1e6)
    assert [layer.name for layer in optimizer.wiring.layers] == layers
    assert list(optimizer.wiring.heads) == heads
    (net(ROWS).square().mean() + optimizer.penalty()).backward()
    optimizer.step()
    assert optimizer.info["units_reset"] == 6 * len(layers)
    assert all(parameter.isfinite().all() for parameter in net.parameters())


def test_layouts_are_read_off():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(2, 3, 2))

        def forward(self, x):
            h = (x @ self.up).relu()
            return torch.einsum("bi,io->bo", h, self.down.reshape(2, 6).T)

    layers, wiring = found(Turned())
    assert layers == {"up": (6, ["up"], ["down"])}
    assert wiring.output_axes["up"] == 1
    assert wiring.layers[0].readers[0].units.squeeze(0).tolist() == [[0, 1], [2, 3], [4, 5]]


def test_what_cannot_be_cut_is_named():
    shared = nn.Linear(4, 4)
    _, wiring = found(nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(4, 2)))
    assert wiring.layers == ()
    assert wiring.others["1"] == "0.weight is used 2 times"
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 2))
    assert "computed" in infer_wiring(normed, ROWS).others["1"]
    _, wiring = found(
        nn.Sequential(
            nn.Linear(4, 4),
            nn.ReLU(),
            Reorder(lambda h: (h, h.sort(-1)[0])),
            Reorder(lambda p: p[0] + p[1]),
            nn.Linear(4, 2),
        )
    )
    assert wiring.layers == ()


def test_a_network_that_returns_its_features_says_so():
    class Open(Functional):
        def forward(self, x):
            h = self.a(x).relu()
            return self.c(self.b(h).relu()), h

    _, wiring = found(Open())
    assert [layer.name for layer in wiring.layers] == ["b"]
    assert wiring.others == {"relu": "the network returns it"}


def test_nothing_is_left_changed():
    module = vgg()
    before = copy.deepcopy(module.state_dict())
    state = torch.random.get_rng_state()
    infer_wiring(module, IMAGES)
    assert module.training
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


@pytest.mark.parametrize(
    ("module", "x", "message"),
    [
        (nn.LazyLinear(3), ROWS, r"got 'weight', which is not initialised; wanted parameters with values\. Call"),
        (nn.Linear(4, 2, device="meta"), ROWS, r"got 'weight' on the device 'meta'; wanted parameters with values"),
        (nn.Linear(3, 2), ROWS, r"got a module that cannot be called with x: RuntimeError: .*; wanted a batch of"),
    ],
)
def test_refuses(module, x, message):
    with pytest.raises(UserError, match=message):
        infer_wiring(module, x)


def tiny(name):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    tokens = torch.randint(0, 50, (3, 7))
    if name == "bert":
        config = transformers.BertConfig(vocab_size=50, num_labels=3, **sizes)
        inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        return transformers.BertForSequenceClassification(config), inputs
    if name == "vit":
        config = transformers.ViTConfig(image_size=8, patch_size=4, num_labels=3, **sizes)
        return transformers.ViTForImageClassification(config), IMAGES
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config), tokens


@pytest.mark.parametrize(
    ("name", "num_layers", "axis", "head"),
    [("bert", 3, 0, "classifier.weight"), ("vit", 2, 0, "classifier.weight"), ("gpt2", 2, 1, "transformer.wte.weight")],
)
def test_hugging_face_models(name, num_layers, axis, head):
    net, x = tiny(name)
    options = {"replacement_rate": 0.5, "maturity": 0, "every": 1, "threshold": 0.5, "isometry_every": 1}
    optimizer = attach("adamo+redo+continual-backprop+l2-init", net, x, **options)
    wiring = optimizer.wiring
    assert len(wiring.layers) == num_layers
    assert all(len(layer.feeds) == 2 and len(layer.readers) == 1 for layer in wiring.layers)
    assert wiring.heads[0] == head
    assert wiring.output_axes[wiring.layers[0].feeds[0].parameter] == axis
    assert not wiring.others
    assert wiring.roles[head] == ("embed" if name == "gpt2" else "head")  # tied to the embedding
    longer = {"input_ids": torch.randint(0, 50, (2, 9))}  # other shapes than those the layers were found with
    output = net.train()(**longer) if name != "vit" else net(IMAGES[:2])
    (output.logits.square().mean() + optimizer.penalty()).backward()
    optimizer.step()
    assert optimizer.info["continual_backprop_units_reset"] > 0
