"""Networks without memory for their weights keep what their constants hold; gains that are counted from one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import firstlight
from firstlight.capture.nodes import VALUE_LIMIT
from firstlight.capture.weightless import SCALES, weightless
from firstlight.cli import app


class Counted(nn.Module):
    """RMSNorm with the gain 1 + w, as Gemma's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1.0 + self.weight)


class Scaled(nn.Module):
    """A stack behind a table and a factor that are buffers."""

    def __init__(self, width: int = 32, depth: int = 4) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(width**0.5))
        self.register_buffer("table", torch.sin(torch.arange(width * 1.0)))
        self.blocks = nn.ModuleList(nn.Sequential(Counted(width), nn.Linear(width, width)) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.scale + self.table
        for block in self.blocks:
            x = x + block(x)
        return x


X = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))


def test_a_gain_that_is_counted_from_one_is_set_to_zero() -> None:
    torch.manual_seed(0)
    model = Scaled()
    with torch.no_grad():
        model.blocks[0][0].weight.fill_(0.5)
    table = firstlight.initialize(model, "he", batch=X)
    assert all(float(b[0].weight.detach().abs().max()) == 0.0 for b in model.blocks)
    row = next(r for r in table.table.rows if r.name == "blocks.0.0.weight")
    assert row.reason == "gain 1 + w of a normalisation: 0"
    table.undo()
    assert float(model.blocks[0][0].weight.detach()[0]) == 0.5


def lengths(model: nn.Module) -> list[float]:
    return firstlight.predict(model, X, "he").to_frame()["q"].tolist()


def test_constants_keep_their_entries() -> None:
    with weightless():
        light = Scaled()
    assert light.blocks[0][1].weight.is_meta
    assert float(light.scale) == pytest.approx(32**0.5)
    assert lengths(light) == pytest.approx(lengths(Scaled()), rel=1e-6)


def test_constants_without_entries_are_named_and_hide_nothing() -> None:
    with torch.device("meta"):
        model = Scaled()
    found = firstlight.predict(model, X, "he")
    assert any("1 buffer has no law and no entries, taken as 1: scale" in n for n in found.notes), found.notes
    assert any("standard deviation 0.02: table" in n for n in found.notes)
    assert found.p_start > 0.9


def test_nothing_large_is_made() -> None:
    with weightless():
        assert torch.zeros(VALUE_LIMIT + 1).is_meta
        assert torch.arange(VALUE_LIMIT + 1).is_meta
        assert torch.randn(SCALES + 1).is_meta
        assert not torch.randn(SCALES).is_meta
        assert not torch.zeros(8, 8).is_meta
        assert torch.zeros(2, device="meta").is_meta
        assert nn.Linear(4, 4).weight.is_meta
    assert not torch.empty(2).is_meta


class Raw(nn.Module):
    """Weights of one's own, two of them tied, and a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(SCALES, 2))
        self.many = nn.ParameterList(nn.Parameter(torch.zeros(SCALES + 1)) for _ in range(2))
        shared = nn.Parameter(torch.ones(SCALES, 2), requires_grad=False)
        self.one = self.other = shared
        self.scale = nn.Parameter(torch.full((SCALES,), 1e-5))


def test_no_weight_takes_memory_however_it_is_made() -> None:
    with weightless():
        model = Raw()
    real = {n for n, p in model.named_parameters(remove_duplicate=False) if not p.is_meta}
    assert real == {"scale"}
    assert float(model.scale.detach()[0]) == pytest.approx(1e-5)
    assert model.one is model.other
    assert not model.one.requires_grad
    assert model.first.requires_grad
    assert not Raw().first.is_meta  # as before


def test_a_model_that_is_built_from_its_configuration() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.Gemma2Config(
        num_hidden_layers=2, hidden_size=64, intermediate_size=128, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, vocab_size=200,
    )  # fmt: skip
    tokens = {"input_ids": torch.randint(200, (2, 16), generator=torch.Generator().manual_seed(0))}
    with torch.device("meta"):
        light = transformers.Gemma2ForCausalLM(config)
    here = firstlight.predict(transformers.Gemma2ForCausalLM(config), tokens, "normal(0.02)")
    there = firstlight.predict(light, tokens, "normal(0.02)")
    assert there.p_start == pytest.approx(here.p_start, abs=1e-6)
    assert there.to_frame()["q"].tolist() == pytest.approx(here.to_frame()["q"].tolist(), rel=1e-6)
    assert not there.notes


CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, mixed=False):
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.register_buffer("scale", torch.tensor(1e-3))
        if mixed:
            with torch.no_grad():
                self.layer.weight.copy_(torch.cat([self.layer.weight[:4], torch.zeros(4, 8)]))

    def forward(self, x):
        return self.layer(x * self.scale)
"""


@pytest.mark.parametrize(("mixed", "q"), [("False", 1e-6), ("True", 1.0)])
def test_the_command_line_builds_it_so(tmp_path: Path, mixed: str, q: float) -> None:
    file = tmp_path / "nets.py"
    file.write_text(CODE, encoding="utf-8")
    ran = CliRunner().invoke(
        app,
        ["predict", f"{file}:Net", "--input", "4,8", "--meta", "--scheme", "lecun", "--arg", f"mixed={mixed}",
         "--format", "json"],
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    node = next(n for n in json.loads(ran.stdout)["nodes"] if n["op"] == "linear")
    assert node["output"]["q"] == pytest.approx(q, rel=1e-6)
