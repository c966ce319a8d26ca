"""Recurrent layers: mean field over time, with the correlation between steps that repeated weights and biases give.

For each layer the second moments K[t, t'] of the hidden state are followed for one sample and for two samples;
gates have weights of their own and are independent of each other; σ has mean ½ at zero-mean input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from firstlight.graph.signal import Array, Cotangent, Signal, next_id, replace
from firstlight.rules.chains.grids import grid
from firstlight.rules.gradients.gradient import whole
from firstlight.rules.registry import BACKWARD_INDEPENDENT, WEIGHTS_IID, Call, Grads, rule
from firstlight.rules.state.empirical import uniform
from firstlight.rules.state.layout import axis_atoms, correlations, merge_axis, moments, offset
from firstlight.rules.state.summation import sum_atoms
from firstlight.theory import special

_LONGEST = 96  # steps that are followed one by one; later ones are taken like the last
_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def _sigmoid(x: Array) -> Array:
    return special.expit(x)


def _relu(x: Array) -> Array:
    return np.maximum(x, 0.0)


def _coefficients(f: Any, q: Array) -> Array:
    """Hermite coefficients of f(√q z) for each q."""
    nodes = grid()
    return np.asarray(f(np.sqrt(q)[:, None] * nodes.z[None, :]) @ nodes.hermite)


def _square(f: Any, q: Array) -> Array:
    nodes = grid()
    return np.asarray(np.square(f(np.sqrt(q)[:, None] * nodes.z[None, :])) @ nodes.weights)


def _pairs(a: Array, b: Array, c: Array) -> Array:
    """Σ_k a_k b_k c^k, rows of a against rows of b."""
    powers = np.vander(np.clip(c, -1.0, 1.0), a.shape[-1], increasing=True)
    return np.einsum("tk,tk,tk->t", np.broadcast_to(a, powers.shape), b, powers)


@dataclass(slots=True)
class Steps:
    """One layer in one direction: moments per time step, needed again backward.

    Attributes:
        kernel: E h_t h_t' of one sample, shape (T, T).
        other: The same for two samples.
        pre: Variance of the gates' inputs per step.
        cell: E c_t² (lstm), or E (U h + b)² (gru).
        hidden_weights: H·E w_hh².
        input_weights: H·E w_ih² (backward: hidden entries that one input entry reaches).
        fresh: E of the candidate's square per step.
    """

    kernel: Array
    other: Array
    pre: Array
    cell: Array
    hidden_weights: float
    input_weights: float
    fresh: Array


def _layer(kind: str, kx: Array, ko: Array, fan: int, hidden: int, w: Sequence[Signal], bias: float) -> Steps:
    """Follow one layer through time; kx, ko are E x_t x_t' for one and for two samples."""
    steps = len(kx)
    s_ih, s_hh = w[0].mean_q, w[1].mean_q
    out = Steps(
        np.zeros((steps, steps)), np.zeros((steps, steps)), np.zeros(steps), np.zeros(steps), hidden * s_hh,
        hidden * s_ih, np.zeros(steps),
    )  # fmt: skip
    both = (out.kernel, out.other)
    drive = (fan * s_ih * kx + bias, fan * s_ih * ko + bias)
    cells = (np.zeros((steps, steps)), np.zeros((steps, steps)))
    mixed = (np.zeros((steps, steps)), np.zeros((steps, steps)))  # E c_s g_t (lstm), E h_s n_t (gru)
    fresh = (np.zeros((steps, steps)), np.zeros((steps, steps)))
    f = _relu if kind == "rnn_relu" else np.tanh
    coefficients: dict[str, list[Array]] = {"gate": [], "new": [], "cell": []}
    pre = (np.zeros((steps, steps)), np.zeros((steps, steps)))
    inner = (np.zeros((steps, steps)), np.zeros((steps, steps)))
    for t in range(steps):
        for which in (0, 1):
            k, c, d, n = both[which], cells[which], mixed[which], fresh[which]
            past = np.zeros(t + 1)
            past[1:] = k[t - 1, :t] if t else 0.0
            p = drive[which][t, : t + 1] + out.hidden_weights * past
            pre[which][t, : t + 1] = pre[which][: t + 1, t] = p
            q = pre[0].diagonal()[: t + 1]
            if which == 0:
                coefficients["gate"].append(
                    _coefficients(_sigmoid, q[t:])[0] if kind in ("lstm", "gru") else np.zeros(1)
                )
            scale = np.sqrt(np.maximum(q * q[t], 1e-300))
            gate = np.array(coefficients["gate"])
            s = _pairs(gate[t], gate, p / scale) if kind in ("lstm", "gru") else np.zeros(t + 1)
            arm = p
            if kind == "gru":  # the candidate sees r∘(U h + b_hn), with half of the bias on each side
                arm = drive[which][t, : t + 1] - 0.5 * bias + s * (out.hidden_weights * past + 0.5 * bias)
                inner[which][t, : t + 1] = inner[which][: t + 1, t] = arm
            else:
                inner[which][t, : t + 1] = inner[which][: t + 1, t] = p
            level = inner[0].diagonal()[: t + 1]
            if which == 0:
                coefficients["new"].append(_coefficients(f, level[t:])[0])
            new = np.array(coefficients["new"])
            g = _pairs(new[t], new, arm / np.sqrt(np.maximum(level * level[t], 1e-300)))
            n[t, : t + 1] = n[: t + 1, t] = g
            if kind.startswith("rnn"):
                k[t, : t + 1] = k[: t + 1, t] = g
                continue
            d[t, :t] = 0.5 * (d[t - 1, :t] if t else 0.0) + 0.5 * g[:t]
            d[0, t] = 0.5 * g[0]
            for u in range(1, t + 1):
                d[u, t] = 0.5 * d[u - 1, t] + 0.5 * g[u]
            behind, ahead = np.zeros(t + 1), np.zeros(t + 1)
            if t:
                ahead[1:] = d[:t, t]  # E c_{t'-1} g_t
                behind[: t + 1] = d[t - 1, : t + 1]  # E c_{t-1} g_t'
            if kind == "gru":
                row = s * g + s * past + (0.5 - s) * (ahead + behind)
                k[t, : t + 1] = k[: t + 1, t] = row
                continue
            before = np.zeros(t + 1)
            before[1:] = c[t - 1, :t] if t else 0.0
            row = s * before + s * g + 0.25 * (ahead + behind)
            c[t, : t + 1] = c[: t + 1, t] = row
            depth = cells[0].diagonal()[: t + 1]
            if which == 0:
                coefficients["cell"].append(_coefficients(np.tanh, depth[t:])[0])
            told = np.array(coefficients["cell"])
            k[t, : t + 1] = k[: t + 1, t] = s * _pairs(
                told[t], told, row / np.sqrt(np.maximum(depth * depth[t], 1e-300))
            )
    out.pre = pre[0].diagonal().copy() if kind != "rnn_tanh" else inner[0].diagonal().copy()
    out.cell = cells[0].diagonal().copy() if kind == "lstm" else inner[0].diagonal().copy()
    out.fresh = fresh[0].diagonal().copy()
    return out


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
    call: Call, x: Signal, weights: Sequence[Signal], biases: bool, layers: int, both_ways: bool, time: int
) -> list[list[Steps]]:
    """All layers; a layer's directions are independent and stand side by side as features."""
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
            turned = (kx[::-1, ::-1], ko[::-1, ::-1]) if way else (kx, ko)
            row.append(_layer(kind, *turned, fan, hidden, group, bias))
        found.append(row)
        fan = sum(w.shape[1] for w in weights[k - per * len(row) + 1 : k : per])
        kx = np.mean([s.kernel[::-1, ::-1] if i else s.kernel for i, s in enumerate(row)], axis=0)
        ko = np.mean([s.other[::-1, ::-1] if i else s.other for i, s in enumerate(row)], axis=0)
    return found


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
    if dropout and train and num_layers > 1:
        call.caveat("dropout between recurrent layers is left out")
    time = _arguments(call, batch_first, input)
    layers = _run(call, input, params, bool(has_biases), int(num_layers), bool(bidirectional), time)
    units = sum(len(layers[-1]) and w for w in [call.node.outputs[0].shape[-1]])
    last = layers[-1]
    kernel = np.mean([s.kernel[::-1, ::-1] if i else s.kernel for i, s in enumerate(last)], axis=0)
    other = np.mean([s.other[::-1, ::-1] if i else s.other for i, s in enumerate(last)], axis=0)
    y = _signal(input, time, units, kernel, other)
    ends = [s.kernel[-1, -1] for row in layers for s in row]
    across = [s.other[-1, -1] for row in layers for s in row]
    state = _state(call.node.outputs[1].shape, float(np.mean(ends)), float(np.mean(across)))
    if call.node.op != "lstm":
        return y, state
    cell = float(np.mean([s.cell[-1] for row in layers for s in row]))
    return (
        y,
        state,
        _state(call.node.outputs[2].shape, cell, cell * float(np.mean(across)) / max(float(np.mean(ends)), 1e-300)),
    )


