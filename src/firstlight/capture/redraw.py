"""Draw the weights again, K times, and see how the lengths of signals and gradients are distributed.

A parameter's empirical law: constant tensors stay; matrices with orthonormal rows or columns are drawn again from the
Haar measure at the same scale; all others get independent entries drawn with replacement from the tensor's own
entries, which keeps mean, variance and kurtosis. A mean within its own sampling error is chance, and gets a random sign
entry by entry, as `predict` takes it: three biases that happen to be negative would close a rectifier in every draw.
What else holds entries together (mirrored rows, a zero border) is lost, and said in the notes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from firstlight.capture.laws import law_of
from firstlight.capture.parameters import structure
from firstlight.capture.preserve import preserved
from firstlight.graph.measurement import Distribution, Measurement

# Overwrites a module's parameters with fresh ones, in place, from a seed.
Redraw = Callable[[nn.Module, int], None]
_SEEDS = (1 << 63) - 1  # of generators; a seed's complement in it belongs to no other draw


class Pass(NamedTuple):
    """What one pass leaves, by node name: q of outputs and of gradients, and the cosine between samples of outputs."""

    forward: dict[str, float]
    backward: dict[str, float]
    cosine: dict[str, float | None]


def with_draws(
    result: Measurement,
    model: nn.Module,
    run: Callable[[], Pass],
    draws: int,
    redraw: Redraw | None,
    law: str,
    seed: int,
) -> Measurement:
    """`result` with the distributions of ln q and of cosines over re-drawn weights.

    Args:
        result: The measurement at the live weights.
        model: The module; its weights come back bit for bit.
        run: One pass.
        draws: Number of re-draws.
        redraw: Overwrites the weights; by default each parameter's empirical law.
        law: What to call it in the result.
        seed: Draw k uses seed + k.
    """
    notes: list[str] = []
    passes: list[Pass] = []
    with preserved(model, weights=True):
        draw = redraw or empirical_redraw(model, notes)
        for k in range(draws):
            draw(model, seed + k)
            passes.append(run())
    names = [n.name for n in result.nodes]
    source = next((n.name for n in result.nodes if n.op == "input"), None)
    forward = {name: _logs([p.forward.get(name) for p in passes]) for name in names}
    backward = {name: _logs([p.backward.get(name) for p in passes]) for name in names}
    cosine = {name: _known([p.cosine.get(name) for p in passes]) for name in names}
    ends = [backward[name] for name in result.outputs if name in backward]
    start = forward.get(source, ()) if source else ()
    end = ends[0] if len(ends) == 1 else ()
    nodes = tuple(
        replace(
            n,
            log_q=Distribution(forward[n.name], start),
            log_grad_q=Distribution(backward[n.name], end) if any(v == v for v in backward[n.name]) else None,
            cosines=Distribution(cosine[n.name]) if any(v == v for v in cosine[n.name]) else None,
        )
        for n in result.nodes
    )
    return replace(result, nodes=nodes, draws=draws, draw_law=law, notes=(*result.notes, *notes))


def _known(values: list[float | None]) -> tuple[float, ...]:
    return tuple(math.nan if v is None else v for v in values)


def _logs(values: list[float | None]) -> tuple[float, ...]:
    return tuple(math.nan if v is None or v != v else (math.log(v) if v > 0 else -math.inf) for v in values)


def empirical_redraw(model: nn.Module, notes: list[str]) -> Redraw:
    """A function that draws every parameter of `model` again from the law of its present entries.

    Args:
        model: The module; its parameters are copied now.
        notes: Receives, in plain words, what the law leaves out.
    """
    originals: list[tuple[nn.Parameter, Tensor, str]] = []
    symmetric: set[int] = set()
    for name, p in model.named_parameters():
        w = p.detach()
        if not w.is_floating_point() or w.layout != torch.strided:
            notes.append(f"{name} ({w.dtype}) was left alone in the re-draws")
            continue
        constant = bool(w.numel() == 0 or (w == w.flatten()[0]).all())
        kind = structure(w, constant=constant)
        if kind != "constant":
            originals.append((p, w.clone(), kind))
            if kind == "iid" and law_of(w).chance(w.numel()):
                symmetric.add(len(originals) - 1)
    if any(kind != "orthogonal" for _, _, kind in originals):
        notes.append(
            "re-draws from a parameter's own entries keep constants and orthogonality; any other structure "
            "(identity blocks, equal rows, sparsity patterns, dependence between entries) is lost in them"
        )

    def redraw(_model: nn.Module, seed: int) -> None:
        generator, signs = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(~seed & _SEEDS)
        with torch.no_grad():
            for i, (p, w, kind) in enumerate(originals):
                drawn = _haar_like(w, generator) if kind == "orthogonal" else _bootstrap(w, generator)
                p.data.copy_(drawn * _signs(w, signs) if i in symmetric else drawn)

    return redraw


def _bootstrap(w: Tensor, generator: torch.Generator) -> Tensor:
    index = torch.randint(w.numel(), (w.numel(),), generator=generator)
    return w.flatten()[index.to(w.device)].view_as(w)


def _signs(w: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(2, w.shape, generator=generator).to(device=w.device, dtype=w.dtype) * 2 - 1


def _haar_like(w: Tensor, generator: torch.Generator) -> Tensor:
    """A Haar-distributed matrix of the shape and the mean square of `w` (QR with the signs of R's diagonal)."""
    rows = len(w)
    columns = w.numel() // rows
    normal = torch.randn(max(rows, columns), min(rows, columns), generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(normal)
    q = q * r.diagonal().sign()
    q = q if rows >= columns else q.T
    scale = math.sqrt(float(w.double().square().mean()) * max(rows, columns))
    return (q * scale).view(w.shape).to(device=w.device, dtype=w.dtype)
