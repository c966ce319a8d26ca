"""Which operations the walk joins, and that theory is drawn on the scale of the measurement."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import firstlight as fl
from firstlight.errors import InputError
from firstlight.report.view import build_view


class Attending(nn.Module):
    """A pre-norm stream of tokens whose logits are a sum of two."""

    def __init__(self, layers: int = 4, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.maps = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(layers))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for norm, linear, out in zip(self.norms, self.maps, self.out, strict=True):
            q, k, v, bias = linear(norm(x)).chunk(4, -1)
            logits = q @ k.mT + bias @ bias.mT
            x = x + out(logits.softmax(-1) @ v)
        return x


@pytest.fixture
def net() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return Attending(), torch.randint(50, (8, 12))


def test_the_walk_joins_the_sums_of_the_stream_alone(net: tuple[nn.Module, torch.Tensor]) -> None:
    view = build_view(fl.diagnose(*net))
    joined = [row for row in view.rows if row.spine]
    assert len(joined) == 4
    assert all(row.stats.output.shape == (8, 12, 32) for row in joined)  # logits are (8, 12, 12)


def test_theory_starts_where_the_measured_walk_starts(net: tuple[nn.Module, torch.Tensor]) -> None:
    """The input is whole numbers: the walk starts at the embedding, and the prediction with it."""
    prediction = fl.predict(*net)
    view = build_view(fl.diagnose(*net), prediction)
    said = {n.name: n for n in prediction.nodes}
    forward, backward = view.forward_band, view.backward_band
    assert forward is not None
    assert backward is not None
    names = {row.number: row.stats.name for row in view.rows}
    last = max(forward.rows)
    out, start = said[names[last]], said["embed:embedding"]
    decades = 0.5 * (out.output.log_mean - start.output.log_mean) / np.log(10)
    np.testing.assert_allclose(forward.median[-1], decades, rtol=1e-9)
    assert abs(forward.median[-1]) < 0.1  # ×1.1: on the scale of the input's whole numbers it is below -1
    assert backward.median[-1] == 0.0


def test_what_is_compared_is_a_prediction_and_a_measurement(net: tuple[nn.Module, torch.Tensor]) -> None:
    with pytest.raises(InputError, match=r"prediction: got Attending; expected a Prediction\. compare\(predict"):
        fl.compare(*net)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="measurement: got Tensor; expected a Measurement"):
        fl.compare(fl.predict(*net), net[1])  # type: ignore[arg-type]


def test_what_a_mask_hides_is_no_defect() -> None:
    """Minus infinity where a causal mask hides the future: the rest of the scores is shown, and nothing as broken."""

    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps = nn.Linear(16, 48)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.maps(x).chunk(3, -1)
            hidden = torch.ones(8, 8, dtype=torch.bool).triu(1)
            return (q @ k.mT).masked_fill(hidden, float("-inf")).softmax(-1) @ v

    torch.manual_seed(0)
    rows = {row.stats.op: row for row in build_view(fl.diagnose(Causal(), torch.randn(4, 8, 16))).rows}
    assert rows["masked_fill"].stats.output.inf_count
    assert np.isfinite(rows["masked_fill"].forward)
    assert rows["masked_fill"].contrast is None
