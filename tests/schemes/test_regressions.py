"""Cases that other libraries get wrong: lengths measured over draws, with error bars."""

import math

import pytest
import torch
from torch import nn

import firstlight
from firstlight.schemes import plan, write


def q_of(x):
    return float(x.detach().double().square().mean())


def check_mean(values, expected):
    q = torch.tensor(values, dtype=torch.float64)
    error = float(q.std()) / math.sqrt(len(values))
    assert abs(float(q.mean()) - expected) < 5 * error, (float(q.mean()), error)
    return error


@pytest.mark.parametrize("shape", [(64, 256), (256, 64), (64, 64)])
def test_orthogonal_rectangles_keep_the_length(shape):
    """Elsewhere 64→256 gives 0.25 and 256→64 gives 3.99."""
    layer = nn.Linear(*shape)
    chosen = plan(layer, "orthogonal")
    torch.manual_seed(0)
    ratios = []
    for seed in range(100):
        write(chosen, seed)
        x = torch.randn(1, shape[0])
        ratios.append(q_of(layer(x)) / q_of(x))
    if shape[0] <= shape[1]:
        assert max(abs(r - 1.0) for r in ratios) < 1e-5  # isometric, draw by draw
    else:
        assert check_mean(ratios, 1.0) < 0.05


@pytest.mark.parametrize("scheme", ["he", "random-walk", "orthogonal"])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.LeakyReLU, nn.ELU])
def test_first_layers_of_a_wide_stack_keep_unit_length(activation, scheme):
    """Every pre-activation behind the first has q = 1 for activations that are not homogeneous."""
    width = 512
    model = nn.Sequential(*(m for _ in range(4) for m in (nn.Linear(width, width), activation())))
    chosen = plan(model, scheme)
    torch.manual_seed(0)
    lengths = []
    for seed in range(12):
        write(chosen, seed)
        h, q = torch.randn(4, width), []
        for module in model:
            h = module(h)
            if isinstance(module, nn.Linear):
                q.append(q_of(h))
        lengths.append(q)
    reference = 2.0 if activation is nn.ReLU else 2.0 / (1 + 0.01**2) if activation is nn.LeakyReLU else 1.0
    mean = torch.tensor(lengths, dtype=torch.float64).mean(0)
    error = torch.tensor(lengths, dtype=torch.float64).std(0) / math.sqrt(12)
    # The random-walk gain is larger than the mean-keeping one by exp(Var/4) ≈ exp(1.3/512) a layer.
    slack = 0.015 if scheme == "random-walk" else 0.002
    assert ((mean / reference - 1.0).abs() < 5 * error / reference + slack).all(), mean


def test_twenty_gelu_layers_keep_unit_length():
    """Elsewhere the output's standard deviation is 39 to 71."""
    layers = [m for _ in range(20) for m in (nn.Linear(512, 512), nn.GELU())]
    model = nn.Sequential(*layers[:-1])
    x = torch.randn(8, 512, generator=torch.Generator().manual_seed(0))
    chosen = plan(model, "he")
    norms = []
    for seed in range(10):
        write(chosen, seed)
        with torch.no_grad():
            norms.append(math.log(q_of(model(x))))
    # Each layer's log-length fluctuates by 6.2/512, and later layers amplify it: a factor 2 is 3 sd.
    assert abs(sum(norms) / len(norms)) < math.log(2.0)


def test_top_level_sequential_is_seen():
    """Elsewhere no node of it is recorded and the result is 1e21."""
    model = nn.Sequential(*(m for _ in range(50) for m in (nn.Linear(256, 256), nn.ReLU())))
    x = torch.randn(4, 256, generator=torch.Generator().manual_seed(0))
    for batch in (None, x):
        result = firstlight.initialize(model, "he", batch=batch)
        assert {r.activation for r in result.table.rows if r.role != "bias"} == {"relu"}
        walk = 50 * 5 / 256
        with torch.no_grad():
            log_q = math.log(q_of(model(x)) / q_of(x))
        assert abs(log_q + walk / 2) < 4 * math.sqrt(walk)


def test_transformer_encoder_is_captured_whole():
    """Elsewhere the trace fails and its residual branches are invisible."""
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 3)
    table = firstlight.initialize(model, batch=torch.randn(2, 5, 16)).table
    ends = [r.name for r in table.rows if r.role == "branch end"]
    expected = [f"layers.{i}.{n}.weight" for i in range(3) for n in ("self_attn.out_proj", "linear2")]
    assert ends == expected
    heads = [r for r in table.rows if r.name.endswith("in_proj_weight")]
    assert [(r.fan_in, r.fan_out) for r in heads] == [(16, 16)] * 3


def test_random_walk_keeps_the_median_where_he_keeps_the_mean():
    """20 relu layers of 16 units: He's log-length drifts by -2.5/n a layer, the random walk's does not."""
    layers = [m for _ in range(20) for m in (nn.Linear(16, 16), nn.ReLU())]
    model = nn.Sequential(*layers)
    x = torch.randn(1, 16, generator=torch.Generator().manual_seed(1))
    from firstlight.theory import random_walk

    for scheme in ("he", "random-walk"):
        chosen = plan(model, scheme)
        logs = []
        for seed in range(150):
            write(chosen, seed)
            with torch.no_grad():
                out = q_of(model(x))
            if out > 0.0:  # the walk is conditioned on living layers
                logs.append(math.log(out / q_of(x)))
        gain = random_walk.mean_gain("relu") if scheme == "he" else random_walk.median_gain("relu", 16)
        expected = 20 * random_walk.drift("relu", 16, gain)
        check_mean(logs, expected)
        if scheme == "random-walk":
            assert expected == pytest.approx(0.0, abs=1e-9)


def test_looks_linear_networks_are_isometries():
    model = nn.Sequential(
        nn.Linear(24, 48),
        nn.ReLU(),
        nn.Linear(48, 48),
        nn.ReLU(),
        nn.Linear(48, 48),
        nn.ReLU(),
        nn.Linear(48, 24),
    )
    x = torch.randn(5, 24, generator=torch.Generator().manual_seed(0))
    for batch in (None, x):
        firstlight.initialize(model, "looks-linear", batch=batch)
        with torch.no_grad():
            assert torch.allclose(model(x).norm(dim=1), x.norm(dim=1), rtol=1e-5)
            assert torch.allclose(model(2 * x - x.flip(0)), 2 * model(x) - model(x.flip(0)), atol=1e-5)


def test_delta_orthogonal_convolutions_are_isometries():
    layers = [nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(30)]
    model = nn.Sequential(*layers)
    x = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    firstlight.initialize(model, "delta-orthogonal", batch=x)
    with torch.no_grad():
        assert q_of(model(x)) == pytest.approx(q_of(x), rel=1e-5)


def test_undo_puts_back_what_an_orthogonal_parametrization_keeps_in_a_buffer():
    net = torch.nn.utils.parametrizations.orthogonal(torch.nn.Linear(16, 8))
    net.double()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    done = firstlight.initialize(net, "he")
    assert any(not torch.equal(t, before[n]) for n, t in net.state_dict().items())
    done.undo()
    for n, t in net.state_dict().items():
        assert torch.equal(t, before[n]), n
