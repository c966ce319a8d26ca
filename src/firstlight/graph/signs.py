"""Which tensors have no entry above zero, or none below: read off the graph, for every value that the weights can take.

Statistics of two moments cannot tell: a running sum of decays, -e^a·softplus(z) summed over the positions, scatters
widely from head to head, and a Gaussian of its mean and variance has an upper end that e^u turns into infinity. That
no entry is above zero is a fact of the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from firstlight.graph.ir import Arg, ConstantRef, Graph, Node, Ref

_NEVER_BELOW = frozenset(["exp", "softplus", "sigmoid", "relu", "relu6", "square", "abs", "sqrt", "rsqrt", "softmax"])
_ASK = frozenset(["exp", "clamp", "clamp_min"])
_NEVER_ABOVE = frozenset(["logsigmoid", "log_softmax"])
#: Operations that give back entries of their first argument, sums or means of them, or positive multiples.
_KEEP = frozenset(
    [
        "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "transpose", "movedim",
        "contiguous", "getitem", "select", "narrow", "chunk", "split", "unbind", "expand", "clone", "to",
        "detach", "alias", "repeat", "repeat_interleave", "pad", "sum", "mean", "cumsum", "roll", "flip",
        "tril", "triu", "amax", "amin", "dropout", "gather", "take_along_dim", "index_select", "nan_to_num",
    ]
)  # fmt: skip


class _Run(NamedTuple):
    """A tensor whose entries along an axis are running sums of entries of one sign.

    Attributes:
        node: What made it.
        axis: Along which one of its axes.
        places: Where each of its axes is by now, counted from the end, as broadcasting does.
        last: Whether of the running sums the last one alone is left.
    """

    node: str
    axis: int
    places: tuple[int, ...]
    last: bool = False


class Steps(NamedTuple):
    """Differences of a running sum's entries: i of axis `first` minus j of axis `second`, the sum of the terms between.

    Attributes:
        first: Axis of the one, counted from the end; None if it is the last entry.
        second: Axis of the other, likewise.
        sign: Of the terms, and so of the difference where i ≥ j.
    """

    first: int | None
    second: int
    sign: int


class Signs(NamedTuple):
    """What the graph says of its tensors' entries.

    Attributes:
        never_above: Names of the nodes of which no entry is larger than zero.
        never_below: Names of those of which none is smaller.
        steps: Nodes that are differences of one running sum's entries.
    """

    never_above: frozenset[str] = frozenset()
    never_below: frozenset[str] = frozenset()
    steps: Mapping[str, Steps] = MappingProxyType({})


UNSAID = Signs()


def signs(graph: Graph) -> Signs:
    """Read the signs of a graph's tensors; nothing is looked for where no exponential or bound might ask."""
    if not any(n.op in _ASK for n in graph.nodes):
        return UNSAID
    found = _Reading(graph)
    below, above = (frozenset(name for name, sign in found.signs.items() if sign == s) for s in (1, -1))
    return Signs(above, below, MappingProxyType(found.steps))


