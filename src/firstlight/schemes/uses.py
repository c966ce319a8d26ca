"""Which operations read which parameters, and over which axes they sum: read off the graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from firstlight.graph.ir import Arg, ConstantRef, Graph, Node, ParameterRef, Ref
from firstlight.schemes.fans import Site

Axes = tuple[int, ...]

# Operations on a weight that only reorder or retype its entries; the axes are followed through the first
# group.
_REORDER = frozenset({"t", "transpose", "permute"})
_SAME_AXES = frozenset({"to", "detach", "contiguous", "clone", "requires_grad", "alias"})
#: Operations that give back entries of a weight, as they are.
_KEPT = frozenset(
    [
        "view", "reshape", "unsqueeze", "squeeze", "flatten", "unflatten", "expand", "repeat", "getitem", "select",
        "narrow", "chunk", "split", "unbind", "movedim", "cat", "stack", "flip", "roll", "repeat_interleave",
        "index_select",
    ]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Use:
    """One operation that reads one parameter.

    Attributes:
        node: The operation.
        position: Which of its arguments: a position, or the name of an option.
        axes: For each axis of the argument the axis of the parameter; None where that was lost (a reshape).
        direct: Whether it is the parameter itself, perhaps with its axes reordered, that is read.
        index: Which of the operation's tensors it is, for operations on a list of tensors.
        factor: Constant by which the parameter is multiplied first, without its sign.
        offset: Constant that is added to the parameter first.
        known: Whether nothing else than all this has been done to its entries.
    """

    node: Node
    position: int | str
    axes: Axes | None
    direct: bool
    index: int | None = None
    factor: float = 1.0
    offset: float = 0.0
    known: bool = True


def uses(graph: Graph) -> dict[str, list[Use]]:
    """The uses of every parameter by operations on the signal, in execution order."""
    nodes = graph.named
    signal = signal_nodes(graph)
    found: dict[str, list[Use]] = {}
    for node in graph.nodes:
        if node.name not in signal or node.op == "input":
            continue
        for position, arg in [*enumerate(node.args), *node.options.items()]:
            for i, item in enumerate(arg if isinstance(arg, tuple) else (arg,)):
                index = i if isinstance(arg, tuple) else position if isinstance(position, int) else None
                for o in _origins(item, nodes, signal, graph):
                    use = Use(node, position, o.axes, o.direct, index, o.factor, o.offset, o.known)
                    found.setdefault(o.name, []).append(use)
    return found


def signal_nodes(graph: Graph) -> frozenset[str]:
    """Names of the operations whose output depends on an input (not on weights and constants alone)."""
    found: set[str] = set()
    for node in graph.nodes:
        if node.op == "input" or any(r.node in found for r in node.refs):
            found.add(node.name)
        elif node.op in ("embedding", "embedding_bag"):
            found.add(node.name)  # looked up by integers that may have been computed as constants
    return frozenset(found)


class _Origin(NamedTuple):
    """A parameter behind an argument, with the fields of `Use`."""

    name: str
    axes: Axes | None
    direct: bool
    factor: float = 1.0
    offset: float = 0.0
    known: bool = True


def constant_factor(node: Node, graph: Graph) -> float | None:
    """|c| of an operation that multiplies one tensor by a constant c ≠ 0 or divides it by one; else None."""
    if node.op not in ("mul", "div") or len(node.args) != 2:
        return None
    numbers = [_number(a, graph) for a in node.args]
    if (numbers[0] is None) is (numbers[1] is None) or (node.op == "div" and numbers[0] is not None):
        return None
    c = abs(next(n for n in numbers if n is not None))
    if not 0.0 < c < math.inf:
        return None
    return 1.0 / c if node.op == "div" else c


def constant_term(node: Node, graph: Graph) -> float | None:
    """c of an operation that adds a constant c to one tensor; else None."""
    if node.op not in ("add", "sub") or len(node.args) != 2 or node.options.get("alpha", 1) != 1:
        return None
    if node.op == "sub":
        taken = None if _number(node.args[0], graph) is not None else _number(node.args[1], graph)
        return None if taken is None else -taken
    numbers = [n for n in (_number(a, graph) for a in node.args) if n is not None]
    return numbers[0] if len(numbers) == 1 else None


def _number(arg: Arg, graph: Graph) -> float | None:
    if isinstance(arg, ConstantRef):
        value = graph.constants[arg.name].value if arg.name in graph.constants else None
        return float(value.item()) if value is not None and value.size == 1 and value.dtype.kind in "iuf" else None
    return float(arg) if isinstance(arg, int | float) and not isinstance(arg, bool) else None


def _origins(arg: Arg, nodes: Mapping[str, Node], signal: frozenset[str], graph: Graph) -> list[_Origin]:
    if isinstance(arg, ParameterRef):
        spec = graph.parameters.get(arg.name)
        rank = len(spec.spec.shape) if spec else 0
        return [_Origin(arg.name, tuple(range(rank)), True)]
    if not isinstance(arg, Ref) or arg.node in signal or arg.node not in nodes:
        return []
    node = nodes[arg.node]
    sources = [s for a in (*node.args, *node.options.values()) for s in _sources(a, nodes, signal, graph)]
    if node.op in _SAME_AXES:
        return sources
    if len(sources) == 1:
        origin = sources[0]
        if node.op in _REORDER and origin.axes is not None:
            return [origin._replace(axes=_reordered(node, origin.axes))]
        if node.op == "getitem" and isinstance(node.args[1], int):
            return [origin._replace(axes=origin.axes[1:] if origin.axes else None)]  # one of stacked maps: an expert
        if node.op == "select" and origin.axes:  # the same, along any axis
            axis = _raw(node, "dim", 1)
            kept = list(origin.axes)
            if isinstance(axis, int):
                del kept[axis]
                return [origin._replace(axes=tuple(kept))]
        factor = constant_factor(node, graph)
        if factor is not None:  # an "equalized" learning rate: (c·W) x
            return [origin._replace(factor=factor * origin.factor)]
        added = constant_term(node, graph)
        if added is not None:  # a gain that is counted from one: (1 + w) x
            return [origin._replace(direct=False, offset=origin.offset + added)]
    if node.op in _KEPT:
        return [_Origin(o.name, None, False, offset=o.offset, known=o.known) for o in sources]
    return [_Origin(o.name, None, False, known=False) for o in sources]


def _sources(arg: Arg, nodes: Mapping[str, Node], signal: frozenset[str], graph: Graph) -> list[_Origin]:
    if isinstance(arg, tuple):
        return [s for a in arg for s in _origins(a, nodes, signal, graph)]
    return _origins(arg, nodes, signal, graph)


def _reordered(node: Node, axes: Axes) -> Axes | None:
    numbers = [a for a in (*node.args[1:], *node.options.values()) if not isinstance(a, Ref | ParameterRef)]
    rank = len(axes)
    if node.op == "t":
        return axes[::-1]
    if node.op == "transpose":
        if len(numbers) != 2:
            numbers = [-2, -1]  # Tensor.mT
        a, b = (int(n) % rank for n in numbers if isinstance(n, int))
        order = list(axes)
        order[a], order[b] = order[b], order[a]
        return tuple(order)
    flat = numbers[0] if len(numbers) == 1 and isinstance(numbers[0], tuple) else tuple(numbers)
    if len(flat) != rank or not all(isinstance(n, int) for n in flat):
        return None
    return tuple(axes[int(n) % rank] for n in flat if isinstance(n, int))


def site_of(use: Use, graph: Graph, name: str) -> Site | None:
    """What a raw parameter is, from one use of it: fans from the summed axes; None where unclear."""
    shape = graph.parameters[name].spec.shape
    op, node = use.node.op, use.node
    if op in ("embedding", "embedding_bag"):
        return Site("embedding", 1, shape[-1], in_axes=(0,))
    if op in NORMS and (use.direct or (use.known and use.offset)):
        return Site("gain", offset=use.offset) if use.position in ("weight", _NORM_WEIGHT.get(op)) else Site("bias")
    if op == "add" and len(shape) == 1 and shape[0] == node.outputs[0].shape[-1]:
        return Site("bias")
    if op == "mul" and len(shape) == 1 and use.known and _after_norm(node, graph):
        return Site("gain", offset=use.offset)
    bias_position = {"linear": 2, "addmm": 0, "baddbmm": 0}.get(op, 2 if op.startswith("conv") else None)
    if use.position == "bias" or (bias_position is not None and use.position == bias_position):
        return Site("bias")
    if use.axes is None or not use.direct:
        return None
    summed = _summed(use, graph)
    if summed is None:
        return None
    inputs, batch = (tuple(use.axes[a] for a in axes) for axes in summed)
    picked = tuple(a for a in range(len(shape)) if a not in use.axes)
    return _map_site(node, shape, inputs, batch + picked)


def _map_site(node: Node, shape: Axes, inputs: Axes, batch: Axes) -> Site | None:
    if batch not in ((), (0,)):
        return None
    groups = _option(node, "groups", 6, 1)  # the seventh argument of all convolutions
    split = shape[0] if batch else (groups if node.op.startswith("conv") else 1)
    n_in = math.prod(shape[a] // (split if a == 0 else 1) for a in inputs)
    n_out = math.prod(shape) // max(1, n_in * split)
    if not node.op.startswith("conv"):
        return Site("weight", n_in, n_out, split=split, in_axes=inputs, channels=(n_in, n_out))
    kernel = tuple(range(2, len(shape)))
    taps = math.prod(shape[2:])
    stride = math.prod(_tuple(_raw(node, "stride", 3), len(kernel)))
    if node.op.startswith("conv_transpose"):
        channels = (shape[0] // split, shape[1])
        fans = (channels[0] * taps / stride, channels[1] * taps)
        return Site("weight", *fans, split=split, in_axes=(0,), kernel_axes=kernel, channels=channels)
    channels = (shape[1], shape[0] // split)
    fans = (channels[0] * taps, channels[1] * taps / stride)
    return Site("weight", *fans, split=split, in_axes=(1, *kernel), kernel_axes=kernel, channels=channels)


def _summed(use: Use, graph: Graph) -> tuple[Axes, Axes] | None:
    """(axes of the argument that are summed over, axes that run along with the signal)."""
    op, position, axes = use.node.op, use.position, use.axes
    assert axes is not None
    rank = len(axes)
    if op == "linear":
        return ((rank - 1,), ()) if position in (1, "weight") else None
    if op.startswith("conv"):
        return ((1,), ()) if position in (1, "weight") else None
    if op in ("matmul", "mm", "bmm", "mv", "addmm", "baddbmm", "grouped_mm"):
        second = 2 if op in ("addmm", "baddbmm") else 1
        if position in (second, "other", "mat2", "batch2"):
            return ((max(0, rank - 2),), tuple(range(max(0, rank - 2))))
        return ((rank - 1,), tuple(range(max(0, rank - 2))))
    if op == "einsum":
        return _einsum(use)
    if op == "bilinear":
        return ((1, 2), ()) if position in (2, "weight") else None
    return None


def _einsum(use: Use) -> tuple[Axes, Axes] | None:
    index, first = use.index, use.node.args[0]
    if index is None:
        return None
    equation = use.node.options.get("equation")
    if isinstance(first, str):  # einsum("ij,jk->ik", a, b): the operands follow
        equation = first
        index -= not isinstance(use.node.args[1], tuple)
    if not isinstance(equation, str):
        return None
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or index >= len(terms) or "." in terms[index]:
        return None
    others = "".join(t for i, t in enumerate(terms) if i != index)
    term = terms[index]
    summed = tuple(a for a, letter in enumerate(term) if letter not in right and letter in others)
    batch = tuple(a for a, letter in enumerate(term) if letter in right and letter in others)
    return summed, batch


NORMS = frozenset({"layer_norm", "group_norm", "batch_norm", "instance_norm", "rms_norm"})
_NORM_WEIGHT = {"layer_norm": 2, "rms_norm": 2, "group_norm": 2, "batch_norm": 3, "instance_norm": 3}


def _after_norm(node: Node, graph: Graph) -> bool:
    """Whether a product's signal was divided by its own size a few operations before: a hand-written norm."""
    nodes = graph.named
    front = [r.node for r in node.refs]
    for _ in range(4):
        ops = {nodes[n].op for n in front if n in nodes}
        if ops & {"rsqrt", "sqrt", "norm", "linalg_norm", "vector_norm", "linalg_vector_norm"}:
            return True
        front = [r.node for n in front if n in nodes and nodes[n].op in _POINTWISE for r in nodes[n].refs]
    return False


_POINTWISE = frozenset({"mul", "div", "to", "add", "sub", "rsqrt", "sqrt", "clamp"})


def _raw(node: Node, name: str, position: int) -> Arg:
    if name in node.options:
        return node.options[name]
    return node.args[position] if len(node.args) > position else None


def _option(node: Node, name: str, position: int, default: int) -> int:
    value = _raw(node, name, position)
    return value if isinstance(value, int) else default


def _tuple(value: Arg, rank: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * rank
    if isinstance(value, tuple) and len(value) == rank and all(isinstance(v, int) for v in value):
        return tuple(int(v) for v in value if isinstance(v, int))
    return (1,) * rank
