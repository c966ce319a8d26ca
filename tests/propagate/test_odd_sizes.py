"""Tensors without entries inside a network, weights that get new data while it runs, places drawn by weight."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import firstlight

X = torch.randn(4, 6, 16, generator=torch.Generator().manual_seed(0))


class Memories(nn.Module):
    """Attention beside memories of which there may be none, as routing transformers and Reformers have them."""

    def __init__(self, memories: int) -> None:
        super().__init__()
        self.keys, self.layer = nn.Parameter(torch.randn(4, memories, 16)), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        past = x[:, 0:0].reshape(len(x), 0, 16)
        keys = torch.cat([self.keys.unsqueeze(0).squeeze(0), past, self.layer(x)], 1)
        return torch.softmax(0.02 * x @ keys.transpose(1, 2), -1) @ keys


@pytest.mark.parametrize("memories", [0, 3])
def test_no_entries_are_no_obstacle(memories: int) -> None:
    torch.manual_seed(0)
    model = Memories(memories)
    prediction = firstlight.predict(model, X)
    assert prediction.p_start > 0.9
    last = firstlight.compare(prediction, firstlight.measure(model, X, draws=64)).nodes[-1]
    assert abs(last.q_z) < 3.0, last


class Moved(nn.Module):
    """Moves its weights while it runs, as sharded experts do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        for p in self.layer.parameters():
            p.data = p.data.to(x.device)
        return self.layer(x)


def test_weights_that_are_moved_are_the_same_weights() -> None:
    torch.manual_seed(0)
    moved, plain = Moved(), nn.Linear(16, 16)
    plain.load_state_dict(moved.layer.state_dict())
    q = firstlight.predict(moved, X).nodes[-1].output.q
    assert q == pytest.approx(firstlight.predict(plain, X).nodes[-1].output.q, rel=1e-6)


class Drawn(nn.Module):
    """Keeps places that are drawn by weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x[:, torch.multinomial(torch.ones(6), 3)])


def test_places_are_drawn_by_weight() -> None:
    torch.manual_seed(0)
    assert firstlight.predict(Drawn(), X).p_start > 0.9
