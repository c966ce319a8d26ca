"""Pooling windows: averages as fixed maps, maxima by the law of the largest of the taps inside."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from firstlight.graph.signal import Array, Cotangent, Signal, next_id, replace
from firstlight.rules.chains.source import as_source
from firstlight.rules.convolutions import peaks
from firstlight.rules.convolutions.convolution import numbers
from firstlight.rules.convolutions.taps import Taps, matrix
from firstlight.rules.gradients import images
from firstlight.rules.gradients.gradient import scale, whole
from firstlight.rules.pointwise.powers import product_of
from firstlight.rules.pointwise.products import multiply
from firstlight.rules.reductions.extremes import alike, at_chosen, at_one_of, chosen, largest, shared_deviation
from firstlight.rules.registry import EXCHANGEABLE, Call, Grads, first_of, rule
from firstlight.rules.state import mapped
from firstlight.rules.state.layout import axis_atoms, state_weights
from firstlight.rules.state.projection import group_pairs
from firstlight.rules.state.windows import along, drop_single, fixed_map, pair_means, single, with_atom

_COUNTS = 64  # numbers of taps that windows may have
_APART = 1.5  # inputs for each output from which windows move by more than one


def _window(
    call: Call, x: Signal, kernel: Any, stride: Any, padding: Any, dilation: Any, n: int
) -> tuple[list[int], dict[int, Array]]:
    axes = list(range(x.ndim - n, x.ndim))
    k = numbers(kernel, n)
    s = k if stride is None or stride == () else numbers(stride, n)
    outs = call.node.outputs[0].shape[-n:]
    taps = zip(k, s, strict=True)
    edges = zip(numbers(padding, n), numbers(dilation, n), strict=True)
    maps = {
        a: matrix(Taps(x.shape[a], o, kk, ss, pp, dd))
        for a, o, (kk, ss), (pp, dd) in zip(axes, outs, taps, edges, strict=True)
    }
    return axes, maps


def _max(call: Call, x: Signal, maps: dict[int, Array]) -> Signal:
    """Maximum over windows: the number of taps that fall inside, and the mean correlation of two of them.

    The largest of largest entries is that of the window of all of them: of windows that overlap each is largest twice.
    """
    of = x.largest[1:] if x.largest is not None and x.largest[0] == x.ident else None
    if of is not None and of[1].keys() == maps.keys():
        x, maps = of[0], {a: (m @ of[1][a] > 0.0).astype(np.float64) for a, m in maps.items()}
    given = x
    x = single(x, list(maps))
    for axis in maps:
        x = with_atom(x, axis) if not x.groups[axis] else x
    k = max(1, round(prod(float(m.sum()) / m.shape[0] for m in maps.values())))
    source, _ = as_source(x)
    centred = replace(x, corr=source.corr)
    rho = _window_correlation(centred, centred.corr, maps)
    big, _ = largest(call, x, k, rho)
    mean, q = big.mean, big.q
    groups = list(big.groups)
    for axis, m in maps.items():
        at = axis_atoms(big, axis)[0]
        rows = np.maximum(m.sum(axis=1, keepdims=True), 1.0)
        mean, q = along(mean, at, m / rows), along(q, at, m / rows)
        groups[axis] = (m.shape[0],)
    first, second = _with_fewer_taps(call, x, maps, rho, big)
    mean, q = mean * first, np.maximum(q * second, np.square(mean * first))
    corr = _between_windows(x, big, k, rho, centred.corr, maps) if k > 1 else big.corr
    out = replace(big, groups=tuple(groups), mean=mean, q=q, corr=corr, source=None, values=None)
    ident = next_id()
    return replace(drop_single(out), noise=x.noise, ident=ident, largest=(ident, given, maps))


def _gated(x: Signal, axes: Sequence[int]) -> tuple[Signal, Signal] | None:
    """(b, a) of x = a·b, gates a that are never below zero and one for all places: a·b is largest where b is."""
    found = product_of(x)
    if found is None or found[0] <= 0.0:
        return None
    times, one, other = found
    for a, b in ((one, other), (other, one)):
        even = a.ndim == b.ndim and not any(a.groups[axis] for axis in axes) and b.atoms == x.atoms
        if even and a.values is not None and float(a.values.min()) >= 0.0:
            return (b if times == 1.0 else scale(b, times)), a
    return None


def _with_fewer_taps(call: Call, x: Signal, maps: dict[int, Array], rho: float, big: Signal) -> tuple[Array, Array]:
    """Mean and mean square of each window over those of the average one: fewer taps fall inside at the border."""
    counts: Array = np.ones((1,) * len(x.atoms))
    for axis, m in maps.items():
        at = axis_atoms(x, axis)[0]
        counts = counts * np.maximum(m.sum(axis=1), 1.0).reshape([-1 if i == at else 1 for i in range(counts.ndim)])
    levels, place = np.unique(counts, return_inverse=True)
    if len(levels) == 1 or len(levels) > _COUNTS:
        return np.ones((1,) * counts.ndim), np.ones((1,) * counts.ndim)
    found = [largest(call, x, max(round(float(n)), 1), rho)[0] for n in levels]
    first = np.array([f.mean_mean / big.mean_mean if abs(big.mean_mean) > 1e-12 else 1.0 for f in found])
    second = np.array([f.mean_q / max(big.mean_q, 1e-300) for f in found])
    return first[place].reshape(counts.shape), second[place].reshape(counts.shape)


def _between_windows(x: Signal, big: Signal, k: int, rho: float, cube: Array, maps: dict[int, Array]) -> Array:
    """Correlations of the largest entries of two windows, from the mean over their pairs, and from taps in common."""
    mean = same = np.clip(cube, -1.0, 1.0)
    for axis, m in maps.items():
        at = axis_atoms(x, axis)[0]
        mean = pair_means(mean, at, m)
        step = float(m.shape[1]) / m.shape[0] < _APART  # windows move by one: those next to each other are in step
        same = np.take(same, [0, 1, same.shape[at] - 1 if step else 1], axis=at)
        if cube.shape[at] == 2:  # windows further apart and those next to each other are one kind
            far, near = state_weights(max(m.shape[0], 2), 3)[1:]
            mean = np.stack(
                [np.take(mean, 0, at), (far * np.take(mean, 1, at) + near * np.take(mean, 2, at)) / (far + near)], at
            )
            same = np.take(same, [0, 1], axis=at)
    return alike(big, x, k, rho, mean, same, _sharing(x, maps, same.shape))


def _sharing(x: Signal, maps: dict[int, Array], states: Sequence[int]) -> Array:
    """How far the largest deviations of two windows agree because they share entries, mean over pairs of each kind."""
    axes = [(axis_atoms(x, axis)[0], _offsets(m)) for axis, m in maps.items()]
    size = prod(found[0][1] for _, found in axes)
    out, count = np.zeros([states[at] for at, _ in axes]), np.zeros([states[at] for at, _ in axes])
    for pair in itertools.product(*(range(len(found)) for _, found in axes)):
        where = tuple(_state(d, states[at]) for d, (at, _) in zip(pair, axes, strict=True))
        weight = prod(found[d][0] for d, (_, found) in zip(pair, axes, strict=True))
        common = prod(found[d][1] for d, (_, found) in zip(pair, axes, strict=True))
        count[where] += weight
        out[where] += weight * (shared_deviation(round(size, 2), round(common, 2)) if common > 0.0 else 0.0)
    out /= np.maximum(count, 1e-12)
    shape = [1] * len(states)
    for at, _ in axes:
        shape[at] = states[at]
    order = np.argsort([at for at, _ in axes])
    return out.transpose(order).reshape(shape)


def _state(apart: int, states: int) -> int:
    """The index of a cube for places so far apart."""
    return 0 if apart == 0 else states - 1 if apart == 1 else 1


def _offsets(m: Array) -> list[tuple[float, float]]:
    """Of windows 0, 1, 2, … apart along an axis: how many there are for each window, and the entries in common."""
    common, n = m @ m.T, m.shape[0]
    return [(2.0 * (n - d) / n if d else 1.0, float(np.trace(common, d)) / (n - d)) for d in range(n)]


def _window_correlation(x: Signal, corr: Array, maps: dict[int, Array]) -> float:
    """Mean correlation between two entries of one window: next to each other, or further apart, along each axis."""
    weights = np.ones((1,) * corr.ndim)
    for axis, m in maps.items():
        at, n = axis_atoms(x, axis)[0], max(float(m.sum()) / m.shape[0], 1.0)
        line = np.array([1.0, n - 1.0, 0.0][: corr.shape[at]])
        if len(line) == 3:
            line[1:] = max(n - 3.0 + 2.0 / n, 0.0), 2.0 * (n - 1.0) / n
        weights = weights * line.reshape([-1 if i == at else 1 for i in range(corr.ndim)])
    weights[(0,) * corr.ndim] = 0.0
    here = corr[tuple(slice(0, n) for n in weights.shape)]
    return float((here * weights).sum() / weights.sum()) if weights.any() else 0.0


def _max_gradient(grad: Cotangent, x: Signal, maps: dict[int, Array]) -> Cotangent:
    """Each output's gradient goes to its largest tap: on x's source a factor √P(largest | u)."""
    g = _met(_max_back(whole(grad), maps), _coinciding(whole(grad), maps), maps)
    k = max(1, round(prod(float(m.sum()) / m.shape[0] for m in maps.values())))
    source, values = as_source(x)
    rho = _window_correlation(x, source.corr, maps)
    factor = chosen(source, values, k, rho)
    if all(m.shape[0] == 1 and m.all() for m in maps.values()):  # one window for all places
        where = peaks.share(x, [a for axis in maps for a in axis_atoms(x, axis)])
        g = g if where is None else replace(g, q=g.q * where)
    return at_chosen(g, x, source, factor)


def _padded(m: Array, kernel: int, step: int, pad: int) -> Array:
    """Entries of each window, zeros of the padding among them: windows that `ceil_mode` adds may end beyond those."""
    starts = np.arange(m.shape[0], dtype=np.float64)[:, None] * step - pad
    return np.minimum(starts + kernel, m.shape[1] + pad) - starts


def _coinciding(g: Signal, maps: dict[int, Array]) -> float:
    """E Σ (Σ g over the windows in which an entry is the largest)² over E Σ g² of the windows.

    Two windows of k entries that share O of them have one largest entry with the probability O/(2k - O), that it is
    the largest of all. Then both gradients add up there: windows that overlap, as those of 3 entries by steps of 1 or
    2 do, send gradients that are alike to the same entry.
    """
    kinds: list[list[tuple[int, float, float]]] = []  # of each axis: state, windows so far apart, entries in common
    size = 1.0
    for axis, m in maps.items():
        states = g.corr.shape[axis_atoms(g, axis)[0]] if g.groups[axis] else 1
        found = [(_state(d, states), *pair) for d, pair in enumerate(_offsets(m))]
        kinds.append([f for f in found if f[2] > 0.0])
        size *= found[0][2]
    total, atoms = 0.0, [axis_atoms(g, axis)[0] if g.groups[axis] else None for axis in maps]
    for pair in itertools.product(*kinds):
        where = [0] * g.corr.ndim
        for (state, _, _), at in zip(pair, atoms, strict=True):
            if at is not None:
                where[at] = state
        both = prod(common for _, _, common in pair)
        total += prod(count for _, count, _ in pair) * float(g.corr[tuple(where)]) * both / (2.0 * size - both)
    return max(total, 1e-3)


def _met(g: Signal, more: float, maps: dict[int, Array]) -> Signal:
    """Entries with so many times the mean square: what they have more, pairs of entries have less."""
    places = [a for axis in maps for a in axis_atoms(g, axis)]
    here = tuple(slice(None) if i in places else slice(0, 1) for i in range(g.corr.ndim))
    weights = group_pairs(g, places) * prod(g.atoms[a] for a in places)
    pairs = float((g.corr[here] * weights).sum()) - 1.0
    if abs(more - 1.0) < 1e-9 or not places:
        return g
    corr = np.array(g.corr)
    corr[here] *= max(pairs + 1.0 - more, 0.0) / max(pairs, 1e-12) / more if pairs > 0.0 else 1.0
    corr[(0,) * corr.ndim] = 1.0
    return replace(g, q=g.q * more, corr=corr)


def _max_back(g: Signal, maps: dict[int, Array]) -> Signal:
    """Each output's gradient goes to one of its taps."""
    taps = prod(max(float(m.sum()) / m.shape[0], 1.0) for m in maps.values())
    g = single(g, list(maps))
    for axis in maps:
        g = with_atom(g, axis) if not g.groups[axis] else g
    q, corr, groups = g.q / taps, g.corr, list(g.groups)
    for axis, m in maps.items():
        at = axis_atoms(g, axis)[0]
        q = along(q, at, np.ascontiguousarray(m.T))
        if corr.shape[at] == 3:
            corr = np.take(corr, [0, 1], axis=at)
        corr = corr.copy()
        index: list[Any] = [slice(None)] * corr.ndim
        index[at] = 1
        corr[tuple(index)] = corr[tuple(index)] / taps
        groups[axis] = (m.shape[1],)
    if all(m.shape[0] == 1 for m in maps.values()):  # one window for all: no two of its entries are chosen
        own = [a for axis in maps for a in axis_atoms(g, axis)]
        corr = at_one_of(np.broadcast_to(g.corr, corr.shape), own, round(taps))
    out = replace(
        g, groups=tuple(groups), mean=np.zeros((1,) * q.ndim), q=q, corr=corr, source=None, values=None, terms=(),
        ident=next_id(),
    )  # fmt: skip
    return drop_single(out)


