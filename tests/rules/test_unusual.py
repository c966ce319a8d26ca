"""Arguments and operations that networks seldom use, each against draws of the weights."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import firstlight
from firstlight import predict
from tests.rules.test_examples import ONE_SAMPLE, RESOLUTION, compared

FORMULAS = [
    "torch.cdist(x.view(-1, 8, 8), x.view(-1, 8, 8))",  # one tensor twice: its gradient had been counted twice
    "x.amin(-1) + x.amax(-1)",  # the mean of the smallest had the sign of the largest
    "F.max_pool1d(-x.exp(), 2)",
    "torch.baddbmm(x.view(-1, 8, 8)[:16], torch.randn(16, 8, 8), torch.randn(16, 8, 8) / 8, beta=0.5)",
    "x.clamp(torch.randn(16, 64) - 1.0, torch.randn(16, 64) + 1.0)",
    "torch.pow(x.abs() + 1.0, 0.3 * torch.randn(16, 64))",
    "x.view(-1, 8, 8).logsumexp((1, 2))",
    "torch.linalg.vector_norm(x.view(-1, 8), 3, dim=-1)",
    "torch.linalg.norm(x, ord=1, dim=-1)",
    "torch.linalg.vector_norm(x.view(-1, 8), float('inf'), -1)",
    "torch.div(x, 0.3, rounding_mode='floor') + x",
    "x.index_copy(1, torch.arange(16), torch.randn(16, 16))",
    "x.scatter(1, torch.arange(8).expand(16, 8), 0.0)",
    "x.diag_embed(1, 1, -1)",
    "torch.atleast_3d(x)",
    "torch.dstack((x, x * 0.5))",
    "x.view(-1, 8, 8).dsplit([2, 5])[1]",
    "x[0].diagflat(-1)",
    "F.alpha_dropout(x + 0.5, 0.3, True)",
    "F.feature_alpha_dropout(x.view(16, 8, 8), 0.3, True)",
    "F.pad(x, (2, 3), value=2.0)",
    "F.interpolate(x.view(16, 1, 8, 8), scale_factor=2, mode='bicubic')",
    "F.interpolate(x.view(16, 1, 8, 8), size=(3, 3), mode='area')",
    "F.interpolate(x.view(16, 1, 8, 8), size=(5, 5), mode='nearest-exact')",
    "F.binary_cross_entropy_with_logits(x, torch.randn(16, 64).sign() * 0.5 + 0.5, pos_weight=torch.ones(64) * 3.0)",
    "F.margin_ranking_loss(x[:, 0], x[:, 1], torch.ones(16), 0.5)",
    "torch.special.i0(x)",
    "F.multi_margin_loss(x, torch.arange(16))",  # one direction for a scalar: its square had been as large as drawn
]


@pytest.mark.parametrize("text", FORMULAS)
def test_an_unusual_operation_is_met_by_draws(text):
    """Of one sample of inputs and of one cotangent, which the examples fix, the mean square scatters by itself."""
    rows = compared(text)
    assert rows
    for name, what, predicted, found, error in rows:
        if found == 0.0:
            assert predicted < 1e-6, (name, what, predicted)
        else:
            assert predicted > 0.0, (name, what, found)
            assert abs(math.log(predicted / found)) <= 4.0 * error + RESOLUTION + ONE_SAMPLE, (
                name,
                what,
                predicted,
                found,
            )


def test_the_smallest_entry_has_a_negative_mean():
    class Smallest(torch.nn.Linear):
        def forward(self, input):
            return super().forward(input).amin(-1)

    torch.manual_seed(0)
    p = predict(Smallest(64, 64), torch.randn(256, 64), "he")
    drawn = -np.random.default_rng(0).standard_normal((4000, 64)).max(1)
    low, error = float(drawn.mean()), float(drawn.std()) / 4000**0.5
    assert abs(p.nodes[-1].output.mean / p.nodes[-2].output.q ** 0.5 - low) < 4.0 * error + RESOLUTION


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_an_unbatched_loss_and_a_layer_without_entries_are_followed():
    class Alone(torch.nn.Linear):
        def forward(self, input):
            return torch.nn.functional.cross_entropy(super().forward(input)[0], torch.tensor(3))

    class Adaptive(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.loss = torch.nn.AdaptiveLogSoftmaxWithLoss(12, 20, [5, 10])  # its last projection has no unit

        def forward(self, input):
            return self.loss(input, torch.arange(16))[1]

    for model in (Alone(12, 12), Adaptive()):
        p = predict(model, torch.randn(16, 12), "he")
        assert not [c for n in p.nodes for c in n.caveats if "failed" in c]


LISTS = {
    "chunk": lambda h: h.chunk(1)[0],
    "split": lambda h: h.split(16)[0],
    "tensor_split": lambda h: h.tensor_split(1)[0],
    "unbind": lambda h: h[None].unbind(0)[0],
    "broadcast_tensors": lambda h: torch.broadcast_tensors(h)[0],
    "meshgrid": lambda h: torch.meshgrid(h[:, 0], indexing="ij")[0],
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_one_tensor_hands_its_gradient_on(name):
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x):
            return LISTS[name](self.layer(x)).relu()

    predicted = firstlight.predict(Listed(), torch.randn(16, 8))
    assert not any("adjoint failed" in c for n in predicted.nodes for c in n.caveats)
    of = {n.op: n.grad.q for n in predicted.nodes if n.grad is not None}
    assert of[name if name != "tensor_split" else "split"] == pytest.approx(of["relu"] / 2.0)
