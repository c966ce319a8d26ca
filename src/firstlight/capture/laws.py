"""Laws of parameters from their live entries, and sampled operations for those that have no rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from firstlight.capture.parameters import structure
from firstlight.errors import InputError, ModelError
from firstlight.graph.ir import Graph, Law, Node
from firstlight.graph.signal import Cotangent, Signal

_ROWS_DIFFER = 4.0  # rows whose mean squares spread beyond this many times what sampling explains


@torch.no_grad()
def live_laws(model: nn.Module, graph: Graph) -> dict[str, Law]:
    """Empirical law of every floating-point parameter and buffer of the graph.

    Raises:
        InputError: A parameter on the meta device, which has no entries.
    """
    tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    tensors.update(dict(model.named_buffers(remove_duplicate=False)))
    out: dict[str, Law] = {}
    for name, parameter in graph.parameters.items():
        found = [tensors[n] for n in (name, *parameter.aliases) if n in tensors]
        if not found or not (found[0].is_floating_point() or found[0].is_complex()):
            continue
        if found[0].device.type == "meta":
            raise InputError(
                f"model, parameter {name!r}",
                got="a tensor on the meta device, which has no entries",
                expected="weights that hold numbers",
                action='Pass scheme="he" (or another) to predict weights that are not drawn yet.',
            )
        out[name] = law_of(found[0])
    return out


def law_of(w: Tensor) -> Law:
    """Mean, variance, kurtosis and structure of the entries; mean squares per row where they differ."""
    if w.numel() == 0:
        return Law(0.0, 0.0, structure="constant")
    if w.is_complex():  # the variance is E|w - mean|²; the law of a complex tensor is taken as circular Gaussian
        x = w.detach().to(torch.complex128)
        mean = float(x.mean().real)
        return Law(mean, float((x.real - mean).square().mean() + x.imag.square().mean()), source="live")
    x = w.detach().to(torch.float64)
    mean = float(x.mean())
    centred = x - mean
    square = centred.square()
    variance = float(square.mean())
    if variance <= 1e-14 * mean * mean or w.numel() == 1:
        return Law(mean, variance if w.numel() > 1 else 0.0, structure="constant")
    kurtosis = float(square.square().mean()) / variance**2
    if w.dim() >= 2 and w.shape[0] > 1 and bool((x == x[:1]).all()):
        return Law(mean, variance, kurtosis, "rows alike", "live", row=x[0].cpu().numpy().astype(np.float64))
    kind = structure(w) if w.dim() >= 2 else "iid"
    rows = None
    if w.dim() >= 2 and w.shape[0] > 1:
        per = x.flatten(1).square().mean(1)
        expected = max(kurtosis - 1.0, 0.05) / (w.numel() / w.shape[0])
        if float(per.var()) / float(per.mean()) ** 2 > _ROWS_DIFFER * expected:
            rows = per.cpu().numpy().astype(np.float64)
    if kind != "orthogonal":
        kind = "centred" if _centred(x, torch.finfo(w.dtype).eps) else "iid"
    return Law(mean, variance, kurtosis, kind, "live", rows)


def _centred(x: Tensor, eps: float) -> bool:
    """Whether the entries of every row sum to zero over the input channels, at every tap, to 100 times the precision.

    For independent entries |Σ w|/√(n Σ w²) is of order 1/√n.
    """
    if x.dim() < 2 or x.shape[1] < 2:
        return False
    total, square = x.sum(1), x.square().sum(1)
    return bool((total.abs() <= 100.0 * eps * (x.shape[1] * square).sqrt()).all())


def buffer_laws(graph: Graph) -> dict[str, Law]:
    """Initial values of buffers that nobody has asked: running statistics of normalisations."""
    out: dict[str, Law] = {}
    for name, p in graph.parameters.items():
        if p.role == "buffer":
            out[name] = Law(1.0 if name.endswith("running_var") else 0.0, 0.0, structure="constant", source="default")
    return out


_SAMPLES = 1 << 20  # entries beyond which an operation without a rule is not sampled


def sampled(node: Node, bound: Mapping[str, Any], grad: Cotangent | None) -> Any:
    """Run an operation without a rule on entries drawn from its inputs' statistics.

    Forward (grad None): the outputs' statistics. Backward: per argument, the gradient of a random direction.

    Raises:
        ModelError: The operation cannot be found or does not run.
    """
    from firstlight.rules.empirical import from_data, uniform

    function = _function(node)
    generator = np.random.default_rng(0)
    values = {k: _entries(v, generator, grad is not None) for k, v in bound.items()}
    args = [values[k] for k in sorted((k for k in values if k.isdigit()), key=int)]
    named = {k: v for k, v in values.items() if not k.isdigit()}
    try:
        with torch.enable_grad() if grad is not None else torch.no_grad():
            result = function(*args, **named)
    except Exception as error:
        raise ModelError(
            node.name, got=f"{type(error).__name__}: {error}", expected=f"{node.op} to run on sampled inputs"
        ) from error
    outputs = [t for t in (result if isinstance(result, list | tuple) else [result]) if isinstance(t, Tensor)]
    if grad is None:
        return tuple(
            _statistics(t, spec.shape, uniform, from_data) for t, spec in zip(outputs, node.outputs, strict=False)
        )
    inputs = {k: v for k, v in values.items() if isinstance(v, Tensor) and v.requires_grad}
    if not inputs or not outputs[0].requires_grad:
        return {}
    level = grad.base.mean_q
    direction = torch.from_numpy(generator.standard_normal(outputs[0].shape) * level**0.5).to(outputs[0].dtype)
    found = torch.autograd.grad(outputs[0], list(inputs.values()), direction, allow_unused=True)
    return {k: Cotangent(from_data(g.numpy())) for k, g in zip(inputs, found, strict=True) if g is not None}


def _statistics(t: Tensor, shape: tuple[int, ...], uniform: Any, from_data: Any) -> Signal:
    if not t.is_floating_point():
        return uniform(shape, 0.0, 1.0, integer=True)
    return from_data(t.detach().double().numpy())


def _function(node: Node) -> Any:
    for prefix in ("", "special_", "linalg_", "fft_"):
        for space in (torch.nn.functional, torch, torch.Tensor, torch.linalg, torch.special, torch.fft):
            found = getattr(space, node.op.removeprefix(prefix), None)
            if callable(found):
                return found
    raise ModelError(
        node.name,
        got=f"the operation {node.op!r}, which is no function of torch",
        expected="an operation that can be run again",
        action="Register a rule for it (firstlight.rules.registry).",
    )


def _entries(v: Any, generator: np.random.Generator, track: bool) -> Any:
    if isinstance(v, tuple):
        return [_entries(item, generator, track) for item in v]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(v, Signal):
        return v
    if v.value is not None:
        return torch.as_tensor(np.asarray(v.value))
    if v.numel > _SAMPLES:
        raise ModelError("on_missing='measure'", got=f"a tensor of {v.numel} entries", expected=f"at most {_SAMPLES}")
    sd = np.sqrt(max(v.mean_q - v.mean_mean**2, 0.0))
    drawn = torch.from_numpy(generator.standard_normal(v.shape) * sd + v.mean_mean).float()
    return drawn.requires_grad_(track)
