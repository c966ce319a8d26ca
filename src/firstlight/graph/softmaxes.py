"""Softmaxes that are written out, e^(x - m)/Σ e^(x - m), as one operation.

Whatever m is, if it is the same along the axis of the sum (a maximum, most often) it cancels, in the weights and in
their gradients, and m itself gets none. Statistics of two moments cannot tell: e^x of Gaussian logits has
E e^2x = e^2v, of which the few largest entries are nearly all, and their sum has them as well.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from firstlight.graph.ir import Arg, Graph, Node, Ref
from firstlight.graph.normalize import readers

_SMALL = 1e-3  # what may be added to the sum, of entries of which the largest is 1, to keep it from zero
_ORDERED = frozenset(["view", "reshape", "unsqueeze", "getitem", "to", "expand", "expand_as"])


def joined(graph: Graph) -> Graph:
    """The graph with each of them a node "softmax", named as its division was, less what nothing else reads."""
    if not any(n.op == "exp" for n in graph.nodes):
        return graph
    found = {n.name: one for n in graph.nodes if n.op == "div" and (one := _softmax(graph, n)) is not None}
    if not found:
        return graph
    nodes = [found.get(n.name, n) for n in graph.nodes]
    inside = _read(graph, [n for n in graph.nodes if n.name in found])
    ends = {ref.node for ref in graph.outputs}
    while unread := inside - ends - readers(nodes).keys():
        before = [n for n in nodes if n.name in unread]
        nodes = [n for n in nodes if n.name not in unread]
        inside = (inside - unread) | _read(graph, before)
    return replace(graph, nodes=tuple(nodes))


def _read(graph: Graph, nodes: list[Node]) -> set[str]:
    """The operations that these read."""
    return {ref.node for n in nodes for ref in n.refs if graph[ref.node].op != "input"}


def _softmax(graph: Graph, node: Node) -> Node | None:
    """The softmax that a division is; None for any other."""
    if node.options.get("rounding_mode") is not None:
        return None
    above, total = _node(graph, _first(node)), _node(graph, _second(node))
    if total is not None and total.op == "add" and isinstance(small := _second(total), float) and 0.0 < small <= _SMALL:
        total = _node(graph, _first(total))
    placed = () if total is None else total.outputs[0].shape
    while total is not None and total.op in _ORDERED and not _picks(total):
        placed = total.outputs[0].shape if placed == node.outputs[0].shape else placed
        total = _node(graph, _first(total))
    if above is None or total is None or total.op != "sum" or _uncast(graph, _first(total)) is not above:
        return None
    shape = above.outputs[0].shape
    axis = _axis(total, len(shape))
    if above.op != "exp" or axis is None or placed != (*shape[:axis], 1, *shape[axis + 1 :]):
        return None
    return replace(
        node, op="softmax", args=(_unshifted(graph, _first(above), len(shape) - axis),),
        options=MappingProxyType({"dim": axis}),
    )  # fmt: skip


def _first(node: Node) -> Arg:
    """The first operand, by place or by keyword."""
    return node.args[0] if node.args else node.options.get("input")


def _second(node: Node) -> Arg:
    return node.args[1] if len(node.args) > 1 else node.options.get("other")


def _node(graph: Graph, arg: Arg) -> Node | None:
    """The operation whose only output an argument is, before changes of its type."""
    return _uncast(graph, arg) if isinstance(arg, Ref) and len(graph[arg.node].outputs) == 1 else None


def _uncast(graph: Graph, arg: Arg) -> Node | None:
    while isinstance(arg, Ref) and graph[arg.node].op == "to":
        arg = _first(graph[arg.node])
    return graph[arg.node] if isinstance(arg, Ref) else None


def _picks(node: Node) -> bool:
    """Whether an index may leave out or turn around entries, and does more than add axes."""
    return node.op == "getitem" and not all(
        item in (None, "...", ("slice", None, None, None))
        for item in (node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],))
    )


def _axis(total: Node, rank: int) -> int | None:
    """The one axis that a sum is over."""
    axis = total.args[1] if len(total.args) > 1 else total.options.get("dim")
    axis = axis[0] if isinstance(axis, tuple) and len(axis) == 1 else axis
    return axis % rank if isinstance(axis, int) and not isinstance(axis, bool) else None


def _unshifted(graph: Graph, logits: Arg, place: int) -> Arg:
    """The logits before anything was taken from them that is the same along an axis, the `place`-th from the end."""
    node = _node(graph, logits)
    if node is None or node.op != "sub" or node.options.get("alpha", 1) != 1:
        return logits
    first, other, shape = _first(node), _second(node), node.outputs[0].shape
    if not isinstance(first, Ref):
        return logits
    if graph[first.node].outputs[first.index].shape != shape:
        return logits
    taken = graph[other.node].outputs[other.index].shape if isinstance(other, Ref) else () if _number(other) else shape
    even = len(taken) < place or taken[-place] == 1
    return first if even else logits


def _number(arg: Arg) -> bool:
    return isinstance(arg, int | float)
