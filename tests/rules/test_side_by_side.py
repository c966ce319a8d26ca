"""Channels behind a rectifier beside channels of a convolution: each piece keeps its law through norms and bends."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.rules.test_pieces import worst

CHANNELS = 64


def normed(x: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, training=True)


class Dense(nn.Module):
    """Two layers of a dense block: what was rectified is normalised and rectified again, what is new for once."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(64, CHANNELS, 1, bias=False)
        self.grown = nn.ModuleList(nn.Conv2d(CHANNELS * (1 + k), CHANNELS, 1, bias=False) for k in range(2))
        self.last = nn.Conv2d(3 * CHANNELS, 16, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(normed(self.first(x)))
        for layer in self.grown:
            x = torch.cat([x, layer(F.relu(normed(x)))], dim=1)
        return self.last(F.relu(normed(x)))


class Skip(nn.Module):
    """An encoder's features beside those that come up, as in a U-Net, bent by what knows no length of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(64, CHANNELS, 1, bias=False), nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False)
        self.last = nn.Conv2d(2 * CHANNELS, 16, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        kept = F.gelu(normed(self.down(x)))
        both = torch.cat([normed(self.up(kept)), kept], dim=1)
        return self.last(torch.tanh(both))


@pytest.mark.parametrize("model", [Dense, Skip])
def test_pieces_side_by_side_keep_their_laws(model: type[nn.Module]) -> None:
    torch.manual_seed(0)
    for name, error in worst(model(), torch.randn(6, 64, 8, 8)).items():
        assert not error.q > 0.02, (name, error)
        assert not error.grad_q > 0.06, (name, error)
        assert not error.c > 0.03, (name, error)
