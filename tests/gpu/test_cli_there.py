"""The command line on an accelerator: `--device`, and factories that put their network there themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_other_device import DEVICE
from test_other_device import pytestmark as pytestmark

from tests.cli.cli_tools import NETS, call


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    path = tmp_path / "nets_there.py"
    path.write_text(NETS + f"\n\ndef there():\n    return good().to('{DEVICE}')\n")
    return path


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    path = tmp_path / "batch.pt"
    torch.save({"x": torch.randn(32, 16), "y": torch.arange(32) % 4}, path)
    return path


@pytest.mark.parametrize("where", [[":good", "--device", str(DEVICE)], [":there"]])
@pytest.mark.parametrize("loss", [[], ["--loss", "cross-entropy"], ["--loss", "torch.nn:CrossEntropyLoss"]])
def test_diagnose_with_labels(nets: Path, batch: Path, where: list[str], loss: list[str]) -> None:
    model, *device = where
    result = call("diagnose", f"{nets}{model}", "--batch", batch, *loss, *device, "--theory", "-f", "json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["verdict"] == "starts"
    assert told["measurement"]["device"].startswith(DEVICE.type)


@pytest.mark.parametrize("loss", [[], ["--loss", "mse"], ["--loss", "bce"], ["--loss", "nll"]])
def test_measure_without_labels(nets: Path, loss: list[str]) -> None:
    result = call("measure", f"{nets}:good", "-i", "8,16", "--device", str(DEVICE), *loss, "-f", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["device"].startswith(DEVICE.type)


def test_predict_where_the_factory_puts_it(nets: Path) -> None:
    result = call("predict", f"{nets}:there", "-i", "8,16", "-f", "json")
    assert result.exit_code == 0, result.output
