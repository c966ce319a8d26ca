"""Extra passes at the drawn weights: what the loss pulls on, and whether it could tell samples apart. No step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from firstlight.capture.answers import best_readout, constant_answers, only_readout
from firstlight.capture.bounds import free_answers
from firstlight.capture.expects import expected
from firstlight.checks.evidence import REPEATS, Probe, Pull, repeat_error

Loss = Callable[[Any], torch.Tensor]
Gradients = dict[str, torch.Tensor]
Moving = dict[str, tuple[torch.Tensor, torch.Tensor]]
Levels = tuple[float | None, float | None, float | None]

_ADAM_EPS = 1e-8
# Entries up to which gradients are put into one vector.
_SMALL = 1 << 16


def probe(
    forward: Callable[[], Any],
    model: nn.Module,
    samples: int,
    loss: Loss | None,
    *,
    moved: bool = True,
    seed: int = 0,
    levels: Levels | None = None,
) -> Probe:
    """Differentiate the loss twice at the drawn weights: along what tells samples apart, and along what does not.

    Args:
        forward: Runs the model on the batch.
        model: The module; its parameters are read, and restored bit for bit.
        samples: Batch size.
        loss: From the model's output to a scalar; None takes a fixed random residual.
        moved: Whether to look at a nearby point too if nothing tells samples apart here.
        seed: Of the random residual and of the nearby point.
        levels: Losses of the answer 0, of the best constant one and of the best of all, where they are known already.

    Returns:
        The record; what could not be computed is named in its notes.
    """
    params = {n: p for n, p in model.named_parameters() if p.requires_grad}
    repeat = _repeat(forward, model)
    with without_noise(model), warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        here, moving = _probe(forward, params, samples, loss, seed, levels)
        if moved and _is_flat(here):
            known = (here.loss_silent, here.loss_constant, here.loss_free)
            here = replace(here, moved=_elsewhere(forward, params, samples, loss, seed, moving, known))
        layer = only_readout(here, model)
        if moved and layer is not None and loss is not None and here.loss_constant is not None:
            known = (here.loss_silent, here.loss_constant, here.loss_free)
            there = here.moved or _elsewhere(forward, params, samples, loss, seed, moving, known)
            if only_readout(there, model) is layer:  # nor will the next step reach more
                here = replace(here, loss_readout=best_readout(forward, layer, loss))
    here = replace(here, repeat=repeat)
    if not moved or here.repeats or not here.finite:
        return here
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        return replace(here, agreement=_agreement(forward, params, samples, loss, seed))


@torch.no_grad()
def _repeat(forward: Callable[[], Any], model: nn.Module) -> float | None:
    """Correlation over the samples between the outputs of two passes with different dropout masks."""
    noisy = nn.modules.dropout._DropoutNd
    if not any(isinstance(m, noisy) and m.training and m.p > 0.0 for m in model.modules()):
        return None
    correlation = 1.0
    for repeats in REPEATS:
        outs = [next(_floats(forward()), None) for _ in range(repeats)]
        if any(t is None or t.dim() < 2 or len(t) < 2 for t in outs):
            return None
        flat = torch.stack([(t.double() - t.double().mean(0, keepdim=True)).flatten() for t in outs if t is not None])
        size = float(flat.square().sum())
        if size == 0.0:
            return 1.0
        # Mean over pairs: |sum|² holds each pass with itself once, and every pair twice.
        correlation = (float(flat.sum(0).square().sum()) / size - 1.0) / (repeats - 1)
        if correlation > 3.0 * repeat_error(flat.shape[1], repeats):
            break
    return correlation


def _agreement(
    forward: Callable[[], Any], params: Mapping[str, nn.Parameter], samples: int, loss: Loss | None, seed: int
) -> float | None:
    """Mean correlation between Jᵀ r_c of passes with different dropout masks."""
    total: Gradients = {}
    size = 0.0
    for _ in range(REPEATS[1]):
        out = forward()
        tensors = [t for t in _floats(out) if t.dim() >= 1 and len(t) == samples]
        residuals = _residuals(out, tensors, loss, seed)[1] if tensors else []
        pairs = [(t, r) for t, r in zip(tensors, residuals, strict=True) if r is not None and t.requires_grad]
        if not pairs:
            return None
        f, r = max(pairs, key=lambda pair: pair[0].numel())
        found = _back(f, params, r.detach() - _mean(r.detach(), 0))
        size += sum(float(g.double().square().sum()) for g in found.values())
        total = {n: g.double() + total.get(n, 0.0) for n, g in found.items()}
    if size <= 0.0:
        return None
    return (sum(float(g.square().sum()) for g in total.values()) / size - 1.0) / (REPEATS[1] - 1)


def _elsewhere(
    forward: Callable[[], Any],
    params: Mapping[str, nn.Parameter],
    samples: int,
    loss: Loss | None,
    seed: int,
    moving: Moving,
    levels: Levels,
) -> Probe:
    """Probe a random point of what training can reach: nudge what has a gradient until no more tensors wake up."""
    saved = {n: p.detach().clone() for n, p in params.items()}
    awake: set[str] = set()
    try:
        while True:
            fresh = [n for n in moving if n not in awake]
            _nudge({n: params[n] for n in fresh}, moving)
            awake.update(fresh)
            there, moving = _probe(forward, params, samples, loss, seed, levels)
            if awake.issuperset(moving) or not there.finite:
                return there
    finally:
        with torch.no_grad():
            for name, p in params.items():
                p.copy_(saved[name])


def _is_flat(p: Probe) -> bool:
    """Some trainable parameter gets a gradient, and next to nothing in it tells samples apart."""
    return p.connected and p.finite and p.contrast < 1e-2


def _probe(
    forward: Callable[[], Any],
    params: Mapping[str, nn.Parameter],
    samples: int,
    loss: Loss | None,
    seed: int,
    levels: Levels | None,
) -> tuple[Probe, Moving]:
    out = forward()
    tensors = [t for t in _floats(out) if t.dim() >= 1]
    if not tensors:
        notes = ("the model returned no floating-point tensor with a sample axis",)
        return Probe(samples=samples, trainable=len(params), usable=False, notes=notes), {}
    value, residuals, notes = _residuals(out, tensors, loss, seed)
    pairs = [(t, r) for t, r in zip(tensors, residuals, strict=True) if r is not None]
    if not pairs:
        # The loss does not look at the outputs: cut off, or computed inside the model beside them.
        inside = any(t.requires_grad for t in pytree.tree_leaves(out) if isinstance(t, torch.Tensor) and t.dim() == 0)
        return Probe(
            samples=samples, loss=value, trainable=len(params), connected=inside, usable=not inside, notes=notes
        ), {}
    f, r = max(pairs, key=lambda pair: pair[0].numel())
    axis = 0 if f.shape[0] == samples or f.dim() == 1 else None
    if axis is None and math.prod(f.shape[:-1]) == 1:
        samples, axis = 1, 0  # one answer for all that was given (a graph, a set): there is nothing to tell apart
    f32, r32 = f.detach().double(), r.detach().double()
    mean_r = _mean(r32, axis)
    centred = r32 - mean_r
    generator = torch.Generator(device="cpu").manual_seed(seed)
    if samples < 2 and axis is not None:
        centred = r32  # one sample: whether anything pulls is all that can be asked
    elif float(r32.norm()) > 0.0 and float(centred.norm()) <= 1e-6 * float(r32.norm()):
        # A loss that pulls all samples alike (a sum, one class only) says nothing on telling them apart: ask for it.
        noise = torch.randn(r32.shape, generator=generator, dtype=torch.float64).to(r32.device)
        centred = (noise - _mean(noise, axis)) * (float(r32.norm()) / r32.numel() ** 0.5)
        notes = (*notes, "the loss pulls all samples alike: a fixed random residual was used")
    spread = f32 - _mean(f32, axis)
    silent, constant, free = _levels(out, f, loss, axis) if levels is None else levels
    finite = bool(torch.isfinite(f32).all() and torch.isfinite(r32).all())
    finite = finite and (value is None or math.isfinite(value))
    common = {
        "samples": samples,
        "output_rms": _rms(f32),
        "output_spread": _rms(spread),
        "outputs": f.numel() // max(1, samples),
        "loss": value,
        "loss_silent": silent,
        "loss_constant": constant,
        "loss_free": free,
        "expected": expected(f, r, loss) if loss is not None and out is f else None,
        "residual": float(centred.norm()),
        "residual_mean": float(mean_r.expand_as(r32).norm()),
        "trainable": len(params),
        "notes": notes,
    }
    if not params or not f.requires_grad:
        return Probe(**common, connected=False, finite=finite), {}
    if not finite:
        return Probe(**common, finite=False), {}
    scale = float(centred.norm()) or float(r32.norm()) or 1.0
    shift = torch.randn(mean_r.shape, generator=generator, dtype=torch.float64).to(r32.device).expand_as(r32)
    shift = shift * (scale / max(float(shift.norm()), 1e-300))
    signal, against = _back(f, params, centred), _back(f, params, shift)
    pulls = _pulls(signal, against)
    finite = finite and all(math.isfinite(p.signal) for p in pulls.values())
    # What a first step moves: whatever tells samples apart and whatever shifts them.
    moving = {n: (signal[n], against[n]) for n, p in pulls.items() if p.signal > 0.0 or p.constant > 0.0}
    return Probe(**common, pulls=MappingProxyType(pulls), connected=bool(pulls), finite=finite), moving


def _levels(out: Any, f: torch.Tensor, loss: Loss | None, axis: int | None) -> Levels:
    """What is known of the loss without any network."""
    silent, constant = constant_answers(out, f, loss, axis)
    return silent, constant, free_answers(out, f, loss, constant)


def _pulls(signal: Gradients, against: Gradients) -> dict[str, Pull]:
    """Norms and reach of every parameter's two gradients; small ones all at once, since calls cost more than sums."""
    names = [n for n in signal if n in against]
    small = [n for n in names if signal[n].numel() <= _SMALL]
    pulls: dict[str, Pull] = {}
    with torch._C.DisableTorchFunction():
        for group in ([small] if small else []) + [[n] for n in names if signal[n].numel() > _SMALL]:
            g, c = (torch.cat([which[n].flatten().double() for n in group]) for which in (signal, against))
            entries = [signal[n].numel() for n in group]
            lengths = torch.tensor(entries, device=g.device)
            size = g.abs()
            sums = [
                torch.segment_reduce(t, "sum", lengths=lengths).tolist()
                for t in (g * g, c * c, size * size / (size + _ADAM_EPS))
            ]
            for n, count, gg, cc, reach in zip(group, entries, *sums, strict=True):
                pulls[n] = Pull(math.sqrt(gg), math.sqrt(cc), count, reach)
    return {n: pulls[n] for n in names}


