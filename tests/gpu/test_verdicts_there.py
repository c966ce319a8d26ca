"""Every check fires, and keeps silent, on an accelerator as it does on the CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_other_device import DEVICE, there
from test_other_device import pytestmark as pytestmark
from torch import nn

import firstlight as fl
from tests.checks.check_cases import CASES, Case


def moved(case: Case) -> Case:
    """The case on the other device; its optimizer, if any, still holds the model's parameters."""
    loss = case.loss.to(DEVICE) if isinstance(case.loss, nn.Module) else case.loss
    return replace(case, model=case.model.to(DEVICE), batch=there(case.batch), targets=there(case.targets), loss=loss)


def diagnosed(c: Case) -> fl.Report:
    torch.manual_seed(0)
    return fl.diagnose(c.model, c.batch, c.loss, c.optimizer, targets=c.targets, try_remedies=False, **c.extra)


@pytest.mark.parametrize("which", ["fires", "near miss"])
@pytest.mark.parametrize("code", sorted(CASES))
def test_same_findings(code: str, which: str) -> None:
    if (code, which) == ("GRD006", "fires"):
        pytest.skip("its layers in a plain list are no part of the model: .to(device) leaves them behind")
    make = CASES[code][which == "near miss"]
    here, other = diagnosed(make()), diagnosed(moved(make()))
    assert other.verdict == here.verdict
    assert [(f.code, f.severity, f.where) for f in other.findings] == [
        (f.code, f.severity, f.where) for f in here.findings
    ]
