import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.nn import functional

from pliant.torch import MaxMin
from pliant.torch._trace import trace

SEQUENCES, TABLE, IMAGES = (5, 7, 4), (5, 4), (5, 3, 8, 8)


def inputs(*shape):
    """The same random numbers every time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def follow(net, *shape, **options):
    """The trace of a network in evaluation mode."""
    x = inputs(*shape)
    with torch.no_grad():
        return trace(lambda: net(x), net.eval(), dict(net.named_parameters()), [x], **options)


def widths(found):
    return {layer.name: layer.values.shape[-1] for layer in found.layers}


class Written(nn.Module):
    """A network whose forward pass is a function."""

    def __init__(self, forward, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.computation = forward

    def forward(self, x):
        return self.computation(self, x)


def mlp(*between, width=6):
    return nn.Sequential(nn.Linear(4, 6), *between, nn.Linear(width, 3))


def conv(*between, **options):
    return nn.Sequential(nn.Conv2d(3, 6, 3, **options), *between)


class Square(nn.Module):
    def forward(self, x):
        return x * x


class Swish(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Sigmoid()

    def forward(self, x):
        return x * self.gate(x)


@pytest.mark.parametrize(
    ("net", "shape", "where"),
    [
        (mlp(nn.ReLU()), SEQUENCES, {"1": 6}),
        (nn.Sequential(nn.Conv1d(4, 6, 1), nn.ReLU(), nn.Conv1d(6, 3, 1)), (5, 4, 7), {"1": 6}),
        (conv(nn.ReLU(), nn.Flatten(), nn.Linear(216, 3)), IMAGES, {"1": 6}),
        (conv(nn.Flatten(), nn.ReLU(), nn.Linear(216, 3)), IMAGES, {"2": 6}),
        (conv(nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 2, 1)), IMAGES, {"2": 6}),
        (conv(nn.GroupNorm(2, 6), nn.ReLU(), nn.Conv2d(6, 2, 1)), IMAGES, {"2": 6}),
        (conv(nn.InstanceNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 1)), IMAGES, {"2": 6}),
        (conv(nn.ReLU(), nn.Conv2d(6, 2, 1)).to(memory_format=torch.channels_last), IMAGES, {"1": 6}),
        (nn.Sequential(nn.ConvTranspose2d(3, 6, 2), nn.ReLU(), nn.Conv2d(6, 2, 1)), IMAGES, {"1": 6}),
        (nn.Sequential(nn.Conv3d(3, 6, 1), nn.ReLU(), nn.Conv3d(6, 2, 1)), (5, 3, 2, 2, 2), {"1": 6}),
        (mlp(nn.LayerNorm(6), nn.GELU()), SEQUENCES, {"2": 6}),
        (conv(nn.AvgPool2d(2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)), IMAGES, {"2": 6}),
        (mlp(MaxMin()), TABLE, {"1": 6}),
        (nn.Sequential(nn.Linear(4, 1), nn.Tanh(), nn.Linear(1, 3)), TABLE, {"1": 1}),
    ],
)
def test_units_lie_where_the_layer_before_puts_them(net, shape, where):
    found = follow(net, *shape)
    assert widths(found) == where
    assert found.layers[0].values.numel() == found.layers[0].raw.numel()
    assert not found.unseen


@pytest.mark.parametrize(
    ("forward", "shape", "where"),
    [
        (lambda net, x: net.b(torch.relu(net.a(x).permute(1, 0, 2)))[0], SEQUENCES, {"relu": 6}),
        (lambda net, x: net.b.weight @ torch.relu(net.a.weight @ x.T), TABLE, {"relu": 6}),
        (lambda net, x: net.b(functional.gelu(net.a(x).unflatten(-1, (2, 3))).flatten(-2)), SEQUENCES, {"gelu": 6}),
        (lambda net, x: net.b(torch.cat([torch.tanh(net.a(x)[..., :2]), net.a(x)[..., 2:]], -1)), TABLE, {"tanh": 2}),
        (
            lambda net, x: net.b(torch.cat([net.a(x), net.a(x).new_zeros(5, 1, 6)], 1).relu()),
            SEQUENCES,
            {"relu": 6},
        ),
    ],
)
def test_units_are_followed_where_they_move(forward, shape, where):
    assert widths(follow(Written(forward, a=nn.Linear(4, 6), b=nn.Linear(6, 3)), *shape)) == where


def test_positions_of_a_channel_are_examples_behind_a_flatten():
    net = conv(nn.Flatten(), nn.ReLU(), nn.Linear(216, 3))
    found = follow(net, *IMAGES)
    wanted = found.layers[0].raw.reshape(5, 6, 36).transpose(1, 2)
    assert torch.equal(found.layers[0].values, wanted)


@pytest.mark.parametrize(
    ("function", "name", "activation"),
    [
        (functional.relu, "relu", "relu"),
        (functional.relu_, "relu", "relu"),
        (lambda z: z.clamp(min=0), "relu", "relu"),
        (lambda z: torch.maximum(z, torch.tensor(0.0)), "relu", "relu"),
        (lambda z: torch.where(z > 0, z, 0.1 * z), "where", "unknown"),
        (lambda z: z * (z > 0), "gt", "unknown"),
        (functional.relu6, "relu6", "unknown"),
        (torch.tanh, "tanh", "tanh"),
        (lambda z: 1.7 * torch.tanh(z / 2), "tanh", "tanh"),
        (torch.sigmoid, "sigmoid", "sigmoid"),
        (lambda z: z * torch.sigmoid(1.7 * z), "sigmoid", "smooth"),
        (lambda z: 0.5 * z * (1 + torch.tanh(0.8 * (z + 0.04 * z**3))), "tanh", "smooth"),
        (torch.sin, "sin", "smooth"),
        (lambda z: z * z, "mul", "smooth"),
    ],
)
def test_functions_are_activations(function, name, activation):
    net = Written(lambda net, x: net.b(function(net.a(x))), a=nn.Linear(4, 6), b=nn.Linear(6, 3))
    (layer,) = follow(net, *SEQUENCES).layers
    assert (layer.name, layer.activation) == (name, activation)
    value, found = function(net.a(inputs(*SEQUENCES))).flatten(), layer.values.flatten()
    assert torch.allclose(found / found.norm(), value / value.norm(), atol=1e-6)  # but for a factor behind it


@pytest.mark.parametrize("part", [Square(), Swish(), nn.Softsign(), nn.Mish(), nn.PReLU(6), nn.LogSigmoid()])
def test_modules_are_activations_whatever_they_compute(part):
    net = mlp(part, nn.LayerNorm(6))
    found = follow(net, *TABLE)
    assert widths(found) == {"1": 6}
    assert torch.equal(found.layers[0].values, part(net[0](inputs(*TABLE))))


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: net.b(net.norm(net.a(x).relu())),
        lambda net, x: net.b(functional.normalize(net.a(x).relu())),
        lambda net, x: net.b((lambda h: h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6))(net.a(x).relu())),
        lambda net, x: net.b(torch.softmax(net.a(x).relu(), -1)),
        lambda net, x: net.b(net.a(x).relu() * torch.exp(net.norm.weight)),
    ],
)
def test_norms_are_no_layers(forward):
    net = Written(forward, a=nn.Linear(4, 6), b=nn.Linear(6, 3), norm=nn.LayerNorm(6))
    assert widths(follow(net, *TABLE)) == {"relu": 6}


def stated(net, x):
    hidden = net.a(x)
    hidden.relu_()
    hidden += 1.0
    return net.b(hidden)


def residual(net, x):
    hidden = functional.relu(net.a(x))
    hidden += x.sum()
    return net.b(functional.dropout(hidden, 0.0, training=True, inplace=True))


def viewed(net, x):
    hidden = net.a(x)
    hidden.view(-1).relu_()
    return net.b(hidden)


def filled(net, x):
    hidden = torch.zeros(len(x), 6)
    hidden[:, :3] = net.a(x)[:, :3].relu()
    hidden[:, 3:] = net.a(x)[:, 3:].relu()
    return net.b(hidden)


@pytest.mark.parametrize("forward", [stated, residual, viewed])
def test_what_writes_over_an_activation_does_not_change_what_was_seen(forward):
    net = Written(forward, a=nn.Linear(4, 6), b=nn.Linear(6, 3))
    (layer,) = follow(net, *TABLE).layers
    assert torch.equal(layer.values, net.a(inputs(*TABLE)).relu())


def test_activations_that_fill_a_tensor_are_seen():
    net = Written(filled, a=nn.Linear(4, 6), b=nn.Linear(6, 3))
    assert widths(follow(net, *TABLE)) == {"relu": 3, "relu_2": 3}


def test_modules_in_place_do_not_change_what_was_seen():
    net = mlp(nn.ReLU(inplace=True), nn.Hardtanh(-0.1, 0.1, inplace=True))
    found = follow(net, *TABLE, layers=["1"])
    assert torch.equal(found.layers[0].values, net[0](inputs(*TABLE)).relu())


def test_every_call_is_a_layer():
    relu = nn.ReLU()
    net = nn.Sequential(nn.Linear(4, 6), relu, nn.Linear(6, 5), relu, nn.Linear(5, 3))
    found = follow(net, *TABLE)
    assert widths(found) == {"1": 6, "1_2": 5}
    assert [layer.start for layer in found.layers] == [None, "1"]


def test_both_signs_of_a_unit_are_one_unit():
    net = Written(
        lambda net, x: net.b(torch.cat([net.a(x).relu(), (-net.a(x)).relu()], 1)), a=nn.Linear(4, 6), b=nn.Linear(12, 3)
    )
    assert widths(follow(net, *TABLE)) == {"relu": 6, "relu_2": 6}  # of two products, which are two layers
    net.computation = lambda net, x: (lambda z: net.b(torch.cat([z.relu(), (-z).relu()], 1)))(net.a(x))
    found = follow(net, *TABLE)
    z = net.a(inputs(*TABLE))
    assert widths(found) == {"relu": 6}
    assert torch.equal(found.layers[0].values, torch.stack([z.relu(), (-z).relu()], 1))


def test_parallel_layers_have_the_same_one_before_them():
    def forward(net, x):
        stem = net.stem(x).relu()
        return net.head(net.left(stem).tanh() + net.right(stem).sigmoid())

    parts = {name: nn.Linear(4, 4) for name in ("stem", "left", "right", "head")}
    found = follow(Written(forward, **parts), *TABLE)
    assert {layer.name: layer.start for layer in found.layers} == {"relu": None, "tanh": "relu", "sigmoid": "relu"}


@pytest.mark.parametrize(
    ("net", "heads", "behind"),
    [
        (mlp(nn.ReLU()), ("2",), ()),
        (nn.Sequential(*mlp(nn.ReLU()), nn.Sigmoid()), ("2",), ("3",)),
        (nn.Sequential(nn.Linear(4, 6), nn.ReLU()), ("0",), ("1",)),
        (Written(lambda net, x: (lambda z: (z, z[:, 0].tanh()))(net.a(x)), a=nn.Linear(4, 6)), ("a",), ("tanh",)),
        (Written(lambda net, x: x + net.a(x + net.a(x).relu()), a=nn.Linear(4, 4)), (), ()),
        (
            Written(
                lambda net, x: (lambda h: (net.p(h), net.v(h).squeeze(-1).tanh()))(net.a(x).relu()),
                a=nn.Linear(4, 6),
                p=nn.Linear(6, 2),
                v=nn.Linear(6, 1),
            ),
            ("p", "v"),
            ("tanh",),
        ),
    ],
)
def test_heads_and_what_is_behind_them(net, heads, behind):
    found = follow(net, *TABLE)
    assert (found.heads, found.behind) == (heads, behind)
    assert not set(behind) & set(widths(found))


def test_what_is_in_the_declared_head_or_behind_it_is_no_hidden_layer():
    head = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3), nn.Sigmoid())
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), head, nn.Linear(3, 3))
    assert set(widths(follow(net, *TABLE))) == {"1", "2.1", "2.3"}
    found = follow(net, *TABLE, head="2")
    assert set(widths(found)) == {"1"}
    assert found.behind == ("2.1", "2.3")


def test_the_last_layer_is_what_the_head_reads():
    def forward(net, x):
        policy = net.policy(net.a(x).relu())
        return policy, net.value(net.b(x).tanh())

    parts = {"a": nn.Linear(4, 6), "b": nn.Linear(4, 5), "policy": nn.Linear(6, 2), "value": nn.Linear(5, 1)}
    found = follow(Written(forward, **parts), *TABLE)
    assert (found.heads, found.last) == (("policy", "value"), "relu")
    assert follow(Written(forward, **parts), *TABLE, head="value").last == "tanh"


def test_names_are_taken_once():
    net = nn.ModuleDict({"relu": nn.ReLU(), "relu_2": nn.ReLU(), "a": nn.Linear(4, 4)})
    written = Written(
        lambda self, x: net["a"](net["relu"](net["a"](net["relu_2"](net["a"](net["relu"](net["a"](x)))))))
    )
    written.relu, written.relu_2, written.a = net["relu"], net["relu_2"], net["a"]
    assert list(widths(follow(written, *TABLE))) == ["relu", "relu_2", "relu_3"]


def test_layers_that_cannot_be_measured_are_named():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.a, self.b = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 6), nn.Linear(3, 2)

        def forward(self, x):
            return self.b(functional.glu(self.a(self.lstm(x)[0]).relu()))

    found = follow(Recurrent(), *SEQUENCES)
    assert widths(found) == {"relu": 6}
    assert dict(found.unseen) == {"lstm": "LSTM has gates and a state", "glu": "it mixes units"}
    outside = Written(
        lambda net, x: net.b(torch.from_numpy(net.a(x).relu().numpy())), a=nn.Linear(4, 6), b=nn.Linear(6, 3)
    )
    found = follow(outside, *TABLE)
    assert widths(found) == {"relu": 6}
    assert dict(found.unseen) == {"before b": "its computation is not PyTorch's"}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_compiled_code_is_seen_through():
    found = follow(torch.jit.trace(mlp(nn.ReLU()), torch.ones(TABLE), check_trace=False), *TABLE)
    assert widths(found) == {"relu": 6}
    assert found.layers[0].call is None


def test_modules_by_name():
    found = follow(mlp(nn.ReLU()), *SEQUENCES, layers=["0", "1"])
    assert {layer.name: (layer.values.shape[-1], layer.activation) for layer in found.layers} == {
        "0": (6, "unknown"),
        "1": (6, "relu"),
    }
    assert found.layers[1].start == "0"


def test_hugging_face():
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    bert = transformers.BertModel(transformers.BertConfig(intermediate_size=12, **sizes)).eval()
    tokens = torch.arange(18).reshape(3, 6)
    with torch.no_grad():
        found = trace(lambda: bert(tokens), bert, dict(bert.named_parameters()), [tokens])
    assert widths(found) == {f"encoder.layer.{i}.intermediate.intermediate_act_fn": 12 for i in range(2)}
    assert found.behind == ("pooler.activation",)
    gpt = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=20, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    ).eval()
    with torch.no_grad():
        found = trace(lambda: gpt(tokens), gpt, dict(gpt.named_parameters()), [tokens])
    assert widths(found) == {f"transformer.h.{i}.mlp.act": 32 for i in range(2)}
    assert found.heads == ("lm_head",)


def test_a_module_that_leaves_pytorch_is_named():
    outside = Written(lambda net, x: torch.from_numpy(x.numpy().clip(0)))
    found = follow(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), outside, nn.Linear(6, 3)), *TABLE)
    assert widths(found) == {"1": 6}
    assert dict(found.unseen) == {"3": "its computation is not PyTorch's"}
