"""`python -m benchmarks`: every benchmark is found by name, and what it measures with stays honest."""

import pytest
import torch
from torch import nn

from benchmarks.__main__ import available, main


def test_every_benchmark_is_listed_with_what_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    found = available()
    assert "overhead" in found
    assert all(found.values())
    assert main(["--list"]) == 0
    assert "overhead" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["nosuch"], ["overhead", "nosuch"], ["--fast"]])
def test_unknown_names_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "benchmarks are" in capsys.readouterr().out


def test_the_networks_have_the_sizes_that_their_names_promise() -> None:
    from benchmarks import overhead

    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in build()[0].parameters()) for name, (build, _) in overhead.MODELS.items()}
    assert counts["resnet50"] == 25_557_032  # the published number of parameters
    assert counts["gpt2"] == 124_439_808


def test_the_comparison_of_a_small_network() -> None:
    from benchmarks import overhead

    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    own, measured, ratio, with_input = overhead.compare(model, torch.randn(4, 8), 3)
    assert 0 < own < measured
    assert ratio > 1
    assert with_input > 0
    assert all(p.grad is None for p in model.parameters())


def test_the_trainers_table_has_a_row_for_every_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import trainer

    small = trainer.StackConfig(4, 3, 2, 4, scheme="he")
    for name, value in (("DEEP", small), ("NARROW", small), ("NETS", small), ("DRAWS", 6), ("LOOP", 3)):
        monkeypatch.setattr(trainer, name, value)
    rows = trainer.measure(rounds=1)
    assert all(row.firstlight > 0 and row.beside > 0 and row.ratio > 0 for row in rows)
    assert [row.goal for row in rows].count("10") == 2
    assert {row.goal for row in rows} == {"2.5", "10", "20", ""}
