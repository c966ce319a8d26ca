"""What the tests of the command line share: a file of networks, and how a verb is called and refused."""

from __future__ import annotations

import subprocess
import sys

from typer.testing import CliRunner, Result

from firstlight.cli import app

NETS = """
import torch
from torch import nn

print("the module prints while it is imported")


def good(width=32, act="ReLU"):
    return nn.Sequential(nn.Flatten(), nn.Linear(16, width), getattr(nn, act)(), nn.Linear(width, 4))


def deep(depth=40):
    layers = [nn.Linear(16, 16) for _ in range(depth)]
    return nn.Sequential(*[m for layer in layers for m in (layer, nn.ReLU())], nn.Linear(16, 4))


def fails(message="no such thing"):
    raise ValueError(message)


def leaves():
    raise SystemExit(0)


class Nan(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 4)

    def forward(self, x):
        raise RuntimeError("the forward pass fails")


class Labelled(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(16, 4)

    def forward(self, x, labels=None):
        y = self.out(x)
        loss = None if labels is None else nn.functional.cross_entropy(y, labels)
        return {"loss": loss, "logits": y}


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 16)
        self.out = nn.Linear(16, 4)

    def forward(self, ids, scale):
        return self.out(self.table(ids).mean(1) * scale)


def own_loss(output):
    return output.square().mean()


module = good()
number = 7
"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result: Result, *texts: str) -> None:
    """Exit code 2 and one message on standard error with these texts; no traceback, no other output."""
    assert result.exit_code == 2, (result.exit_code, result.output, result.exception)
    flat = " ".join(result.stderr.split())
    for text in texts:
        assert text in flat
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def shell(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    code = "from firstlight.cli import main; main()"
    command = [sys.executable, "-c", code, *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, **options)  # type: ignore[call-overload]
