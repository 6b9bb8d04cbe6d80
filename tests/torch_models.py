"""Networks as people write them, to find the layers of."""

import torch
from torch import nn
from torch.nn import functional

torch.set_num_threads(1)  # waiting for one another costs small tensors more than they do


class Functional(nn.Module):
    """Activations are function calls."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.c(functional.relu(self.b(self.a(x).relu())))


class Block(nn.Module):
    """A residual block that uses one ReLU twice, in place."""

    def __init__(self, num_in, num_out, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(num_in, num_out, 3, stride, 1, bias=False), nn.BatchNorm2d(num_out)
        self.conv2, self.bn2 = nn.Conv2d(num_out, num_out, 3, 1, 1, bias=False), nn.BatchNorm2d(num_out)
        self.relu = nn.ReLU(inplace=True)
        self.down = nn.Conv2d(num_in, num_out, 1, stride) if num_in != num_out else nn.Identity()

    def forward(self, x):
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + self.down(x))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.relu = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True)
        self.blocks = nn.Sequential(Block(4, 4, 1), Block(4, 8, 2))
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(functional.adaptive_avg_pool2d(self.blocks(self.relu(self.stem(x))), 1).flatten(1))


def vgg():
    features = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    features += [nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*features, nn.Linear(24, 10), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(10, 3))


class Transformer(nn.Module):
    """A pre-norm block over tokens."""

    def __init__(self):
        super().__init__()
        self.embed, self.position = nn.Embedding(11, 8), nn.Parameter(torch.randn(1, 5, 8))
        self.norm1, self.attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm2, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 11)

    def forward(self, x):
        x = self.embed(x) + self.position
        h = self.norm1(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        return self.head(self.norm(x + self.down(functional.gelu(self.up(self.norm2(x))))))


class Gated(nn.Module):
    """SwiGLU, whose gate and value are one product or two."""

    def __init__(self, is_fused):
        super().__init__()
        self.both = nn.Linear(4, 12) if is_fused else None
        self.gate, self.value = (None, None) if is_fused else (nn.Linear(4, 6), nn.Linear(4, 6))
        self.down = nn.Linear(6, 2)

    def forward(self, x):
        gate, value = self.both(x).chunk(2, -1) if self.both else (self.gate(x), self.value(x))
        return self.down(functional.silu(gate) * value)


class Joined(nn.Module):
    """Two layers side by side, whose outputs are put together; CReLU behind them."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.mid, self.head = nn.Linear(4, 3), nn.Linear(4, 2), nn.Linear(5, 3), nn.Linear(6, 2)

    def forward(self, x):
        h = self.mid(torch.cat([self.a(x).tanh(), self.b(x).relu()], dim=1))
        return self.head(torch.cat([h.relu(), (-h).relu()], dim=1))


class Excited(nn.Module):
    """Squeeze and excitation: every unit changes how much of all others passes."""

    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU()
        self.squeeze, self.gate, self.last = nn.Linear(8, 4), nn.Linear(4, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        h = self.act(self.conv(x))
        gate = self.gate(self.squeeze(h.mean(dim=(2, 3))).relu()).sigmoid()
        return self.last(h * gate[:, :, None, None])


class Recurrent(nn.Module):
    """A dense layer behind an LSTM."""

    def __init__(self):
        super().__init__()
        self.lstm, self.up, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.up(self.lstm(x[:, None].expand(-1, 3, -1))[0][:, -1]).relu())


class Towers(nn.Module):
    """Two layers whose sum goes through one activation."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.head((self.a(x) + self.b(x.cos())).relu())


class Listed(nn.Module):
    """Weights in a list, the layout of a matrix product; a complex filter in front of them."""

    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterList([torch.randn(4, 6), torch.randn(6, 6), torch.randn(6, 2)])
        self.filter = nn.Parameter(torch.randn(3, dtype=torch.cfloat))

    def forward(self, x):
        x = torch.fft.irfft(torch.fft.rfft(x) * self.filter, n=4)
        return ((x @ self.weights[0]).relu() @ self.weights[1]).relu() @ self.weights[2]


class Wave(nn.Module):
    """A gate that is an activation itself."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.a(x)) * torch.sigmoid(self.b(x)))


STRANGE = [
    (Recurrent, ["up"], ["head.weight", "head.bias"]),
    (Towers, ["a"], ["head.weight", "head.bias"]),
    (Listed, ["weights.0", "weights.1"], ["weights.2"]),
    (Wave, ["a"], ["head.weight", "head.bias"]),
]
"""Networks of four inputs and six units a layer, with the layers that are found and the heads."""
