from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from firstlight.errors import InputError, RegistryError
from firstlight.theory import activation_registry, activations, bibliography

TORCH = {
    "linear": lambda x: x * 1.0,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "prelu": lambda x: F.prelu(x, torch.tensor([0.25], dtype=x.dtype)),
    "elu": F.elu,
    "celu": F.celu,
    "selu": F.selu,
    "gelu": F.gelu,
    "gelu-tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "softplus": F.softplus,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "hardtanh": F.hardtanh,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "relu6": F.relu6,
    "softsign": F.softsign,
    "sin": torch.sin,
    "erf": torch.erf,
    "abs": torch.abs,
    "relu²": lambda x: F.relu(x) ** 2,
    "logsigmoid": F.logsigmoid,
    "tanhshrink": F.tanhshrink,
}
VARIANTS = [
    (activations.get("leaky_relu", negative_slope=0.2), lambda x: F.leaky_relu(x, 0.2)),
    (activations.get("leaky_relu", negative_slope=-0.5), lambda x: F.leaky_relu(x, -0.5)),
    (activations.get("elu", alpha=0.5), lambda x: F.elu(x, 0.5)),
    (activations.get("celu", alpha=2.0), lambda x: F.celu(x, 2.0)),
    (activations.get("softplus", beta=3.0), lambda x: F.softplus(x, 3.0)),
    (activations.get("hardtanh", min_val=-2.0, max_val=0.5), lambda x: F.hardtanh(x, -2.0, 0.5)),
    (activations.get("gelu", approximate="tanh"), lambda x: F.gelu(x, approximate="tanh")),
]
CASES = [(activations.get(name), TORCH[name]) for name in activations.names()] + VARIANTS
IDS = [*activations.names(), *(f"{act.name}-{k}" for k, (act, _) in enumerate(VARIANTS))]


@pytest.mark.parametrize(("act", "reference"), CASES, ids=IDS)
def test_value_and_derivative_are_torchs(act, reference):
    # Zero is included (a kink of many), the other kinks are approached from both sides.
    grid = np.concatenate([np.linspace(-12, 12, 1201), [k + s for k in act.kinks if k for s in (-1e-7, 1e-7)]])
    grid = np.array([x for x in grid if x not in act.kinks or x == 0])
    x = torch.tensor(grid, dtype=torch.float64, requires_grad=True)
    y = reference(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    # A few units in the last place, but for two shortcuts of torch: softplus is the identity above
    # beta*x > 20 (off by exp(-20)), and the slope 1/6 of hardsigmoid is kept in single precision.
    rough = {"softplus": 3e-9, "hardsigmoid": 6e-9}.get(act.name, 1e-12)
    np.testing.assert_allclose(act.f(grid), y.detach().numpy(), rtol=1e-12, atol=rough)
    at_kink_too = act.name in ("relu", "leaky_relu", "prelu", "abs")
    chosen = np.full(len(grid), True) if at_kink_too else ~np.isin(grid, act.kinks)
    np.testing.assert_allclose(act.df(grid)[chosen], gradient.numpy()[chosen], rtol=1e-10, atol=rough)


@pytest.mark.parametrize(("act", "reference"), CASES, ids=IDS)
def test_record_tells_the_truth(act, reference):
    wide = np.concatenate([np.linspace(-40, 40, 20001), [-1e4, 1e4]])
    values, slopes = act.f(wide), act.df(wide)
    low, high = act.bounds
    assert np.all(values >= low - 1e-12)
    assert np.all(values <= high + 1e-12)
    if np.isfinite(low):
        assert values.min() - low < 1e-3
    if np.isfinite(high):
        assert high - values.max() < 1e-3
    if np.isfinite(act.saturation[0]):
        outside = (wide < act.saturation[0]) | (wide > act.saturation[1])
        assert np.all(np.abs(slopes[outside]) <= 0.01 * np.abs(slopes).max() * (1 + 1e-9))
        just_inside = np.array(act.saturation) * (1 - 1e-6) + (1e-6 if act.saturation[0] == 0 else 0)
        assert np.all(np.abs(act.df(just_inside)) > 0.01 * np.abs(slopes).max() * (1 - 1e-3))
    if act.dead_below is not None:
        dead = wide <= act.dead_below
        assert not np.any(values[dead])
        assert not np.any(slopes[wide < act.dead_below])
        assert act.f(np.array([act.dead_below + 1e-3]))[0] != 0.0
    elif act.name != "abs":
        assert np.any(values[wide < -5] != 0) or np.any(slopes[wide < -5] != 0)
    if act.degree is not None:
        np.testing.assert_allclose(act.f(3.0 * wide), 3.0**act.degree * values, rtol=1e-12)
    if act.period is not None:
        np.testing.assert_allclose(act.f(wide[:-2] + act.period), values[:-2], atol=1e-12)
    bibliography.bibtex(act.reference)


def test_the_issue_list_is_complete():
    assert set(activations.names()) == set(TORCH)


@pytest.mark.parametrize(
    "name", ["LeakyReLU", "leaky-relu", "GELU", "Swish", "relu2", "ReLUSquared", "gelu_pytorch_tanh"]
)
def test_other_spellings_are_found(name):
    assert activations.find(name) is not None
    assert activations.get(name).name == activations.find(name)


def test_a_wrong_name_suggests_a_near_one():
    with pytest.raises(RegistryError, match="Did you mean 'relu'"):
        activations.get("rellu")
    with pytest.raises(RegistryError, match="one of linear, relu"):
        activations.get("\x1b[31m<b>ghost</b>")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("relu", {"slope": 1.0}),
        ("leaky_relu", {"negative_slope": float("nan")}),
        ("leaky_relu", {"negative_slope": "big"}),
        ("elu", {"alpha": 0.0}),
        ("softplus", {"beta": -1.0}),
        ("hardtanh", {"min_val": 1.0, "max_val": 1.0}),
        ("gelu", {"approximate": "sometimes"}),
    ],
)
def test_unusable_parameters_are_refused(name, parameters):
    with pytest.raises(InputError):
        activations.get(name, **parameters)


@pytest.mark.parametrize(("act", "reference"), CASES, ids=IDS)
def test_records_cross_process_borders(act, reference):
    there = pickle.loads(pickle.dumps(act))
    assert there == act or (there.name, dict(there.parameters)) == (act.name, dict(act.parameters))


@pytest.mark.parametrize("name", [None, 3, torch.relu, torch.nn.ReLU()])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InputError, match="a name or a record"):
        activations.get(name)


def test_a_second_registration_is_refused():
    with pytest.raises(RegistryError, match="second entry"):
        activation_registry.activation("ReLU")(lambda: activations.get("relu"))
    assert activations.get("relu").name == "relu"


def test_records_are_frozen_and_shared():
    assert activations.get("leaky_relu", negative_slope=0.2) is activations.get("LeakyReLU", negative_slope=0.2)
    with pytest.raises(AttributeError):
        activations.get("relu").name = "other"  # type: ignore[misc]
    assert activations.get(activations.get("leaky_relu"), negative_slope=0.3).slopes == (1.0, 0.3)
