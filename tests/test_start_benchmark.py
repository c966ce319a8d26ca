"""The start benchmark: ensembles train as single networks do, populations are fixed, scores are what they claim."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.start import foreign, label
from benchmarks.start.__main__ import main
from benchmarks.start.ensemble import Ensemble
from benchmarks.start.metrics import area, bins, brier
from benchmarks.start.networks import BATCH, Spec, build, inputs
from benchmarks.start.population import CAP, SETS, cost, population
from benchmarks.start.problems import problem
from firstlight.errors import DataError, InputError

BASE = Spec("plain", "digits", "standard", 3, 16, "tanh", "", "1", "default", 3)


@pytest.mark.parametrize(
    ("family", "norm"),
    [("plain", ""), ("plain", "layer"), ("plain", "batch"), ("residual", "layer"), ("conv", "layer"), ("conv", "batch"),
     ("resconv", ""), ("attention", "pre"), ("attention", "post"), ("attention", "")],
)  # fmt: skip
def test_every_member_has_the_loss_and_gradient_of_the_network_alone(family: str, norm: str) -> None:
    s = dataclasses.replace(BASE, family=family, norm=norm, depth=4, branch="depth")
    model, x, y = build(s).double(), inputs(s)[:BATCH].double(), problem("digits").y[:BATCH]
    loss = F.cross_entropy(model(x), y)
    alone = torch.autograd.grad(loss, list(model.parameters()))
    team = Ensemble(model, 3)
    losses = team.losses(x, y)
    together = torch.autograd.grad(losses.sum(), team.parameters)
    torch.testing.assert_close(losses, loss.expand(3), rtol=1e-9, atol=0.0)
    for a, b in zip(alone, together, strict=True):
        torch.testing.assert_close(b, a.expand_as(b), rtol=1e-6, atol=1e-12)


def test_adam_by_hand_is_adam() -> None:
    model = build(BASE)
    order = torch.Generator().manual_seed(BASE.seed)
    x, y = inputs(BASE), problem("digits").y
    twin = build(BASE)
    step, losses = torch.optim.Adam(twin.parameters(), 1e-4), []
    for _ in range(label.WINDOW):
        pick = torch.randint(len(x), (BATCH,), generator=order)
        loss = F.cross_entropy(twin(x[pick]), y[pick])
        losses.append(loss.item())
        step.zero_grad()
        loss.backward()
        step.step()
    found = label.train(model, BASE, "adam", (1e-4, 1e-2))
    first = np.mean(losses) / problem("digits").chance
    assert found[0][0] <= first + 1e-5
    assert found[1][0] < label.SHARE  # the higher rate starts, which ends both


def test_a_network_without_a_signal_is_labelled_as_never_starting() -> None:
    dead = dataclasses.replace(BASE, depth=12, activation="relu", scheme="zeros")
    row = label.label(dead, "adam")
    assert row["starts"] == 0
    assert label.label(BASE, "adam")["starts"] == 1


def test_the_sets_are_fixed_disjoint_and_within_the_cap() -> None:
    sets = {name: population(name) for name in SETS}
    assert len(sets["test"]) >= 400
    texts = [s.text() for group in sets.values() for s in group]
    assert len(set(texts)) == len(texts)
    assert all(cost(s.family, s.depth, s.width, 8 if s.data == "digits" else 14) <= CAP for s in sets["test"])
    assert {s.family for s in sets["test"]} == {"plain", "residual", "conv", "resconv", "attention"}
    assert min(s.depth for s in sets["test"]) == 2
    assert max(s.depth for s in sets["test"]) > 180


def test_area_agrees_with_scikit_learn_and_covers() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    starts = rng.random(300) < 0.7
    score = np.round(rng.standard_normal(300) + 1.5 * starts, 1)  # with ties
    found = area(score, starts)
    assert found.value == pytest.approx(roc_auc_score(starts, score))
    assert found.low < found.value < found.high
    inside = 0
    truth = 0.8555778168267576  # Φ(1.5/√2)
    for _ in range(400):
        y = rng.random(120) < 0.6
        a = area(rng.standard_normal(120) + 1.5 * y, y)
        inside += a.low <= truth <= a.high
    assert inside / 400 == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / 400) ** 0.5)


def test_bins_hold_every_network_once() -> None:
    p = np.array([0.0, 0.05, 0.5, 0.99, 1.0])
    starts = np.array([False, False, True, True, True])
    found = bins(p, starts)
    assert sum(b.count for b in found) == 5
    assert all(0.0 <= b.below <= b.started + 1e-12 and b.started <= b.above + 1e-12 for b in found)
    assert brier(p, starts) == pytest.approx((0.05**2 + 0.5**2 + 0.01**2) / 5)


def test_any_other_draw_can_be_trained_scored_and_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [s.text() for s in population("400@161803")] == [s.text() for s in population("final")]
    monkeypatch.setattr("benchmarks.start.label.STEPS", 10)
    monkeypatch.setattr("benchmarks.start.population.DATA", ("digits",))
    monkeypatch.setattr("benchmarks.start.population.CAP", 3e-3)
    asked = ["--set", "8@5", "--folder", str(tmp_path)]
    assert main(asked) == 2
    assert "Use --relabel and --score" in capsys.readouterr().err
    assert main([*asked, "--relabel", "--score"]) == 0
    assert float(torch.tensor(1e-42) * 1.0) > 0.0  # what labelling does to the processor is undone
    assert "8 networks" in capsys.readouterr().out
    assert {p.name for p in tmp_path.iterdir()} == {"labels_8@5_adam.csv", "scores_8@5.csv"}


@pytest.mark.parametrize("name", ["nosuch", "8@", "0@5", "@5", "8@x"])
def test_a_set_that_nobody_can_draw_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--set", name]) == 2
    assert "COUNT@SEED" in capsys.readouterr().err


NETWORKS = """
import torch
from torch import nn

