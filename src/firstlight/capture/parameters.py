"""Parameters -> `ParameterStats`: their entries, their symmetry, and the gradients that reached them.

q, the mean, the largest entry, NaN, Inf and repeated rows are exact. Kurtosis and shares come from at most 16384
entries, in 16 evenly spaced blocks (standard error of a normal law's kurtosis √(24/16384) = .04, of a share p
√(p(1-p)/16384)); the share of distinct values from the first 1024.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from firstlight.capture.statistics import moments
from firstlight.graph.measurement import ParameterStats

_BLOCKS, _BLOCK = 16, 1024
_DISTINCT_ENTRIES = 1024
_PROBES = 8  # rows whose angles decide whether a matrix is orthogonal
_HASHED = 4  # columns that go into a row's hash; rows of equal hash are then compared whole


def parameter_stats(
    model: nn.Module, grads: Mapping[int, Tensor | None], uses: Mapping[str, int]
) -> tuple[ParameterStats, ...]:
    """One record per parameter, tied ones once under their first name.

    Args:
        model: The module.
        grads: id of the parameter -> its gradient, where one arrived.
        uses: Qualified name -> number of operations that read it.
    """
    names: dict[int, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(p), []).append(name)
    types = {path: type(module).__name__ for path, module in model.named_modules()}
    return tuple(
        _one(name, p, tuple(names[id(p)][1:]), types[name.rpartition(".")[0]], grads.get(id(p)), uses)
        for name, p in model.named_parameters()
    )


def _one(
    name: str,
    p: nn.Parameter,
    aliases: tuple[str, ...],
    module_type: str,
    grad: Tensor | None,
    uses: Mapping[str, int],
) -> ParameterStats:
    w = p.detach()
    if w.layout != torch.strided:
        w = w.to_dense()
    if not (w.is_floating_point() or w.is_complex()):
        w = w.double()
    if w.is_complex():
        w = torch.view_as_real(w)
    m = moments(w)
    few = blocks(w)
    low, high = m.low, m.high
    constant = low == high
    duplicates = 0 if m.nan_count else duplicate_rows(w, constant)
    grad_numbers: dict[str, float | int] = {}
    if grad is not None:
        g = grad.detach() if grad.layout == torch.strided else grad.coalesce().values()
        g = torch.view_as_real(g) if g.is_complex() else g
        gm = moments(g)
        filled = g.numel() / max(w.numel(), 1)  # a sparse gradient is zero elsewhere
        grad_numbers = {
            "grad_q": gm.q * filled if g.numel() else 0.0,
            "grad_abs_max": gm.abs_max,
            "grad_zero_fraction": 1.0 - filled * (1.0 - zero_share(blocks(g), gm.abs_max)),
            "grad_nan_count": gm.nan_count,
            "grad_inf_count": gm.inf_count,
        }
    return ParameterStats(
        name=name,
        shape=tuple(p.shape),
        dtype=str(p.dtype).removeprefix("torch."),
        module_type=module_type,
        requires_grad=p.requires_grad,
        mean=m.mean,
        q=m.q,
        kurtosis=None if constant else kurtosis(few),
        zero_fraction=zero_share(few, m.abs_max),
        nan_count=m.nan_count,
        inf_count=m.inf_count,
        duplicate_rows=duplicates,
        aliases=aliases,
        uses=sum(uses.get(n, 0) for n in (name, *aliases)),
        abs_max=m.abs_max,
        subnormal_fraction=_subnormal_fraction(few),
        distinct_fraction=_distinct_fraction(w),
        structure=structure(w, constant=constant, identical=0 < duplicates == len(w) - 1 if w.dim() else False),
        **grad_numbers,  # pyright: ignore[reportArgumentType]
    )


def blocks(w: Tensor) -> Tensor:
    """At most 16384 entries: the whole tensor, or 16 evenly spaced blocks of 1024."""
    flat = w.reshape(-1)
    if flat.numel() <= _BLOCKS * _BLOCK:
        return flat
    length = flat.numel() // _BLOCKS
    return flat[: length * _BLOCKS].view(_BLOCKS, length)[:, :_BLOCK].reshape(-1)


def zero_share(few: Tensor, abs_max: float) -> float:
    """Share of exact zeros; below 1 unless the largest entry of the whole tensor is 0."""
    if few.numel() == 0:
        return 0.0
    nonzero = int(torch.count_nonzero(few))
    return 1.0 - max(nonzero, 0 if abs_max == 0.0 else 1) / few.numel()


def kurtosis(few: Tensor) -> float | None:
    """E (w-m)⁴ / (E (w-m)²)²; None without spread."""
    centred = few.float() if few.element_size() < 4 else few
    centred = centred - centred.mean()
    scale = float(centred.abs().max()) if few.numel() else 0.0
    if few.numel() < 2 or not 0.0 < scale < math.inf:
        return None
    squares = (centred / scale).square()
    return float(squares.square().mean()) / float(squares.mean()) ** 2


def duplicate_rows(w: Tensor, constant: bool = False) -> int:
    """Rows along the first axis that equal an earlier row bit for bit; 0 for vectors and single rows."""
    if w.dim() < 2 or len(w) < 2 or w.numel() <= len(w):
        return 0
    if constant:
        return len(w) - 1
    rows = w.reshape(len(w), -1)
    last = rows[:, -1].sort().values
    if not bool((last[1:] == last[:-1]).any()):  # one column already tells all rows apart
        return 0
    columns = torch.linspace(0, rows.shape[1] - 1, min(_HASHED, rows.shape[1]), device=w.device).long()
    key = torch.zeros(len(rows), dtype=torch.int64, device=w.device)
    for bits in _bits(rows[:, columns]).unbind(1):
        key = key * 1000003 + bits  # wraps around, exactly
    order = key.argsort(stable=True)
    key = key[order]
    same = (key[1:] == key[:-1]).nonzero()[:, 0]
    count = 0
    for piece in same.split(4096):
        count += int((rows[order[piece]] == rows[order[piece + 1]]).all(1).sum())
    return count


def _bits(x: Tensor) -> Tensor:
    width = {2: torch.int16, 4: torch.int32, 8: torch.int64}.get(x.element_size())
    x = x.contiguous() + 0.0  # -0.0 becomes 0.0
    return x.view(width).long() if width else x.double().view(torch.int64)


def structure(w: Tensor, *, constant: bool = False, identical: bool = False) -> str:
    """Say "constant", "identical rows", "orthogonal" or "iid": how the entries hang together.

    A matrix (first axis × the rest) is called orthogonal if eight of its shorter side's vectors have equal lengths and
    right angles, to 100 times the format's precision. For iid entries an angle's cosine is of order 1/√length.
    """
    if constant or w.numel() < 2:
        return "constant"
    if identical:
        return "identical rows"
    if w.dim() < 2 or min(len(w), w.numel() // len(w)) < 2:
        return "iid"
    rows = w.reshape(len(w), -1)
    if rows.shape[0] > rows.shape[1]:
        rows = rows.T
    chosen = torch.linspace(0, len(rows) - 1, min(_PROBES, len(rows)), device=w.device).long()
    v = rows[chosen].double()
    gram = v @ v.T
    size = gram.diagonal().mean()
    precision = torch.finfo(w.dtype).eps * 100 if w.dtype.is_floating_point else 1e-4
    off = (gram / size - torch.eye(len(v), dtype=gram.dtype, device=gram.device)).abs().max()
    return "orthogonal" if float(size) > 0 and float(off) < precision else "iid"


def _subnormal_fraction(few: Tensor) -> float:
    size = few.abs()
    small = int((size < torch.finfo(few.dtype).tiny).sum())
    if not small:
        return 0.0
    nonzero = int(torch.count_nonzero(few))
    return (small - (few.numel() - nonzero)) / max(nonzero, 1)


def _distinct_fraction(w: Tensor) -> float:
    flat = w.reshape(-1)[:_DISTINCT_ENTRIES]
    if len(flat) < 2:
        return 1.0
    ordered = flat.sort().values
    return (1 + int((ordered[1:] != ordered[:-1]).sum())) / len(flat)


def use_counts(parameters: Iterable[tuple[str, ...]]) -> dict[str, int]:
    """Qualified name -> how many of the operations, each given by the parameters it read, read it."""
    counts: dict[str, int] = {}
    for names in parameters:
        for name in names:
            counts[name] = counts.get(name, 0) + 1
    return counts
