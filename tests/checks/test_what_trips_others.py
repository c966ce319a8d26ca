"""Cases that other tools call broken, or sound, wrongly: each verdict is known from training or from theory."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from check_cases import Case, Lora, Residual, X, case, data, each, edit, mlp, one_unit, regression, seeded
from torch import nn

import firstlight as fl


def report(c: Case, **options: Any) -> fl.Report:
    return fl.diagnose(c.model, c.batch, c.loss, c.optimizer, targets=c.targets, try_remedies=False, **options)


def severities(r: fl.Report, code: str) -> set[str]:
    return {f.severity for f in r.findings if f.code == code}


@pytest.mark.parametrize(
    "model",
    [
        Residual(16, 4, zero_ends=True),
        edit(mlp(), "6.weight", lambda p: p.zero_()),
        Lora(zero_a=False, zero_b=True),
        Lora(zero_a=True, zero_b=False),
        edit(nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4)), "2.weight", lambda p: p.zero_()),
    ],
    ids=["residual ends", "classifier", "LoRA B", "LoRA A", "classifier with torch's own bias"],
)
def test_zeros_that_the_first_step_leaves_are_harmless(model: nn.Module) -> None:
    r = report(case(model))
    assert r.verdict == "starts", r
    assert severities(r, "WGT003") == {"info"}
    assert not severities(r, "FWD004")


@pytest.mark.parametrize(
    "model",
    [Lora(zero_a=True, zero_b=True), each(mlp(), lambda p: p.zero_()), edit(mlp(), "2.weight", lambda p: p.zero_())],
    ids=["LoRA A and B", "all matrices of a ReLU net", "a hidden matrix with zero biases"],
)
def test_a_product_of_zeros_is_dead(model: nn.Module) -> None:
    r = report(case(model))
    assert r.verdict == "will not start"
    assert r.findings[0].code == "WGT003"
    assert r.p_start == 0.0


def test_a_bias_in_front_of_batch_norm_is_fine() -> None:
    seeded()
    model = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    assert report(case(model)).verdict == "starts"


def test_softmax_over_one_unit_never_starts() -> None:
    r = report(one_unit(nn.Softmax(-1), 1))
    assert (r.verdict, r.findings[0].code) == ("will not start", "OUT001")


def test_nan_does_not_read_as_fine() -> None:
    r = report(case(edit(mlp(), "0.weight", lambda p: p[0, 0].fill_(float("nan")))))
    assert (r.verdict, r.findings[0].code) == ("will not start", "WGT001")


def test_a_batch_with_nan_is_refused() -> None:
    x = X.clone()
    x[0, 0] = float("nan")
    with pytest.raises(fl.FirstlightError, match="NaN"):
        report(case(mlp(), x))


def test_functional_activations_are_seen() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            seeded()
            self.a, self.b, self.c = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 4)
            nn.init.constant_(self.b.bias, -50.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(F.relu(self.b(F.relu(self.a(x)))))

    r = report(case(Functional()))
    assert r.verdict == "will not start"
    assert {"WGT008", "ACT001"} <= {f.code for f in r.errors}


def test_pytorch_defaults_start_when_shallow_and_not_when_deep() -> None:
    assert report(case(mlp(2, 32, gain=None))).verdict == "starts"
    assert report(case(mlp(60, 32, gain=None))).verdict == "will not start"


def test_a_wrong_scale_that_trains_is_mis_scaled_not_broken() -> None:
    assert report(case(mlp(6, 32, gain=12.0))).verdict == "mis-scaled"


def test_sigmoid_stacks_have_lengths_but_no_signal() -> None:
    r = report(case(mlp(20, 32, nn.Sigmoid, gain=None)))
    assert r.verdict == "will not start"
    assert "FWD004" in {f.code for f in r.errors}
    assert "FWD001" not in {f.code for f in r.findings}


def test_very_narrow_networks_are_judged_by_their_draw_and_by_their_law() -> None:
    verdicts: list[str] = []
    chances: list[float] = []
    for seed in range(12):
        torch.manual_seed(seed)
        layers = [m for i in range(12) for m in (nn.Linear(3 if i else 16, 3), nn.ReLU())]
        model = nn.Sequential(*layers, nn.Linear(3, 4))
        for m in model:
            if isinstance(m, nn.Linear):
                nn.init.kaiming_normal_(m.weight)
                nn.init.zeros_(m.bias)
        r = report(case(model))
        verdicts.append(r.verdict)
        chances.append(r.p_start)
    assert len(set(verdicts)) > 1  # the draw decides
    assert max(chances) < 0.5  # (1 - 2^-3)^12 = 0.20: the law is bad, whatever the draw


def test_losses_of_other_kinds() -> None:
    assert report(regression(1.0, 0.0)).verdict == "starts"
    x, y = data(classes=2)
    seeded()
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
    bce = Case(model, x, lambda o, t: F.binary_cross_entropy_with_logits(o[:, 0], t.float()), y)
    assert report(bce).verdict == "starts"
    assert report(Case(model, x)).verdict == "starts"  # without a loss


def test_transformer_and_recurrent_networks() -> None:
    seeded()
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    x = torch.randn(8, 5, 16)
    assert report(Case(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), x)).verdict == "starts"

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(16, 8, batch_first=True), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    assert report(Case(Last(), x, F.cross_entropy, torch.arange(8) % 4)).verdict == "starts"


def test_the_model_comes_back_bit_for_bit() -> None:
    seeded()
    model = nn.Sequential(
        nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)
    )
    nn.init.zeros_(model[4].weight)
    nn.init.zeros_(model[4].bias)  # dead and flat: the nearby point is looked at too
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = copy.deepcopy(model.state_dict())
    rng = torch.get_rng_state()
    optimizer = torch.optim.Adam(model.parameters())
    x, y = data()
    r = fl.diagnose(model, x, F.cross_entropy, optimizer, targets=y)
    assert r.verdict == "will not start"
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    assert torch.equal(torch.get_rng_state(), rng)
    assert model.training
    assert all(m.training for m in model)
    assert model[4].weight.grad is None
    assert bool((model[0].weight.grad == 1).all())
    assert not optimizer.state


def test_a_model_that_raises_comes_back_too() -> None:
    model = mlp()
    before = copy.deepcopy(model.state_dict())

    def explode(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no")

    with pytest.raises(fl.FirstlightError):
        fl.diagnose(model, X, explode, targets=data()[1])
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


def test_the_remedy_is_tried_on_a_copy() -> None:
    model = mlp(60, 32, gain=None)
    before = copy.deepcopy(model.state_dict())
    x, y = data()
    r = fl.diagnose(model, x, F.cross_entropy, targets=y)
    assert r.verdict == "will not start"
    first = r.findings[0]
    assert first.remedy.startswith("firstlight.initialize(model, ")
    assert "-> starts" in first.effect
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    eval(first.remedy, {"firstlight": fl, "model": model})  # the line of code runs as it stands
    assert report(case(model)).verdict == "starts"


@pytest.mark.parametrize(("weight", "verdict"), [(1.0, "starts"), (0.0, "will not start")])
def test_a_model_that_returns_its_loss(weight: float, verdict: str) -> None:
    class WithLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = edit(mlp(), "2.weight", lambda p: p.mul_(weight))

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(self.body(x), y)

    assert report(Case(WithLoss(), data(), lambda out: out)).verdict == verdict


def test_raw_targets_are_reached_where_aligned_layers_grow() -> None:
    """House prices: two hidden layers reach them by Adam at 0.01 in 600 steps (5.97e8 of 7.71e9); scale, not death."""
    seeded()
    x = torch.randn(64, 13)
    y = (9.0 * x[:, :1] + 22.0) * 1e4
    hidden = nn.Sequential(nn.Linear(13, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    r = fl.diagnose(hidden, x, loss=lambda out: nn.functional.mse_loss(out, y))
    assert r.verdict == "mis-scaled"
    assert severities(r, "OUT003") == {"warning"}


def test_raw_targets_out_of_a_linear_model_s_reach_are_fatal() -> None:
    """One layer moves 6 per entry in that budget: first-order and exact for a linear model; nothing aligns."""
    seeded()
    x = torch.randn(64, 13)
    y = (9.0 * x[:, :1] + 22.0) * 1e6
    r = fl.diagnose(nn.Linear(13, 1), x, loss=lambda out: nn.functional.mse_loss(out, y))
    assert r.verdict == "will not start"
    assert severities(r, "OUT003") == {"error"}
    # and a million times as far, six units of a bounded hidden layer do not help either
    bounded = nn.Sequential(nn.Linear(13, 6), nn.Tanh(), nn.Linear(6, 1))
    r = fl.diagnose(bounded, x, loss=lambda out: nn.functional.mse_loss(out, 1e6 * y))
    assert r.verdict == "will not start"


def test_the_gradient_spread_over_a_convolution_s_positions_is_not_vanishing() -> None:
    seeded()
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.BatchNorm2d(6), nn.ReLU(), nn.AvgPool2d(4),
        nn.Conv2d(6, 16, 5), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(3), nn.Flatten(),
        nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4),
    )  # fmt: skip
    y = torch.randint(0, 4, (16,))
    r = fl.diagnose(model, torch.randn(16, 1, 28, 28), loss=lambda out: nn.functional.cross_entropy(out, y))
    walk = {f.code: f.evidence["log_ratio"] for f in r.findings if f.code in ("GRD003", "GRD004")}
    assert all(abs(v) < 7.0 for v in walk.values()), walk  # positions alone are a factor of 784
    assert r.verdict == "starts"


class WrittenLater(nn.Module):
    """Takes memory as it comes and writes to its two halves one after the other, as some attention layers do."""

    def __init__(self, halves: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(16, 16) for _ in range(halves))
        self.out = nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        both = x.new_empty(len(x), 32).fill_(float("nan"))  # the worst that may have been there
        for i, part in enumerate(self.parts):
            both[:, 16 * i : 16 * i + 16].copy_(part(x))
        return self.out(torch.relu(both))


def test_memory_that_is_written_before_it_is_used_is_sound() -> None:
    seeded()
    r = report(case(WrittenLater(2)))
    assert r.verdict == "starts", r
    assert not severities(r, "NUM001")


def test_memory_that_is_never_written_is_not() -> None:
    seeded()
    r = report(case(WrittenLater(1)))
    assert r.verdict == "will not start", r
    assert "error" in severities(r, "NUM001")


class Gated(nn.Module):
    """gMLP's unit: half of the units times a layer of the others, with weights near zero and a bias of one."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.up, self.gate, self.down = nn.Linear(16, 64), nn.Linear(32, 32), nn.Linear(32, 16)
        nn.init.normal_(self.gate.weight, 0, 1e-5)
        nn.init.constant_(self.gate.bias, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u, v = F.gelu(self.up(x)).chunk(2, dim=-1)
        return self.down(u * self.gate(v))


@pytest.mark.parametrize("bias", [1.0, 0.0])
def test_a_gate_that_starts_open_may_have_tiny_weights(bias: float) -> None:
    seeded()
    r = report(case(nn.Sequential(Gated(bias), Gated(bias), nn.Linear(16, 4))))
    if bias:
        assert r.verdict == "starts", r
        assert severities(r, "WGT005") == {"info"}
    else:  # the same weights in the only way through
        assert r.verdict != "starts", r
        assert severities(r, "WGT005") & {"warning", "error"}
