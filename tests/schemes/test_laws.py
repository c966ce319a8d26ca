"""The law that a scheme declares is the law that it draws: every scheme × every kind of layer."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from firstlight.capture.trace import trace
from firstlight.schemes import Context, names, plan, resolve, sample
from firstlight.schemes.draws import TRUNCATED_KURTOSIS
from firstlight.theory import random_walk

ARGUMENTS = {"constant": "(0.3)", "normal": "(0.02)", "uniform": "(0.05)"}
NEEDS_GRAPH = {"gpt-2", "fixup", "scaled-branches"}
SPECS = [n + ARGUMENTS.get(n, "") for n in names()] + [
    "normal(0.02, mean=0.1)",
    "normal(0.02, distribution='truncated')",
    "random-walk(law='paper')",
    "random-walk(distribution='uniform')",
    "he(mode='fan_out')",
    "he(mode='fan_avg', distribution='uniform')",
    "he(activation='tanh')",
    "orthogonal(gain=0.7)",
    "scaled-branches(base='orthogonal')",
]

# Layers with many entries, so that the moments are sharp; (layer, input shape)
LAYERS = {
    "linear": (lambda: nn.Linear(200, 300), (2, 200)),
    "conv1d": (lambda: nn.Conv1d(64, 96, 5), (2, 64, 9)),
    "conv2d": (lambda: nn.Conv2d(64, 96, 3), (2, 64, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(32, 48, 3), (2, 32, 4, 4, 4)),
    "grouped": (lambda: nn.Conv2d(128, 256, 3, groups=4), (2, 128, 5, 5)),
    "depthwise": (lambda: nn.Conv2d(512, 512, 5, groups=512), (2, 512, 6, 6)),
    "transposed": (lambda: nn.ConvTranspose2d(64, 96, 4, stride=2), (2, 64, 4, 4)),
    "transposed grouped": (lambda: nn.ConvTranspose2d(128, 256, 3, stride=2, groups=4), (2, 128, 4, 4)),
    "lstm": (lambda: nn.LSTM(80, 120), (3, 2, 80)),
    "gru": (lambda: nn.GRU(80, 120), (3, 2, 80)),
    "embedding": (lambda: nn.Embedding(400, 200), None),
}


class OneRelu(nn.Module):
    """The layer, then relu, so that a graph has an activation to find."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        out = self.layer(x)
        return torch.relu(out[0] if isinstance(out, tuple) else out)


@pytest.fixture(scope="module")
def traced():
    found = {}
    for name, (make, shape) in LAYERS.items():
        with torch.random.fork_rng():
            model = OneRelu(make())
        x = torch.zeros(2, 3, dtype=torch.int64) if shape is None else torch.zeros(shape)
        found[name] = (model, trace(model, x))
    return found


@pytest.mark.parametrize("spec", SPECS)
def test_drawn_moments_are_the_declared_ones(spec, traced):
    for name, (model, graph) in traced.items():
        for entry in plan(model, spec, graph=graph).entries:
            assert entry.draw is not None, (name, entry.row)
            law = entry.draw.law
            w = sample(entry.target, entry.draw, seed=3).double().flatten()
            where = (spec, name, entry.row.name)
            if law.variance == 0.0:
                assert torch.equal(w, torch.full_like(w, float(torch.tensor(law.mean)))), where
                continue
            n = w.numel()
            y = ((w - law.mean) / law.variance**0.5).square()
            assert abs(float(w.mean()) - law.mean) < 5 * math.sqrt(law.variance / n), where
            if law.structure == "iid":
                assert abs(float(y.mean()) - 1.0) < 5 * math.sqrt((law.kurtosis - 1.0) / n), where
            else:  # orthonormal rows or columns have a fixed sum of squares
                assert float(y.mean()) == pytest.approx(1.0, rel=1e-4), where
            # Rows of orthogonal matrices are unit vectors: their fourth moments vary less than iid ones do.
            error = float((y.square() - 2.0 * law.kurtosis * y).std()) / math.sqrt(n)
            kurtosis = float(y.square().mean() / y.mean() ** 2)
            assert abs(kurtosis - law.kurtosis) < 5 * error + 1e-12, where


