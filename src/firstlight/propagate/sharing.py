"""Weights that are used more than once: what lies behind them remembers how it was made (`rules.state.twins`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from firstlight.graph.ir import Arg, ConstantRef, Graph, Node, ParameterRef, Ref
from firstlight.graph.made import Made, Way
from firstlight.graph.signal import Cotangent, Signal, replace
from firstlight.rules import Call
from firstlight.rules.gradients.gradient import whole
from firstlight.rules.registry import Rule, several
from firstlight.rules.state import twins

_AFFINE = frozenset({"affine", "convolution", "einsum", "structural", "selection", "concatenation", "resampling"})
_AFFINE_TOO = frozenset({"mean", "sum", "mul", "div", "neg", "avg_pool1d", "avg_pool2d", "avg_pool3d"}) | frozenset(
    {"adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"}
)
_MASKED = frozenset({"dropout", "dropout1d", "dropout2d", "dropout3d"})
_NOT_LINEAR_BACK = frozenset({"mul", "div"})  # in whose adjoint the other factor stands


def _key(node: Node) -> Hashable:
    """Operation, options and weights; what tensors it is applied to is left open."""
    return node.op, _named(node.args), tuple((k, _named(v)) for k, v in node.options.items())


def _named(arg: Arg) -> Hashable:
    if isinstance(arg, Ref):
        return "a tensor"
    if isinstance(arg, ParameterRef | ConstantRef):
        return type(arg).__name__, arg.name
    return tuple(_named(a) for a in arg) if isinstance(arg, tuple) else repr(arg)


def shared(graph: Graph) -> frozenset[Hashable]:
    """Operations with weights that are applied more than once, by their key."""
    count: Counter[Hashable] = Counter()
    for node in graph.nodes:
        if any(isinstance(r, ParameterRef) for r in node.read) and node.refs:
            count[_key(node)] += 1
    return frozenset(key for key, times in count.items() if times > 1)


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
    known: frozenset[Hashable], node: Node, rule: Rule | None, bound: Mapping[str, Any], call: Call,
    outputs: tuple[Signal, ...], before: int,
) -> tuple[Signal, ...]:  # fmt: skip
    """The outputs of an operation, which remember how they were made if that was behind shared weights.

    Args:
        known: Operations with shared weights.
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
    inputs = _tensors(tuple(bound.values()))
    if not inputs or (key not in known and not any(twins.known(x) is not None for x in inputs)):
        return outputs
    found: list[Signal] = []
    for k, out in enumerate(outputs):
        if out.ident <= before or twins.known(out) is not None:
            found.append(out)
            continue
        if out.terms and key not in known:
            found.append(twins.with_way(out, Made(Way.TERMS)))
            continue
        again = _again(rule, node, call.training, bound, k)
        found.append(twins.with_way(out, Made(_way(rule, node), (key, k), tuple(inputs), again)))
    return tuple(found)


def _way(rule: Rule, node: Node) -> Way:
    if node.op in _MASKED:
        return Way.KEPT
    return Way.AFFINE if rule.kind in _AFFINE or node.op in _AFFINE_TOO else Way.ANY


def _again(
    rule: Rule, node: Node, training: bool, bound: Mapping[str, Any], k: int
) -> Callable[[tuple[Signal, ...]], Signal]:
    def again(inputs: tuple[Signal, ...]) -> Signal:
        values = _with(tuple(bound.values()), list(inputs))
        out = rule.forward(Call(node, training), **dict(zip(bound, values, strict=True)))
        return out[k] if several(out) else out

    return again


def backward(
    known: frozenset[Hashable], node: Node, rule: Rule | None, bound: Mapping[str, Any], call: Call,
    out: Any, grads: Any, found: Mapping[str, Any], before: int,
) -> None:  # fmt: skip
    """Have the gradients behind an operation remember how they were made, as `forward` does.

    An adjoint is linear in the gradient; that of an affine operation depends on nothing else.
    """
    if not known or rule is None or several(grads):
        return
    key = _key(node)
    g = whole(grads)
    if key not in known and twins.known(g) is None:
        return
    for name, gradient in found.items():
        if not isinstance(gradient, Cotangent) or gradient.rest or gradient.base.ident <= before:
            continue
        base = gradient.base
        if twins.known(base) is not None or len(base.terms) > 1:
            continue
        affine = _way(rule, node) is Way.AFFINE and node.op not in _NOT_LINEAR_BACK
        again = _back_again(rule, node, call, bound, out, name)
        inputs = (g,) if affine else (g, *_tensors(tuple(bound.values())))
        made = Made(Way.AFFINE if affine else Way.ANY, ("back", key, name), inputs, again)
        if not base.terms:
            gradient.base = twins.with_way(base, made)
        elif base.terms[0][1].ident > before:  # what comes through the weights, turned along its own tensor
            part = twins.with_way(base.terms[0][1], made)
            gradient.base = twins.with_way(replace(base, terms=((base.terms[0][0], part),)), Made(Way.TERMS))


def _back_again(
    rule: Rule, node: Node, call: Call, bound: Mapping[str, Any], out: Any, name: str
) -> Callable[[tuple[Signal, ...]], Signal]:
    def again(inputs: tuple[Signal, ...]) -> Signal:
        assert rule.backward is not None
        found = rule.backward(Call(node, call.training), Cotangent(inputs[0]), out, **bound)
        return found[name].base

    return again
