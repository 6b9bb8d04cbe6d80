"""Small PyTorch networks, and what trains them in tests."""

import torch

from pliant.torch import HiddenLayer, ReDo

torch.set_num_threads(1)  # waiting for one another costs small tensors more than they do


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


def one(**options):
    return [{"params": [torch.nn.Parameter(torch.eye(2))], "isometry": True} | options]


def pair(feed=None, reader=None, activation=None):
    return torch.nn.Sequential(
        feed or torch.nn.Linear(3, 4), activation or torch.nn.ReLU(), reader or torch.nn.Linear(4, 2)
    )


def redo_of(module, optimizer=None, **options):
    optimizer = optimizer or torch.optim.Adam(module.parameters())
    return ReDo(module, optimizer, [HiddenLayer("0", "1", ["2"])], **{"threshold": 1e6, "every": 1} | options)


FIRST = {"0": torch.tensor([True, False, False, False])}


def after_two_updates(optimizer, module):
    for _ in range(2):
        for parameter in module.parameters():
            parameter.grad = torch.rand_like(parameter) + 0.5
        optimizer.step(lambda: 1.0)
    return optimizer


class Reorder(torch.nn.Module):
    def __init__(self, reorder):
        super().__init__()
        self.reorder = reorder

    def forward(self, x):
        return self.reorder(x)
