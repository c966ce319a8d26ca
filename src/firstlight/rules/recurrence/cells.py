"""Single steps of recurrent networks (`nn.GRUCell`, …): their formula, composed of the rules of its operations.

The steps of a loop share their weights, which are taken as independent at each step.
"""

from __future__ import annotations

from typing import Any

from firstlight.graph.signal import Signal
from firstlight.rules.composed.tape import Tape
from firstlight.rules.registry import BACKWARD_INDEPENDENT, WEIGHTS_IID, Call, Grads, first_of, rule, several


def _affine(tape: Tape, x: Signal, w: Signal, b: Signal | None) -> Signal:
    return tape("linear", x, w) if b is None else tape("linear", x, w, b)


def _step(
    tape: Tape, x: Signal, hx: Any, w_ih: Signal, w_hh: Signal, b_ih: Signal | None, b_hh: Signal | None
) -> tuple[Signal, ...]:
    """h′ of the cell whose name the call carries; (h′, c′) of an LSTM's."""
    op = tape.call.node.op
    h = first_of(hx)
    c = list(hx)[-1] if several(hx) else None
    units = h.shape[-1]
    inner, outer = _affine(tape, x, w_ih, b_ih), _affine(tape, h, w_hh, b_hh)
    if op.startswith("rnn"):
        return (tape("tanh" if "tanh" in op else "relu", tape("add", inner, outer)),)

    def gate(source: Signal, k: int) -> Signal:
        return tape("narrow", source, -1, k * units, units)

    if op == "gru_cell":
        reset = tape("sigmoid", tape("add", gate(inner, 0), gate(outer, 0)))
        update = tape("sigmoid", tape("add", gate(inner, 1), gate(outer, 1)))
        new = tape("tanh", tape("add", gate(inner, 2), tape("mul", reset, gate(outer, 2))))
        return (tape("add", tape("mul", tape("sub", 1.0, update), new), tape("mul", update, h)),)
    every = tape("add", inner, outer)
    keep, forget, write, show = (gate(every, k) for k in range(4))
    held = tape("mul", tape("sigmoid", forget), c)
    cell = tape("add", held, tape("mul", tape("sigmoid", keep), tape("tanh", write)))
    return tape("mul", tape("sigmoid", show), tape("tanh", cell)), cell


@rule(
    "gru_cell", "rnn_tanh_cell", "rnn_relu_cell", "lstm_cell", assumes=(WEIGHTS_IID, BACKWARD_INDEPENDENT),
    example="torch.gru_cell(x, x.roll(1, 1), torch.randn(192, 64) / 8, torch.randn(192, 64) / 8)",
)  # fmt: skip
def cell(
    call: Call, input: Signal, hx: Any, w_ih: Signal, w_hh: Signal, b_ih: Signal | None = None,
    b_hh: Signal | None = None,
) -> Any:  # fmt: skip
    """One step of a recurrent network."""
    out = _step(Tape(call), input, hx, w_ih, w_hh, b_ih, b_hh)
    return out if len(out) > 1 else first_of(out)


@cell.adjoint
def _(
    call: Call, grads: Any, out: Any, input: Signal, hx: Any, w_ih: Signal, w_hh: Signal, b_ih: Signal | None = None,
    b_hh: Signal | None = None,
) -> Grads:  # fmt: skip
    del out
    tape = Tape(call)
    ends = _step(tape, input, hx, w_ih, w_hh, b_ih, b_hh)
    given = grads if several(grads) else (grads,)
    of = tape.back({end.ident: [g] for end, g in zip(ends, given, strict=False) if g is not None})
    named = {"input": input, "w_ih": w_ih, "w_hh": w_hh, "b_ih": b_ih, "b_hh": b_hh}
    result: dict[str, Any] = {n: of(x) for n, x in named.items() if x is not None}
    result["hx"] = tuple(of(x) for x in hx) if several(hx) else of(hx)
    return {n: g for n, g in result.items() if g is not None}