def _state(shape: tuple[int, ...], q: float, across: float) -> Signal:
    axis = len(shape) - 2
    out = uniform(shape, 0.0, max(q, 1e-300), batch_axis=axis if len(shape) == 3 else None, gaussian=True)
    corr = out.corr.copy()
    if len(shape) == 3 and out.groups[axis]:
        index = [0] * corr.ndim
        index[offset(out, axis)] = 1
        corr[tuple(index)] = float(np.clip(across / max(q, 1e-300), -1.0, 1.0))
    return replace(out, corr=corr)


@recurrent.adjoint
def _(
    call: Call, grads: tuple[Cotangent | None, ...], out: tuple[Signal, ...], input: Signal, hx: Any,
    params: tuple[Signal, ...], has_biases: bool = True, num_layers: int = 1, dropout: float = 0.0,
    train: bool = True, bidirectional: bool = False, batch_first: bool = False,
) -> Grads:  # fmt: skip
    del hx, dropout, train
    time = _arguments(call, batch_first, input)
    layers = _run(call, input, params, bool(has_biases), int(num_layers), bool(bidirectional), time)
    steps = len(layers[0][0].pre)
    g = np.zeros(steps)
    along = grads[0]
    if along is not None:
        g = g + _over_time(whole(along), time, steps)
    final = whole(grads[1]).mean_q if len(grads) > 1 and grads[1] is not None else 0.0
    cell = whole(grads[2]).mean_q if len(grads) > 2 and grads[2] is not None else 0.0
    per = 4 if has_biases else 2
    owed: list[Cotangent] = [Cotangent(uniform(p.shape, 0.0, 1e-300)) for p in params]
    sites = input.numel / max(input.shape[-1], 1)
    k = len(params)
    below = input.mean_q
    for depth in range(len(layers) - 1, -1, -1):
        row = layers[depth]
        total = np.zeros(steps)
        for way in range(len(row) - 1, -1, -1):
            k -= per
            s = row[way]
            arriving = g[::-1] if way else g
            gates, to_input = _back_in_time(call.node.op, s, arriving, final, cell)
            total = total + (to_input[::-1] if way else to_input)
            level = float(gates.mean()) * sites
            under = float(np.trace(layers[depth - 1][0].kernel)) / steps if depth else below
            sizes = (level * under, level * float(np.trace(s.kernel)) / steps, level, level)
            for j in range(per):
                owed[k + j] = Cotangent(uniform(params[k + j].shape, 0.0, max(sizes[j], 1e-300)))
        g = total
    one = (1,) * len(input.atoms)
    field = np.full(one, float(g.mean()))
    corr = np.zeros(input.corr.shape)
    corr[(0,) * corr.ndim] = 1.0
    noise = whole(along).noise if along is not None else input.noise
    dx = replace(
        input, mean=np.zeros(one), q=field, corr=corr, source=None, values=None, terms=(), noise=noise, value=None,
        weights=None, gaussian=True,
    )  # fmt: skip
    return {"input": Cotangent(replace(sum_atoms(dx, []), ident=next_id())), "params": tuple(owed)}