def _back(f: torch.Tensor, params: Mapping[str, nn.Parameter], v: torch.Tensor) -> Gradients:
    grads = torch.autograd.grad(f, list(params.values()), v.to(f.dtype), retain_graph=True, allow_unused=True)
    return {n: g.detach() for n, g in zip(params, grads, strict=True) if g is not None}


def _residuals(
    out: Any, tensors: Sequence[torch.Tensor], loss: Loss | None, seed: int
) -> tuple[float | None, list[torch.Tensor | None], tuple[str, ...]]:
    if loss is None:
        generator = torch.Generator(device="cpu").manual_seed(seed)
        big = max(tensors, key=lambda t: t.numel())
        noise = torch.randn(big.shape, generator=generator, dtype=torch.float64).to(big.device, big.dtype)
        noise = noise / max(1, big.shape[0])
        return (
            None,
            [noise if t is big else None for t in tensors],
            ("no loss: a fixed random residual was used",),
        )
    value = loss(out)
    live = [t for t in tensors if t.requires_grad]
    if not value.requires_grad or not live:
        # The loss may still depend on the outputs: differentiate it with respect to copies of them.
        copies, rebuilt = _detached(out)
        again = loss(rebuilt)
        if not again.requires_grad:
            return float(value.detach()), [None] * len(tensors), ()
        found = iter(torch.autograd.grad(again, copies, allow_unused=True))
        return float(value.detach()), [next(found) for _ in tensors], ()
    found = iter(torch.autograd.grad(value, live, retain_graph=True, allow_unused=True))
    return float(value.detach()), [next(found) if t.requires_grad else None for t in tensors], ()


