"""Gradients of recurrent layers back in time: their second moments at two steps.

What arrives at a step goes on through the recurrent weights, which are random, and along the cell (of a GRU: the
state), times gates that are ½ on average: gradients of different steps are alike there, and what steps get in common,
as behind a mean over time, adds up in amplitude. For a_t, what a step adds to the cell's gradient, and f, a gate,

    d_t = a_t + f_{t+1} d_{t+1},   E d_t d_u = E a_t a_u + E f f'·E d_{t+1} d_{u+1} + ½E a_t d_{u+1} + ½E a_u d_{t+1},
    E a_t d_u = E a_t a_u + ½ E a_t d_{u+1}.

Assumes: gates are independent of the gradients and of each other; weights in the backward pass of the forward pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from firstlight.graph.signal import Array
from firstlight.rules.recurrence.steps import Steps, hermite, sigmoid, square


def back_in_time(kind: str, s: Steps, g: Array, final: float, cell: float) -> tuple[Array, Array]:
    """Moments E Σ δ_t δ_u of the gates' gradients, summed over the gates: of Wx, and of Uh (a GRU resets some of it).

    Args:
        kind: Of the layer.
        s: Its forward pass.
        g: E g_t g_u of the gradients of its outputs, shape (T, T).
        final: E g² of the last state's gradient.
        cell: Of the last cell's.
    """
    if kind.startswith("rnn"):
        out = _plain(_pair(_step if kind == "rnn_relu" else _bend, s.inner), s.hidden_weights, g, final)
        return out, out
    if kind == "gru":
        return _gru(s, g, final)
    out = _lstm(s, g, final, cell)
    return out, out


def _plain(slopes: Array, weights: float, g: Array, final: float) -> Array:
    """δ_t = f'·(g_t + Wᵀδ_{t+1})."""
    steps = len(g)
    out = np.zeros((steps + 1, steps + 1))
    for t in range(steps - 1, -1, -1):
        e = g[t, t:] + weights * out[t + 1, t + 1 :]
        e[-1] += final * (t == steps - 1)
        out[t, t:steps] = out[t:steps, t] = slopes[t, t:] * e
    return out[:steps, :steps]


class _Held:
    """E d_t d_u of d_t = a_t + f_{t+1}d_{t+1}, one step after the other from the last one back."""

    def __init__(self, gates: Array) -> None:
        steps = len(gates)
        self.found = np.zeros((steps + 1, steps + 1))
        self._met = np.zeros((steps + 1, steps + 1))  # E a_t d_u
        self._gates = np.pad(gates, ((0, 1), (0, 1)))
        later = np.subtract.outer(np.arange(steps), np.arange(steps))
        self._shares = np.where(later >= 0, 0.5 ** np.maximum(later, 0.0), 0.0)
        self._added = np.zeros((steps, steps))

    def add(self, t: int, a: Array) -> Array:
        """E d_t d_u for u ≥ t, given E a_t a_u for these u."""
        steps = len(self._added)
        self._added[t, t:] = self._added[t:, t] = a
        met, found = self._met, self.found
        met[t, t:steps] = a @ self._shares[t:, t:]
        met[t:steps, t] = a + 0.5 * met[t:steps, t + 1]
        met[t, t] = a[0] + 0.5 * met[t, t + 1]
        ahead = self._gates[t + 1, t + 1 :] * found[t + 1, t + 1 :]
        row = a + ahead + 0.5 * met[t, t + 1 :] + 0.5 * met[t:steps, t + 1]
        found[t, t:steps] = found[t:steps, t] = row
        return row


def _lstm(s: Steps, g: Array, final: float, cell: float) -> Array:
    """h = o·tanh c, c = f·c' + i·g: the output gate's gradient from that of h, the others' from that of c."""
    steps = len(g)
    gates, slopes = _pair(sigmoid, s.pre), _pair(_slope, s.pre)
    told, through, bend = _pair(np.tanh, s.cell), _pair(_bend, s.cell), _pair(_bend, s.inner)
    before = np.zeros((steps, steps))
    before[1:, 1:] = s.cell[:-1, :-1]
    inside = gates * bend + s.fresh * slopes + before * slopes
    held, out = _Held(gates), np.zeros((steps + 1, steps + 1))
    for t in range(steps - 1, -1, -1):
        e = g[t, t:] + s.hidden_weights * out[t + 1, t + 1 :]
        e[-1] += final * (t == steps - 1)
        a = e * gates[t, t:] * through[t, t:]
        a[-1] += cell * (t == steps - 1)
        d = held.add(t, a)
        out[t, t:steps] = out[t:steps, t] = e * told[t, t:] * slopes[t, t:] + d * inside[t, t:]
    return out[:steps, :steps]


def _gru(s: Steps, g: Array, final: float) -> tuple[Array, Array]:
    """h = (1 - z)·n + z·h', n = tanh(Wx + r·Uh'): three gates' gradients from that of h."""
    steps = len(g)
    gates, slopes, bend = _pair(sigmoid, s.pre), _pair(_slope, s.pre), _pair(_bend, s.inner)
    before, both = np.zeros((steps, steps)), np.zeros((steps, steps))
    before[1:, 1:] = s.kernel[:-1, :-1]
    both[1:] = s.mixed[:-1]  # E h_{t-1} n_u
    new = gates * bend
    update = (before + s.fresh - both - both.T) * slopes
    reset = new * s.hidden_weights * before * slopes
    on = update + reset + new * gates  # what goes on to the state before, but for z itself
    held, out, passed = _Held(gates), np.zeros((steps, steps)), np.zeros((steps + 1, steps + 1))
    for t in range(steps - 1, -1, -1):
        a = g[t, t:] + s.hidden_weights * passed[t + 1, t + 1 :]
        a[-1] += final * (t == steps - 1)
        e = held.add(t, a)
        passed[t, t:steps] = passed[t:steps, t] = e * on[t, t:]
        out[t, t:] = out[t:, t] = e * (new + update + reset)[t, t:]
    return out, passed[:steps, :steps]


def _pair(f: Any, moments: Array) -> Array:
    """E f(u_t) f(u_u) for Gaussians of these second moments."""
    q = np.maximum(moments.diagonal(), 1e-300)
    a = hermite(f, q)
    c = np.clip(moments / np.sqrt(np.outer(q, q)), -1.0, 1.0)
    out, power = np.zeros_like(c), np.ones_like(c)
    for k in range(a.shape[1]):
        out += np.outer(a[:, k], a[:, k]) * power
        power = power * c
    np.fill_diagonal(out, square(f, q))
    return out


def _slope(x: Array) -> Array:
    v = sigmoid(x)
    return v * (1.0 - v)


def _bend(x: Array) -> Array:
    return 1.0 - np.square(np.tanh(x))


def _step(x: Array) -> Array:
    return (x > 0.0).astype(np.float64)
