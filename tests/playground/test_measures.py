"""Looking at the layers cheaply gives what a recording of every operation and plain definitions give."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from firstlight.playground import measures, problems, taps, views
from firstlight.playground.config import parse
from firstlight.playground.layers import Layer, record
from firstlight.playground.network import ACTIVATIONS
from firstlight.playground.run import Run

STRUCTURES = [
    {},
    {"normalization": "batch"},
    {"normalization": "layer", "residual": 0.3},
    {"normalization": "rms"},
    {"residual": 0.5, "widths": [5, 5, 7]},
    {"data": "digits", "count": 60},
    {"widths": [1, 3]},
]


def looked(run: Run) -> tuple[list[Layer], list[Layer]]:
    """A recorded pass, and one by taps where there are any."""
    args, kwargs, cost = problems.probe(run.problem, 256)
    found = record(run.model, args, kwargs, cost)
    plan = taps.plan(found, run.model, args, kwargs, cost)
    assert plan is not None
    return found, taps.tapped(run.model, plan, args, kwargs, cost)[0]


def same(a: Tensor | None, b: Tensor | None) -> bool:
    return (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_taps_read_what_a_recording_reads(structure):
    recorded, tapped = looked(Run(parse({"depth": 3, "width": 5, **structure})))
    assert [(a.name, a.node, a.phi) for a in recorded] == [(b.name, b.node, b.phi) for b in tapped]
    for a, b in zip(recorded, tapped, strict=True):
        assert torch.equal(a.z, b.z)
        assert torch.equal(a.h, b.h)
        assert same(a.delta, b.delta)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_looked_at_alike(activation):
    """By taps or, where an activation is made of several operations, by a recording as before."""
    run = Run(parse({"depth": 2, "activation": activation}))
    args, kwargs, cost = problems.probe(run.problem, 256)
    recorded = record(run.model, args, kwargs, cost)
    for _ in range(2):  # the first look plans, the second one uses the plan
        for a, b in zip(recorded, views.look(run)[0], strict=True):
            assert torch.equal(a.h, b.h)
            assert same(a.delta, b.delta)


def test_a_look_leaves_running_statistics_gradients_and_hooks_alone():
    run = Run(parse({"normalization": "batch"}))
    run.advance()
    views.look(run)
    before = [t.clone() for t in (*run.model.state_dict().values(), *(p.grad for p in run.model.parameters()))]
    views.look(run)
    after = [*run.model.state_dict().values(), *(p.grad for p in run.model.parameters())]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not any(m._forward_hooks for m in run.model.modules())


def test_looks_do_not_change_the_run():
    plain, watched = (Run(parse({"normalization": "batch", "data": "moon", "batch": 32})) for _ in range(2))
    for _ in range(30):
        plain.advance()
        watched.advance()
        views.layers(watched, set(views.PANELS))
    assert plain.history.train == watched.history.train


def layer(h: Tensor, phi: str = "") -> Layer:
    return Layer("l", "l", h, h, phi)


def arrays(values: list[Tensor], phi: str = "") -> dict[str, np.ndarray]:
    found = [layer(v, phi) for v in values]
    stacked = measures.stacks(values)
    return {
        "zero": measures.gathered(stacked, len(found), measures.zero_units),
        "same": measures.gathered(stacked, len(found), measures.same_units),
        "saturated": measures.saturated(found, stacked),
        "forward": measures.log_lengths(stacked, len(found), alone=False),
        "alone": measures.log_lengths(stacked, len(found), alone=True),
        **measures.histograms(stacked, len(found)),
    }


def test_numbers_follow_their_definitions_for_every_shape():
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=generator) for shape in [(40, 8), (40, 8), (40, 3), (6, 4, 5, 5), (7, 9, 4)]]
    values[1][:, 2] = 0.0  # a dead unit
    values[1][:, 5] = values[1][:, 0]  # a unit like the first one
    values[3][:, 1] = 0.0
    found = arrays(values, "sigmoid")
    for i, v in enumerate(values):
        units = v.movedim(1, -1) if v.ndim == 4 else v
        flat = units.reshape(-1, units.shape[-1])
        assert found["zero"][i] == pytest.approx(float((flat == 0).all(0).float().mean()))
        assert found["same"][i] == pytest.approx(float((flat[:, 1:] == flat[:, :1]).all(0).float().mean()))
        assert found["forward"][i] == pytest.approx(math.log(float(v.double().square().mean())), rel=1e-6)
        assert found["alone"][i] == pytest.approx(math.log(float(v[0].double().square().mean())), rel=1e-6)
        assert found["shares"][i].sum() == pytest.approx(float((v != 0).float().mean()))
        width = (measures.LOG10_HIGH - measures.LOG10_LOW) / measures.BINS
        places = np.floor((np.log10(np.abs(v[v != 0].double().numpy())) - measures.LOG10_LOW) / width).astype(int)
        wanted = np.bincount(places, minlength=measures.BINS) / v.numel()
        # an entry on an edge may fall to either side
        assert np.abs(found["shares"][i] - wanted).sum() <= 2 / v.numel() + 1e-6
    assert (found["bad"] == 0).all()


def test_what_is_missing_zero_or_not_finite_keeps_its_name():
    bad = torch.tensor([[1.0, math.nan], [math.inf, 0.0]])
    stacked = measures.stacks([bad, None, torch.zeros(2, 2), torch.empty(0, 2)])
    lengths = measures.log_lengths(stacked, 4, alone=False)
    assert np.isnan(lengths[[0, 1, 3]]).all()
    assert lengths[2] == -math.inf
    histogram = measures.histograms(stacked, 4)
    assert histogram["bad"].tolist() == [2, 0, 0, 0]
    assert histogram["zero"].tolist() == [0.25, 0.0, 1.0, 0.0]
    assert histogram["shares"][0].sum() == pytest.approx(0.25)


def test_sizes_beyond_the_axis_are_counted_at_its_ends():
    found = measures.histograms(measures.stacks([torch.tensor([[1e-30, 1e30]])]), 1)["shares"][0]
    assert found[0] == found[-1] == 0.5


def test_saturation_is_known_for_bounded_nonlinearities_only():
    z = torch.tensor([[-20.0, 0.0], [20.0, 0.5]])
    assert arrays([z], "sigmoid")["saturated"][0] == 0.5
    assert np.isnan(arrays([z], "relu")["saturated"][0])
    assert np.isnan(arrays([z])["saturated"][0])


def test_large_tensors_are_not_copied_together(monkeypatch):
    monkeypatch.setattr(measures, "_TOGETHER", 10)
    values = [torch.ones(4, 4), torch.ones(4, 4)]
    assert [numbers for numbers, _ in measures.stacks(values)] == [[0], [1]]
