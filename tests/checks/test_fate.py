"""What decides a start beyond rounding errors: layers that wake up too late, features, rectifiers that close."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from check_cases import Case, case, data, each, edit, mlp
from torch import nn

import firstlight as fl
from firstlight.capture.evidence import gather, look
from firstlight.checks.evidence import Pull
from firstlight.checks.fate import decide
from firstlight.checks.reach import RATE, WAKING, moved_share, stalled_steps


def report(c: Case) -> fl.Report:
    return fl.diagnose(c.model, c.batch, c.loss, targets=c.targets, try_remedies=False)


def small(depth: int, width: int, gain: float, act: type[nn.Module]) -> Case:
    """A plain stack whose zero biases leave the relative signal alone while it shrinks by √gain per layer."""
    return case(mlp(depth, width, act, gain=gain))


@pytest.mark.parametrize(("depth", "verdict"), [(30, "will not start"), (8, "mis-scaled")])
def test_layers_that_the_pull_does_not_reach_wake_up_one_after_the_other(depth: int, verdict: str) -> None:
    r = report(small(depth, 16, 0.01, nn.SiLU))
    assert r.verdict == verdict, r
    stuck = [f for f in r.findings if f.code == "GRD003" and f.severity == "error"]
    assert bool(stuck) == (verdict == "will not start")


def test_the_waiting_time_is_that_of_aligned_growth() -> None:
    """Each stalled layer waits 1/(n·rate·φ'(0)) steps, φ'(0) = 1/2 for SiLU; doubling n halves it."""
    c = small(20, 16, 0.01, nn.SiLU)
    e = gather(c.model, c.batch, c.loss, None, targets=c.targets)
    below = [
        p for name, p in e.probe.pulls.items()
        if name.endswith("weight") and p.constant / p.entries**0.5 < 1e-8
        and (b := e.probe.pulls[name.replace("weight", "bias")]).constant / b.entries**0.5 < 1e-8
    ]  # fmt: skip
    assert stalled_steps(e) == pytest.approx(WAKING * len(below) / (16 * RATE * 0.5), rel=1e-3)


def test_normalisation_and_residual_sums_carry_the_pull_past_small_layers() -> None:
    small_ones = mlp(20, 16, nn.SiLU, gain=0.01)
    normed = [part for m in small_ones[:-1] for part in ((m, nn.LayerNorm(16)) if isinstance(m, nn.Linear) else (m,))]
    c = case(nn.Sequential(*normed, small_ones[-1]))
    e = gather(c.model, c.batch, c.loss, None, targets=c.targets)
    assert stalled_steps(e) == 0.0
    assert report(c).verdict != "will not start"


@pytest.mark.parametrize(("act", "fires"), [(nn.Tanh, True), (nn.Softsign, False)])
def test_a_bounded_function_with_power_tails_passes_a_pull_when_saturated(act: type[nn.Module], fires: bool) -> None:
    """The same stack, of φ'(0) = 1 and the same waiting layers, between the two budgets of bounded and other ones."""
    c = small(20, 16, 0.01, act)
    e = gather(c.model, c.batch, c.loss, None, targets=c.targets)
    assert stalled_steps(e) > 0.0
    assert (decide(e).reason == "stalled") == fires, stalled_steps(e)


@pytest.mark.parametrize(("width", "fires"), [(4, True), (64, False)])
def test_small_signals_close_narrow_rectifiers_only(width: int, fires: bool) -> None:
    """A layer of n units is closed by constants with probability 2^-n: three layers of 4 in a sixth of the draws."""
    c = small(3, width, 1e-3, nn.ReLU)
    e = gather(c.model, c.batch, c.loss, None, targets=c.targets)
    quiet = dataclasses.replace(e.probe, moved=dataclasses.replace(e.probe, pulls={"0.weight": Pull(1e-9, 1.0, 64)}))
    assert ("closes it" in decide(dataclasses.replace(e, probe=quiet)).text) == fires


def test_gradients_whose_square_overflows_pull_on_nothing() -> None:
    """Adam keeps g²: above √3.4e38 it divides by infinity. Below, signs alone bring a separable task home."""
    c = case(mlp(25, 64, nn.GELU, gain=20.0))
    e = gather(c.model, c.batch, c.loss, None, targets=c.targets)
    assert e.probe.output_rms > 1e9  # enormous,
    assert decide(e).starts  # and yet every weight is pulled by ten digits less than the format holds
    beyond = {n: dataclasses.replace(p, signal=2e19 * p.entries**0.5) for n, p in e.probe.pulls.items()}
    probe = dataclasses.replace(e.probe, pulls=beyond)
    assert decide(dataclasses.replace(e, probe=probe)).reason == "exploded"
    assert report(case(edit(mlp(2), "2.weight", lambda p: p.mul_(1e28)))).verdict == "will not start"


@pytest.mark.parametrize(
    ("times", "share", "fires"), [(8e3, 0.5, True), (8e3, 2.0, False), (5e3, 0.5, False), (8e3, 0.9, True)]
)
def test_a_loss_too_high_for_a_fixed_pace_is_no_start(times: float, share: float, fires: bool) -> None:
    """Fast enough for 600 steps and fine enough for chance exclude each other beyond 6000 times chance."""
    c = case(mlp(2))
    e = gather(c.model, c.batch, c.loss, None, targets=c.targets)
    assert e.probe.loss_constant is not None
    loss = times * e.probe.loss_constant
    pull = Pull(1.0, 1.0, 64, reach=share * loss / (600 * 1e-4))
    probe = dataclasses.replace(e.probe, loss=loss, output_rms=loss, pulls={"0.weight": pull})
    assert (decide(dataclasses.replace(e, probe=probe)).reason == "exploded") == fires


def saturated() -> Case:
    """Weights of one sign: tanh units that are ±1 together, and nothing but the read-out gets a gradient."""
    x, _ = data(2, 64)
    y = ((x.square().sum(1) > x.square().sum(1).median()).long()) * 1
    model = each(mlp(12, 32, nn.Tanh, inputs=2), lambda p: p.uniform_(0.0, 1.0), last=False)
    return case(model, x) if y.max() == 0 else Case(model, x, F.cross_entropy, y)


def test_features_that_no_read_out_can_use() -> None:
    r = report(saturated())
    assert r.verdict == "will not start"
    assert {"WGT006", "GRD005"} <= {f.code for f in r.errors}


def test_a_saturated_stack_whose_sign_is_the_answer_can_be_read() -> None:
    c = saturated()
    y = (c.batch.sum(1) > 0).long()
    r = report(dataclasses.replace(c, targets=y))
    assert "GRD005" not in {f.code for f in r.findings}


def test_zeros_are_not_taken_for_frozen_features() -> None:
    c = case(edit(mlp(2), "4.weight", lambda p: p.zero_()))
    e = gather(c.model, c.batch, c.loss, None, targets=c.targets)
    assert e.probe.loss_readout is None  # the read-out's first step lets the gradient through to the others
    assert report(c).verdict == "starts"


def test_a_quick_look_sees_the_same_gradients() -> None:
    c = case(mlp())
    quick = look(c.model, c.batch, c.loss, targets=c.targets)
    full = gather(c.model, c.batch, c.loss, None, targets=c.targets).probe
    assert quick.pulls == full.pulls
    assert quick.loss_constant == full.loss_constant


@pytest.mark.parametrize("scheme", ["he", "random-walk", "orthogonal"])
def test_nobody_is_talked_out_of_a_scheme_that_works(scheme: str) -> None:
    x, y = data(64, 64, 10)
    torch.manual_seed(1)
    layers = [m for _ in range(40) for m in (nn.Linear(64, 64), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    fl.initialize(model, scheme, seed=0)
    r = fl.diagnose(model, x, F.cross_entropy, targets=y)
    assert r.verdict == "starts", r
    others = [f.remedy for f in r.findings if f.severity == "info" and "initialize(" in f.remedy]
    assert not others


def product(depth: int, gain: float, act: type[nn.Module] = nn.ReLU) -> Case:
    """A regression whose outputs start `gain` to the power of depth/2 too large."""
    x, _ = data(10, 64)
    model = mlp(depth, 8, act, gain=gain, inputs=10)
    model[-1] = nn.Linear(8, 1)
    torch.manual_seed(2)
    nn.init.normal_(model[-1].weight, 0, gain**0.5 / 8**0.5)
    y = torch.tanh(x[:, :1] + x[:, 1:2])
    return Case(model, x, F.mse_loss, (y - y.mean()) / y.std())


def trained(c: Case) -> float:
    """Lowest loss, over that of the mean, in 600 steps of Adam at the usual rates."""
    least = float("inf")
    for rate in (1e-4, 1e-3, 1e-2):
        model = copy.deepcopy(c.model)
        adam = torch.optim.Adam(model.parameters(), rate)
        for _ in range(600):
            adam.zero_grad()
            loss = c.loss(model(c.batch), c.targets)
            loss.backward()
            adam.step()
            least = min(least, float(loss.detach() / c.targets.var(correction=0)))
    return least


@pytest.mark.parametrize(
    ("gain", "act", "fires"), [(18.0, nn.ReLU, True), (6.0, nn.ReLU, False), (18.0, nn.Tanh, False)]
)
def test_adam_remembers_the_first_gradients_of_a_product(gain: float, act: type[nn.Module], fires: bool) -> None:
    """And training agrees: the full batch without noise, so that nothing else is in the way."""
    c = product(4, gain, act)
    e = gather(c.model, c.batch, c.loss, None, targets=c.targets)
    fate = decide(e)
    assert e.probe.loss is not None
    assert e.probe.loss < 1e5 * e.probe.loss_constant  # not for its size alone
    assert (fate.reason == "exploded" and "memory" in fate.text) == fires, fate
    assert (trained(c) > 0.9) == fires


def test_outputs_that_dropout_scatters_are_no_noise_where_the_gradients_agree() -> None:
    """One raw feature drives all: few units, whose masks change the answers while every gradient points its way."""
    seeded = torch.Generator().manual_seed(0)
    x = 200.0 * (1.0 + 0.5 * torch.randn(64, 1, generator=seeded)) + torch.randn(64, 8, generator=seeded)
    y = (x[:, 0] > x[:, 0].median()).float()
    found = []
    for seed in range(20):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Linear(8, 6), nn.ReLU(), nn.Dropout(0.8), nn.Linear(6, 6), nn.ReLU(), nn.Dropout(0.8), nn.Linear(6, 1)
        )
        e = gather(model, x, lambda out, y: F.binary_cross_entropy_with_logits(out.flatten(), y), None, targets=y)
        if not e.probe.repeats:
            found.append(e)
    assert found  # some of these draws scatter
    assert all(e.probe.agreement is not None for e in found)
    assert any(e.probe.agreement > 0.5 and decide(e).reason != "drowned" for e in found if e.probe.agreement)


@pytest.mark.parametrize(("depth", "fires"), [(5, True), (2, False)])
def test_a_read_out_of_faded_features_goes_no_further_than_its_steps(depth: int, fires: bool) -> None:
    """Sigmoids shrink what differs a quarter a layer. No training of the read-out comes below the bound in the box."""
    x, y = data(16, 32, 3)
    torch.manual_seed(0)
    body = [part for _ in range(depth) for part in (nn.Linear(16, 16), nn.Sigmoid())]
    model = nn.Sequential(*body, nn.Linear(16, 3))
    for p in list(model.parameters())[:-2]:
        p.requires_grad_(False)
    e = gather(model, x, F.cross_entropy, None, targets=y)
    bound, constant = e.probe.loss_readout, e.probe.loss_constant
    assert bound is not None
    assert constant is not None
    assert (decide(e).reason == "slow") == fires, (bound, constant, decide(e))
    for kind, rate in ((torch.optim.Adam, 1e-2), (torch.optim.SGD, 1.0)):
        copied = copy.deepcopy(model)
        optimizer = kind([p for p in copied.parameters() if p.requires_grad], rate)
        for _ in range(600):
            optimizer.zero_grad()
            loss = F.cross_entropy(copied(x), y)
            loss.backward()
            optimizer.step()
        assert float(loss.detach()) >= bound * (1.0 - 1e-3)


class Gated(nn.Module):
    """GELU(a(x))·b(x)."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(width, width, bias), nn.Linear(width, width, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(self.a(x)) * self.b(x)


def after_adam(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """The last of 600 losses on one batch."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    loss = torch.zeros(())
    for _ in range(600):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    return float(loss.detach())


@pytest.mark.parametrize(("depth", "bias", "fires"), [(4, False, True), (3, False, False), (4, True, False)])
def test_where_no_step_moves_a_weight_the_pull_stays_as_it_is(depth: int, bias: bool, fires: bool) -> None:
    """A product of gates without biases squares its scale per layer: 10⁻¹⁴ after four; zero biases wake it up."""
    x, y = data(16, 64, 4)
    torch.manual_seed(0)
    model = nn.Sequential(*[Gated(16, bias) for _ in range(depth)], nn.Linear(16, 4))
    for p in model.parameters():
        nn.init.normal_(p, std=0.1) if p.dim() > 1 else nn.init.zeros_(p)
    e = gather(model, x, F.cross_entropy, None, targets=y)
    share, constant = moved_share(e), e.probe.loss_constant
    assert constant is not None
    assert (decide(e).reason == "stalled") == fires
    r = fl.diagnose(model, x, F.cross_entropy, targets=y, try_remedies=False)
    assert (r.verdict == "will not start") == fires
    before = [p.detach().clone() for p in model.parameters()]
    assert (after_adam(model, x, y) > 0.98 * constant) == fires
    if fires:
        pairs = [(p.detach() - b, b) for p, b in zip(model.parameters(), before, strict=True) if p.dim() > 1]
        moved = sum(float(d.abs().max()) * 4.0 / float(b.square().mean().sqrt()) for d, b in pairs)  # √16 inputs
        assert 0.0 < moved < -math.log(1.0 - share)


def test_differences_among_the_smallest_numbers_are_rounding_errors() -> None:
    """Outputs of some 10⁻⁴⁵ differ by their own size between samples: by a step or two of the format."""
    x, y = data(16, 64, 4)
    torch.manual_seed(2)
    model = nn.Sequential(*[Gated(16, True) for _ in range(6)], nn.Linear(16, 4))
    for p in model.parameters():
        nn.init.normal_(p, std=0.1) if p.dim() > 1 else nn.init.zeros_(p)
    e = gather(model, x, F.cross_entropy, None, targets=y)
    assert 0.0 < e.probe.output_rms < 1e-38
    assert e.probe.output_spread > 0.5 * e.probe.output_rms
    assert decide(e).reason == "silent"
    assert after_adam(model, x, y) > 0.98 * (e.probe.loss_constant or math.inf)
