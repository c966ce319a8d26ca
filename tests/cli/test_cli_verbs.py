"""Each verb gives what the same verb in Python gives, in every form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_tools import call, refused

from firstlight import api
from firstlight.graph.results import Measurement


def test_help_lists_the_verbs() -> None:
    result = call("--help")
    assert result.exit_code == 0
    for verb in ("demo", "diagnose", "measure", "predict", "init", "explain", "gain"):
        assert verb in result.stdout
    assert call("--version").stdout.startswith("firstlight 0.")


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


def test_a_dry_run_of_init_prints_the_plan_and_draws_nothing(nets: str, tmp_path: Path) -> None:
    result = call("init", f"{nets}:good", "--scheme", "he", "-i", "4,16", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "1.weight" in result.stdout
    assert "Nothing was drawn." in result.stdout
    refused(call("init", f"{nets}:good", "--dry-run", "--out", tmp_path / "w.pt"), "--dry-run", "one of the two")
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


def test_other_verbs_refuse_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(call("explain", "XYZ999"), "XYZ999", "Choose one of these.")
    refused(call("explain", "fwd02"), "Did you mean FWD002?")
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


def test_predict_of_a_network_without_layers(tmp_path: Path) -> None:
    """An empty Sequential has the length 0 and counts as false."""
    (tmp_path / "nothing.py").write_text("from torch import nn\ndef build():\n    return nn.Sequential()\n")
    result = call("predict", f"{tmp_path / 'nothing.py'}:build", "-i", "4,16", "-f", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["model"] == "Sequential"


def test_predict_on_meta_knows_token_ids_and_masks(tmp_path: Path) -> None:
    file = tmp_path / "tokens.py"
    file.write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.embed = nn.Embedding(500, 32)\n"
        "        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)\n"
        "    def forward(self, ids, mask):\n"
        "        return self.layer(self.embed(ids.view(-1, ids.shape[-1])), src_key_padding_mask=mask)\n"
        "def build():\n"
        "    return Net()\n"
    )
    told = call(
        "predict",
        f"{file}:build",
        "-i",
        "4,8:int64:500",
        "-i",
        "mask=4,8:bool",
        "--scheme",
        "he",
        "--meta",
        "-f",
        "json",
    )
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["start"]["p"] > 0.9
