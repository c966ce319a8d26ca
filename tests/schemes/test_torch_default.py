"""torch-default is, layer type by layer type, what reset_parameters() draws: compared with fresh layers."""

import math

import pytest
import torch
from torch import nn

from firstlight.schemes import plan, sample

LAYERS = {
    "Linear": lambda: nn.Linear(17, 9),
    "Linear without bias": lambda: nn.Linear(17, 9, bias=False),
    "Bilinear": lambda: nn.Bilinear(5, 7, 6),
    "Conv1d": lambda: nn.Conv1d(6, 8, 3),
    "Conv2d grouped": lambda: nn.Conv2d(6, 9, 3, groups=3),
    "Conv3d": lambda: nn.Conv3d(4, 5, 2),
    "ConvTranspose1d": lambda: nn.ConvTranspose1d(6, 8, 3, stride=2),
    "ConvTranspose2d grouped": lambda: nn.ConvTranspose2d(6, 9, 3, groups=3, stride=2),
    "ConvTranspose3d": lambda: nn.ConvTranspose3d(4, 5, 2),
    "Embedding": lambda: nn.Embedding(20, 7, padding_idx=3),
    "EmbeddingBag": lambda: nn.EmbeddingBag(20, 7),
    "RNN": lambda: nn.RNN(5, 7, 2),
    "LSTM": lambda: nn.LSTM(5, 7, 2, bidirectional=True, proj_size=3),
    "GRU": lambda: nn.GRU(5, 7, 2),
    "LSTMCell": lambda: nn.LSTMCell(5, 7),
    "GRUCell": lambda: nn.GRUCell(5, 7),
    "MultiheadAttention": lambda: nn.MultiheadAttention(12, 3),
    "MultiheadAttention apart": lambda: nn.MultiheadAttention(12, 3, kdim=5, vdim=7, add_bias_kv=True),
    "LayerNorm": lambda: nn.LayerNorm(9),
    "BatchNorm2d": lambda: nn.BatchNorm2d(9),
    "GroupNorm": lambda: nn.GroupNorm(3, 9),
    "InstanceNorm1d": lambda: nn.InstanceNorm1d(9, affine=True),
    "RMSNorm": lambda: nn.RMSNorm(9),
    "PReLU": lambda: nn.PReLU(4, init=0.1),
    "Transformer": lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True),
    "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(8, 2, 16),
    "LazyLinear": lambda: run_once(nn.LazyLinear(9), torch.zeros(2, 5)),
}
FRESH = 200


def run_once(layer, x):
    layer(x)
    return layer


@pytest.mark.parametrize("name", LAYERS)
def test_same_law_as_reset_parameters(name):
    torch.manual_seed(0)
    fresh = [dict(LAYERS[name]().named_parameters()) for _ in range(FRESH)]
    for entry in plan(LAYERS[name](), "torch-default").entries:
        assert entry.draw is not None, entry.row
        w = torch.stack([layer[entry.row.name].detach() for layer in fresh]).double()
        law, built = entry.draw.law, entry.target.builtin
        rows = [r for r in range(w.shape[1]) if r not in entry.target.zero_rows]
        if entry.target.zero_rows:
            assert not w[:, list(entry.target.zero_rows)].any()
            assert not sample(entry.target, entry.draw, 0)[list(entry.target.zero_rows)].any()
        w = w[:, rows].flatten()
        if built.kind == "constant":
            assert (w == torch.tensor(built.value)).all()
            continue
        n = w.numel()
        assert abs(float(w.mean())) < 5 * math.sqrt(law.variance / n)
        error = law.variance * math.sqrt((law.kurtosis - 1) / n)
        assert abs(float(w.square().mean()) - law.variance) < 5 * error, entry.row.name
        if built.kind == "uniform":
            # The largest of n uniform entries lies within 20 bound/n of the bound but for a chance of e^-20.
            assert built.value * (1 - 20 / n) < float(w.abs().max()) <= built.value * (1 + 1e-6)


def test_modules_that_are_not_torchs_are_left_alone_with_the_reason():
    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(3, 3))

    (entry,) = plan(Mine(), "torch-default").entries
    assert entry.draw is None
    assert "Mine is not a layer of torch" in entry.row.reason