def _detached(out: Any) -> tuple[list[torch.Tensor], Any]:
    copies: list[torch.Tensor] = []

    def swap(t: torch.Tensor) -> torch.Tensor:
        if t.is_floating_point() and t.dim() >= 1:
            t = t.detach().clone().requires_grad_(True)
            copies.append(t)
        return t

    return copies, pytree.tree_map_only(torch.Tensor, swap, out)


def _floats(out: Any) -> Iterator[torch.Tensor]:
    for leaf in pytree.tree_leaves(out):
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
            yield leaf


def _mean(x: torch.Tensor, axis: int | None) -> torch.Tensor:
    """Mean over the samples; over all leading axes where the first one is not the batch."""
    if axis is not None:
        return x.mean(0, keepdim=True)
    return x.mean(tuple(range(x.dim() - 1)), keepdim=True)


def _rms(x: torch.Tensor) -> float:
    return float(x.square().mean().sqrt())


@contextmanager
def without_noise(model: nn.Module) -> Iterator[None]:
    """Dropout off, batch statistics as they are: noise must not pass for a signal about the input."""
    keep = nn.modules.batchnorm._BatchNorm
    changed = [m for m in model.modules() if m.training and not isinstance(m, keep)]
    for m in changed:
        m.training = False
    try:
        yield
    finally:
        for m in changed:
            m.training = True


@torch.no_grad()
def _nudge(params: Mapping[str, nn.Parameter], moving: Moving) -> None:
    """Move the entries that get a gradient: by a tenth of their tensor's size, or to an ordinary size from zero.

    A gradient that is zero on a set of measure zero only (a saddle, as behind a zero-initialised branch) is not
    zero at a random point of what training can reach; one that is zero there stays zero (the loss is piecewise
    analytic in the weights). The nudge is an erratic function of weight and gradient, so entries that are equal in
    both, as those of identical units, stay equal: no step of training could tell them apart either.
    """
    for name, p in params.items():
        signal, against = moving[name]
        g = signal.double() + against.double()
        fan_in = max(1, p.numel() // max(1, p.shape[0])) if p.dim() > 1 else 1
        rms = _rms(p.double())
        size = 0.1 * rms if rms > 0.0 else (2.0 / fan_in) ** 0.5 if p.dim() > 1 else 0.1
        angle = 53.0 * p.double() / (rms or 1.0) + 37.0 * g / _rms(g)
        p.add_((size * torch.sin(angle) * (g != 0)).to(p.dtype))
