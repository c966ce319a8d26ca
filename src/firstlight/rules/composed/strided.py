"""Views by strides (`as_strided`): windows of an axis that overlap, as entries picked along the axes of memory."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import ModelError
from firstlight.graph.signal import Signal
from firstlight.rules.composed.composed import composed
from firstlight.rules.composed.tape import Tape
from firstlight.rules.state.empirical import constant

Axis = tuple[int, int]  # size and stride


def _in_memory(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[list[int], list[Axis]]:
    """The order of axes in memory, longest strides first (behind those of size 1), and sizes and strides in it."""
    order = sorted((a for a, n in enumerate(shape) if n > 1), key=lambda a: -strides[a])
    return [*(a for a, n in enumerate(shape) if n == 1), *order], [(shape[a], strides[a]) for a in order]


def _places(memory: list[Axis], wanted: list[Axis], rest: int) -> list[tuple[list[int], NDArray[np.intp]]] | None:
    """For each axis of memory the axes of the result that go along it and the entries that they meet.

    Returns:
        None where a step of the result ends between two entries.
    """
    found: list[tuple[list[int], NDArray[np.intp]]] = [([], np.array(0)) for _ in memory]
    for a, (_, t) in enumerate(memory):
        first, rest = divmod(rest, t)
        found[a] = [], np.array(first)
    for k, (n, s) in enumerate(wanted):
        at = next((a for a, (_, t) in enumerate(memory) if s and s % t == 0), None)
        if n > 1 and at is None:
            return None
        if n > 1 and at is not None:
            axes, places = found[at]
            found[at] = [*axes, k], places[..., None] + s // memory[at][1] * np.arange(n)
    return found


@composed("as_strided", example="x.as_strided((15, x.shape[0], 8), (4, 64, 1))")
def as_strided(
    tape: Tape, input: Signal, size: Any, stride: Any, storage_offset: int | None = None, held: Any = None,
    start: int = 0,
) -> Signal:  # fmt: skip
    """y[i] = memory[offset + Σ i_k·s_k]: a step s_k goes s_k/t entries along the axis of the longest stride t in it.

    Args:
        tape: What follows.
        input: The tensor whose memory is read.
        size: Sizes of the result, which the node has as well (some may be tensors here).
        stride: Its strides.
        storage_offset: Where it begins; by default where the input does.
        held: Strides of the input; by default those of a tensor that is laid out in order.
        start: Where the input begins.
    """
    del size
    shape, wanted = input.shape, tape.call.node.outputs[0].shape
    strides = tuple(held) if held else tuple(prod(shape[a + 1 :]) for a in range(len(shape)))
    order, memory = _in_memory(shape, strides)
    rest = 0 if storage_offset is None else int(storage_offset) - start
    while True:
        found = _places(memory, list(zip(wanted, stride, strict=True)), rest)
        beyond = [a for a, (_, p) in enumerate(found or ()) if p.min() < 0 or p.max() >= memory[a][0]]
        if found is not None and not beyond:
            break
        at = beyond[-1] if beyond else 0  # windows that go on in the next row: two axes that are one in memory
        if at == 0 or memory[at - 1][1] != memory[at][0] * memory[at][1]:
            raise ModelError(
                tape.call.node.name, got=f"strides {tuple(stride)} of a tensor with {strides}",
                expected="steps of whole entries along its axes",
            )  # fmt: skip
        memory[at - 1 : at + 1] = [(memory[at - 1][0] * memory[at][0], memory[at][1])]
    x = tape("view", tape("permute", input, tuple(order)), tuple(n for n, _ in memory))
    for a, (n, _) in enumerate(memory):
        places = found[a][1].ravel()
        if len(places) != n or not np.array_equal(places, np.arange(n)):
            x = tape("index_select", x, a, constant(places))
    axes = [k for along, _ in found for k in along]
    x = tape("view", x, tuple(wanted[k] for k in axes))
    x = tape("permute", x, tuple(axes.index(k) for k in sorted(axes)))
    return tape("view", x, wanted)
