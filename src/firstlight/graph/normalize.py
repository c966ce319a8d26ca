"""Passes from graph to graph: one form for each operation, and nothing that does nothing.

A normalised node has the operation's required arguments in `args`, in torch's order, and all others by name
in `options`, defaults filled in, however the user called it. `mm`, `bmm`, `mv` and `dot` are "matmul"; `max`
of two tensors is "maximum". Removed, with readers rewired to the argument: copies and layout changes
(`contiguous`, `clone`), casts to the same type, dropout that is off, reshapes to the same shape; `detach`
stays, it cuts the gradient. Nodes from which no output can be reached are dropped and counted in a note.
Names never change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from firstlight.graph.ir import Arg, ConstantRef, Graph, Node, ParameterRef, Ref, TensorSpec
from firstlight.graph.signatures import SYNONYMS, signature

_MATMULS = frozenset({"mm", "bmm", "mv", "dot", "vdot"})
_COPIES = frozenset({"contiguous", "clone", "identity", "alias", "positive", "conj", "resolve_conj", "resolve_neg"})
_RESHAPES = frozenset({"view", "reshape", "expand", "flatten", "squeeze", "broadcast_to"})
_DROPOUTS = frozenset({"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"})
_POSITIONAL = frozenset({"einsum"})


def normalize(graph: Graph, *, drop_dead: bool = True) -> Graph:
    """Apply all passes.

    Args:
        graph: As `capture.trace` or `graph.build` made it.
        drop_dead: Drop nodes that no output depends on; inputs always stay.

    Returns:
        An equivalent graph whose nodes have the form that the rules expect.
    """
    graph = bind_arguments(graph)
    graph = drop_no_ops(graph)
    return drop_dead_nodes(graph) if drop_dead else graph


def bind_arguments(graph: Graph) -> Graph:
    """Give every node its operation's argument names and defaults."""
    return replace(graph, nodes=tuple(bound(node) for node in graph.nodes))


def bound(node: Node) -> Node:
    """`node` with required arguments in order and the others by name."""
    node = _renamed(node)
    known = signature(node.op)
    if known is None or node.op in _POSITIONAL:
        return replace(node, options=MappingProxyType({SYNONYMS.get(k, k): v for k, v in node.options.items()}))
    required, defaults = known
    names = (*required, *defaults)
    if node.op in _RECURRENT and len(node.args) > 3 and isinstance(node.args[3], tuple):
        return node  # packed sequences: (data, batch_sizes, hx, params, ...) keep their own order
    if len(node.args) > len(names):
        return node
    given: dict[str, Arg] = dict(zip(names, node.args, strict=False))
    for key, value in node.options.items():
        plain = key if key in names else SYNONYMS.get(key, key)
        given[plain] = value
    if any(name not in given for name in required):
        return node
    args = tuple(given.pop(name) for name in required)
    return replace(node, args=args, options=MappingProxyType({**defaults, **given}))


_RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})


def _renamed(node: Node) -> Node:
    """Bring the spellings that the argument types decide to the canonical operation."""
    if node.op in _MATMULS:
        return replace(node, op="matmul")
    if node.op in ("max", "min"):
        other = node.args[1] if len(node.args) > 1 else node.options.get("other")
        if isinstance(other, Ref | ConstantRef | ParameterRef):
            args = (*node.args[:1], other)
            return replace(node, op=node.op + "imum", args=args, options=MappingProxyType({}))
    if node.op in ("var", "std", "var_mean", "std_mean") and len(node.args) == 2 and isinstance(node.args[1], bool):
        options = MappingProxyType({**node.options, "unbiased": node.args[1]})
        return replace(node, args=node.args[:1], options=options)
    if node.op == "hstack":
        dims = len(node.outputs[0].shape) if node.outputs else 2
        return replace(node, op="cat", options=MappingProxyType({"dim": 0 if dims == 1 else 1}))
    return node


def drop_no_ops(graph: Graph) -> Graph:
    """Remove nodes whose output is their first argument, entry for entry."""
    specs: dict[str, tuple[TensorSpec, ...]] = {node.name: node.outputs for node in graph.nodes}
    moved: dict[Ref, Arg] = {}
    kept: list[Node] = []
    outputs = set(graph.outputs)
    for node in graph.nodes:
        node = with_refs(node, lambda ref: moved.get(ref, ref))
        target = _passes_on(node, specs, graph)
        if target is not None and (isinstance(target, Ref) or Ref(node.name) not in outputs):
            moved[Ref(node.name)] = target
        else:
            kept.append(node)
    ends = tuple(end if isinstance(end := moved.get(ref, ref), Ref) else ref for ref in graph.outputs)
    return replace(graph, nodes=tuple(kept), outputs=ends)


def _passes_on(node: Node, specs: Mapping[str, tuple[TensorSpec, ...]], graph: Graph) -> Arg:
    """The argument that `node` passes on unchanged; None if it computes something."""
    if not node.args or len(node.outputs) != 1:
        return None
    source = node.args[0]
    if isinstance(source, Ref):
        before = specs[source.node][source.index] if source.node in specs else None
    elif isinstance(source, ParameterRef) and source.name in graph.parameters:
        before = graph.parameters[source.name].spec
    else:
        return None
    same = before == node.outputs[0]
    if node.op in _COPIES:
        return source
    if node.op == "to" or node.op in _RESHAPES:
        return source if same else None
    if node.op in _DROPOUTS and (not node.options.get("training", True) or node.options.get("p") == 0):
        return source
    return None


def drop_dead_nodes(graph: Graph) -> Graph:
    """Keep the inputs and what the outputs depend on."""
    needed = {ref.node for ref in graph.outputs}
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(ref.node for ref in node.refs)
    kept = tuple(n for n in graph.nodes if n.name in needed or n.op == "input")
    dropped = len(graph.nodes) - len(kept)
    if not dropped:
        return graph
    note = f"{dropped} operation(s) on which no output depends were left out."
    return replace(graph, nodes=kept, notes=(*graph.notes, note))


def with_refs(node: Node, change: Callable[[Ref], Arg]) -> Node:
    """`node` with every reference to another node replaced."""
    if not any(change(ref) != ref for ref in node.refs):
        return node
    args = tuple(_changed(arg, change) for arg in node.args)
    options = {key: _changed(value, change) for key, value in node.options.items()}
    return replace(node, args=args, options=MappingProxyType(options))


def _changed(arg: Arg, change: Callable[[Ref], Arg]) -> Arg:
    if isinstance(arg, Ref):
        return change(arg)
    if isinstance(arg, tuple):
        return tuple(_changed(item, change) for item in arg)
    return arg


def readers(nodes: Iterable[Node]) -> dict[str, list[Node]]:
    """Who reads each node, in execution order."""
    found: dict[str, list[Node]] = {}
    for node in nodes:
        for name in dict.fromkeys(ref.node for ref in node.refs):
            found.setdefault(name, []).append(node)
    return found
