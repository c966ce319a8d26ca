"""A softmax along the wrong axis, and a loss that gets what it does not expect: found, and not mistaken for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from axis_cases import (
    Attention,
    Clusters,
    Efficient,
    Pooled,
    Slots,
    TimeFirst,
    each_sample,
    ending,
    layers,
    on_sequences,
    own_logarithm,
    segmented,
    squared,
)
from check_cases import Case
from torch import nn

import firstlight as fl

WATCHED = {"OUT001", "OUT002", "OUT004", "OUT006", "OUT007", "OUT008", "FWD009", "FWD010", "FWD011", "NUM001"}


def diagnosed(c: Case) -> fl.Report:
    return fl.diagnose(c.model, c.batch, c.loss, targets=c.targets, try_remedies=False)


FOUND: dict[str, tuple[Callable[[], Case], str, str]] = {
    # name: (network, its first finding, what the remedy has to say)
    "log-softmax over samples": (lambda: ending(nn.LogSoftmax(0), F.nll_loss), "OUT007", "'7').dim = 1"),
    "softmax over samples": (lambda: ending(nn.Softmax(0), F.cross_entropy), "OUT007", "Identity()"),
    "over samples, squared error": (lambda: ending(nn.Softmax(0), squared), "FWD009", "'7').dim = -1"),
    "raw outputs, log-likelihood": (lambda: ending(None, F.nll_loss), "OUT007", "LogSoftmax(dim=1)"),
    "probabilities, log-likelihood": (lambda: ending(nn.Softmax(1), F.nll_loss), "OUT007", "LogSoftmax(dim=1)"),
    "softmax twice": (lambda: ending(nn.Softmax(1), F.cross_entropy), "OUT006", "Identity()"),
    "tanh and cross entropy": (lambda: ending(nn.Tanh(), F.cross_entropy), "OUT006", "Identity()"),
    "relu and cross entropy": (lambda: ending(nn.ReLU(), F.cross_entropy), "OUT008", "Identity()"),
    "rows of pixels": (lambda: segmented(lambda z: F.log_softmax(z, 2), F.nll_loss), "OUT007", "dim=1"),
    "columns of pixels": (lambda: segmented(lambda z: F.softmax(z, -1), F.cross_entropy), "OUT007", "return what"),
    "softmax twice, pixels": (lambda: segmented(lambda z: F.softmax(z, 1), F.cross_entropy), "OUT006", "return what"),
    "over queries": (lambda: on_sequences(Attention, 2), "FWD010", "dim=-1"),
    "over heads": (lambda: on_sequences(Attention, 1), "FWD010", "dim=-1"),
    "over queries, einsum": (lambda: on_sequences(Attention, 2, True), "FWD010", "dim=-1"),
    "attention over samples": (lambda: on_sequences(Attention, 0), "FWD009", "dim=-1"),
    "slots that are not divided": (lambda: on_sequences(Slots, False, loss=each_sample), "FWD010", "dim=-1"),
    "weights over samples": (lambda: on_sequences(Pooled, 0, loss=each_sample), "FWD009", "dim=-1"),
    "weights of one unit": (lambda: on_sequences(Pooled, 2, loss=each_sample), "OUT001", "dim="),
    "masked for another axis": (lambda: on_sequences(Attention, 1, False, True), "NUM001", "dim=-1"),
    "forgotten function": (lambda: layers(32, functions=False), "FWD011", "relu()"),
}

SILENT: dict[str, Callable[[], Case]] = {
    "raw outputs": lambda: ending(None, F.cross_entropy),
    "smoothed labels": lambda: ending(None, nn.CrossEntropyLoss(label_smoothing=0.1)),
    "weighted classes": lambda: ending(nn.LogSoftmax(1), nn.NLLLoss(weight=torch.tensor([1.0, 2.0, 3.0, 4.0]))),
    "log-softmax twice": lambda: ending(nn.LogSoftmax(1), F.cross_entropy),
    "probabilities, own logarithm": lambda: ending(nn.Softmax(1), own_logarithm),
    "probabilities, squared error": lambda: ending(nn.Softmax(1), squared),
    "rectified, squared error": lambda: ending(nn.ReLU(), squared),
    "pixels": lambda: segmented(lambda z: z, F.cross_entropy),
    "pixels, log-softmax": lambda: segmented(lambda z: F.log_softmax(z, 1), F.nll_loss),
    "attention": lambda: on_sequences(Attention, -1),
    "attention, einsum": lambda: on_sequences(Attention, 3, True),
    "causal attention": lambda: on_sequences(Attention, -1, False, True),
    "slots": lambda: on_sequences(Slots, loss=each_sample),
    "clusters": lambda: on_sequences(Clusters, loss=each_sample),
    "linear attention": lambda: on_sequences(Efficient),
    "pooling by attention": lambda: on_sequences(Pooled, 1, loss=each_sample),
    "time first": lambda: on_sequences(TimeFirst),
    "bottleneck": lambda: layers(8, functions=False),
    "function in between": lambda: layers(32, functions=True),
}


@pytest.mark.parametrize("name", FOUND)
def test_found_first(name: str) -> None:
    make, code, says = FOUND[name]
    found = [f for f in diagnosed(make()).findings if f.code in WATCHED]
    assert found, "nothing"
    assert found[0].code == code, [(f.code, f.measured) for f in found]
    assert says in found[0].remedy


@pytest.mark.parametrize("name", SILENT)
def test_not_mistaken_for(name: str) -> None:
    report = diagnosed(SILENT[name]())
    found = [f for f in report.findings if f.code in WATCHED and (f.severity != "info" or f.code == "FWD011")]
    assert not found, [(f.code, f.measured) for f in found]


@pytest.mark.parametrize("name", [n for n, (_, _, says) in FOUND.items() if not says.startswith(("dim=", "return"))])
def test_the_remedy_runs_and_the_finding_is_gone(name: str) -> None:
    make, code, _ = FOUND[name]
    c = make()
    line = next(f.remedy for f in diagnosed(c).findings if f.code == code)
    scope = {"model": c.model, "batch": c.batch, "targets": c.targets, "loss": c.loss, "torch": torch, "firstlight": fl}
    exec(line, scope)
    c.model = scope["model"]  # type: ignore[assignment]
    assert code not in {f.code for f in diagnosed(c).findings}


def test_targets_within_the_range_are_not_blamed() -> None:
    """A sigmoid in front of a loss that applies one: the targets are zeros and ones, as they should be."""
    c = ending(nn.Sigmoid(), lambda o, y: F.binary_cross_entropy_with_logits(o, F.one_hot(y, 4).float()))
    found = diagnosed(c).findings[0]
    assert found.code in {"OUT004", "OUT006"}
    assert "targets" not in found.remedy
    assert "Identity()" in found.remedy


def test_a_constant_that_the_loss_does_not_see_is_no_cut() -> None:
    """A physics-informed network is trained on derivatives, which its last bias does not enter."""

    class Bent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.requires_grad_(True)
            (slope,) = torch.autograd.grad(self.net(x).sum(), x, create_graph=True)
            (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
            return bend

    x = torch.linspace(-1, 1, 64)[:, None]
    report = fl.diagnose(Bent(), x, lambda u, t: F.mse_loss(u, t), targets=torch.sin(3 * x))
    assert report.verdict == "starts"
    found = next(f for f in report.findings if f.code == "GRD002")
    assert found.severity == "info"
    assert "detach" not in found.remedy