def networks():
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    y = (x[:, 0] > 0).long()
    for scale in (1.0, 1e-4, 1.0, 1e-4):
        model = nn.Sequential(*[m for _ in range(12) for m in (nn.Linear(8, 8), nn.ReLU())], nn.Linear(8, 2))
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(3.0 * scale if p.ndim > 1 else 0.0)
        yield f"{scale:g}, {len(seen)}", model, x, y
        seen.append(scale)

seen = []
"""


def test_networks_of_ones_own_are_trained_from_their_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(NETWORKS)
    rows = foreign.judge(file, tmp_path / "out.csv")
    assert [r.spec.short() for r in rows] == ["1, 0", "0.0001, 1", "1, 2", "0.0001, 3"]
    assert [r.starts for r in rows] == [True, False, True, False]
    assert all(r.p_start > 0.5 if r.starts else r.p_start < 0.5 for r in rows)
    # with labels nothing is trained: they are believed, whatever they say
    (tmp_path / "labels.csv").write_text("name,starts\n" + "".join(f'"{r.spec.short()}",0\n' for r in rows[:3]))
    asked = ["--networks", str(file), "--labels", str(tmp_path / "labels.csv"), "--folder", str(tmp_path)]
    assert main(asked) == 2
    assert "none of '0.0001, 3'" in capsys.readouterr().err
    with (tmp_path / "labels.csv").open("a") as more:
        more.write('"0.0001, 3",1\n')
    assert main(asked) == 0
    assert "4 networks, 1 start" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1", "no function networks"),
        ("def networks():\n    yield 'a', 1", "expected .name, model, x, y"),
        (NETWORKS.replace("{len(seen)}", "0"), "for the second time"),
    ],
)
def test_a_file_of_networks_that_is_none_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises((DataError, InputError), match=says):
        list(foreign.read(tmp_path / "mine.py"))
    with pytest.raises(DataError, match="name and starts"):
        foreign.labels(tmp_path / "mine.py")


def test_a_network_alone_is_labelled_as_in_an_ensemble() -> None:
    x, y = inputs(BASE), problem("digits").y
    assert foreign.chance(y) == pytest.approx(problem("digits").chance)
    assert foreign.lowest(build(BASE), x, y, "adam") < label.SHARE
    dead = dataclasses.replace(BASE, depth=12, activation="relu", scheme="zeros")
    assert foreign.lowest(build(dead), x, y, "adam") > label.MOVED
    line = nn.Linear(64, 1)
    goal = x.flatten(1)[:, 20:21]
    assert foreign.chance(goal) == pytest.approx(float(goal.var(correction=0)))
    assert foreign.lowest(line, x.flatten(1), goal, "adam") < label.SHARE
