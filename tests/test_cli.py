"""The command line: verbs, forms, exit codes, and every kind of bad input with the message that it gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from firstlight import api
from firstlight.cli import app
from firstlight.graph.results import Measurement

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


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("nets") / "nets.py"
    path.write_text(NETS)
    return str(path)


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


def test_help_lists_the_verbs() -> None:
    result = call("--help")
    assert result.exit_code == 0
    for verb in ("demo", "diagnose", "measure", "predict", "init", "explain", "gain"):
        assert verb in result.stdout
    assert call("--version").stdout.startswith("firstlight 0.")


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


def test_measure_gives_the_same_numbers_as_python(nets: str) -> None:
    result = call("measure", f"{nets}:good", "-i", "8,16", "--seed", 3, "-f", "json")
    told = Measurement.from_json(result.stdout)
    sys.path.insert(0, str(Path(nets).parent))
    try:
        import nets as module  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    torch.manual_seed(3)
    model = module.good()
    x = torch.randn((8, 16), generator=torch.Generator().manual_seed(3))
    own = api.measure(model, x, seed=3)
    assert [node.name for node in told.nodes] == [node.name for node in own.nodes]
    assert [node.output.q for node in told.nodes] == [node.output.q for node in own.nodes]


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


def test_init_writes_weights_that_load(nets: str, tmp_path: Path) -> None:
    out = tmp_path / "weights.pt"
    result = call("init", f"{nets}:good", "--scheme", "he", "--out", out, "-i", "4,16", "--seed", 1)
    assert result.exit_code == 0, result.output
    state = torch.load(out, weights_only=True)
    assert set(state) == {"1.weight", "1.bias", "3.weight", "3.bias"}
    # He for the 32 × 16 weights: variance 2/16; the sample's standard error is √(2/512) of it
    np.testing.assert_allclose(float(state["1.weight"].var()), 2 / 16, rtol=5 * (2 / 512) ** 0.5)
    again = tmp_path / "again.pt"
    call("init", f"{nets}:good", "--scheme", "he", "--out", again, "-i", "4,16", "--seed", 1)
    assert torch.equal(torch.load(again, weights_only=True)["3.weight"], state["3.weight"])


def test_init_without_a_file_prints_the_table_and_writes_nothing(
    nets: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("init", f"{nets}:good", "-i", "4,16")
    assert result.exit_code == 0, result.output
    assert "random-walk" in result.stdout
    assert "Nothing was written" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_predict(nets: str) -> None:
    result = call("predict", f"{nets}:deep", "--arg", "depth=3", "-i", "8,16", "--scheme", "he", "-f", "json")
    told = json.loads(result.stdout)
    assert told["scheme"].startswith("he")
    assert 0.0 <= told["start"]["p"] <= 1.0
    # no weight is allocated: on the meta device the same law gives the same numbers
    meta = call("predict", f"{nets}:deep", "--arg", "depth=3", "-i", "8,16", "--scheme", "he", "--meta", "-f", "json")
    last, own = json.loads(meta.stdout)["nodes"][-1], told["nodes"][-1]
    assert last["name"] == own["name"]
    assert last["output"]["q"] == pytest.approx(own["output"]["q"], rel=0.3)  # real input: 128 normal numbers
    swept = call("predict", f"{nets}:deep", "-i", "8,16", "--scheme", "he", "--sweep", "depth=2,4", "-f", "json")
    assert [row["settings"]["depth"] for row in json.loads(swept.stdout)["rows"]] == [2, 4]
    refused(call("predict", f"{nets}:deep", "-i", "8,16", "--meta"), "meta device", "Pass scheme=")
    refused(call("predict", f"{nets}:deep", "-i", "8,16", "--scheme", "he", "--sweep", "depth"), "KEY=A,B,C")


def test_gain_and_explain() -> None:
    assert float(call("gain", "relu", "--fan", 64).stdout) == pytest.approx(api.gain("relu", fan=64), rel=1e-9)
    assert json.loads(call("gain", "relu", "--keep", "mean", "-f", "json").stdout)["gain"] == pytest.approx(2**0.5)
    listed = call("explain").stdout
    assert "FWD001" in listed
    explained = call("explain", "fwd001").stdout
    for heading in ("What it measures", "Why it matters", "When it is harmless", "Remedy", "Source"):
        assert heading in explained


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["{nets}", "-i", "4,16"], ["a module and a name in it, with a colon between"]),
        (["absent.py:build", "-i", "4,16"], ["file 'absent.py'", "no such file"]),
        (
            ["no_such_package.nets:build", "-i", "4,16"],
            ["no module named 'no_such_package'", "→ Check the spelling"],
        ),
        (["{nets}:god", "-i", "4,16"], ["no 'god' in", "Did you mean 'good'?"]),
        (["{nets}:number", "-i", "4,16"], ["type int", "expected a torch.nn.Module"]),
        (
            ["{nets}:own_loss", "-i", "4,16"],
            ["factory", "TypeError", "missing 1 required positional argument"],
        ),
        (["{nets}:fails", "-i", "4,16"], ["ValueError at nets.py:18: no such thing", "--debug"]),
        (["{nets}:leaves", "-i", "4,16"], ["SystemExit at nets.py"]),
        (["{nets}:fails", "--arg", "message=[red]hi\x1b[31m", "-i", "4"], ["[red]hi\\x1b[31m"]),
        (["{nets}:good", "--arg", "width", "-i", "4,16"], ["KEY=VALUE"]),
        (["{nets}:module", "--arg", "width=3", "-i", "4,16"], ["expected a factory, which takes arguments"]),
        (["{nets}:good"], ["neither --input nor --batch"]),
        (["{nets}:good", "-i", "4,16", "--batch", "x.pt"], ["both --input and --batch"]),
        (["{nets}:good", "-i", "4x16"], ["got '4x16'", "32,1,28,28"]),
        (["{nets}:good", "-i", "0,16"], ["sizes of at least 1"]),
        (["{nets}:good", "-i", "99999999,99999999"], ["at most 2³¹ entries"]),
        (["{nets}:good", "-i", "4,16:float99"], ["sizes, then :dtype"]),
        (["{nets}:good", "-i", "4,17"], ["cannot be multiplied", "Check the batch's shape"]),
        (["{nets}:good", "-i", "4,16", "--loss", "hinge"], ["cross-entropy, mse, bce or MODULE:FUNCTION"]),
        (["{nets}:Nan", "-i", "4,16"], ["the forward pass fails"]),
        (["{nets}:good", "--batch", "absent.pt"], ["absent.pt", "no such file"]),
        (["{nets}:good", "-i", "4,16", "--out", "."], ["a folder", "the path of a file"]),
    ],
)
def test_bad_input_is_one_clear_error(nets: str, arguments: list[str], texts: list[str]) -> None:
    refused(call("diagnose", *(argument.format(nets=nets) for argument in arguments)), *texts)


class _Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch /tmp/firstlight-was-here",)


def test_bad_batches_are_one_clear_error(nets: str, tmp_path: Path) -> None:
    x, y = torch.randn(8, 16), torch.arange(8)
    contents: dict[str, tuple[object, str]] = {
        "labels.pt": ((x, y), "labels from 0 to 7 expected 0 to 3: the output has 4 classes"),
        "empty.pt": ((torch.zeros(0, 16), y[:0]), "an empty tensor of shape (0, 16)"),
        "nan.pt": ((torch.full((8, 16), float("nan")), y % 4), "128 NaN and 0 infinite entries"),
        "few.pt": ((x, y[:3] % 4), "a tensor of shape (3,) expected (8,)"),
        "text.pt": ("words", "expected"),
        "hostile.pt": (_Hostile(), "Python objects other than tensors"),
    }
    for name, (content, text) in contents.items():
        torch.save(content, tmp_path / name)
        refused(call("diagnose", f"{nets}:good", "--batch", tmp_path / name, "--loss", "cross-entropy"), text)
    assert not Path("/tmp/firstlight-was-here").exists()

    torch.save((x, y % 4), tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    np.savez(tmp_path / "whole.npz", x=x.numpy())
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:-60])
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
    (tmp_path / "zero.pt").write_bytes(b"")
    (tmp_path / "batch.csv").write_text("1,2")
    for name, text in (
        ("cut.pt", "cut.pt"),
        ("cut.npz", "cannot be read"),
        ("objects.npz", "cannot be read"),
        ("zero.pt", "zero.pt"),
        ("batch.csv", "the suffix '.csv' expected .pt, .pth or .npz"),
    ):
        refused(call("diagnose", f"{nets}:good", "--batch", tmp_path / name), text)


def test_nothing_is_written_on_an_error(nets: str, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("before")
    for arguments in (
        ("diagnose", f"{nets}:Nan", "-i", "4,16", "-f", "html", "--out", out),
        ("init", f"{nets}:good", "--scheme", "hee", "--out", out),
        ("measure", f"{nets}:good", "-i", "4,16", "-f", "html", "--out", out),
    ):
        refused(call(*arguments))
        assert out.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_other_verbs_refuse_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(call("explain", "XYZ999"), "XYZ999")
    refused(call("gain", "reluu", "--fan", 4), "reluu")
    refused(call("gain", "relu"), "the number of units of the layer")
    refused(call("demo", "--scheme", "hee", "--out", tmp_path / "d.html"), "hee")
    refused(call("demo", "--data", tmp_path / "absent", "--out", tmp_path / "d.html"), "--data", "not there")
    refused(call("demo", "--data", tmp_path, "--out", tmp_path / "d.html"), "train-images")
    monkeypatch.setenv("FIRSTLIGHT_DATA", str(tmp_path))
    refused(call("demo", "--activation", "rellu", "--out", tmp_path / "d.html"), "Did you mean 'relu'?")
    assert list(tmp_path.iterdir()) == []
    assert call("nonsense").exit_code == 2
    assert call("diagnose").exit_code == 2


def test_an_error_of_our_own_says_so(nets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(api, "diagnose", broken)
    result = call("diagnose", f"{nets}:good", "-i", "4,16")
    assert result.exit_code == 3
    assert "This is an error in firstlight" in result.stderr
    assert isinstance(call("diagnose", f"{nets}:good", "-i", "4,16", "--debug").exception, ZeroDivisionError)


def shell(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    code = "from firstlight.cli import main; main()"
    command = [sys.executable, "-c", code, *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, **options)  # type: ignore[call-overload]


def test_a_real_process(nets: str, tmp_path: Path) -> None:
    done = shell("diagnose", "nets:good", "-i", "8,16", "-f", "json", cwd=Path(nets).parent)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"]
    assert "the module prints while it is imported" in done.stderr
    done = shell("diagnose", f"{nets}:fails", "-i", "8,16", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no such thing" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_is_quick_and_loads_no_torch() -> None:
    code = (
        "import sys, time; began = time.process_time(); sys.argv = ['firstlight', '--help']\n"
        "import firstlight.cli\n"
        "try:\n    firstlight.cli.main()\n"
        "except SystemExit:\n    pass\n"
        "loaded = sorted({'torch', 'numpy', 'scipy', 'jinja2', 'pandas', 'sklearn'} & set(sys.modules))\n"
        "print(time.process_time() - began, loaded, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    seconds, loaded = done.stderr.split(" ", 1)
    assert loaded.strip() == "[]"
    assert float(seconds) < 0.5
    assert "diagnose" in done.stdout


def test_import_firstlight_loads_no_torch() -> None:
    code = "import sys, firstlight; dir(firstlight); print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert done.stdout.split() == ["False", "False"]
