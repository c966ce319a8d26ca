"""Laws of parameters from their live entries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from firstlight.capture.parameters import structure
from firstlight.capture.tensors import dense, is_sparse
from firstlight.errors import InputError
from firstlight.graph.ir import FloatArray, Graph, Law, ParameterRef
from firstlight.graph.signal import INFINITY

_PICKS = frozenset({"getitem", "select", "unbind", "split", "chunk", "narrow", "index_select"})
_FEW = 64  # entries of a list of numbers; a longer one is a table
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
    short = _short_lists(graph)
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
        law = law_of(found[0] if parameter.role == "parameter" else _bounded(found[0]))
        out[name] = replace(law, row=_entries(found[0])) if name in short and not found[0].is_complex() else law
    return out


def _short_lists(graph: Graph) -> frozenset[str]:
    """Short lists of numbers that are read one by one (λ[0]·x + λ[1]·y): each is itself, no draw from all of them."""
    return frozenset(
        r.name
        for node in graph.nodes
        if node.op in _PICKS
        for r in node.read
        if isinstance(r, ParameterRef) and 1 < math.prod(graph.parameters[r.name].spec.shape) <= _FEW
    )


def _entries(w: Tensor) -> FloatArray:
    return dense(w).detach().to("cpu", torch.float64).numpy()


def _bounded(mask: Tensor) -> Tensor:
    """A buffer with a large number in place of infinity, which hides entries from a softmax."""
    return mask if mask.is_complex() or is_sparse(mask) else mask.double().nan_to_num(float("nan"), INFINITY, -INFINITY)


def law_of(w: Tensor) -> Law:
    """Mean, variance, kurtosis and structure of the entries; mean squares per row where they differ."""
    if w.numel() == 0:
        return Law(0.0, 0.0, structure="constant")
    w = dense(w)
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
    """Running statistics of normalisations, which have no entries: 0 and 1, as they are at the start."""
    start = {"running_mean": 0.0, "running_var": 1.0, "num_batches_tracked": 0.0}
    return {
        name: Law(start[kind], 0.0, structure="constant", source="default")
        for name, p in graph.parameters.items()
        if p.role == "buffer" and (kind := name.rpartition(".")[2]) in start
    }


TOKEN = 0.02  # standard deviation from which class tokens and position tables are usually drawn
_LAID_OUT = frozenset({"view", "reshape", "expand", "expand_as", "unsqueeze", "squeeze", "transpose", "permute", "to"})


def assumed_laws(graph: Graph, names: Sequence[str]) -> dict[str, Law]:
    """Laws of tensors that no scheme draws and that have no entries: factors are 1, what is added is drawn small.

    A factor 1 + w, as some norms have it, is 1 as well: w is 0.

    Args:
        graph: The network.
        names: Of the parameters.
    """
    held: dict[str, dict[str, float]] = {}  # by node: the tensors that it lays out, and what is added to each
    found = {n: Law(0.0, TOKEN**2, source="assumed") for n in names}
    for node in graph.nodes:
        read = {r.name: 0.0 for r in node.read if isinstance(r, ParameterRef)}
        for r in node.refs:
            read |= held.get(r.node, {})
        numbers = [a for a in node.args if isinstance(a, int | float)]
        if node.op in ("mul", "div"):
            factors = {n: Law(1.0 - added, 0.0, structure="constant", source="assumed") for n, added in read.items()}
            found |= {n: law for n, law in factors.items() if n in found}
        elif node.op in _LAID_OUT:
            held[node.name] = read
        elif node.op == "add" and len(numbers) == 1:
            held[node.name] = {n: added + numbers[0] for n, added in read.items()}
    return found
