import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F

from pliant.errors import UserError
from pliant.torch import HiddenLayer, Reader, ReDo
from torch_small import Reorder


def redo_of(between, *, norm=None, activation=None, conv=False):
    torch.manual_seed(0)
    feed, reader = (torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(4, 2, 1)) if conv else (linear(3, 4), linear(4, 2))
    module = torch.nn.Sequential(feed, between, activation or torch.nn.ReLU(), reader)
    redo = ReDo(module, torch.optim.Adam(module.parameters()), [HiddenLayer("0", "2", ["3"], norm=norm)])
    return redo, torch.randn(5, 3, 4, 4) if conv else torch.randn(5, 3)


def linear(num_in, num_out):
    return torch.nn.Linear(num_in, num_out)


class Scaled(torch.nn.Module):
    """Calls a function with its input and parameters of the units."""

    def __init__(self, function, *shape):
        super().__init__()
        self.scale, self.offset = (torch.nn.Parameter(torch.ones(shape or 4)) for _ in range(2))
        self.function = function

    def forward(self, x):
        return self.function(x, self.scale, self.offset)


NORMS = {
    "BatchNorm1d": (lambda: torch.nn.BatchNorm1d(4), False),
    "BatchNorm2d": (lambda: torch.nn.BatchNorm2d(4), True),
    "LayerNorm": (lambda: torch.nn.LayerNorm(4), False),
    "RMSNorm": (lambda: torch.nn.RMSNorm(4), False),
    "GroupNorm": (lambda: torch.nn.GroupNorm(2, 4), True),
    "InstanceNorm2d": (lambda: torch.nn.InstanceNorm2d(4, affine=True), True),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_that_are_not_declared_are_refused(name):
    make, conv = NORMS[name]
    redo, x = redo_of(make(), conv=conv)
    with pytest.raises(
        UserError,
        match=rf"got '1\.(weight|bias)' of {name} between '0' and its activation, which is not declared; wanted no "
        r"parameters .* Pass norm='1' as weight or bias in its HiddenLayer, or leave",
    ):
        redo.scores(x)
    redo, x = redo_of(make(), conv=conv, norm="1")
    assert redo.scores(x)["0"].shape == (4,)


def test_a_unit_that_a_norm_keeps_silent_is_refused_or_reset():
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 3),
    )
    with torch.no_grad():
        module[1].bias[1] = -99
    optimizer, x = torch.optim.Adam(module.parameters()), torch.randn(8, 1, 4, 4)
    readers = [Reader("5", repeats=4)]
    with pytest.raises(UserError, match=r"of BatchNorm2d between '0' and"):
        ReDo(module, optimizer, [HiddenLayer("0", "2", readers)], every=1, threshold=0.0).step(x)
    assert module[1].bias[1] == -99
    redo = ReDo(module, optimizer, [HiddenLayer("0", "2", readers, norm="1")], every=1, threshold=0.0)
    assert redo.step(x) == 1
    assert module[1].bias[1] == 0


@pytest.mark.parametrize(
    "between",
    [
        Scaled(lambda x, scale, offset: F.layer_norm(x, (4,), scale, offset)),
        Scaled(lambda x, scale, offset: x * scale),
        Scaled(lambda x, scale, offset: x + offset.view(1, 4)),
        Scaled(lambda x, scale, offset: (1 + scale.exp()) * x),
        Scaled(lambda x, scale, offset: x.mul_(scale)),
        Scaled(lambda x, scale, offset: torch.cat([x[:, :2], x[:, 2:]], dim=1) + offset, 1, 4),
    ],
)
def test_scales_and_offsets_are_refused(between):
    redo, x = redo_of(between)
    with pytest.raises(UserError, match=r"got '1\.(scale|offset)' of Scaled between '0' and its activation, which is"):
        redo.scores(x)


def test_norms_inside_the_activation_are_refused():
    activation = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.ReLU())
    redo, x = redo_of(torch.nn.Identity(), activation=activation)
    with pytest.raises(UserError, match=r"got '2\.0\.(weight|bias)' of BatchNorm1d .* Pass norm='2\.0'"):
        redo.scores(x)
    redo, x = redo_of(torch.nn.Identity(), activation=activation, norm="2.0")
    assert redo.scores(x)["0"].shape == (4,)


SKIP = torch.nn.Linear(4, 4, bias=False)


@pytest.mark.parametrize(
    ("between", "activation"),
    [
        (torch.nn.Identity(), torch.nn.PReLU(4)),
        (torch.nn.Identity(), torch.nn.PReLU()),
        (torch.nn.BatchNorm1d(4, affine=False), None),
        (torch.nn.Dropout(), torch.nn.ReLU(inplace=True)),
        (torch.nn.BatchNorm1d(4).requires_grad_(False), None),
        (Scaled(lambda x, scale, offset: x * scale, 1), None),
        (Reorder(lambda x: x + SKIP(torch.ones(5, 4))), None),
        (Reorder(lambda x: x + F.embedding(torch.arange(4), SKIP.weight)[0]), None),
    ],
)
def test_what_belongs_to_no_unit_between_passes(between, activation):
    redo, x = redo_of(between, activation=activation)
    redo.module.skip = SKIP
    redo.module.forward = torch.nn.Sequential(*redo.module[:4]).forward
    assert redo.scores(x)["0"].shape == (4,)
    assert all(each.grad is None for each in redo.module.parameters())


def test_inference_mode_hides_nothing():
    redo, x = redo_of(torch.nn.LayerNorm(4))
    with torch.inference_mode(), pytest.raises(UserError, match="of LayerNorm between '0' and"):
        redo.scores(x.clone())
    redo, x = redo_of(torch.nn.LayerNorm(4), norm="1")
    with torch.inference_mode():
        x = x.clone()
        inside = redo.scores(x)["0"]
    torch.testing.assert_close(redo_of(torch.nn.LayerNorm(4), norm="1")[0].scores(x)["0"], inside)
