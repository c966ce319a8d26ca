"""Random networks of mixed operations: no crash, no NaN, and means that brute force confirms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import firstlight
from firstlight.capture import measure as capture

WIDTH, ROWS, BATCH = 32, 4, 8
POINTWISE = {
    "relu": torch.relu, "tanh": torch.tanh, "gelu": F.gelu, "silu": F.silu, "sigmoid": torch.sigmoid, "elu": F.elu,
    "abs": torch.abs, "softplus": F.softplus, "leaky": F.leaky_relu, "hardtanh": F.hardtanh, "square": torch.square,
    "clamp": lambda x: x.clamp(-1.0, 0.5), "negate": torch.neg, "half": lambda x: 0.5 * x, "shift": lambda x: x + 0.3,
}  # fmt: skip
SHAPED = {
    "softmax": lambda x: x.softmax(-1), "norm": lambda x: F.layer_norm(x, (WIDTH,)),
    "rms": lambda x: F.rms_norm(x, (WIDTH,)), "centre": lambda x: x - x.mean(-1, keepdim=True),
    "roll": lambda x: x.roll(3, -1), "flip": lambda x: x.flip((1,)),
    "mix": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "mean": lambda x: x.mean(1, keepdim=True).expand(-1, ROWS, -1),
    "halves": lambda x: torch.cat(x.chunk(2, -1)[::-1], -1),
    "attend": lambda x: F.scaled_dot_product_attention(x, x, x),
}  # fmt: skip
BINARY = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "max": torch.maximum,
    "gate": lambda a, b: a * torch.sigmoid(b),
}  # fmt: skip
STEPS = st.one_of(
    st.tuples(st.just("linear"), st.integers(0, 99)),
    st.tuples(st.just("linear"), st.integers(0, 99)),
    st.tuples(st.sampled_from(sorted(POINTWISE)), st.integers(0, 99)),
    st.tuples(st.sampled_from(sorted(SHAPED)), st.integers(0, 99)),
    st.tuples(st.sampled_from(sorted(BINARY)), st.integers(0, 99), st.integers(0, 99)),
)
GRAPHS = st.lists(STEPS, min_size=1, max_size=12)


class Random(nn.Module):
    """Each step takes earlier tensors by their number and adds one."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps
        self.lin = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for s in steps if s[0] == "linear"])

    def forward(self, x):
        known, layers = [x], iter(self.lin)
        for op, *at in self.steps:
            picked = [known[-1 - a % min(len(known), 3)] for a in at]
            if op == "linear":
                y = next(layers)(picked[0])
            else:
                y = (POINTWISE.get(op) or SHAPED.get(op) or BINARY[op])(*picked)
            known.append(y)
        return known[-1]


def predicted(steps):
    torch.manual_seed(0)
    model, x = Random(steps), torch.randn(BATCH, ROWS, WIDTH)
    return model, x, firstlight.predict(model, x, "he")


def sound(found):
    for n in found.nodes:
        for t in (n.output, n.grad):
            if t is None:
                continue
            for value in (t.mean, t.q, t.log_sd):
                assert math.isfinite(value), (n.name, t)
            assert t.q >= 0.0
            assert not math.isnan(t.log_mean)
            assert 0.0 <= t.p_off() <= 1.0
            for c in (t.c_batch, t.c_position, t.c_feature):
                assert c is None or -1.0 - 1e-6 <= c <= 1.0 + 1e-6
        assert not any("failed" in text for text in n.caveats), (n.name, n.caveats)
    assert 0.0 <= found.p_start <= 1.0


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(GRAPHS)
def test_random_graphs_are_predicted(steps):
    sound(predicted(steps)[2])


FAILED_ONCE = (
    "linear82 norm47 square77 linear27 linear40 sub25,64 gate67,9 gate28,62",  # zero times a tensor of the same sites
    "linear15 linear97 gate63,1 attend10 silu14 mul72,95 sub50,11 relu33",
    "linear63 linear28 square34 mul21,96 square60 norm82 gelu60 softmax83 negate70 softplus18",  # eighth powers, normed
)