def _over_time(g: Signal, time: int, steps: int) -> Array:
    g = merge_axis(g, time)
    if not g.groups[time]:
        return np.full(steps, g.mean_q)
    at = offset(g, time)
    field = g.q.mean(axis=tuple(i for i in range(g.q.ndim) if i != at))
    return np.broadcast_to(field, (g.shape[time],)).astype(np.float64)[-steps:]


def _slope(f: Any, q: Array) -> Array:
    """E f′(√q z)² for σ and tanh and the step."""
    nodes = grid()
    u = np.sqrt(q)[:, None] * nodes.z[None, :]
    if f is _relu:
        d = (u > 0).astype(np.float64)
    elif f is _sigmoid:
        v = _sigmoid(u)
        d = v * (1.0 - v)
    else:
        d = 1.0 - np.square(np.tanh(u))
    return np.asarray(np.square(d) @ nodes.weights)


def _back_in_time(kind: str, s: Steps, g: Array, final: float, cell: float) -> tuple[Array, Array]:
    """(mean square of the gates' gradients, of the input's gradient) per step; independent contributions add."""
    steps = len(g)
    gates, to_input = np.zeros(steps), np.zeros(steps)
    h_back, c_back = final, cell
    hidden = s.kernel.diagonal()
    if kind.startswith("rnn"):
        slope = _slope(_relu if kind == "rnn_relu" else np.tanh, s.pre)
        for t in range(steps - 1, -1, -1):
            d = (g[t] + h_back) * slope[t]
            gates[t], to_input[t] = d, s.input_weights * d
            h_back = s.hidden_weights * d
        return gates, to_input
    squares, slopes = _square(_sigmoid, s.pre), _slope(_sigmoid, s.pre)
    inner = s.pre if kind == "lstm" else s.cell
    bend = _slope(np.tanh, inner)
    for t in range(steps - 1, -1, -1):
        e = g[t] + h_back
        before = hidden[t - 1] if t else 0.0
        if kind == "lstm":
            told = float(_square(np.tanh, s.cell[t : t + 1])[0])
            through = float(_slope(np.tanh, s.cell[t : t + 1])[0])
            dc = e * squares[t] * through + c_back
            last = s.cell[t - 1] if t else 0.0
            parts = (
                e * told * slopes[t],
                dc * squares[t] * bend[t],
                dc * s.fresh[t] * slopes[t],
                dc * last * slopes[t],
            )
            d = float(sum(parts))
            gates[t], to_input[t] = d / 4.0, s.input_weights * d
            h_back, c_back = s.hidden_weights * d, dc * squares[t]
            continue
        dn = e * squares[t] * bend[t]
        dz = e * (before + s.fresh[t]) * slopes[t]
        dr = dn * s.hidden_weights * before * slopes[t]
        gates[t], to_input[t] = (dn + dz + dr) / 3.0, s.input_weights * (dn + dz + dr)
        h_back = s.hidden_weights * (dz + dr + dn * squares[t]) + e * squares[t]
    return gates, to_input
