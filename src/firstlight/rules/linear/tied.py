"""Readouts tied to the embedding: of the logits of a token one meets the row of the table that the token came from.

With x = c·e_t + rest, the table W = (e_1, …, e_V) of independent entries of variance w, and κ = c²·E e²/E x² the
share of the token's own row in x, the logits are as of an independent W but for the one at t:
E (x·e_t)² = c²·E|e|⁴ + (1 - κ)·n·w·E x² = n·w·E x²·(1 + κ(n + k - 2)) for rows of n entries of kurtosis k; behind a
norm, where |x|² does not go with |e|², n·w·E x²·(1 + κ(n - 1)). Over all V logits that is
E (Wx)² = n·w·E x²·(1 + κ(n - 1)/V). c is followed through sums and norms (`Signal.terms`).
"""

from __future__ import annotations

import zlib

from firstlight.graph.signal import Signal

ROW = "row of a table"  # tag of what an embedding gives


def row_of(name: str) -> tuple[str, int, float]:
    """The tag of rows of a table."""
    return (ROW, zlib.crc32(name.encode()), 0.0)


def _rows(x: Signal) -> dict[int, tuple[float, float]]:
    """By table, c and E e² of the rows that a signal is made of; worked out once for each signal."""
    waiting = [x]
    while waiting:
        s = waiting[-1]
        if s.__dict__.get("_rows") is None:
            unknown = [term for _, term in s.terms if term.__dict__.get("_rows") is None]
            if unknown:
                waiting += unknown
                continue
            found: dict[int, tuple[float, float]] = {}
            if s.tag is not None and s.tag[0] == ROW:
                found[s.tag[1]] = (1.0, s.mean_q)
            for a, term in s.terms:
                for key, (c, q) in term.__dict__["_rows"].items():
                    found[key] = (found.get(key, (0.0, q))[0] + a * c, q)
            s.__dict__["_rows"] = found
        waiting.pop()
    return x.__dict__["_rows"]


def own_rows(x: Signal, weight: Signal) -> float:
    """Factor of E (Wx)² where W is the table from which x came; 1 where it is not.

    Args:
        x: What W is applied to.
        weight: W, shape (rows, units).
    """
    if weight.weights is None or weight.ndim != 2 or not x.terms or x.mean_q <= 0.0:
        return 1.0
    rows = _rows(x)
    c, q = rows.get(zlib.crc32(weight.weights.name.encode()), (0.0, 0.0)) if rows else (0.0, 0.0)
    share = min(c * c * q / x.mean_q, 1.0)
    more = -1.0 if x.scatter < 0.0 else weight.weights.kurtosis - 2.0
    return 1.0 + share * (weight.shape[1] + more) / weight.shape[0]
