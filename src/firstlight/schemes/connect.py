"""Roles and contexts from the graph: which activation a layer touches, where branches end, what reads out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from firstlight.graph.ir import Graph, Node
from firstlight.schemes.context import Context, Role
from firstlight.schemes.fans import Site
from firstlight.schemes.nonlinear import activation_of
from firstlight.schemes.uses import NORMS, Use, constant_factor, signal_nodes, site_of, uses
from firstlight.theory.activations import Activation

# Operations that hand their first signal on: same entries, fewer of them, or averages of them.
_TRANSPARENT = frozenset(
    {
        "view", "reshape", "flatten", "unflatten", "transpose", "t", "permute", "movedim", "squeeze",
        "unsqueeze", "contiguous", "to", "clone", "detach", "expand", "repeat", "repeat_interleave",
        "getitem", "select", "narrow", "index_select", "gather", "chunk", "split", "unbind", "roll", "flip",
        "pad", "unfold", "fold", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout",
        "feature_alpha_dropout", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "interpolate",
        "upsample", "identity", "mean", "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d",
        "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
        "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "rearrange", "stack", "cat",
        "masked_fill", "where", "autograd_function",
    }
)  # fmt: skip
_RECURRENT = frozenset(
    {"lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"}
)
_MERGES = frozenset({"add", "sub"})
_SCALES = frozenset({"mul", "div"})


@dataclass(frozen=True, slots=True)
class Connection:
    """What the graph says of one parameter.

    Attributes:
        role: "weight", "readout" or "branch end" for a map; the site's role otherwise.
        context: Activation, branch and depth.
        site: Fans of a parameter whose module is no layer of torch; None where its use is unclear.
    """

    role: Role
    context: Context
    site: Site | None


@dataclass(frozen=True)
class _Wiring:
    """The graph as integers: operations in execution order, who reads whom, who descends from whom."""

    nodes: tuple[Node, ...]
    index: Mapping[str, int]
    inputs: tuple[tuple[int, ...], ...]
    readers: tuple[tuple[int, ...], ...]
    ancestors: tuple[int, ...]  # bit i is set in ancestors[j] if i == j or j descends from i
    factors: Mapping[int, float]  # of operations that multiply by a constant
    maps: frozenset[int]
    outputs: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Branch:
    fork: int
    end: int
    inside: int  # bits of the operations after the fork up to the end
    layers: int


def connections(graph: Graph, sites: Mapping[str, Site]) -> dict[str, Connection]:
    """Connections of every parameter that an operation reads.

    Args:
        graph: As captured, with `ParameterRef` for every parameter read.
        sites: What the module types say; used to tell maps from other parameters.
    """
    read = uses(graph)
    known: dict[str, Site | None] = {}
    for name, found in read.items():
        aliases = graph.parameters[name].aliases if name in graph.parameters else ()
        typed = (sites.get(n) for n in _spellings(name, aliases))
        known[name] = _best(chain(typed, (site_of(u, graph, name) for u in found)))
    drives = {name: [u for u in read[name] if _is_map(u, site)] for name, site in known.items()}
    wiring = _wire(graph, {u.node.name for us in drives.values() for u in us})
    branches = _branches(wiring)
    depth = max(_longest(wiring), default=0)
    result: dict[str, Connection] = {}
    for name, site in known.items():
        if not drives[name]:
            result[name] = Connection(site.role if site else "other", Context(traced=True), site)
            continue
        found = [_connection(wiring, branches, depth, u, site) for u in drives[name]]
        # A weight that is used several times ends a branch if any of its uses does.
        found.sort(key=lambda c: ("branch end", "readout", "weight").index(c.role))
        result[name] = found[0]
    return result


def _best(candidates: Iterable[Site | None]) -> Site | None:
    """The first that is a weight; else the first."""
    first = None
    for site in candidates:
        if site is not None and site.role == "weight":
            return site
        first = first or site
    return first


def _spellings(name: str, aliases: tuple[str, ...]) -> tuple[str, ...]:
    """Names under which the module types may know a parameter: compiled, or behind a parametrization."""
    head, found, tail = name.rpartition("parametrizations.")
    names = (name, *aliases, *((head + tail.rpartition(".")[0],) if found else ()))
    return (*names, *(f"_orig_mod.{n}" for n in names))


def _is_map(use: Use, site: Site | None) -> bool:
    """Whether this use multiplies the signal by a weight (a tied table's lookup does not)."""
    return site is not None and site.role == "weight" and use.node.op not in ("embedding", "embedding_bag")


def _wire(graph: Graph, maps: set[str]) -> _Wiring:
    signal = signal_nodes(graph)
    nodes = tuple(n for n in graph.nodes if n.name in signal)
    index = {n.name: i for i, n in enumerate(nodes)}
    inputs = tuple(tuple(dict.fromkeys(index[r.node] for r in n.refs if r.node in index)) for n in nodes)
    readers: list[list[int]] = [[] for _ in nodes]
    ancestors: list[int] = []
    for i, sources in enumerate(inputs):
        bits = 1 << i
        for j in sources:
            bits |= ancestors[j]
            readers[j].append(i)
        ancestors.append(bits)
    return _Wiring(
        nodes,
        index,
        inputs,
        tuple(tuple(r) for r in readers),
        tuple(ancestors),
        {i: c for i, n in enumerate(nodes) if (c := constant_factor(n, graph)) is not None},
        frozenset(index[n] for n in maps if n in index),
        frozenset(index[r.node] for r in graph.outputs if r.node in index),
    )


def _longest(wiring: _Wiring) -> list[int]:
    """Maps on the longest path from an input to each operation, itself included."""
    depth: list[int] = []
    for i, sources in enumerate(wiring.inputs):
        depth.append(max((depth[j] for j in sources), default=0) + (i in wiring.maps))
    return depth


def _branches(wiring: _Wiring) -> list[_Branch]:
    """The residual branches: additions of a tensor and something computed from it by more maps."""
    depth = _longest(wiring)
    found: list[_Branch] = []
    for i, node in enumerate(wiring.nodes):
        if node.op not in _MERGES or len(wiring.inputs[i]) != 2:
            continue
        a, b = wiring.inputs[i]
        common = wiring.ancestors[a] & wiring.ancestors[b]
        if not common:
            continue
        fork = common.bit_length() - 1  # the latest common ancestor
        deep, shallow = (a, b) if depth[a] >= depth[b] else (b, a)
        layers = depth[deep] - depth[fork]
        beside = depth[shallow] - depth[fork]  # maps of a projection shortcut
        if layers < 1 or layers <= beside:
            continue
        if beside and wiring.nodes[fork].op in ("input", "getitem", "select"):
            continue  # two maps of the network's inputs that meet, as in a recurrence written by hand
        end = _last_map(wiring, deep)
        if end is None or end <= fork:
            continue
        inside = wiring.ancestors[end] & ~wiring.ancestors[fork]
        # Keep what descends from the fork: a second input of the network may enter the branch as well.
        bits = sum(1 << j for j in _ones(inside) if wiring.ancestors[j] >> fork & 1)
        found.append(_Branch(fork, end, bits, layers))
    return found


def _ones(bits: int) -> Iterable[int]:
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low


def _last_map(wiring: _Wiring, start: int) -> int | None:
    """The map whose output arrives at `start` through scalings, norms, pointwise operations and the like."""
    i = start
    while i not in wiring.maps:
        node, sources = wiring.nodes[i], wiring.inputs[i]
        passes = node.op in _TRANSPARENT | NORMS | _SCALES or activation_of(node) is not None
        passes = passes or (node.op in _MERGES and len(sources) == 1)
        if not passes or not sources:
            return None
        i = sources[0]
    return i


def _connection(wiring: _Wiring, branches: list[_Branch], depth: int, use: Use, site: Site | None) -> Connection:
    i = wiring.index[use.node.name]
    around = [b for b in branches if b.inside >> i & 1]
    inner = min(around, key=lambda b: b.inside.bit_count(), default=None)
    before = _activation_before(wiring, i)
    after = _activation_after(wiring, i)
    act, side, width = None, "", None
    if before is not None:
        act, side, width = before.activation, "before", _units(wiring, before.place)
    elif after is not None and after.activation.degree == 1.0:
        act, side, width = after.activation, "after", _units(wiring, after.place)
    factor = use.factor * (before.factor if before else 1.0) * (after.factor or 1.0 if after else 1.0)
    if width is None and site is not None and site.channels is not None:
        width = site.channels[1] * (site.split if site.kernel_axes else 1)
    role: Role = "weight"
    if any(b.end == i for b in branches):
        role = "branch end"
    elif wiring.nodes[i].op not in _RECURRENT and _reads_out(wiring, i):
        role = "readout"
    context = Context(
        activation=act,
        activation_side=side,
        feeds_activation=after is not None,
        factor=factor,
        width=width,
        depth=depth,
        branches=len(branches),
        branch_layers=inner.layers if inner else 0,
        traced=True,
        neighbours=True,
    )
    return Connection(role, context, site)


class _Met(NamedTuple):
    """A nonlinearity, its place, and the constants that the signal is multiplied with between it and the map."""

    activation: Activation
    place: int
    factor: float


def _activation_before(wiring: _Wiring, i: int) -> _Met | None:
    """The nonlinearity whose output the map reads."""
    sources = wiring.inputs[i]
    return _behind(wiring, sources[0]) if sources else None


def _behind(wiring: _Wiring, i: int) -> _Met | None:
    factor = 1.0
    while True:
        node, sources = wiring.nodes[i], wiring.inputs[i]
        if i in wiring.maps or not sources:
            return None
        act = activation_of(node)
        if act is not None:
            return _Met(act, i, factor)
        if node.op == "mul" and len(sources) == 2:  # a gated unit: φ(a)·b has the mean square Eφ²·E b²
            arms = [_behind(wiring, j) for j in sources]
            live = [arm for arm in arms if arm is not None]
            return live[0]._replace(factor=factor * live[0].factor) if len(live) == 1 else None
        if node.op in ("cat", "stack"):
            arms = [_behind(wiring, j) for j in sources]
            first, kinds = arms[0], {arm and (arm.activation, arm.factor) for arm in arms}
            return first._replace(factor=factor * first.factor) if first is not None and len(kinds) == 1 else None
        single = len(sources) == 1
        if not (node.op in _TRANSPARENT or (single and node.op in _SCALES | _MERGES)):
            return None
        factor *= wiring.factors.get(i, 1.0)
        i = sources[0]


def _activation_after(wiring: _Wiring, i: int) -> _Met | None:
    """The first nonlinearity that the map's output meets before the next map, through norms and biases."""
    front, seen = [(j, 1.0) for j in wiring.readers[i]], set[int]()
    while front:
        j, factor = front.pop(0)
        node = wiring.nodes[j]
        if j in seen or j in wiring.maps:
            continue
        seen.add(j)
        act = activation_of(node)
        if act is not None:
            return _Met(act, j, factor)
        if node.op in NORMS:
            factor = 0.0  # whatever came in, a norm brings to length 1
        single = len(wiring.inputs[j]) == 1
        if node.op in _TRANSPARENT | NORMS or (single and node.op in _SCALES | _MERGES):
            front.extend((k, factor * wiring.factors.get(j, 1.0)) for k in wiring.readers[j])
    return None


def _reads_out(wiring: _Wiring, i: int) -> bool:
    """Whether the map's output reaches an output of the network without another map or a residual sum."""
    front, seen = [i], set[int]()
    while front:
        j = front.pop()
        if j in wiring.outputs:
            return True
        for k in wiring.readers[j]:
            blocked = k in wiring.maps or (wiring.nodes[k].op in _MERGES and len(wiring.inputs[k]) > 1)
            if k not in seen and not blocked and wiring.nodes[k].op != "scaled_dot_product_attention":
                seen.add(k)
                front.append(k)
    return False


def _units(wiring: _Wiring, i: int) -> int | None:
    """Units of the layer that an activation belongs to: channels behind a convolution, features otherwise."""
    shape = wiring.nodes[i].outputs[0].shape if wiring.nodes[i].outputs else ()
    j = i
    while j not in wiring.maps and len(wiring.inputs[j]) == 1:
        j = wiring.inputs[j][0]
    if wiring.nodes[j].op.startswith("conv") and len(shape) >= 3:
        return shape[1]
    return shape[-1] if shape else None
