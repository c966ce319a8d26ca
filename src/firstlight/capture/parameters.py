"""Parameters -> `ParameterStats`: their entries, their symmetry, and the gradients that reached them.

q, the mean, the largest entry, NaN, Inf and repeated rows are exact. Kurtosis and shares come from at most 16384
entries, in 16 evenly spaced blocks (standard error of a normal law's kurtosis √(24/16384) = .04, of a share p
√(p(1-p)/16384)); the share of distinct values from the first 1024; the share of zeros in a gradient from blocks of 256.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from firstlight.capture.census import census
from firstlight.capture.moments import Moments, as_numbers, moments, stacked_moments
from firstlight.capture.stacks import Scratch
from firstlight.graph.measurement import ParameterStats

_BLOCKS, _BLOCK, _SHORT = 16, 1024, 256  # the short blocks are those of gradients
_TOGETHER = 1 << 17  # entries that are stacked and worked off together: they stay in the cache
_DISTINCT_ENTRIES = 1024
_PROBES = 8  # rows whose angles decide whether a matrix is orthogonal
_HASHED = 4  # columns that go into a row's hash; rows of equal hash are then compared whole


class Entries(NamedTuple):
    """Numbers of one tensor's entries; the last three only where they were asked for."""

    moments: Moments
    zero_share: float
    kurtosis: float | None = None
    subnormal: float = 0.0
    distinct: float = 1.0


def parameter_stats(
    model: nn.Module, grads: Mapping[int, Tensor | None], uses: Mapping[str, int]
) -> tuple[ParameterStats, ...]:
    """One record per parameter, tied ones once under their first name.

    Args:
        model: The module.
        grads: id of the parameter -> its gradient, where one arrived.
        uses: Qualified name -> number of operations that read it.
    """
    parts = census(model)
    names, parameters = parts.names, {id(p): p for p in parts.parameters.values()}
    types = {path: type(module).__name__ for path, module in parts.modules}
    weights = [_dense(p.detach()) for p in parameters.values()]
    scratch = Scratch()
    values = entries(weights, scratch, laws=True)
    shapes = shape_facts(weights, [e.moments for e in values])
    arrived = {key: _dense_gradient(g) for key, g in grads.items() if g is not None}
    grad_values = dict(zip(arrived, entries(list(arrived.values()), scratch), strict=True))
    stats: list[ParameterStats] = []
    for (key, p), w, e, (duplicates, kind) in zip(parameters.items(), weights, values, shapes, strict=True):
        m = e.moments
        name, *aliases = names[key]
        grad_numbers: dict[str, float | int] = {}
        if key in grad_values:
            g = grad_values[key]
            filled = arrived[key].numel() / max(w.numel(), 1)  # a sparse gradient is zero elsewhere
            grad_numbers = {
                "grad_q": g.moments.q * filled if filled else 0.0,
                "grad_abs_max": g.moments.abs_max,
                "grad_zero_fraction": 1.0 - filled * (1.0 - g.zero_share),
                "grad_nan_count": g.moments.nan_count,
                "grad_inf_count": g.moments.inf_count,
            }
            if duplicates and arrived[key].shape == w.shape:
                grad_numbers["repeats_apart"] = repeats_apart(w, arrived[key])
        stats.append(
            ParameterStats(
                name=name,
                shape=tuple(p.shape),
                dtype=str(p.dtype).removeprefix("torch."),
                module_type=types[name.rpartition(".")[0]],
                requires_grad=p.requires_grad,
                mean=m.mean,
                q=m.q,
                kurtosis=e.kurtosis,
                zero_fraction=e.zero_share,
                nan_count=m.nan_count,
                inf_count=m.inf_count,
                duplicate_rows=duplicates,
                aliases=tuple(aliases),
                uses=sum(uses.get(n, 0) for n in names[key]),
                abs_max=m.abs_max,
                subnormal_fraction=e.subnormal,
                distinct_fraction=e.distinct,
                structure=kind,
                **grad_numbers,  # pyright: ignore[reportArgumentType]
            )
        )
    return tuple(stats)


def _dense(w: Tensor) -> Tensor:
    if w.layout != torch.strided:
        w = w.to_dense()
    if w.is_complex():
        return torch.view_as_real(w)
    return w if w.is_floating_point() else w.double()


def _dense_gradient(g: Tensor) -> Tensor:
    g = g.detach() if g.layout == torch.strided else g.coalesce().values()
    return torch.view_as_real(g) if g.is_complex() else g


