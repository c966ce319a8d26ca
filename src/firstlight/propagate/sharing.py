"""Weights that are used more than once: what lies behind them remembers how it was made (`rules.state.twins`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any

from firstlight.graph.ir import Arg, ConstantRef, Graph, Node, ParameterRef, Ref
from firstlight.graph.made import Made, Way
from firstlight.graph.signal import Cotangent, Signal, replace
from firstlight.rules import Call
from firstlight.rules.gradients.gradient import whole
from firstlight.rules.registry import Rule, several
from firstlight.rules.state import twins

_AFFINE = frozenset({"affine", "convolution", "einsum"})  # kinds of rules
_JOINT = frozenset({"structural", "selection", "concatenation", "resampling"})
_NORMS = frozenset({"normalization", "group_norm", "unit_length"})
_MEANS = frozenset({"mean", "sum", "neg"}) | frozenset(f"{a}avg_pool{d}d" for a in ("", "adaptive_") for d in (1, 2, 3))
_EACH = frozenset({"softmax", "scaled_dot_product_attention"})
_LARGE = 1e30  # an ε beside which the variance of a group is nothing: a norm divides by one number
_MANY = 256  # uses of one weight: pairs of them are looked at one by one
_NARROW = 0.1  # uses²/width from which what is left out is worth a word
_MASKED = frozenset({"dropout", "dropout1d", "dropout2d", "dropout3d"})


def _key(node: Node) -> Hashable:
    """Operation, options and weights; what tensors it is applied to is left open."""
    return node.op, _named(node.args), tuple((k, _named(v)) for k, v in node.options.items())


def _named(arg: Arg) -> Hashable:
    if isinstance(arg, Ref):
        return "a tensor"
    if isinstance(arg, ParameterRef | ConstantRef):
        return type(arg).__name__, arg.name
    return tuple(_named(a) for a in arg) if isinstance(arg, tuple) else repr(arg)


def shared(graph: Graph) -> dict[Hashable, int]:
    """Operations with weights that are applied more than once, by their key, and how often."""
    read = [(n, [r.name for r in n.read if isinstance(r, ParameterRef)]) for n in graph.nodes if n.op != "embedding"]
    uses = Counter(name for _, names in read for name in names)
    count = Counter(_key(n) for n, names in read if n.refs and any(uses[name] > 1 for name in names))
    return {key: times for key, times in count.items() if times > 1}


def _tensors(given: Any) -> list[Signal]:
    """What varies of the arguments: tensors that are no weights."""
    if isinstance(given, Signal):
        return [given] if given.weights is None and given.value is None and not given.integer else []
    return [x for g in given for x in _tensors(g)] if several(given) else []


def _with(given: Any, new: list[Signal]) -> Any:
    """The arguments with other tensors in the place of those that vary."""
    if isinstance(given, Signal):
        return new.pop(0) if _tensors(given) else given
    return tuple([_with(g, new) for g in given]) if several(given) else given


def forward(
    known: Mapping[Hashable, int], node: Node, rule: Rule | None, bound: Mapping[str, Any], call: Call,
    outputs: tuple[Signal, ...], before: int,
) -> tuple[Signal, ...]:  # fmt: skip
    """The outputs of an operation, which remember how they were made.

    Args:
        known: Operations with shared weights, and how often each is applied.
        node: The operation.
        rule: Its rule.
        bound: Its arguments by name.
        call: Its call.
        outputs: What the rule gave.
        before: The number that signals made by it exceed.
    """
    if not known or rule is None:
        return outputs
    key = _key(node)
    inputs = tuple(_tensors(tuple(bound.values())))
    if not inputs:
        return outputs
    times = known.get(key, 0)
    if times > _MANY:
        call.caveat(f"its weights are used {times} times: what comes out is taken as independent each time")
        return outputs
    width = _channels(bound)
    if times > 1 and times * times > _NARROW * width:
        call.caveat(
            f"its weights are used {times} times, {width} units wide: what the uses have in common is that of wide "
            f"layers; what is left out grows as uses²/width"
        )
    found: list[Signal] = []
    for k, out in enumerate(outputs):
        if out.ident <= before or twins.known(out) is not None:
            found.append(out)
            continue
        if out.terms and key not in known and rule.kind not in _NORMS:
            found.append(twins.with_way(out, Made(Way.TERMS)))
            continue
        again = _again(rule, node, call.training, bound, k)
        gain = _gain(node, bound, 1)
        found.append(twins.with_way(out, Made(_way(rule, node, len(inputs)), (key, k), inputs, again, gain=gain)))
    return tuple(found)


def _channels(bound: Mapping[str, Any]) -> int:
    weight = bound.get("weight")
    return weight.shape[0] if isinstance(weight, Signal) and weight.ndim else 1


def _way(rule: Rule, node: Node, inputs: int) -> Way:
    if node.op in _MASKED:
        return Way.KEPT
    if node.op in _EACH:
        return Way.EACH
    if rule.kind in _JOINT or node.op in _MEANS:
        return Way.JOINT
    if rule.kind in _NORMS:
        return Way.LENGTH
    by_number = node.op == "mul" or (node.op == "div" and inputs == 1)
    return Way.AFFINE if rule.kind in _AFFINE or by_number else Way.ANY


def _gain(node: Node, bound: Mapping[str, Any], axis: int) -> float | None:
    """`Made.gain` of a linear layer (axis 1 of its weight is summed over) or of its adjoint (axis 0)."""
    weight = bound.get("weight")
    if node.op != "linear" or not isinstance(weight, Signal) or weight.weights is None or weight.ndim != 2:
        return None
    plain = weight.weights.structure != "centred" and weight.q.size == 1 and not weight.mean.any()
    return weight.shape[axis] * weight.mean_q if plain else None


def _again(
    rule: Rule, node: Node, training: bool, bound: Mapping[str, Any], k: int
) -> Callable[[tuple[Signal, ...]], Signal]:
    """The operation without its bias, on other inputs; a norm without the lengths that it divides by."""
    if rule.kind == "unit_length":
        return lambda inputs: inputs[0]
    linear = {"beta": 0.0} if "beta" in rule.parameters else {}
    if rule.kind in _NORMS and "eps" in rule.parameters:
        linear = {"eps": _LARGE}

    def again(inputs: tuple[Signal, ...]) -> Signal:
        values = _with(tuple(bound.values()), list(inputs))
        given = dict(zip(bound, values, strict=True))
        out = rule.forward(
            Call(node, training, moments=True), **{k: v for k, v in given.items() if k != "bias"} | linear
        )
        return out[k] if several(out) else out

    return again


def backward(
    known: Mapping[Hashable, int], node: Node, rule: Rule | None, bound: Mapping[str, Any], call: Call,
    out: Any, grads: Any, found: Mapping[str, Any], before: int,
) -> None:  # fmt: skip
    """Have the gradients behind an operation remember how they were made, as `forward` does."""
    if not known or rule is None:
        return
    key = _key(node)
    above = [g if g is None else whole(g) for g in (grads if several(grads) else (grads,))]
    given = [g for g in above if g is not None]
    if key not in known and not any(twins.known(g) is not None for g in given):
        return
    adjoint = _adjoint(rule, node, call, bound, out, [g is not None for g in above], several(grads))
    for name, gradient in found.items():
        if not isinstance(gradient, Cotangent) or gradient.rest or gradient.base.ident <= before:
            continue
        if getattr(bound.get(name), "weights", None) is not None:  # sums over uses are looked at, not followed
            continue
        base = gradient.base
        whole_one = not base.terms or rule.kind in _NORMS
        if twins.known(base) is not None or not (whole_one or len(base.terms) == 1):
            continue
        way, others = _way_back(rule, node, bound, name)
        gain = _gain(node, bound, 0) if name == "input" else None
        made = Made(way, ("back", key, name), (*given, *others), partial(adjoint, name), gain=gain)
        if whole_one:
            gradient.base = twins.with_way(base, made)
        elif base.terms[0][1].ident > before:  # what comes through the weights, turned along its own tensor
            part = twins.with_way(base.terms[0][1], made)
            gradient.base = twins.with_way(replace(base, terms=((base.terms[0][0], part),)), Made(Way.TERMS))


def _way_back(rule: Rule, node: Node, bound: Mapping[str, Any], name: str) -> tuple[Way, tuple[Signal, ...]]:
    """What is known of an adjoint, and which tensors of the forward pass stand in it."""
    if rule.kind in _JOINT or node.op in _MEANS:
        return Way.JOINT, ()
    if rule.kind in _NORMS:
        return Way.LENGTH, ()
    if node.op in _EACH:
        return Way.EACH, tuple(_tensors(tuple(bound.values())))
    others = tuple(_tensors(tuple(v for k, v in bound.items() if k != name)))
    return Way.AFFINE if rule.kind in _AFFINE else Way.ANY, others


def _adjoint(
    rule: Rule, node: Node, call: Call, bound: Mapping[str, Any], out: Any, there: Sequence[bool], together: bool
) -> Callable[[str, tuple[Signal, ...]], Signal]:
    """The adjoint towards an argument, of other gradients and of other tensors in the forward pass."""
    last: list[tuple[tuple[int, ...], Mapping[str, Any]]] = []  # attention has three of the same tensors

    def again(name: str, inputs: tuple[Signal, ...]) -> Signal:
        assert rule.backward is not None
        which = tuple([s.ident for s in inputs])
        if not last or last[0][0] != which:
            left, again, made = list(inputs), Call(node, call.training, moments=True), out
            grads = tuple([Cotangent(left.pop(0)) if one else None for one in there])
            others = {k: v for k, v in bound.items() if k != name or node.op in _EACH}
            values = _with(tuple(others.values()), left) if left else tuple(others.values())
            given = dict(bound) | dict(zip(others, values, strict=True))
            if node.op in _EACH:
                made = rule.forward(again, **given)
            last[:] = [(which, rule.backward(again, grads if together else grads[0], made, **given))]
        found: Signal = last[0][1][name].base
        return found

    return again
