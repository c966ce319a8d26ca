"""Recurrent layers: a mean field over time, with what repeated weights and biases give steps in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from firstlight.graph.signal import Array, Cotangent, Noise, Signal, next_id, replace
from firstlight.rules.gradients.gradient import whole
from firstlight.rules.recurrence.in_time import back_in_time
from firstlight.rules.recurrence.steps import Steps, layer
from firstlight.rules.registry import BACKWARD_INDEPENDENT, WEIGHTS_IID, Call, Grads, rule
from firstlight.rules.state.empirical import uniform
from firstlight.rules.state.layout import axis_atoms, correlations, merge_axis, moments, offset

_LONGEST = 96  # steps that are followed one by one; later ones are taken like the last
_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def _kernels(x: Signal, time: int) -> tuple[Array, Array]:
    """E x_t x_t' for one and for two samples, means over the features."""
    x = merge_axis(x, time)
    steps = x.shape[time]
    features = axis_atoms(x, x.ndim - 1)
    cube = moments(x)
    at = offset(x, time) if x.groups[time] else None
    batch = [i for i, b in enumerate(x.batch) if b and i not in features]

    def entry(differ_time: bool, differ_batch: bool) -> float:
        index = [0] * cube.ndim
        if differ_time and at is not None:
            index[at] = 1
        for b in batch[:1] if differ_batch else []:
            index[b] = 1
        return float(np.broadcast_to(cube, x.corr.shape)[tuple(index)])

    field = x.q.mean(axis=tuple(i for i in range(x.q.ndim) if i != at)) if at is not None else np.array([x.mean_q])
    q = np.broadcast_to(field, (steps,)).astype(np.float64)
    root = np.sqrt(np.outer(q, q))
    level = x.mean_q
    same = np.full((steps, steps), entry(True, False) * level) * root / max(float(root.mean()), 1e-300)
    np.fill_diagonal(same, q)
    other = np.full((steps, steps), entry(True, True) * level) * root / max(float(root.mean()), 1e-300)
    np.fill_diagonal(other, q * (entry(False, True) if batch else 1.0))
    return same, other


def _run(
    call: Call, x: Signal, weights: Sequence[Signal], biases: bool, layers: int, both_ways: bool, time: int, rate: float
) -> list[list[Steps]]:
    """All layers; a layer's directions are independent and stand side by side as features; between layers, dropout."""
    kind = call.node.op
    kx, ko = _kernels(x, time)
    if len(kx) > _LONGEST:
        call.caveat(f"{len(kx)} time steps: the statistics after {_LONGEST} are taken as settled")
        kx, ko = kx[:_LONGEST, :_LONGEST], ko[:_LONGEST, :_LONGEST]
    fan = x.shape[-1]
    per = 4 if biases else 2
    found: list[list[Steps]] = []
    k = 0
    for _ in range(layers):
        row: list[Steps] = []
        for way in range(2 if both_ways else 1):
            group = weights[k : k + per]
            k += per
            hidden = group[1].shape[1]
            bias = sum(b.mean_q for b in group[2:]) if biases else 0.0
            row.append(layer(kind, _turned(kx, way), _turned(ko, way), fan, hidden, group, bias))
        found.append(row)
        fan = sum(w.shape[1] for w in weights[k - per * len(row) + 1 : k : per])
        kx, ko = (_side_by_side(kernels) for kernels in ([s.kernel for s in row], [s.other for s in row]))
        kx = _dropped(kx, rate)
    return found


def _dropped(kernel: Array, rate: float) -> Array:
    """Moments behind masks that are independent from step to step."""
    return kernel + np.diag(kernel.diagonal() * (rate / (1.0 - rate))) if rate < 1.0 else np.zeros_like(kernel)