@pytest.mark.parametrize("text", FAILED_ONCE)
def test_graphs_on_which_a_rule_failed_once(text):
    steps = [(w.rstrip("0123456789,"), w.lstrip("abcdefghijklmnopqrstuvwxyz_")) for w in text.split()]
    sound(predicted([(op, *map(int, numbers.split(","))) for op, numbers in steps])[2])


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(GRAPHS)
def test_two_thousand_random_graphs_are_predicted(steps):
    sound(predicted(steps)[2])


def drawn_steps(rng):
    """The same kind of network from a seeded generator, so that the share does not hang on hypothesis' search."""
    names = [*sorted(POINTWISE), *sorted(SHAPED), *sorted(BINARY)]
    steps = []
    for _ in range(int(rng.integers(4, 13))):
        op = "linear" if rng.random() < 0.35 else names[rng.integers(len(names))]
        steps.append((op, *(int(a) for a in rng.integers(0, 99, 2 if op in BINARY else 1))))
    return steps


def shares(count, draws, seed=0):
    """(forward, backward) shares of operations within 10 % of brute force, two standard errors allowed."""
    rng = np.random.default_rng(seed)
    hits = {"forward": [], "backward": []}
    for _ in range(count):
        model, x, found = predicted([("linear", 0), *drawn_steps(rng)])
        assert not missing_names(found)

        prefix = {p.name: p.q for p in found.parameters}
        scale = {layer: prefix[f"lin.{i}.weight"] ** 0.5 for i, layer in enumerate(model.lin)}

        def redraw(m, at, scale=scale):
            generator = torch.Generator().manual_seed(at)
            with torch.no_grad():
                for layer in m.lin:
                    layer.bias.zero_()
                    layer.weight.copy_(torch.randn(WIDTH, WIDTH, generator=generator))
                    layer.weight.mul_(float(scale[layer]))

        # a prediction is over random directions at the output: one fixed direction has luck of its own, ten per cent
        # where a mean over positions leaves 256 entries of it
        directions = torch.Generator().manual_seed(seed)

        def loss(y, generator=directions):
            v = torch.randn(y.shape, generator=generator)
            return (v * y).sum() * v.square().mean().rsqrt()

        found_by_draws = capture.measure(model, x, draws=draws, redraw=redraw, law="he", loss=loss)
        measured = {n.name: n for n in found_by_draws.nodes}
        for n in found.nodes:
            if n.op == "input" or n.name not in measured:
                continue
            for way, t, d in (
                ("forward", n.output, measured[n.name].log_q),
                ("backward", n.grad, measured[n.name].log_grad_q),
            ):
                if t is None or d is None:
                    continue
                q = np.exp(np.array([v for v in d.values if not math.isnan(v)]))
                if not len(q) or q.mean() < 1e-12:
                    continue
                error = q.std(ddof=1) / len(q) ** 0.5
                hits[way].append(abs(t.q - q.mean()) <= 0.1 * q.mean() + 2.0 * error)
    return {way: float(np.mean(h)) for way, h in hits.items()}


def missing_names(found):
    return [n.name for n in found.nodes if "no rule: measured on sampled inputs" in n.caveats]


def test_most_operations_of_random_graphs_agree_with_draws():
    # 300 networks: .985 and .953 (300 others: .989 and .956); these 40 have fewer nodes, and draws
    found = shares(40, 24, seed=2)
    assert found["forward"] >= 0.93
    assert found["backward"] >= 0.91


@pytest.mark.slow
def test_the_share_of_random_graphs_within_a_tenth(record_property):
    found = shares(300, 64, seed=1)
    for way, share in found.items():
        record_property(way, share)
        assert share >= 0.95, found
