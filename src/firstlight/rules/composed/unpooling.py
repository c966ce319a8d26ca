"""Maxima put back where they were found (SegNet), as entries times a mask that is one at one place of each window."""

from __future__ import annotations

from typing import Any

from firstlight.graph.signal import Signal
from firstlight.rules.composed.composed import composed
from firstlight.rules.composed.tape import Tape
from firstlight.rules.moves.lookup import one_of

_EXAMPLE = "F.max_unpool2d(*F.max_pool2d(x.view(16, 1, 8, 8), 2, return_indices=True), 2)"


@composed("max_unpool1d", "max_unpool2d", "max_unpool3d", example=_EXAMPLE)
def max_unpool(
    tape: Tape, input: Signal, indices: Signal, kernel_size: Any = None, stride: Any = None, padding: Any = 0,
    output_size: Any = None,
) -> Signal:  # fmt: skip
    """Each entry at one place of its window, zeros at the others; which place is independent of the entry.

    Windows lie side by side and cover what is put out, but for what is left at its ends, which is zero.

    Args:
        tape: What follows.
        input: The maxima.
        indices: Where they were found: taken as any place of the window.
        kernel_size: Follows, as the three others, from the sizes of input and output.
        stride: See there.
        padding: See there.
        output_size: See there.
    """
    del indices, kernel_size, stride, padding, output_size
    axes = int(tape.call.node.op[-2])
    lead, sizes, wanted = input.shape[:-axes], input.shape[-axes:], tape.call.node.outputs[0].shape[-axes:]
    windows = [max(m // n, 1) for n, m in zip(sizes, wanted, strict=True)]
    apart = tuple(k for n in sizes for k in (n, 1))
    full = tuple(k for pair in zip(sizes, windows, strict=True) for k in pair)
    mask = one_of((*lead, *full), [len(lead) + 2 * i + 1 for i in range(axes)])
    spread = tape("mul", tape("view", input, (*lead, *apart)), mask)
    out = tape("view", spread, (*lead, *(n * k for n, k in zip(sizes, windows, strict=True))))
    if out.shape[-axes:] == wanted:
        return out
    missing = [m - n for n, m in zip(out.shape[-axes:], wanted, strict=True)]
    return tape("pad", out, tuple(k for m in reversed(missing) for k in (0, m)))
