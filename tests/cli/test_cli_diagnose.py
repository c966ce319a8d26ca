"""`firstlight diagnose`: verdicts and exit codes, batches from files, labels and losses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_tools import call, refused


@pytest.mark.parametrize("loss", ["cross-entropy", "cross_entropy"])
def test_a_healthy_network_is_clean(nets: str, loss: str) -> None:
    result = call("diagnose", f"{nets}:good", "--arg", "width=64", "-i", "32,16", "--loss", loss)
    assert result.exit_code == 0, result.output
    assert "✓ starts" in result.stdout
    assert "the module prints" not in result.stdout


def test_a_broken_network_gives_exit_code_1(nets: str, tmp_path: Path) -> None:
    arguments = ("diagnose", f"{nets}:deep", "-i", "32,16", "--loss", "cross-entropy")
    result = call(*arguments)
    assert result.exit_code == 1
    assert "will not start" in result.stdout
    assert "remedy" in result.stdout
    assert call(*arguments, "--fail-on", "never").exit_code == 0
    out = tmp_path / "new" / "report.html"
    result = call(*arguments, "--format", "html", "--out", out)
    assert (result.exit_code, result.stdout) == (1, "")
    assert out.read_text().startswith("<!doctype html>")
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]


def test_json_is_json_whatever_the_users_module_prints(nets: str) -> None:
    result = call("diagnose", f"{nets}:good", "-i", "8,16", "-f", "json")
    report = json.loads(result.stdout)
    assert report["record"] == "Report"
    assert report["verdict"]
    assert report["measurement"]["nodes"]


def test_fail_on_follows_severity(nets: str) -> None:
    report = json.loads(call("diagnose", f"{nets}:deep", "-i", "8,16", "-f", "json").stdout)
    severities = {finding["severity"] for finding in report["findings"]}
    for level, counted in (("error", {"error"}), ("warning", {"error", "warning"}), ("info", severities)):
        expected = 1 if severities & counted else 0
        assert call("diagnose", f"{nets}:deep", "-i", "8,16", "-f", "json", "--fail-on", level).exit_code == expected


def test_modes_dtypes_and_several_inputs(nets: str) -> None:
    result = call("measure", f"{nets}:good", "-i", "4,16", "--eval", "--dtype", "float64", "-f", "json")
    told = json.loads(result.stdout)
    assert told["training"] is False
    assert told["nodes"][-1]["output"]["dtype"] == "float64"
    for inputs in (
        ["8,5:int64:50", "1:float32"],
        ["ids=8,5:int64:50", "scale=1"],
        ["8,5:int64:50", "scale=1"],
    ):
        options = [part for spec in inputs for part in ("-i", spec)]
        assert call("measure", f"{nets}:TwoInputs", *options).exit_code == 0


@pytest.mark.parametrize("kind", ["pt-tuple", "pt-dict", "npz", "npz-positional"])
def test_batches_from_files(nets: str, tmp_path: Path, kind: str) -> None:
    x, y = torch.randn(8, 16), torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    path = tmp_path / ("batch." + kind.partition("-")[0])
    if kind == "pt-tuple":
        torch.save((x, y), path)
    elif kind == "pt-dict":
        torch.save({"x": x, "labels": y}, path)
    elif kind == "npz":
        np.savez(path, x=x.numpy(), y=y.numpy())
    else:
        np.savez(path, x.numpy(), y=y.numpy())
    result = call("measure", f"{nets}:good", "--batch", path, "--loss", "cross-entropy", "-f", "json")
    torch.manual_seed(0)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["batch_size"] == 8
    assert told["loss_kind"] == "cross-entropy"
    assert 0.5 < told["loss"] < 3.0


@pytest.mark.parametrize(
    ("model", "labels", "kind", "said"),
    [
        ("good", torch.arange(8) % 4, "cross-entropy", "has labels (labels) for 4 classes: cross-entropy"),
        ("good", torch.randn(8, 4), "random cotangent", "are NOT used"),
        ("good", torch.arange(3), "random cotangent", "(labels, shape (3,)) are NOT used"),
        ("Labelled", torch.arange(8) % 4, "the model's own loss", "takes 'labels' itself: its own loss"),
    ],
)
def test_labels_without_a_loss_are_never_dropped_in_silence(
    nets: str, tmp_path: Path, model: str, labels: torch.Tensor, kind: str, said: str
) -> None:
    path = tmp_path / "batch.pt"
    torch.save({"x": torch.randn(8, 16), "labels": labels}, path)
    result = call("measure", f"{nets}:{model}", "--batch", path, "-f", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["loss_kind"] == kind
    assert said in " ".join(result.stderr.split())


def test_labels_as_the_last_of_a_tuple_without_a_loss(nets: str, tmp_path: Path) -> None:
    path = tmp_path / "batch.pt"
    torch.save((torch.randn(8, 16), torch.arange(8) % 4), path)
    result = call("measure", f"{nets}:good", "--batch", path, "-f", "json")
    assert json.loads(result.stdout)["loss_kind"] == "cross-entropy"
    torch.save((torch.randn(8, 16), torch.arange(8)), path)
    refused(call("diagnose", f"{nets}:good", "--batch", path), "labels from 0 to 7 expected 0 to 3")
    torch.save((torch.randint(50, (8, 5)), torch.ones(8, 1)), path)  # two inputs are no labels
    assert json.loads(call("measure", f"{nets}:TwoInputs", "--batch", path, "-f", "json").stdout)["loss_kind"] != (
        "cross-entropy"
    )


def test_losses(nets: str) -> None:
    for loss in ("mse", "bce", f"{nets}:own_loss"):
        assert call("measure", f"{nets}:good", "-i", "8,16", "--loss", loss).exit_code == 0


@pytest.mark.parametrize("loss", ["torch.nn.functional:nll_loss", "torch.nn:NLLLoss", "nll"])
@pytest.mark.parametrize("form", ["dict", "tuple"])
def test_a_loss_of_torchs_own_gets_the_labels(nets: str, tmp_path: Path, loss: str, form: str) -> None:
    """Raw outputs under the negative log-likelihood: what is wrong is said, and the labels were read."""
    x, y = torch.randn(32, 16), torch.arange(32) % 4
    file = tmp_path / "batch.pt"
    torch.save({"x": x, "labels": y} if form == "dict" else (x, y), file)
    result = call("diagnose", f"{nets}:good", "--batch", file, "--loss", loss, "-f", "json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert "OUT007" in {finding["code"] for finding in report["findings"]}
