"""What a report says: headlines, remedies that run, and what it keeps quiet about."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from check_cases import Case, case, data, each, mlp, with_softmax
from torch import nn

import firstlight as fl
from firstlight.report.html import render_html
from firstlight.report.view import build_view


def report(c: Case, **options: bool) -> fl.Report:
    return fl.diagnose(c.model, c.batch, c.loss, targets=c.targets, **options)


class Listed(nn.Module):
    """Layers in a plain list, which torch does not find."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(16, 16) for _ in range(3)]
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.head(x)


def test_a_start_with_a_warning_is_no_all_clear() -> None:
    r = report(case(Listed()))
    assert r.verdict == "starts"
    assert "torch does not find these layers" in r.headline
    assert report(case(mlp())).headline == "A signal gets through this network and back: it can start."


def test_p_start_says_how_it_is_defined_and_how_to_get_the_other() -> None:
    c = case(mlp())
    here, law = report(c), report(c, theory=True)
    assert "theory=True" in here.p_start_from
    assert "predict's" in law.p_start_from
    assert law.p_start == pytest.approx(fl.predict(c.model, c.batch).start.p)
    for r in (here, law):
        assert r.p_start_from in str(r)
        assert ("P(start)", r.p_start_from) in build_view(r).facts
        assert r.p_start_from.replace("'", "&#39;") in render_html(r)
        assert r.p_start_from in r.to_json()


def test_a_signal_below_rounding_is_followed_on_by_its_rate() -> None:
    """What is measured below rounding errors is rounding error of the needed size, which is no chance to start."""
    chances: list[float] = []
    for depth in (18, 22, 26, 60):
        torch.manual_seed(0)
        widths = [16] + [64] * depth  # of torch's law: times √(1/6) per layer
        layers = [layer for pair in itertools.pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
        r = report(case(nn.Sequential(*layers, nn.Linear(64, 4))))
        assert (r.verdict == "will not start") == (depth > 20)
        chances.append(r.p_start)
    assert chances[0] > 0.5 > 0.05 > chances[1] > chances[2] > chances[3]
    # Four layers of √(1/6) are -3.6 in ln(signal), 34 more -30, beside a spread of hypot(1, √(1.25·depth/64)).
    assert chances[2] < 1e-4
    assert chances[3] < 1e-60


def test_frozen_parameters_are_counted() -> None:
    model = mlp()
    for p in list(model.parameters())[:-1]:
        p.requires_grad_(False)
    entries = sum(p.numel() for p in model.parameters())
    assert f"{entries:,} parameters (4 trained)" in str(report(case(model)))
    assert "trained)" not in str(report(case(mlp())))


class WithToken(nn.Module):
    """A class token of zeros put beside the signal, or a gain of zeros that it is multiplied with."""

    def __init__(self, multiplied: bool) -> None:
        super().__init__()
        self.multiplied = multiplied
        self.first, self.second, self.head = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(x))[:, None]
        if self.multiplied:
            return self.head((x + self.token * self.second(x)).mean(1))
        return self.head(torch.cat([self.token.expand(len(x), -1, -1), self.second(x)], 1).mean(1))


@pytest.mark.parametrize("multiplied", [True, False])
def test_zeros_beside_the_signal_are_no_matrix_of_zeros(multiplied: bool) -> None:
    torch.manual_seed(0)
    assert ("WGT003" in {f.code for f in report(case(WithToken(multiplied))).findings}) == multiplied


def test_the_remedy_for_a_deadly_bias_touches_nothing_else() -> None:
    model = mlp()
    nn.init.constant_(model[2].bias, -20.0)
    c = case(model)
    r = report(c)
    first = r.errors[0]
    assert (r.verdict, first.code) == ("will not start", "WGT008")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    exec(first.remedy, {"torch": torch, "model": model})
    changed = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert changed == ["2.bias"]
    assert report(c).verdict == "starts"


@pytest.mark.parametrize(("classes", "samples"), [(4, 32)])
def test_what_a_second_softmax_costs_is_its_closed_form(classes: int, samples: int) -> None:
    """Softmax of answers that are exactly right: ln(1 + (K-1)/e)."""
    r = report(with_softmax(F.cross_entropy))
    found = next(f for f in r.findings if f.code == "OUT006")
    assert found.evidence["free"] == pytest.approx(math.log(1.0 + (classes - 1) / math.e), rel=0.01)
    model = with_softmax(F.cross_entropy).model
    exec(found.remedy, {"torch": torch, "model": model})
    x, y = data(samples=samples, classes=classes)
    assert "OUT006" not in {f.code for f in fl.diagnose(model, x, F.cross_entropy, targets=y).findings}


