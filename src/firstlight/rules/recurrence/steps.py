"""Recurrent layers as mean fields over time: second moments of two steps, the forward pass.

For each layer K[t, t'] of the hidden state is followed for one sample and for two samples; gates have weights of their
own and are independent of each other; σ has mean ½ at zero-mean input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from firstlight.graph.signal import Array, Signal
from firstlight.rules.chains.grids import grid
from firstlight.theory import special


def sigmoid(x: Array) -> Array:
    """σ(x)."""
    return special.expit(x)


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(x, 0.0)


def hermite(f: Any, q: Array) -> Array:
    """Hermite coefficients of f(√q z) for each q."""
    nodes = grid()
    return np.asarray(f(np.sqrt(q)[:, None] * nodes.z[None, :]) @ nodes.hermite)


def square(f: Any, q: Array) -> Array:
    """E f(√q z)² for each q."""
    nodes = grid()
    return np.asarray(np.square(f(np.sqrt(q)[:, None] * nodes.z[None, :])) @ nodes.weights)


def pairs(a: Array, b: Array, c: Array) -> Array:
    """Σ_k a_k b_k c^k, rows of a against rows of b."""
    powers = np.vander(np.clip(c, -1.0, 1.0), a.shape[-1], increasing=True)
    return np.einsum("tk,tk,tk->t", np.broadcast_to(a, powers.shape), b, powers)


@dataclass(slots=True)
class Steps:
    """One layer in one direction: moments per time step, needed again backward.

    Attributes:
        kernel: E h_t h_t' of one sample, shape (T, T).
        other: The same for two samples.
        pre: The same of the gates' inputs, for one sample.
        inner: Of the candidate's input.
        cell: E c_t c_t' (lstm).
        mixed: E c_t g_t' (lstm), E h_t n_t' (gru), t the first index.
        fresh: Of the candidate.
        hidden_weights: H·E w_hh².
        input_weights: H·E w_ih² (backward: hidden entries that one input entry reaches).
    """

    kernel: Array
    other: Array
    pre: Array
    inner: Array
    cell: Array
    mixed: Array
    fresh: Array
    hidden_weights: float
    input_weights: float


def layer(kind: str, kx: Array, ko: Array, fan: int, hidden: int, w: Sequence[Signal], bias: float) -> Steps:
    """Follow one layer through time; kx, ko are E x_t x_t' for one and for two samples."""
    steps = len(kx)
    s_ih, s_hh = w[0].mean_q, w[1].mean_q
    hidden_weights = hidden * s_hh
    both = (np.zeros((steps, steps)), np.zeros((steps, steps)))
    drive = (fan * s_ih * kx + bias, fan * s_ih * ko + bias)
    cells = (np.zeros((steps, steps)), np.zeros((steps, steps)))
    mixed = (np.zeros((steps, steps)), np.zeros((steps, steps)))  # E c_s g_t (lstm), E h_s n_t (gru)
    fresh = (np.zeros((steps, steps)), np.zeros((steps, steps)))
    f = relu if kind == "rnn_relu" else np.tanh
    coefficients: dict[str, list[Array]] = {"gate": [], "new": [], "cell": []}
    pre = (np.zeros((steps, steps)), np.zeros((steps, steps)))
    inner = (np.zeros((steps, steps)), np.zeros((steps, steps)))
    for t in range(steps):
        for which in (0, 1):
            k, c, d, n = both[which], cells[which], mixed[which], fresh[which]
            past = np.zeros(t + 1)
            past[1:] = k[t - 1, :t] if t else 0.0
            p = drive[which][t, : t + 1] + hidden_weights * past
            pre[which][t, : t + 1] = pre[which][: t + 1, t] = p
            q = pre[0].diagonal()[: t + 1]
            if which == 0:
                coefficients["gate"].append(hermite(sigmoid, q[t:])[0] if kind in ("lstm", "gru") else np.zeros(1))
            scale = np.sqrt(np.maximum(q * q[t], 1e-300))
            gate = np.array(coefficients["gate"])
            s = pairs(gate[t], gate, p / scale) if kind in ("lstm", "gru") else np.zeros(t + 1)
            arm = p
            if kind == "gru":  # the candidate sees r∘(U h + b_hn), with half of the bias on each side
                arm = drive[which][t, : t + 1] - 0.5 * bias + s * (hidden_weights * past + 0.5 * bias)
                inner[which][t, : t + 1] = inner[which][: t + 1, t] = arm
            else:
                inner[which][t, : t + 1] = inner[which][: t + 1, t] = p
            level = inner[0].diagonal()[: t + 1]
            if which == 0:
                coefficients["new"].append(hermite(f, level[t:])[0])
            new = np.array(coefficients["new"])
            g = pairs(new[t], new, arm / np.sqrt(np.maximum(level * level[t], 1e-300)))
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
                coefficients["cell"].append(hermite(np.tanh, depth[t:])[0])
            told = np.array(coefficients["cell"])
            k[t, : t + 1] = k[: t + 1, t] = s * pairs(
                told[t], told, row / np.sqrt(np.maximum(depth * depth[t], 1e-300))
            )
    return Steps(*both, pre[0], inner[0], cells[0], mixed[0], fresh[0], hidden_weights, hidden * s_ih)
