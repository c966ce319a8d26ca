"""Re-drawn weights: distributions over draws follow the laws that hold exactly; the weights come back."""

import math

import pytest
import torch
from torch import nn

import firstlight
from firstlight.capture.redraw import empirical_redraw
from firstlight.errors import RegistryError
from firstlight.graph.measurement import Distribution

DRAWS = 200


def relu_net(width: int, depth: int) -> nn.Sequential:
    layers = [m for _ in range(depth) for m in (nn.Linear(width, width, bias=False), nn.ReLU())]
    model = nn.Sequential(*layers)
    for layer in model[::2]:
        nn.init.normal_(layer.weight, std=math.sqrt(2.0 / width))
    return model


def test_lengths_walk_as_the_exact_law_says() -> None:
    """One input through He-normal ReLU layers: ln M has mean D·(E ln z) and variance D·Var ln z (chi-square laws)."""
    from firstlight.theory import random_walk

    torch.manual_seed(0)
    width, depth = 32, 6
    m = firstlight.measure(relu_net(width, depth), torch.randn(1, width), draws=DRAWS, scheme="he", backward=False)
    assert (m.draws, m.draw_law) == (DRAWS, "he")
    last = m.nodes[-1].log_q
    assert last is not None
    assert len(last.values) == len(last.reference) == DRAWS
    walked = Distribution(tuple(v - r for v, r in zip(last.values, last.reference, strict=True)))
    # g = sqrt(2) against the median gain: the drift per layer is 2 ln(sqrt(2)/g); THEORY's variance per layer .1775
    drift = depth * 2 * math.log(math.sqrt(2.0) / random_walk.median_gain("relu", width, 1.0))
    variance = depth * 0.17750
    assert abs(walked.mean - drift) < 4 * math.sqrt(variance / DRAWS)
    assert abs(walked.sd**2 / variance - 1.0) < 4 * math.sqrt(2.0 / DRAWS)


def test_own_law_keeps_mean_variance_and_shape() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(100, 80), nn.LayerNorm(80), nn.Linear(80, 40))
    nn.init.orthogonal_(model[2].weight, gain=1.3)
    kept = [p.detach().clone() for p in model.parameters()]
    notes: list[str] = []
    redraw = empirical_redraw(model, notes)
    redraw(model, 0)
    new = [p.detach().clone() for p in model.parameters()]
    w, v = kept[0].double(), new[0].double()
    n = w.numel()
    assert abs(v.mean() - w.mean()) < 4 * w.std() / math.sqrt(n)
    assert abs(v.var() / w.var() - 1) < 4 * math.sqrt((1.8 - 1) / n)  # uniform entries
    assert not torch.equal(w, v)
    assert set(v.abs().flatten().tolist()) <= set(w.abs().flatten().tolist())
    assert torch.equal(new[2], kept[2])  # LayerNorm's ones are constant
    q = new[4].double()
    assert torch.allclose(q @ q.T, 1.3**2 * torch.eye(40, dtype=torch.float64), atol=1e-5)
    redraw(model, 0)
    assert torch.equal(model[0].weight, new[0])
    redraw(model, 1)
    assert not torch.equal(model[0].weight, new[0])


def test_a_mean_within_its_error_is_chance_and_others_stay() -> None:
    """Three biases that all happen to be negative are no law of negative biases; entries around one keep their mean."""
    model = nn.Linear(4, 3)
    with torch.no_grad():
        model.bias.copy_(torch.tensor([-0.4, -0.1, -0.2]))
        model.weight.uniform_(0.9, 1.1)
    kept = model.bias.detach().clone()
    redraw = empirical_redraw(model, [])
    biases, weights = [], []
    for seed in range(DRAWS):
        redraw(model, seed)
        biases.append(model.bias.detach().clone())
        weights.append(model.weight.detach().mean())
    drawn = torch.stack(biases).double()
    q = float(kept.double().square().mean())
    assert abs(drawn.mean()) < 4 * math.sqrt(q / drawn.numel())
    fourth = float(kept.double().pow(4).mean())
    assert abs(drawn.square().mean() - q) < 4 * math.sqrt((fourth - q * q) / drawn.numel())
    assert min(weights) > 0.9


def test_measure_at_the_live_weights_is_untouched_by_the_draws() -> None:
    torch.manual_seed(2)
    model, x = relu_net(16, 4), torch.randn(8, 16)
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    one, many = firstlight.measure(model, x), firstlight.measure(model, x, draws=5)
    assert [n.output for n in one.nodes] == [n.output for n in many.nodes]
    assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items())
    assert one.nodes[0].log_q is None
    assert len({n.log_q.values[0] for n in many.nodes if n.log_q}) == len(many.nodes)
    back = many.nodes[0].log_grad_q
    assert back is not None
    assert back.reference == many.nodes[-1].log_grad_q.values
    assert all(abs(v) < 1e-5 for v in back.reference)  # the cotangent has q = 1
    assert "P(off)" in str(many)


def test_dead_draws_count_as_off() -> None:
    torch.manual_seed(3)
    m = firstlight.measure(relu_net(2, 20), torch.randn(1, 2), draws=20)
    last = m.nodes[-1].log_q
    assert last is not None
    assert -math.inf in last.values
    assert last.p_off() == 1.0
    assert last.quantile(0.0) == -math.inf


def test_unknown_schemes_are_refused_before_anything_runs() -> None:
    with pytest.raises(RegistryError, match="heh"):
        firstlight.measure(relu_net(4, 1), torch.randn(2, 4), draws=2, scheme="heh")


def test_distribution_summaries() -> None:
    d = Distribution((1.0, 2.0, 3.0, 4.0), (1.0, 1.0, 1.0, 1.0))
    assert d.mean == 2.5
    assert d.sd == pytest.approx(1.2909944)
    assert d.standard_error == pytest.approx(1.2909944 / 2)
    assert (d.quantile(0.0), d.quantile(0.5), d.quantile(1.0)) == (1.0, 2.5, 4.0)
    assert d.p_off() == 0.25  # 3 > ln 10
    assert d.p_off(math.e**1.5) == 0.5
    assert Distribution((math.nan, -math.inf, 0.0)).p_off() == pytest.approx(2 / 3)
    assert math.isnan(Distribution(()).mean)
    assert math.isnan(Distribution((1.0,)).sd)
    assert math.isnan(Distribution((math.nan,)).quantile(0.5))


def test_cosines_are_those_of_the_drawn_weights() -> None:
    """He's draws have no biases: large live ones, which make all samples alike, are not compared with a law."""
    torch.manual_seed(4)
    model, x = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)), torch.randn(8, 64)
    nn.init.constant_(model[0].bias, 5.0)
    drawn = firstlight.measure(model, x, draws=40, scheme="he", backward=False)
    relu = next(n for n in drawn.nodes if n.op == "relu")
    assert relu.output.cosine > 0.95  # at the live weights
    assert relu.cosines is not None
    assert firstlight.measure(model, x, backward=False).nodes[-1].cosines is None
    compared = next(n for n in firstlight.compare(firstlight.predict(model, x, "he"), drawn).nodes if n.op == "relu")
    assert compared.c_measured == relu.cosines.mean
    assert abs(compared.c_measured - compared.c_predicted) < 5.0 * relu.cosines.standard_error + 1.0 / 64
    assert drawn.to_frame()["cosine_drawn_mean"].iloc[-1] == drawn.nodes[-1].cosines.mean