@pytest.mark.parametrize(
    ("end", "loss", "low", "fires"),
    [
        (nn.Sigmoid, F.binary_cross_entropy_with_logits, 0.0, True),
        (nn.Sigmoid, F.binary_cross_entropy, 0.0, False),
        (nn.Sigmoid, F.mse_loss, 0.0, False),
        (nn.ReLU, F.mse_loss, -1.0, True),
        (nn.Tanh, F.mse_loss, -1.0, False),
    ],
)
def test_ranges_that_cost_and_ranges_that_do_not(end: type[nn.Module], loss, low: float, fires: bool) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    x, y = data(classes=2)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1), end(), nn.Flatten(0))
    targets = y.float() if low == 0.0 else 2.0 * y.float() - 1.0
    r = fl.diagnose(model, x, loss, targets=targets, try_remedies=False)
    assert ("OUT006" in {f.code for f in r.findings}) == fires


def test_smoothed_labels_have_a_loss_of_their_own() -> None:
    """Half of the mass on the class, through each of the ways to take a logarithm: the range is not to blame."""
    torch.manual_seed(0)
    x, y = data()
    soft = 0.5 * F.one_hot(y, 4) + 0.125
    ways = [
        (nn.Softmax(-1), lambda p, _: -(soft * (p + 1e-9).log()).sum(-1).mean()),
        (nn.LogSoftmax(-1), lambda p, _: -(soft * p).sum(-1).mean()),
        (nn.LogSoftmax(-1), lambda p, t: F.cross_entropy(p, t, label_smoothing=0.5)),
        (nn.Sigmoid(), lambda p, _: F.binary_cross_entropy(p, soft)),
    ]
    for end, loss in ways:
        r = fl.diagnose(nn.Sequential(*mlp(), end), x, loss, targets=y, try_remedies=False)
        assert r.verdict == "starts", (end, r)
        assert "OUT006" not in {f.code for f in r.findings}


@pytest.mark.parametrize(
    ("batch", "targets", "advice"),
    [
        (torch.randn(8, 16, dtype=torch.float64), None, "batch.float()"),
        (torch.randn(8, 16), torch.zeros(8), "targets.long()"),
        (torch.randn(1, 16), torch.zeros(1, dtype=torch.long), "two samples"),
    ],
)
def test_advice_names_the_tensor_that_is_wrong(batch: torch.Tensor, targets: torch.Tensor | None, advice: str) -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Linear(16, 4))
    y = torch.zeros(len(batch), dtype=torch.long) if targets is None else targets
    with pytest.raises(fl.errors.ModelError, match=advice.replace("(", r"\(").replace(")", r"\)")):
        fl.diagnose(model, batch, F.cross_entropy, targets=y)


def test_one_remedy_is_not_undone_by_another() -> None:
    """Weights of size one: drawn anew the outputs are of ordinary size, and no line divides the read-out as well."""
    x, y = data()
    torch.manual_seed(0)
    model = each(mlp(4, 64), lambda p: p.normal_())
    r = fl.diagnose(model, x, F.cross_entropy, targets=y)
    assert {"FWD001", "OUT002"} <= {f.code for f in r.findings}
    assert {f.remedy for f in r.findings if f.severity != "info"} == {r.findings[0].remedy}


def test_raw_inputs_are_normalised_and_the_read_out_left_alone() -> None:
    """Sound as 16-bit numbers: the outputs are as large as the input, and small with it."""
    x, y = data()
    r = fl.diagnose(mlp(2, gain=None), 2000.0 * x, F.cross_entropy, targets=y)
    assert {"INP002", "OUT002"} <= {f.code for f in r.findings}
    assert not [f.remedy for f in r.findings if "div_" in f.remedy]
    large = each(mlp(2, gain=None), lambda p: p.mul_(10.0))
    assert any(
        "div_" in f.remedy for f in fl.diagnose(large, x, F.cross_entropy, targets=y, try_remedies=False).findings
    )
