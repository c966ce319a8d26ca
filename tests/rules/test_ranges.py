"""The gradient of a part of an axis: long fields count with their mean over it, and no pair moment changes."""

import numpy as np
import pytest

from firstlight.graph.signal import Signal
from firstlight.rules.moves import ranges
from firstlight.rules.state.cross import add
from firstlight.rules.state.layout import moments


def gradient(places: int, channels: int) -> Signal:
    """Positions of different size, alike by .3; channels of one position by .2."""
    q = np.linspace(1.0, 3.0, places)[:, None]
    corr = np.array([[1.0, 0.2], [0.3, 0.1]])
    return Signal(((places,), (channels,)), np.zeros((1, 1)), q, corr, (False, False))


def both_halves(g: Signal, like: Signal) -> tuple[Signal, Signal]:
    n = g.shape[1]
    return ranges.put_range(g, like, 1, 0, n, 1), ranges.put_range(g, like, 1, n, 2 * n, 1)


def test_long_fields_keep_every_pair_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    g, like = gradient(5, 4), gradient(5, 8)
    exact, _ = both_halves(g, like)
    monkeypatch.setattr(ranges, "_LONG", 0)
    thin, _ = both_halves(g, like)
    assert exact.q.shape == (5, 8)
    assert thin.q.shape == (5, 1)
    assert thin.mean_q == pytest.approx(exact.mean_q, rel=1e-12)
    assert moments(thin) == pytest.approx(moments(exact), rel=1e-12)


def test_parts_that_fill_an_axis_make_what_they_were_taken_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "_LONG", 0)
    g, like = gradient(5, 4), gradient(5, 8)
    out = add(*both_halves(g, like))
    assert out.q == pytest.approx(g.q, rel=1e-12)
    assert moments(out)[:, 0] == pytest.approx(moments(g)[:, 0], rel=1e-12)
