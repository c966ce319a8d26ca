"""The search behind `Prediction.advise`."""

import pytest

from firstlight.graph.sweep import search


@pytest.mark.parametrize(("now", "least"), [(64, 150), (8, 9), (0.5, 1.0)])
def test_the_smallest_change_that_helps_is_found(now, least):
    found = search("width", now, 0.02, lambda v: 0.97 if v >= least else 0.1, 0.9)
    assert least <= found.after <= 1.3 * least + 1
    assert "raises P(start) from 0.02 to 0.97" in str(found)


def test_nothing_is_promised_where_nothing_helps():
    assert "no width tried" in str(search("width", 64, 0.5, lambda v: 0.1, 0.9))