class _Reading:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.signs: dict[str, int] = {}  # 1: no entry below zero, -1: none above; absent where neither is known
        self._runs: dict[str, _Run] = {}
        self.steps: dict[str, Steps] = {}
        for node in graph.nodes:
            sign = self._sign(node)
            if sign:
                self.signs[node.name] = sign
            run = self._run(node)
            if run is not None:
                self._runs[node.name] = run

    def _of(self, arg: Arg) -> int:
        """The sign of an argument."""
        if isinstance(arg, Ref):
            return self.signs.get(arg.node, 0)
        value = self._value(arg)
        if value is None or not value.size or value.dtype.kind not in "iuf":
            return 0
        return 1 if value.min() >= 0 else -1 if value.max() <= 0 else 0

    def _value(self, arg: Arg) -> npt.NDArray[Any] | None:
        if isinstance(arg, ConstantRef):
            constant = self.graph.constants.get(arg.name)
            return None if constant is None else constant.value
        return np.asarray(arg) if isinstance(arg, int | float) and not isinstance(arg, bool) else None

    def _sign(self, node: Node) -> int:
        op, args = node.op, node.args
        if op in _NEVER_BELOW:
            return 1
        if op in _NEVER_ABOVE:
            return -1
        if op == "where":
            return self._chosen(node)
        if op == "log1p":
            return max(self._of(args[0]), 0)
        if op == "log":
            return int(self._is_one_and_more(args[0]))
        if op in ("topk", "sort"):  # with the places, which are never below zero
            return max(self._of(args[0]), 0)
        if op == "neg":
            return -self._of(args[0])
        if op in ("clamp", "clamp_min", "clamp_max"):
            return self._clamped(node)
        if op in ("mul", "div") and len(args) > 1:
            return 1 if op == "mul" and args[0] == args[1] else self._of(args[0]) * self._of(args[1])
        if op == "pow" and len(args) > 1:
            return 1 if isinstance(args[1], int) and args[1] % 2 == 0 else max(self._of(args[0]), 0)
        if op in ("add", "sub") and node.options.get("alpha", 1) != 1:
            return 0
        if op == "sub" and len(args) > 1:
            sign = self._difference(node)
            return sign if sign or self._of(args[0]) != -self._of(args[1]) else self._of(args[0])
        if op in ("add", "maximum", "minimum") and len(args) > 1:
            return self._of(args[0]) if self._of(args[0]) == self._of(args[1]) else 0
        if op in ("cat", "stack") and args and isinstance(args[0], tuple):
            found = {self._of(a) for a in args[0]}
            return found.pop() if len(found) == 1 else 0
        if op == "masked_fill" and len(args) > 2:
            return self._filled(node)
        return self._of(args[0]) if op in _KEEP and args and self._keeps(node) else 0

    def _chosen(self, node: Node) -> int:
        """Of two tensors that have one sign; or of x where it is larger than a number, and what is never below zero."""
        if len(node.args) < 3:
            return 0
        where, one, other = node.args[:3]
        asked = self.graph.named[where.node] if isinstance(where, Ref) else None
        compared = asked.args[:2] if asked is not None and asked.op in ("gt", "ge") else ()
        above = len(compared) == 2 and compared[0] == one and self._of(compared[1]) > 0
        sign = 1 if above else self._of(one)
        return sign if sign == self._of(other) else 0

    def _clamped(self, node: Node) -> int:
        """Of what is held between two numbers: that of either, where it is no less or no more than zero."""
        names = ("input", "max") if node.op == "clamp_max" else ("input", "min", "max")
        given = dict(zip(names, node.args, strict=False)) | dict(node.options)
        low, high = given.get("min"), given.get("max")
        if self._fits(low, 1) or self._fits(high, -1):
            return 1 if self._fits(low, 1) else -1
        own = self._of(node.args[0])
        against = high if own > 0 else low  # max of what is never below zero, min of what is never above
        return own if against is None or self._fits(against, own) else 0

    def _fits(self, bound: Arg, sign: int) -> bool:
        """Whether a bound, if there is one, is nowhere on the other side of zero."""
        value = self._value(bound)
        return bound is not None and (self._of(bound) == sign if value is None else bool((sign * value >= 0).all()))

    def _is_one_and_more(self, arg: Arg) -> bool:
        """Whether it is a sum of one (or more) and of what is never below zero."""
        node = self.graph.named[arg.node] if isinstance(arg, Ref) else None
        if node is None or node.op != "add" or len(node.args) < 2 or node.options.get("alpha", 1) != 1:
            return False
        pairs = (node.args[:2], node.args[1::-1])
        return any(isinstance(c, int | float) and c >= 1 and self._of(x) > 0 for x, c in pairs)

    def _keeps(self, node: Node) -> bool:
        """Whether what a padding fills in is zero, or copies; and whether what comes out can be below zero."""
        if node.outputs and node.outputs[0].dtype in _UNSIGNED:
            return False
        return node.op != "pad" or (len(node.args) < 4 and not node.options.get("value"))

    def _run(self, node: Node) -> _Run | None:
        """Follow running sums through new axes and cuts."""
        first = node.args[0] if node.args else None
        if not isinstance(first, Ref) or not node.outputs:
            return None
        rank = len(node.outputs[0].shape)
        if node.op == "cumsum":
            axis = node.args[1] if len(node.args) > 1 else node.options.get("dim")
            if not isinstance(axis, int) or not rank or not self._of(first):
                return None
            return _Run(node.name, axis % rank, tuple(range(-rank, 0)))
        run = self._runs.get(first.node)
        if run is None:
            return None
        if node.op in ("to", "contiguous", "clone", "alias"):
            return run
        if node.op == "unsqueeze":
            axis = node.args[1] if len(node.args) > 1 else node.options.get("dim")
            if not isinstance(axis, int):
                return None
            return run._replace(places=tuple(p - (p <= axis % rank - rank) for p in run.places))
        if node.op == "getitem" and len(node.args) > 1:
            return self._cut(run, node.args[1], len(self.graph[first.node].outputs[0].shape))
        return None

    def _cut(self, run: _Run, index: Arg, before: int) -> _Run | None:
        """A running sum of which all but the last entry may have been cut off; None for any other index."""
        items = list(index) if isinstance(index, tuple) and index[:1] != ("slice",) else [index]
        if "..." not in items:
            items.append("...")
        at = items.index("...")
        items[at : at + 1] = [_EVERYTHING] * (before - sum(i is not None for i in items) + 1)
        kept = [i - len(items) for i, item in enumerate(items) if item is not None]  # where each axis comes to lie
        changed = [(p, items[p]) for p in kept if items[p] != _EVERYTHING]
        run = run._replace(places=tuple(kept[p] for p in run.places))
        if not changed:
            return run
        return run._replace(last=True) if changed == [(run.places[run.axis], ("slice", -1, None, None))] else None

    def _difference(self, node: Node) -> int:
        a, b = node.args[:2]
        one = self._runs.get(a.node) if isinstance(a, Ref) else None
        two = self._runs.get(b.node) if isinstance(b, Ref) else None
        if one is None or two is None or one.node != two.node or not self._side_by_side(one, two):
            return 0
        sign = self.signs.get(one.node, 0)
        first, second = one.places[one.axis], two.places[two.axis]
        if two.last or (first == second and not one.last):
            return 0
        self.steps[node.name] = Steps(None if one.last else first, second, sign)
        return sign if one.last else 0

    def _side_by_side(self, one: _Run, two: _Run) -> bool:
        """Whether a difference is of entries of one sum: no axis but that of the sum lies elsewhere."""
        shape = self.graph[one.node].outputs[0].shape
        return all(
            p == q or n == 1 or k == one.axis
            for k, (p, q, n) in enumerate(zip(one.places, two.places, shape, strict=True))
        )

    def _filled(self, node: Node) -> int:
        """A masked tensor: of its own sign if what is filled in is, also where the mask hides what is of the other."""
        first, mask, value = node.args[:3]
        filled = self._value(value)
        if filled is None or not filled.size:
            return 0
        fits = {sign: bool((sign * filled >= 0).all()) for sign in (1, -1)}
        if own := self._of(first):
            return own if fits[own] else 0
        steps, hidden = self.steps.get(first.node) if isinstance(first, Ref) else None, self._value(mask)
        if not isinstance(first, Ref) or steps is None or steps.first is None or hidden is None or not steps.sign:
            return 0
        later = np.indices(self.graph[first.node].outputs[0].shape, sparse=True)
        in_order = later[steps.first] >= later[steps.second]
        return steps.sign if fits[steps.sign] and bool(np.all(hidden.astype(bool) | in_order)) else 0


_UNSIGNED = frozenset(["bool", "uint8", "uint16", "uint32", "uint64"])
_EVERYTHING = ("slice", None, None, None)