def _signal(x: Signal, time: int, units: int, kernel: Array, other: Array) -> Signal:
    """A signal laid out like the input with other units."""
    steps = x.shape[time]
    shape = (*x.shape[:-1], units)
    batch_axis = next((k for k in range(x.ndim - 1) if any(x.batch[a] for a in axis_atoms(x, k))), None)
    q = np.concatenate([kernel.diagonal(), np.full(max(steps - len(kernel), 0), kernel[-1, -1])])[:steps]
    level = float(q.mean())
    out = uniform(shape, 0.0, max(level, 1e-300), batch_axis=batch_axis)
    atoms = {k: offset(out, k) for k in range(out.ndim) if out.groups[k]}
    raw = np.zeros(out.corr.shape)
    n = len(kernel)
    off = (n * n - n) or 1
    far = (float(kernel.sum()) - float(np.trace(kernel))) / off
    cross_same = float(np.trace(other)) / n
    cross_far = (float(other.sum()) - float(np.trace(other))) / off
    for key, value in (((0, 0), float(np.trace(kernel)) / n), ((1, 0), far), ((0, 1), cross_same), ((1, 1), cross_far)):
        index = [0] * raw.ndim
        if key[0] and time in atoms:
            index[atoms[time]] = 1
        if key[1] and batch_axis in atoms and batch_axis != time:
            index[atoms[batch_axis]] = 1
        if (key[0] and time not in atoms) or (key[1] and batch_axis not in atoms):
            continue
        raw[tuple(index)] = value
    field = out.q
    if time in atoms:
        field = np.maximum(q, 1e-300).reshape(tuple(-1 if i == atoms[time] else 1 for i in range(raw.ndim)))
    return replace(out, q=field, mean=np.zeros((1,) * raw.ndim), corr=correlations(raw, field), gaussian=True)


def _arguments(call: Call, batch_first: bool, x: Signal) -> int:
    del call
    return 0 if x.ndim == 2 else (1 if batch_first else 0)


@rule(
    "lstm", "gru", "rnn_tanh", "rnn_relu",
    assumes=(WEIGHTS_IID, BACKWARD_INDEPENDENT), refs=("poole2016",),
    example="nn.GRU(64, 32, batch_first=True)(x.view(-1, 4, 64))[0]",
)  # fmt: skip
def recurrent(
    call: Call, input: Signal, hx: Any, params: tuple[Signal, ...], has_biases: bool = True, num_layers: int = 1,
    dropout: float = 0.0, train: bool = True, bidirectional: bool = False, batch_first: bool = False,
) -> tuple[Signal, ...]:  # fmt: skip
    """A stack of recurrent layers from a zero state."""
    del hx
    rate = float(dropout) if train else 0.0
    time = _arguments(call, batch_first, input)
    layers = _run(call, input, params, bool(has_biases), int(num_layers), bool(bidirectional), time, rate)
    units = sum(len(layers[-1]) and w for w in [call.node.outputs[0].shape[-1]])
    last = layers[-1]
    y = _signal(input, time, units, _side_by_side([s.kernel for s in last]), _side_by_side([s.other for s in last]))
    every = [s for row in layers for s in row]
    ends = np.array([s.kernel[-1, -1] for s in every])
    shared = np.array([s.other[-1, -1] for s in every]) / np.maximum(ends, 1e-300)
    state = _state(call.node.outputs[1].shape, ends, shared)
    if call.node.op != "lstm":
        return y, state
    return y, state, _state(call.node.outputs[2].shape, np.array([s.cell[-1, -1] for s in every]), shared)


def _state(shape: tuple[int, ...], q: Array, shared: Array) -> Signal:
    """The last state of each layer and direction, its mean square and its correlation between samples."""
    axis = len(shape) - 2
    level = float(q.mean())
    out = uniform(shape, 0.0, max(level, 1e-300), batch_axis=axis if len(shape) == 3 else None, gaussian=True)
    corr = out.corr.copy()
    if len(shape) == 3 and out.groups[axis]:
        index = [0] * corr.ndim
        index[offset(out, axis)] = 1
        corr[tuple(index)] = float(np.clip(shared @ q / max(float(q.sum()), 1e-300), -1.0, 1.0))
    if len(q) < 2:
        return replace(out, corr=corr)
    return replace(out, corr=corr, q=np.maximum(q, 1e-300).reshape(-1, *(1,) * (corr.ndim - 1)))


