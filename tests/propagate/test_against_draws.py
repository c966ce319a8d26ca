"""Predictions against brute force: networks drawn anew, run forward and backward, every operation counted."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import firstlight as fl
from benchmarks.accuracy import compare
from tests.models import ZOO

# Networks of each kind that the theory covers without a caveat. The bound is the claimed resolution of a mean square
# (10 %) on top of the two standard errors that `compare` subtracts.
COVERED = [
    "mlp_relu", "mlp_tanh", "mlp_gelu", "mlp_gelu_by_hand", "mlp_softplus", "mlp_layer_norm", "mlp_batch_norm",
    "residual_pre", "residual_post", "conv_plain", "conv_depthwise", "resnet_group_norm", "densenet", "pool_max",
    "gpt_pre", "gpt_post", "encoder_pre", "rnn",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", COVERED)
def test_mean_squares_of_every_operation(name):
    row = compare(ZOO[name], "he", draws=24)
    assert len(row.forward) >= 3
    assert np.median(row.forward) <= 0.03
    assert np.quantile(row.forward, 0.9) <= 0.10
    assert np.median(row.backward) <= 0.10


def stack(depth, width):
    layers = [layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("depth", "width", "measured"), [(20, 16, 0.69), (40, 16, 0.89), (40, 64, 0.35), (100, 64, 0.72), (100, 256, 0.21)]
)
def test_probability_of_a_length_off_by_ten_on_the_published_grid(depth, width, measured):
    torch.manual_seed(0)
    found = fl.predict(stack(depth, width), torch.randn(1, width), "he", backward=False)
    assert found.nodes[-1].output.p_off(10.0) == pytest.approx(measured, abs=0.05)


def test_gpt_attention_divides_what_tokens_have_not_in_common():
    model, args, kwargs = ZOO["gpt_pre"].make()
    found = fl.predict(model, (args, kwargs), "normal(0.02)")
    outputs = [n for n in found.nodes if n.op == "scaled_dot_product_attention"]
    values = [n for n in found.nodes if n.op == "transpose" and n.module == outputs[0].module]
    assert outputs
    assert outputs[0].output.q < 0.6 * values[0].output.q


def test_a_residual_stack_grows_as_its_branches_say():
    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.a, self.b = nn.Linear(width, width), nn.Linear(width, width)

        def forward(self, x):
            return x + self.b(torch.relu(self.a(x)))

    torch.manual_seed(0)
    depth, width = 10, 64
    x = torch.randn(8, width)
    found = fl.predict(nn.Sequential(*[Block(width) for _ in range(depth)]), x, "he", backward=False)
    # He on both maps: the branch ends linear, E M_L/M_0 = Π(1 + s), s = 2·½ of the second map's gain² / 2
    gain = found.nodes[4].output.q / found.nodes[0].output.q
    assert found.nodes[-1].output.q / found.nodes[0].output.q == pytest.approx(gain**depth, rel=1e-6)
    assert gain == pytest.approx(2.0, rel=0.6)


def test_the_mean_of_gelu_survives():
    torch.manual_seed(0)
    layers = [layer for _ in range(20) for layer in (nn.Linear(64, 64), nn.GELU())]
    found = fl.predict(nn.Sequential(*layers), torch.randn(32, 64), "he(activation='gelu')", backward=False)
    last = found.nodes[-1].output
    assert last.mean > 0.1
    assert math.isfinite(last.q)


def test_meta_weights_need_a_scheme_and_nothing_is_allocated():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
    with pytest.raises(fl.FirstlightError, match="meta device"):
        fl.predict(model, torch.empty(4, 64, device="meta"))
    found = fl.predict(model, torch.empty(4, 64, device="meta"), "he")
    assert found.nodes[-1].output.q == pytest.approx(1.0, rel=1e-9)
    assert all(p.is_meta for p in model.parameters())


def test_unknown_operations_are_named_together():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.special.hermite_polynomial_h(x, 3) + torch.special.legendre_polynomial_p(x, 2)

    with pytest.raises(fl.FirstlightError) as told:
        fl.predict(Odd(), torch.randn(4, 8), on_missing="raise")
    assert "2 operations" in str(told.value)
    assert "on_missing" in str(told.value)
    found = fl.predict(Odd(), torch.randn(4, 8))
    assert any("measured" in text for n in found.nodes for text in n.caveats)


def test_what_has_no_formula_is_measured_without_being_asked():
    class Inverted(nn.Module):
        def forward(self, x):
            return torch.linalg.inv(x @ x.mT + torch.eye(4))

    found = fl.predict(Inverted(), torch.randn(8, 4, 4))
    assert found.nodes[-1].op == "linalg_inv"
    assert found.nodes[-1].output.q > 0.0
    assert found.nodes[-2].grad.q > 0.0
    assert any("no formula" in text for text in found.nodes[-1].caveats)


def test_comparison_has_the_promised_columns_and_small_scores():
    torch.manual_seed(0)
    model, x = stack(4, 64), torch.randn(32, 64)
    found = fl.compare(fl.predict(model, x), fl.measure(model, x))
    frame = found.to_frame()
    scores = [f"{kind}{part}" for kind in ("q_", "grad_q_") for part in ("predicted", "measured", "z")]
    promised = ["node", "module", "op", *scores]
    assert list(frame.columns)[: len(promised)] == promised
    assert frame.q_z.abs().max() < 5.0
    assert frame.grad_q_z.abs().max() < 5.0


def test_prediction_round_trips_and_prints():
    found = fl.predict(stack(2, 16), torch.randn(4, 16), "he")
    assert fl.Prediction.from_json(found.to_json()) == found
    assert "P(start)" in str(found)
    assert "<script" not in found.to_html()


def test_sweep_varies_the_factory():
    def build(depth=2, width=16):
        return nn.Sequential(nn.Linear(16, width), *stack(depth, width))

    found = fl.predict(build, torch.randn(4, 16), "he").sweep(depth=(2, 80), width=(4, 64))
    assert len(found.rows) == 4
    assert found.best.p_start > 0.9
    assert min(r.p_start for r in found.rows) < 0.2
    with pytest.raises(fl.FirstlightError, match="factory"):
        fl.predict(build(), torch.randn(4, 16), "he").sweep(depth=(1,))


def test_exploding_and_vanishing_stacks_stay_finite():
    for scheme in ("normal(3.0)", "normal(0.001)"):
        found = fl.predict(stack(120, 16), torch.randn(2, 16), scheme)
        assert all(math.isfinite(n.output.q) and (n.grad is None or math.isfinite(n.grad.q)) for n in found.nodes)
        assert found.p_start < 1e-3


@pytest.mark.xfail(
    reason="a length's sensitivity is that of one draw over a mean of all draws: above 1 where f saturates. With one "
    "draw's mean this passes, but a gelu stack that starts (23 x 35, He) is then called lost: the edges of P(start) "
    "have to be looked at together with it",
    strict=True,
)
def test_the_length_of_a_deep_narrow_tanh_stack_scatters_as_it_does_over_draws():
    """Where the spread between draws is large E f² over draws is no measure of what one draw's length responds to."""
    depth, width, draws, sd = 55, 13, 400, 0.3
    torch.manual_seed(0)
    x = torch.randn(64, width)
    net = nn.Sequential(*[layer for _ in range(depth) for layer in (nn.Linear(width, width, bias=False), nn.Tanh())])
    found = [n for n in fl.predict(net, x, f"normal({sd})").nodes if n.op == "tanh"]
    h = x.expand(draws, -1, -1)
    for n in found:
        h = torch.tanh(h @ (sd * torch.randn(draws, width, width)))
        length = h.square().mean((1, 2)).log()
        # the standard error of a standard deviation, were the logarithm normal; its tails are heavier
        error = n.output.log_sd / math.sqrt(2 * draws)
        assert n.output.log_sd == pytest.approx(float(length.std()), abs=5 * error), n.name
    assert all(n.grad.log_sd < 6 for n in found)
