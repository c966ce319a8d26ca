"""What changes torch itself is back when the last thread has left, in whichever order they leave."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

import firstlight
from firstlight.capture.shared import Shared


class Place:
    value = "before"


@contextmanager
def change() -> Iterator[None]:
    found = Place.value
    Place.value = "changed"
    try:
        yield
    finally:
        Place.value = found


def in_turn(first_out: str) -> list[str]:
    """What the place holds: with both threads inside, after the first, after the second has left."""
    shared, inside, leave = Shared(change), threading.Event(), threading.Event()
    seen: list[str] = []

    def other() -> None:
        with shared.entered():
            inside.set()
            assert leave.wait(30)

    thread = threading.Thread(target=other)
    with shared.entered():
        thread.start()
        assert inside.wait(30)
        seen.append(Place.value)
        if first_out == "other":
            leave.set()
            thread.join(30)
            seen.append(Place.value)
            assert shared.is_mine()
    if first_out == "mine":
        seen.append(Place.value)
        assert not shared.is_mine()
        leave.set()
        thread.join(30)
    return [*seen, Place.value]


@pytest.mark.parametrize("first_out", ["mine", "other"])
def test_it_is_back_after_the_last_has_left(first_out: str) -> None:
    assert in_turn(first_out) == ["changed", "changed", "before"]


def test_nested_and_after_an_error() -> None:
    shared = Shared(change)

    def fail() -> None:
        with shared.entered():
            with shared.entered():
                pass
            assert Place.value == "changed"
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert Place.value == "before"
    with shared.entered():
        assert Place.value == "changed"


def test_two_threads_that_measure_leave_torch_as_it_was() -> None:
    """The first is in its forward pass when the second begins, and ends first."""
    began, go_on = threading.Event(), threading.Event()

    class Waiting(nn.Module):
        def __init__(self, mine: threading.Event, other: threading.Event) -> None:
            super().__init__()
            self.layer, self.told, self.awaited = nn.Linear(8, 8), mine, other

        def forward(self, x: Tensor) -> Tensor:
            self.told.set()
            assert self.awaited.wait(30)
            return torch.func.vmap(self.layer)(x)

    done: list[float] = []
    x, first_done = torch.randn(4, 8), threading.Event()

    def later() -> None:
        assert began.wait(30)
        done.append(firstlight.measure(Waiting(go_on, first_done), x).nodes[-1].output.q)

    thread = threading.Thread(target=later)
    thread.start()
    assert firstlight.measure(Waiting(began, go_on), x).nodes[-1].output.q > 0
    first_done.set()
    thread.join(60)
    assert len(done) == 1
    many = torch.randn(100, 8)
    assert torch.func.vmap(nn.Linear(8, 8))(many).shape == (100, 8)
    if "torch._dynamo.eval_frame" in sys.modules:
        assert sys.modules["torch._dynamo.eval_frame"]._stance.stance == "default"
