"""Attention in windows: windows lie beside samples on one axis, and rows and columns of tokens on another."""

import numpy as np

from firstlight.graph.ir import Node
from firstlight.graph.signal import Signal, replace
from firstlight.rules.attention.softmax import soft
from firstlight.rules.linear.contraction import INNER, contract
from firstlight.rules.registry import Call


def test_windows_beside_samples_are_no_samples() -> None:
    cube = np.full((2, 2, 2, 2), 0.3)
    cube[0, 0, 0, 0] = 1.0
    one = np.ones((1,) * 4)
    x = Signal(((2, 3), (4,), (5,)), 0.0 * one, one, cube, (True, False, False, False))
    y = Signal(((2, 3), (4,), (5,)), 0.0 * one, one, cube, (True, False, False, False))
    assert contract(x, "abc", y, "adc", "abd").batch == (True, False, False, False)


def test_keys_in_rows_and_columns_are_alike_by_chance_as_keys_in_a_line_are() -> None:
    """Logits of queries and keys plus a bias: that they come of pairs is known before rows and columns are merged."""
    alike: list[float] = []
    for groups in (((8,), (16,), (16,)), ((8,), (4, 4), (4, 4))):
        rank = sum(map(len, groups))
        cube = np.zeros((2,) * rank)
        cube[(0,) * rank] = 1.0
        one = np.ones((1,) * rank)
        pairs = Signal(groups, 0.0 * one, one, cube, (True, *(False,) * (rank - 1)), wander=0.1, tag=(INNER, 0, 0.1))
        logits = replace(pairs, tag=None, terms=((1.0, pairs),), ident=pairs.ident + 10**9)
        keyed = soft(Call(Node("softmax", "softmax")), logits, -1).keyed
        assert keyed is not None
        alike.append(keyed.alike)
    assert alike[0] > 0.0
    assert np.isclose(*alike, rtol=0.05), alike
