"""Fans against brute force: with variance 1/fan every layer keeps the mean square of input or gradient."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from firstlight.capture.trace import trace
from firstlight.schemes import plan
from firstlight.schemes.connect import connections
from firstlight.schemes.fans import all_sites

DRAWS = 150


def ring(n):
    """Circular padding, so that no energy is lost at the borders."""
    return {"padding": n, "padding_mode": "circular"}


# name -> (layer, input shapes, axes to crop from the output for transposed convolutions)
LAYERS = {
    "linear": (lambda: nn.Linear(20, 30), [(16, 20)]),
    "linear without outputs to spare": (lambda: nn.Linear(40, 3), [(16, 40)]),
    "conv1d": (lambda: nn.Conv1d(6, 8, 3, **ring(1)), [(4, 6, 12)]),
    "conv2d": (lambda: nn.Conv2d(6, 8, 3, **ring(1)), [(4, 6, 8, 8)]),
    "conv3d": (lambda: nn.Conv3d(4, 6, 3, **ring(1)), [(2, 4, 4, 4, 4)]),
    "conv2d groups": (lambda: nn.Conv2d(8, 12, 3, groups=4, **ring(1)), [(4, 8, 8, 8)]),
    "conv2d depthwise": (lambda: nn.Conv2d(8, 8, 5, groups=8, **ring(2)), [(4, 8, 8, 8)]),
    "conv2d depthwise multiplier": (lambda: nn.Conv2d(8, 24, 3, groups=8, **ring(1)), [(4, 8, 8, 8)]),
    "conv2d dilated": (lambda: nn.Conv2d(6, 8, 3, dilation=2, **ring(2)), [(4, 6, 8, 8)]),
    "conv2d strided": (lambda: nn.Conv2d(6, 8, 4, stride=2, **ring(1)), [(4, 6, 8, 8)]),
    "conv2d stride above kernel": (lambda: nn.Conv2d(6, 8, 1, stride=2), [(4, 6, 8, 8)]),
    "bilinear": (lambda: nn.Bilinear(7, 7, 9), [(16, 7), (16, 7)]),
}
TRANSPOSED = {
    "transposed 1d": (lambda: nn.ConvTranspose1d(6, 8, 4, stride=2), (4, 6, 24)),
    "transposed 2d": (lambda: nn.ConvTranspose2d(6, 8, 4, stride=2), (2, 6, 16, 16)),
    "transposed 2d uneven": (lambda: nn.ConvTranspose2d(6, 8, 3, stride=2), (2, 6, 16, 16)),
    "transposed 2d gaps": (lambda: nn.ConvTranspose2d(6, 8, 1, stride=2), (2, 6, 16, 16)),
    "transposed 2d groups": (lambda: nn.ConvTranspose2d(8, 12, 4, stride=2, groups=4), (2, 8, 16, 16)),
    "transposed 2d dilated": (lambda: nn.ConvTranspose2d(6, 8, 3, dilation=2), (2, 6, 16, 16)),
    "transposed 3d": (lambda: nn.ConvTranspose3d(4, 6, 2, stride=2), (2, 4, 6, 6, 6)),
}


def check_mean_is_one(values):
    q = torch.tensor(values, dtype=torch.float64)
    error = float(q.std()) / math.sqrt(len(values))
    assert abs(float(q.mean()) - 1.0) < 5 * error, (float(q.mean()), error)


def q_of(x):
    return float(x.detach().double().square().mean())


@pytest.mark.parametrize("name", LAYERS)
def test_fan_in_and_fan_out(name):
    make, shapes = LAYERS[name]
    torch.manual_seed(0)
    layer = make()
    site = all_sites(layer)["weight"]
    forward, backward = [], []
    for _ in range(DRAWS):
        nn.init.zeros_(layer.bias)
        inputs = [torch.randn(s, requires_grad=True) for s in shapes]
        nn.init.normal_(layer.weight, std=site.fan_in**-0.5)
        forward.append(q_of(layer(*inputs)))
        nn.init.normal_(layer.weight, std=site.fan_out**-0.5)
        out = layer(*inputs)
        grads = torch.autograd.grad(out, inputs, torch.randn_like(out))
        backward.append(sum(q_of(g) for g in grads) / len(grads))
    check_mean_is_one(forward)
    check_mean_is_one(backward)


@pytest.mark.parametrize("name", TRANSPOSED)
def test_fans_of_transposed_convolutions(name):
    make, shape = TRANSPOSED[name]
    torch.manual_seed(0)
    layer = make()
    site = all_sites(layer)["weight"]
    forward, backward = [], []
    # Crop a border of whole strides, wide enough for every remaining entry to see all its inputs.
    stride = layer.stride[0]
    border = -(-layer.dilation[0] * layer.kernel_size[0] // stride) * stride
    for _ in range(DRAWS):
        nn.init.zeros_(layer.bias)
        x = torch.randn(shape, requires_grad=True)
        nn.init.normal_(layer.weight, std=site.fan_in**-0.5)
        out = layer(x)
        for axis in range(2, out.dim()):
            whole = (shape[axis] - 2 * (border // stride)) * stride
            out = out.narrow(axis, border, whole)
        forward.append(q_of(out))
        nn.init.normal_(layer.weight, std=site.fan_out**-0.5)
        out = layer(x)
        (grad,) = torch.autograd.grad(out, x, torch.randn_like(out))
        backward.append(q_of(grad))
    check_mean_is_one(forward)
    check_mean_is_one(backward)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_gates_are_counted_one_by_one(kind):
    sites = all_sites(kind(5, 7, 2))
    gates = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}[kind]
    assert (sites["weight_ih_l0"].fan_in, sites["weight_ih_l0"].fan_out) == (5, 7)
    assert (sites["weight_hh_l1"].fan_in, sites["weight_hh_l1"].split) == (7, gates)
    projected = all_sites(nn.LSTM(5, 7, proj_size=3))
    assert (projected["weight_hh_l0"].fan_in, projected["weight_hr_l0"].fan_in) == (3, 7)
    assert all_sites(nn.LSTMCell(5, 7))["weight_ih"].split == 4


def test_stacked_projections_of_attention():
    sites = all_sites(nn.MultiheadAttention(12, 3))
    assert (sites["in_proj_weight"].fan_in, sites["in_proj_weight"].fan_out) == (12, 12)
    assert sites["in_proj_weight"].split == 3
    apart = all_sites(nn.MultiheadAttention(12, 3, kdim=5, vdim=7))
    assert [apart[f"{n}_proj_weight"].fan_in for n in "qkv"] == [12, 5, 7]
    assert apart["out_proj.weight"].fan_in == 12


def test_every_projection_of_attention_keeps_its_length():
    """Xavier read off the stacked shape (3E, E) loses half of q; counted one by one nothing is lost."""
    values = []
    layer = nn.MultiheadAttention(32, 4, bias=False)
    chosen = plan(layer, "xavier")
    from firstlight.schemes import write

    for seed in range(DRAWS):
        write(chosen, seed)
        torch.manual_seed(seed)
        values.append(q_of(F.linear(torch.randn(8, 32), layer.in_proj_weight)))
    check_mean_is_one(values)


class Raw(nn.Module):
    """Parameters used by functions; `forward` returns one output per use."""

    def __init__(self):
        super().__init__()
        self.plain = nn.Parameter(torch.zeros(20, 30))
        self.turned = nn.Parameter(torch.zeros(30, 20))
        self.heads = nn.Parameter(torch.zeros(4, 20, 6))
        self.merge = nn.Parameter(torch.zeros(4, 6, 20))
        self.experts = nn.Parameter(torch.zeros(4, 6, 9))
        self.kernel = nn.Parameter(torch.zeros(12, 2, 3))
        self.spread = nn.Parameter(torch.zeros(8, 6, 4))
        self.bias = nn.Parameter(torch.zeros(30))

    def forward(self, x):
        heads = torch.einsum("bd,hde->bhe", x, self.heads)
        wave = x.view(-1, 5, 4).transpose(1, 2)
        wave = torch.cat([wave, wave], 1)
        return (
            x @ self.plain,
            F.linear(x, self.turned, self.bias),
            heads,
            torch.einsum("bhe,hed->bd", heads, self.merge),
            torch.bmm(heads.transpose(0, 1), self.experts),
            F.conv1d(wave, self.kernel, groups=4),
            F.conv_transpose1d(wave, self.spread, stride=2),
            x @ self.turned.T,
        )


def test_fans_of_raw_parameters_come_from_the_graph():
    model = Raw()
    found = connections(trace(model, torch.randn(8, 20)), all_sites(model))
    fans = {name: (c.site.fan_in, c.site.fan_out, c.site.split) for name, c in found.items() if c.site is not None}
    assert fans == {
        "plain": (20, 30, 1),
        "turned": (20, 30, 1),
        "heads": (20, 24, 1),
        "merge": (24, 20, 1),
        "experts": (6, 9, 4),
        "kernel": (6, 9, 4),
        "spread": (16, 24, 1),
        "bias": (None, None, 1),
    }
    assert found["bias"].site.role == "bias"


def test_shape_alone_would_mislead():
    """(in, out) and (out, in) of the same shape are told apart by how they are used."""

    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.zeros(16, 64))
            self.b = nn.Parameter(torch.zeros(16, 64))

        def forward(self, x):
            return F.linear(x @ self.a, self.b)

    model = Turned()
    chosen = plan(model, "he(activation='linear')", graph=trace(model, torch.randn(4, 16)))
    assert [e.target.fan_in for e in chosen.entries] == [16, 64]