@recurrent.adjoint
def _(
    call: Call, grads: tuple[Cotangent | None, ...], out: tuple[Signal, ...], input: Signal, hx: Any,
    params: tuple[Signal, ...], has_biases: bool = True, num_layers: int = 1, dropout: float = 0.0,
    train: bool = True, bidirectional: bool = False, batch_first: bool = False,
) -> Grads:  # fmt: skip
    del hx
    rate = float(dropout) if train else 0.0
    time = _arguments(call, batch_first, input)
    layers = _run(call, input, params, bool(has_biases), int(num_layers), bool(bidirectional), time, rate)
    steps = len(layers[0][0].pre)
    along = grads[0]
    g = np.zeros((steps, steps)) if along is None else _kernels(whole(along), time)[0][-steps:, -steps:]
    final, cell = (_per_layer(grads, k, sum(len(row) for row in layers)) for k in (1, 2))
    per = 4 if has_biases else 2
    owed: list[Cotangent] = [Cotangent(uniform(p.shape, 0.0, 1e-300)) for p in params]
    sites = input.numel / max(input.shape[-1], 1)
    samples = sites / max(input.shape[time], 1)
    read = _kernels(input, time)[0][:steps, :steps]
    k = len(params)
    for depth in range(len(layers) - 1, -1, -1):
        row = layers[depth]
        under = _dropped(_side_by_side([s.kernel for s in layers[depth - 1]]), rate) if depth else read
        total = np.zeros((steps, steps))
        for way in range(len(row) - 1, -1, -1):
            k -= per
            s = row[way]
            gates, passed = back_in_time(call.node.op, s, _turned(g, way), final[k // per], cell[k // per])
            total = total + _turned(s.input_weights * gates, way)
            gates, passed = (x * (samples / _GATES[call.node.op]) for x in (gates, passed))
            before = np.zeros((steps, steps))
            before[1:, 1:] = s.kernel[:-1, :-1]
            sums = (np.vdot(gates, _turned(under, way)), np.vdot(passed, before), gates.sum(), passed.sum())
            for j in range(per):
                owed[k + j] = Cotangent(uniform(params[k + j].shape, 0.0, max(float(sums[j]), 1e-300)))
        g = _dropped(total, rate) if depth else total
    noise = whole(along).noise if along is not None else input.noise
    return {"input": Cotangent(_of_input(input, time, g, noise)), "params": tuple(owed)}


def _turned(kernel: Array, way: int) -> Array:
    """The moments as a layer sees them that reads the sequence from its end."""
    return kernel[::-1, ::-1] if way else kernel


def _side_by_side(kernels: Sequence[Array]) -> Array:
    """Moments of a layer's directions together."""
    return np.mean([_turned(k, way) for way, k in enumerate(kernels)], axis=0)


def _per_layer(grads: Sequence[Cotangent | None], k: int, count: int) -> Array:
    """E g² of a last state's gradient for each layer and direction."""
    g = grads[k] if len(grads) > k else None
    if g is None:
        return np.zeros(count)
    found = merge_axis(whole(g), 0)
    if count < 2 or not found.groups[0]:
        return np.full(count, found.mean_q)
    return np.broadcast_to(found.q.mean(axis=tuple(range(1, found.q.ndim))), (count,))


def _of_input(input: Signal, time: int, kernel: Array, noise: Noise) -> Signal:
    """The gradient of the layer's input, whose steps have this kernel; samples and units are independent."""
    x = merge_axis(input, time)
    one = (1,) * len(x.atoms)
    steps, n = x.shape[time], len(kernel)
    q, corr = np.full(one, float(np.trace(kernel)) / n), np.zeros(x.corr.shape)
    corr[(0,) * corr.ndim] = 1.0
    if x.groups[time]:
        at = offset(x, time)
        field = np.concatenate([np.full(steps - n, kernel[0, 0]), kernel.diagonal()])
        q = np.maximum(field, 1e-300).reshape(tuple(-1 if i == at else 1 for i in range(len(one))))
        root = float(np.sqrt(np.outer(field, field)).sum() - field.sum())
        index = tuple(1 if i == at else 0 for i in range(corr.ndim))
        far = (float(kernel.sum()) - float(np.trace(kernel))) / (n * n - n) * (steps * steps - steps)
        corr[index] = np.clip(far / max(root, 1e-300), -1.0, 1.0)
    return replace(
        x, mean=np.zeros(one), q=q, corr=corr, source=None, values=None, terms=(), noise=noise, value=None,
        weights=None, gaussian=True, courses=None, tag=None, integer=False, ident=next_id(),
    )  # fmt: skip
