"""One walk finds what torch's own iterators find."""

import torch
from torch import nn

from firstlight.capture.census import census


class Tied(nn.Module):
    """A module under two names, a parameter under two, a buffer that is shared, an empty place."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        self.b = nn.ModuleDict({"again": self.a, "own": nn.Linear(3, 3, bias=False)})
        self.head = nn.Linear(3, 3)
        self.head.weight = self.b["own"].weight  # pyright: ignore[reportAttributeAccessIssue]
        self.register_module("nothing", None)
        self.register_buffer("counter", torch.zeros(1))
        self.b.register_buffer("same", self.counter)


def test_the_census_agrees_with_torch() -> None:
    model = Tied()
    parts = census(model)
    assert list(parts.modules) == list(model.named_modules())
    assert list(parts.parameters) == [name for name, _ in model.named_parameters()]
    assert all(parts.parameters[name] is p for name, p in model.named_parameters())
    assert list(parts.buffers) == [name for name, _ in model.named_buffers()]
    every: dict[int, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        every.setdefault(id(p), []).append(name)
    assert parts.names == every


def test_a_module_that_holds_itself_is_counted_once() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model._modules["myself"] = model
    assert [path for path, _ in census(model).modules] == ["", "0"]