def law_of(spec, model, batch, name):
    entries = plan(model, spec, graph=trace(model, batch)).entries
    return next(e for e in entries if e.row.name == name)


def relu_net(*widths):
    layers = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def test_numbers_of_the_classical_schemes():
    model, x = relu_net(50, 80, 80, 10), torch.zeros(2, 50)

    def variance(spec, name="2.weight"):
        return law_of(spec, model, x, name).draw.law.variance

    assert variance("he") == pytest.approx(2 / 80)
    assert variance("he", "0.weight") == pytest.approx(2 / 50)
    assert variance("he", "4.weight") == pytest.approx(2 / 80)
    assert variance("he(mode='fan_out')", "4.weight") == pytest.approx(2 / 10)
    assert variance("he-truncated") == pytest.approx(2 / 80)
    assert variance("lecun") == pytest.approx(1 / 80)
    assert variance("xavier-uniform", "0.weight") == pytest.approx(2 / 130)
    assert variance("torch-default") == pytest.approx(1 / (3 * 80))
    assert variance("orthogonal") == pytest.approx(2 / 80)
    assert law_of("he-uniform", model, x, "2.weight").draw.law.kurtosis == 1.8
    assert law_of("he-truncated", model, x, "2.weight").draw.law.kurtosis == TRUNCATED_KURTOSIS


def test_random_walk_takes_the_gain_of_each_layers_own_width():
    model, x = relu_net(50, 80, 16, 10), torch.zeros(2, 50)
    for name, width, fan in [("0.weight", 80, 50), ("2.weight", 80, 80), ("4.weight", 16, 16)]:
        entry = law_of("random-walk", model, x, name)
        assert entry.draw.gain == random_walk.median_gain("relu", width)
        assert entry.draw.law.variance == pytest.approx(entry.draw.gain**2 / fan)
        paper = law_of("random-walk(law='paper')", model, x, name)
        assert paper.draw.gain == random_walk.paper_gain("relu", width)


def test_paper_law_says_where_the_paper_has_no_fit():
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))
    entry = law_of("random-walk(law='paper')", model, torch.zeros(2, 8), "2.weight")
    assert "no fit for gelu" in entry.row.reason
    assert entry.draw.gain == random_walk.median_gain("gelu", 8)


def test_gain_of_non_homogeneous_activations_stands_behind_them():
    """φ expects q = 1 at its input, so the first layer has gain 1 and the next one 1/√Eφ²."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    x = torch.zeros(2, 8)
    assert law_of("he", model, x, "0.weight").draw.gain == 1.0
    assert law_of("he", model, x, "2.weight").draw.gain == pytest.approx(1.5925374, abs=1e-7)


def test_parameters_of_activations_reach_the_gain():
    model = nn.Sequential(nn.Linear(8, 8), nn.LeakyReLU(0.2), nn.Linear(8, 8), nn.GELU(approximate="tanh"))
    model.append(nn.Linear(8, 8))
    for graph in (trace(model, torch.zeros(2, 8)), None):
        gains = [e.draw.gain for e in plan(model, "he", graph=graph).entries if e.row.role != "bias"]
        assert gains == pytest.approx([1.3867505, 1.3867505, 1.5335805], abs=1e-7)


def test_a_function_is_a_scheme():
    from firstlight.schemes import Draw
    from firstlight.schemes.context import Target, iid
    from firstlight.schemes.draws import Distribution

    def tiny(target: Target, context: Context) -> Draw:
        return iid(Distribution("uniform", 0.5 / target.fan_in), reason="mine")

    entries = plan(nn.Linear(4, 4), tiny).entries
    assert [e.row.reason for e in entries] == ["mine", "bias: 0"]
    assert resolve(tiny).spec == "tiny"


@pytest.mark.parametrize("spec", sorted(NEEDS_GRAPH))
def test_residual_schemes_refuse_to_guess(spec):
    from firstlight.errors import InputError

    with pytest.raises(InputError, match="Give a batch"):
        plan(nn.Sequential(nn.Linear(4, 4)), spec)