def _pool_rules(n: int) -> None:
    """max_pool and avg_pool in n dimensions."""

    def max_forward(
        call: Call, input: Signal, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1
    ) -> Any:
        axes, maps = _window(call, input, kernel_size, stride, padding, dilation, n)
        gated = _gated(input, axes)
        out = _max(call, input, maps) if gated is None else multiply(call, _max(call, gated[0], maps), gated[1])
        return (out, out) if len(call.node.outputs) > 1 else out

    def max_backward(
        call: Call, grad: Any, out: Any, input: Signal, kernel_size: Any, stride: Any = None, padding: Any = 0,
        dilation: Any = 1,
    ) -> Grads:  # fmt: skip
        g, y = first_of(grad), first_of(out)
        axes, maps = _window(call, input, kernel_size, stride, padding, dilation, n)
        gated = _gated(input, axes)
        of = input if gated is None else gated[0]
        return {"input": images.kept(_max_gradient(g, of, maps), g, input, y)} if g is not None else {}

    def avg(
        call: Call, input: Signal, kernel_size: Any, stride: Any, padding: Any, count_include_pad: bool
    ) -> dict[int, Array]:
        _, maps = _window(call, input, kernel_size, stride, padding, 1, n)
        sizes, pads = numbers(kernel_size, n), numbers(padding, n)
        steps = sizes if stride is None or stride == () else numbers(stride, n)
        return {
            a: m / (_padded(m, k, s, p) if count_include_pad else np.maximum(m.sum(axis=1, keepdims=True), 1.0))
            for (a, m), k, s, p in zip(maps.items(), sizes, steps, pads, strict=True)
        }

    def avg_forward(
        call: Call, input: Signal, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> Signal:  # fmt: skip
        del ceil_mode
        maps = avg(call, input, kernel_size, stride, padding, count_include_pad)
        return mapped.remember(fixed_map(input, maps), input, maps)

    def avg_backward(
        call: Call, grad: Cotangent, out: Signal, input: Signal, kernel_size: Any, stride: Any = None,
        padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True,
    ) -> Grads:  # fmt: skip
        del ceil_mode
        maps = avg(call, input, kernel_size, stride, padding, count_include_pad)
        g, maps = whole(grad), {a: np.ascontiguousarray(m.T) for a, m in maps.items()}
        return {"input": images.kept(Cotangent(mapped.remember(fixed_map(g, maps), g, maps)), grad, input, out)}

    shape = {1: "-1, 8, 8", 2: "-1, 4, 4, 4", 3: "-1, 1, 4, 4, 4"}[n]
    rule(f"max_pool{n}d", assumes=(EXCHANGEABLE,), example=f"F.max_pool{n}d(x.view({shape}), 2)")(max_forward).adjoint(
        max_backward
    )
    rule(f"avg_pool{n}d", assumes=(EXCHANGEABLE,), example=f"F.avg_pool{n}d(x.view({shape}), 2)")(avg_forward).adjoint(
        avg_backward
    )

    def adaptive(call: Call, input: Signal) -> dict[int, Array]:
        axes = range(input.ndim - n, input.ndim)
        return {a: _adaptive(input.shape[a], call.node.outputs[0].shape[a]) for a in axes}

    def ad_avg(call: Call, input: Signal, output_size: Any = None) -> Signal:
        del output_size
        return fixed_map(input, adaptive(call, input))

    def ad_avg_back(call: Call, grad: Cotangent, out: Signal, input: Signal, output_size: Any = None) -> Grads:
        del output_size, out
        maps = adaptive(call, input)
        return {"input": Cotangent(fixed_map(whole(grad), {a: np.ascontiguousarray(m.T) for a, m in maps.items()}))}

    def counts(call: Call, input: Signal) -> dict[int, Array]:
        return {a: (m > 0).astype(np.float64) for a, m in adaptive(call, input).items()}

    def ad_max(call: Call, input: Signal, output_size: Any = None) -> Any:
        del output_size
        out = _max(call, input, counts(call, input))
        return (out, out) if len(call.node.outputs) > 1 else out

    def ad_max_back(call: Call, grad: Any, out: Any, input: Signal, output_size: Any = None) -> Grads:
        del output_size, out
        g = first_of(grad)
        return {"input": _max_gradient(g, input, counts(call, input))} if g is not None else {}

    rule(f"adaptive_avg_pool{n}d", assumes=(EXCHANGEABLE,), example=f"F.adaptive_avg_pool{n}d(x.view({shape}), 2)")(
        ad_avg
    ).adjoint(ad_avg_back)
    rule(f"adaptive_max_pool{n}d", assumes=(EXCHANGEABLE,), example=f"F.adaptive_max_pool{n}d(x.view({shape}), 2)")(
        ad_max
    ).adjoint(ad_max_back)


@functools.lru_cache(maxsize=256)
def _adaptive(size: int, out: int) -> Array:
    a = np.zeros((out, size))
    for s in range(out):
        low, high = (s * size) // out, -((-(s + 1) * size) // out)
        a[s, low:high] = 1.0 / (high - low)
    a.setflags(write=False)
    return a


for _n in (1, 2, 3):
    _pool_rules(_n)
