"""Packed sequences: the steps of sequences of different length one after the other, without padding.

The data of a packed sequence are the rows (t, b) of all sequences b that are longer than t. Their statistics are those
of the whole [time, batch, features] with rows left out; recurrent layers see the whole, as if all sequences were as
long as the longest one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from firstlight.graph.ir import Node, TensorSpec
from firstlight.graph.signal import Cotangent, Signal, next_id, replace
from firstlight.rules.gradients.gradient import scale, scaled, whole
from firstlight.rules.moves.structural import like_shape
from firstlight.rules.pointwise.choice import masked
from firstlight.rules.recurrence.recurrent import recurrent
from firstlight.rules.registry import Call, Grads, rule, several
from firstlight.rules.state.empirical import constant
from firstlight.rules.state.layout import axis_atoms, permute

Sizes = npt.NDArray[np.int64]


def _sizes_of(lengths: Any) -> Sizes:
    """How many sequences are longer than t, for each t."""
    known = np.asarray(lengths.value if isinstance(lengths, Signal) else lengths, dtype=np.int64).ravel()
    return np.array([(known > t).sum() for t in range(int(known.max()))], dtype=np.int64)


def _whole(data: Signal, sizes: Sizes) -> Signal:
    """[time, batch, ...] of which the data are rows."""
    x = like_shape(data, (len(sizes), int(sizes[0]), *data.shape[1:]))
    return replace(x, batch=tuple(i in axis_atoms(x, 1) for i in range(len(x.atoms))), ident=next_id())


def _absent(sizes: Sizes, ndim: int) -> Signal:
    """1 where a sequence has ended."""
    gone = np.arange(int(sizes[0]))[None, :] >= sizes[:, None]
    return constant(gone.astype(np.float64).reshape(*gone.shape, *(1,) * (ndim - 2)))


def _present(sizes: Sizes) -> float:
    """Share of the steps that there are."""
    return float(sizes.sum()) / (len(sizes) * int(sizes[0]))


def _rows(x: Signal, sizes: Sizes) -> Signal:
    """The rows of [time, batch, ...] that there are: their means are those over these alone."""
    share = _present(sizes)
    if share == 1.0:
        return like_shape(x, (int(sizes.sum()), *x.shape[2:]))
    there = masked(x, _absent(sizes, x.ndim), 0.0)
    there = replace(there, mean=there.mean / share, q=there.q / share, ident=next_id())
    return like_shape(there, (int(sizes.sum()), *x.shape[2:]))


def _time_first(x: Signal, batch_first: Any) -> Signal:
    return permute(x, (1, 0, *range(2, x.ndim))) if batch_first else x


@rule(
    "_pack_padded_sequence",
    example="nn.utils.rnn.pack_padded_sequence(x.view(16, 4, 16), torch.tensor([4] * 8 + [2] * 8), True).data",
)
def pack(call: Call, input: Signal, lengths: Signal, batch_first: bool = False) -> tuple[Signal, Signal]:
    """The steps of all sequences, and how many there are at each."""
    if lengths.value is None:
        raise ValueError("the lengths of the sequences are not known")
    sizes = _sizes_of(lengths)
    del call
    return _rows(_time_first(input, batch_first), sizes), constant(sizes)


@pack.adjoint
def _(call: Call, grads: Any, out: Any, input: Signal, lengths: Signal, batch_first: bool = False) -> Grads:
    del call, out
    if grads[0] is None:
        return {}
    sizes = _sizes_of(lengths)
    g = _whole(whole(grads[0]), sizes)
    g = masked(g, _absent(sizes, g.ndim), 0.0)
    longer = (input.shape[1] if batch_first else input.shape[0]) - len(sizes)
    g = _time_first(g, batch_first)
    return {"input": Cotangent(g if longer == 0 else like_shape(g, input.shape))}


@rule(
    "_pad_packed_sequence",
    example="nn.utils.rnn.pad_packed_sequence(nn.utils.rnn.pack_padded_sequence(x.view(16, 4, 16), "
    "torch.tensor([4] * 8 + [2] * 8), True), True)[0]",
)
def pad(
    call: Call, input: Signal, batch_sizes: Signal, batch_first: bool = False, padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Signal, Signal]:  # fmt: skip
    """The steps in their places, a number where a sequence has ended."""
    del total_length
    sizes = _known(batch_sizes)
    x = _whole(input, sizes)
    x = masked(x, _absent(sizes, x.ndim), float(padding_value))
    x = _time_first(x, batch_first)
    lengths = constant((np.arange(int(sizes[0]))[:, None] < sizes[None, :]).sum(1))
    shape = call.node.outputs[0].shape
    return (x if x.shape == shape else like_shape(x, shape)), lengths


@pad.adjoint
def _(
    call: Call, grads: Any, out: Any, input: Signal, batch_sizes: Signal, batch_first: bool = False,
    padding_value: float = 0.0, total_length: int | None = None,
) -> Grads:  # fmt: skip
    del call, out, padding_value, total_length
    if grads[0] is None:
        return {}
    sizes = _known(batch_sizes)
    g = _time_first(whole(grads[0]), batch_first)
    if g.shape[:2] == (len(sizes), int(sizes[0])):
        return {"input": Cotangent(_rows(g, sizes))}
    return {"input": Cotangent(like_shape(g, input.shape))}


def _known(sizes: Signal) -> Sizes:
    if sizes.value is None:
        raise ValueError("the sizes of the packed batches are not known")
    return np.asarray(sizes.value, dtype=np.int64).ravel()


_FULL, _FULL_BACK = recurrent.forward, recurrent.backward
# Where a packed call has what the rule of a full one calls otherwise: (data, batch sizes, state, parameters, …).
_NAMES = ("has_biases", "num_layers", "dropout", "train", "bidirectional")


def _as_full(call: Call, bound: dict[str, Any]) -> tuple[Call, Sizes, dict[str, Any]]:
    """The call of a full sequence behind that of a packed one."""
    sizes = _known(bound["hx"])
    rest = dict(zip(_NAMES, (bound[n] for n in (*_NAMES[1:], "batch_first")), strict=True))
    first, *states = call.node.outputs
    whole_spec = TensorSpec((len(sizes), int(sizes[0]), *first.shape[1:]), first.dtype)
    inner = Call(Node(call.node.name, call.node.op, outputs=(whole_spec, *states)), call.training, call.caveats)
    given = {"input": _whole(bound["input"], sizes), "hx": bound["params"], "params": bound["has_biases"], **rest}
    if _present(sizes) < 1.0:
        call.caveat("packed sequences: the states of shorter ones are taken to be smaller as the outputs are")
    return inner, sizes, given


def _packed(bound: dict[str, Any]) -> bool:
    return several(bound.get("has_biases"))


def _forward(call: Call, **bound: Any) -> tuple[Signal, ...]:
    if not _packed(bound):
        return _FULL(call, **bound)
    inner, sizes, given = _as_full(call, bound)
    y, *states = _FULL(inner, **given)
    return (_rows(y, sizes), *(scale(state, _ended(y, sizes) ** 0.5) for state in states))


def _ended(y: Signal, sizes: Sizes) -> float:
    """Mean square of the outputs at the last step of each sequence, over that at the longest's."""
    at = axis_atoms(y, 0)
    if not at or y.q.shape[at[0]] == 1:
        return 1.0
    over_time = y.q.mean(axis=tuple(i for i in range(y.q.ndim) if i != at[0]))
    ends = sizes - np.append(sizes[1:], 0)  # how many sequences end at each step
    return float(ends @ over_time) / (int(sizes[0]) * float(over_time[-1]))


def _backward(call: Call, grads: Any, out: Any, **bound: Any) -> Grads:
    assert _FULL_BACK is not None
    if not _packed(bound):
        return _FULL_BACK(call, grads, out, **bound)
    inner, sizes, given = _as_full(call, bound)
    along = None if grads[0] is None else Cotangent(_whole(whole(grads[0]), sizes))
    found = _FULL_BACK(inner, (along, *grads[1:]), out, **given)
    share = _present(sizes)  # the parameters' gradients are sums over the steps that there are
    return {
        "input": Cotangent(_rows(whole(found["input"]), sizes)),
        "has_biases": tuple(scaled(g, share**0.5) for g in found["params"]),
    }


recurrent.forward, recurrent.backward = _forward, _backward
