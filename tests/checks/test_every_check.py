"""Every check fires on its own model and keeps silent on its near miss."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from axis_cases import Attention, Ended, Pooled, each_sample, ending, layers, on_sequences
from check_cases import CASES, Case
from torch import nn

import firstlight as fl
from firstlight.checks.registry import checks

CASES |= {
    "INP005": (
        lambda: on_sequences(Ended, False, loss=each_sample),
        lambda: on_sequences(Ended, True, loss=each_sample),
    ),
    "OUT007": (lambda: ending(nn.LogSoftmax(0), F.nll_loss), lambda: ending(nn.LogSoftmax(1), F.nll_loss)),
    "OUT008": (lambda: ending(nn.ReLU(), F.cross_entropy), lambda: ending(nn.LeakyReLU(), F.cross_entropy)),
    "FWD009": (
        lambda: on_sequences(Pooled, 0, loss=each_sample),
        lambda: on_sequences(Pooled, 1, loss=each_sample),
    ),
    "FWD010": (lambda: on_sequences(Attention, 2), lambda: on_sequences(Attention, 3)),
    "FWD011": (lambda: layers(32, functions=False), lambda: layers(8, functions=False)),
}


def diagnosed(c: Case) -> fl.Report:
    return fl.diagnose(c.model, c.batch, c.loss, c.optimizer, targets=c.targets, try_remedies=False, **c.extra)


def loud(report: fl.Report) -> set[str]:
    return {f.code for f in report.findings if f.severity != "info"}


def test_every_check_owns_two_cases() -> None:
    assert set(CASES) == {c.code for c in checks()}


@pytest.mark.parametrize("code", sorted(CASES))
def test_fires(code: str) -> None:
    report = diagnosed(CASES[code][0]())
    found = next((f for f in report.findings if f.code == code), None)
    assert found is not None, [f.code for f in report.findings]
    assert found.severity != "info" or code in {"FWD003", "FWD005", "FWD011", "THY001"}
    assert found.measured
    assert found.threshold
    assert found.meaning


@pytest.mark.parametrize("code", sorted(CASES))
def test_near_miss_is_silent(code: str) -> None:
    report = diagnosed(CASES[code][1]())
    if code in {"FWD011", "THY001"}:
        assert code not in {f.code for f in report.findings}
    assert code not in loud(report), [(f.code, f.measured) for f in report.findings]
