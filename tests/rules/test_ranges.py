"""Parts of an axis: those of a given input, and their gradient, in which long fields count with their mean."""

import numpy as np
import pytest

from firstlight.graph.signal import Signal, next_id, replace
from firstlight.rules.moves import ranges
from firstlight.rules.state.cross import add
from firstlight.rules.state.empirical import from_data
from firstlight.rules.state.layout import moments, permute


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


@pytest.mark.parametrize("steps_first", [False, True])
def test_a_step_of_a_given_sequence_has_its_own_statistics(steps_first: bool) -> None:
    rng = np.random.default_rng(0)
    entries = rng.standard_normal((4, 6, 8)) + rng.standard_normal((1, 6, 1))
    x = from_data(entries)
    x = replace(x, given=(x.ident, entries))
    if steps_first:
        x = permute(x, (1, 0, 2))
    for t in range(6):
        out = ranges.drop_axis(ranges.take_range(x, 0 if steps_first else 1, t, t + 1, 1), 0 if steps_first else 1)
        step = entries[:, t]
        gram = step @ step.T
        assert out.shape == (4, 8)
        assert out.mean_q == pytest.approx(np.square(step).mean(), rel=1e-12)
        assert out.corr[1, 0] == pytest.approx((gram.sum() - np.trace(gram)) / 3 / np.trace(gram), rel=1e-9)
    doubled = replace(x, q=4.0 * x.q, ident=next_id())  # another tensor, whose entries are not those
    assert ranges.take_range(doubled, 0, 0, 1, 1).mean_q == pytest.approx(4.0 * x.mean_q, rel=1e-12)