def _alike(tensors: list[Tensor], form: Callable[[Tensor], object], room: int) -> Iterator[list[int]]:
    """Positions of the tensors that can be stacked: of one form, type and device, at most `room` entries in all."""
    groups: dict[object, list[int]] = {}
    for i, t in enumerate(tensors):
        groups.setdefault((form(t), t.dtype, t.device), []).append(i)
    for group in groups.values():
        step = max(1, room // max(1, min(tensors[group[0]].numel(), _BLOCKS * _BLOCK)))
        for start in range(0, len(group), step):
            yield group[start : start + step]


def entries(tensors: list[Tensor], scratch: Scratch, *, laws: bool = False) -> list[Entries]:
    """Numbers of the entries of many tensors; those of equal size are worked off together.

    Args:
        tensors: Dense, real, floating-point.
        scratch: Is overwritten.
        laws: Also the mean and the numbers that tell a weight's law.
    """
    found: dict[int, Entries] = {}
    for group in _alike(tensors, Tensor.numel, _TOGETHER):
        some = [tensors[i] for i in group]
        if some[0].numel() == 0:
            found |= dict.fromkeys(group, Entries(moments(some[0]), 0.0))
            continue
        parts = [blocks(t, _BLOCK if laws else _SHORT) for t in some]
        few = torch.stack(parts, out=scratch.room("stack", (len(some), len(parts[0])), parts[0]))
        whole = few.shape[1] == some[0].numel()
        ms = stacked_moments(few) if whole else [moments(t, with_mean=laws) for t in some]
        shares = _zeros_and_subnormal(few, ms, scratch)
        if laws:
            columns = zip(group, ms, *shares, _distinct(some), kurtoses(few, ms), strict=True)  # overwrites `few`
            found |= {i: Entries(m, zero, k, small, d) for i, m, zero, small, d, k in columns}
        else:
            found |= {i: Entries(m, zero) for i, m, zero in zip(group, ms, shares[0], strict=True)}
    return [found[i] for i in range(len(tensors))]


def shape_facts(weights: list[Tensor], known: list[Moments]) -> list[tuple[int, str]]:
    """(repeated rows, structure) of each weight; only those that a cheap look leaves open are looked at in full."""
    found: dict[int, tuple[int, str]] = {}
    for group in _alike(weights, lambda w: w.shape, _TOGETHER):
        apart = _all_apart([weights[i] for i in group])
        skew = _clearly_skew([weights[i] for i in group])
        for i, different, plain in zip(group, apart, skew, strict=True):
            w, m = weights[i], known[i]
            constant = m.low == m.high
            if plain and different and not constant:
                found[i] = (0, "iid")
                continue
            duplicates = 0 if m.nan_count or (different and not constant) else duplicate_rows(w, constant)
            identical = 0 < duplicates == len(w) - 1 if w.dim() else False
            found[i] = (duplicates, structure(w, constant=constant, identical=identical))
    return [found[i] for i in range(len(weights))]


def _all_apart(alike: list[Tensor]) -> list[bool]:
    """Whether one column alone tells all rows apart; True for what has no rows to compare."""
    first = alike[0]
    if first.dim() < 2 or len(first) < 2 or first.numel() <= len(first):
        return [True] * len(alike)
    last = _sorted(torch.stack([w.reshape(len(w), -1)[:, -1] for w in alike]))
    return (last[:, 1:] != last[:, :-1]).all(1).tolist()


def _clearly_skew(alike: list[Tensor]) -> list[bool]:
    """Whether two rows (columns of a tall matrix) are far from a right angle, so that `structure` says "iid"."""
    first = alike[0]
    if first.dim() < 2 or min(len(first), first.numel() // max(len(first), 1)) < 2:
        return [first.dim() > 0 and first.numel() > 1] * len(alike)
    matrices = [w.reshape(len(w), -1) for w in alike]
    pairs = torch.stack([m[:2] if m.shape[0] <= m.shape[1] else m[:, :2].T for m in matrices]).double()
    gram = torch.bmm(pairs, pairs.transpose(1, 2))
    limit = 2.0 * _precision(first) * torch.maximum(gram[:, 0, 0], gram[:, 1, 1])
    return (gram[:, 0, 1].abs() > limit).tolist()


def blocks(w: Tensor, length: int = _BLOCK) -> Tensor:
    """At most 16 × `length` entries: the whole tensor, or 16 evenly spaced blocks."""
    flat = w.reshape(-1)
    if flat.numel() <= _BLOCKS * length:
        return flat
    step = flat.numel() // _BLOCKS
    return flat[: step * _BLOCKS].view(_BLOCKS, step)[:, :length].reshape(-1)


def _zeros_and_subnormal(few: Tensor, ms: list[Moments], scratch: Scratch) -> tuple[list[float], list[float]]:
    """Of each row, the share of exact zeros, and of the others below the format's smallest normal number.

    The share of zeros is below 1 unless the largest entry of the whole tensor is 0. Counts are exact in float32, and
    numbers are counted several times faster than booleans.
    """
    size, tiny = few.shape[1], torch.finfo(few.dtype).tiny
    rows = few if few.element_size() >= 4 else few.float()
    sizes = torch.abs(rows, out=scratch.room("spare", rows.shape, rows))
    if float(sizes.amin()) >= tiny:
        return [0.0] * len(few), [0.0] * len(few)
    small = as_numbers(torch.lt(sizes, tiny, out=sizes).sum(1))  # zeros among them
    zeros = as_numbers(torch.eq(rows, 0.0, out=sizes).sum(1))
    more = np.array([m.abs_max != 0.0 for m in ms]) & (zeros == size)
    return ((zeros - more) / size).tolist(), ((small - zeros) / np.maximum(size - zeros, 1)).tolist()


def kurtoses(few: Tensor, ms: list[Moments]) -> list[float | None]:
    """E (w-m)⁴ / (E (w-m)²)² of each row, None without spread. `few` may be overwritten."""
    n = few.shape[1]
    if n < 2:
        return [None] * len(few)
    x = few if few.element_size() >= 4 else few.float()
    x.sub_(x.mean(1, keepdim=True))
    scale = as_numbers(torch.linalg.vector_norm(x, dim=1)) / n**0.5
    if not ((scale > _FOURTH[0]) & (scale < _FOURTH[1])).all():  # squares of squares leave the range
        largest = torch.maximum(x.amax(1, keepdim=True), -x.amin(1, keepdim=True))
        x.div_(largest)
        scale = as_numbers(largest[:, 0])
    x.square_()
    second, root = as_numbers(x.mean(1)), as_numbers(torch.linalg.vector_norm(x, dim=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        kurtosis = root * root / n / (second * second)
    known = (scale > 0.0) & (scale < math.inf) & (second > 0.0)
    return [
        k if ok and m.low != m.high else None for k, ok, m in zip(kurtosis.tolist(), known.tolist(), ms, strict=True)
    ]


def repeats_apart(w: Tensor, grad: Tensor) -> float:
    """Share of the gradient's mean square, over rows that repeat, that differs between rows which are alike.

    Units that are alike get the same gradient where what reads them is alike, too: then no step tells them apart.
    """
    rows, grads = w.reshape(len(w), -1), grad.reshape(len(w), -1).double()
    columns = torch.linspace(0, rows.shape[1] - 1, min(_HASHED, rows.shape[1]), device=w.device).long()
    _, kind, count = rows[:, columns].unique(dim=0, return_inverse=True, return_counts=True)
    repeated = count[kind] > 1
    mean = torch.zeros(len(count), grads.shape[1], dtype=grads.dtype, device=w.device).index_add_(0, kind, grads)
    apart = (grads - (mean / count[:, None])[kind])[repeated].square().sum()
    whole = grads[repeated].square().sum()
    return float(apart / whole) if float(whole) > 0.0 else 0.0


_FOURTH = (1e-8, 1e8)  # typical sizes whose fourth powers stay well inside float32's range


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
    rows = w.detach().reshape(len(w), -1)
    if rows.shape[0] > rows.shape[1]:
        rows = rows.T
    chosen = torch.linspace(0, len(rows) - 1, min(_PROBES, len(rows)), device=w.device).long()
    v = rows[chosen].double()
    gram = v @ v.T
    size = gram.diagonal().mean()
    off = (gram / size - torch.eye(len(v), dtype=gram.dtype, device=gram.device)).abs().max()
    return "orthogonal" if float(size) > 0 and float(off) < _precision(w) else "iid"


def _precision(w: Tensor) -> float:
    """Cosine below which two vectors of this format count as at right angles."""
    return torch.finfo(w.dtype).eps * 100 if w.dtype.is_floating_point else 1e-4


def _distinct(alike: list[Tensor]) -> list[float]:
    """Distinct values among the first entries of each, as a share."""
    first = torch.stack([w.reshape(-1)[:_DISTINCT_ENTRIES] for w in alike])
    size = first.shape[1]
    if size < 2:
        return [1.0] * len(alike)
    ordered = _sorted(first)
    return ((1.0 + (ordered[:, 1:] != ordered[:, :-1]).sum(1).double()) / size).tolist()


def _sorted(rows: Tensor) -> Tensor:
    """Each row in order; NumPy sorts float32 several times faster than torch."""
    if rows.device.type != "cpu" or rows.dtype not in (torch.float32, torch.float64):
        return rows.sort(1).values
    return torch.from_numpy(np.sort(rows.numpy(), axis=1))


def use_counts(parameters: Iterable[tuple[str, ...]]) -> dict[str, int]:
    """Qualified name -> how many of the operations, each given by the parameters it read, read it."""
    counts: dict[str, int] = {}
    for names in parameters:
        for name in names:
            counts[name] = counts.get(name, 0) + 1
    return counts
