"""From an operation of the graph to the record of its nonlinearity, parameters included."""

from __future__ import annotations

from firstlight.errors import FirstlightError
from firstlight.graph.ir import Arg, Node
from firstlight.theory import activations
from firstlight.theory.activations import Activation

# Names of the arguments after the input, in torch's order, as far as a record has them as parameters.
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "leaky_relu": ("negative_slope",),
    "elu": ("alpha",),
    "celu": ("alpha",),
    "softplus": ("beta", "threshold"),
    "hardtanh": ("min_val", "max_val"),
}


def activation_of(node: Node) -> Activation | None:
    """The record of the nonlinearity that an operation applies to its first argument; None if it is none."""
    op = node.op
    if op in ("clamp", "clamp_min"):
        return _clamp(node)
    if op == "gelu" and _argument(node, "approximate", 1) == "tanh":
        return activations.get("gelu-tanh")
    name = activations.find(op)
    if name is None or op == "linear":
        return None
    names = _ARGUMENTS.get(op, ())
    arguments = [*zip(names, node.args[1:], strict=False), *node.options.items()]
    given = {k: v for k, v in arguments if k in names and isinstance(v, int | float | str)}
    try:
        return activations.get(name, **given)
    except FirstlightError:  # a parameter that the record does not have: the plain one is the nearest
        return activations.get(name)


def _clamp(node: Node) -> Activation | None:
    low = _argument(node, "min", 1)
    high = _argument(node, "max", 2)
    if low == 0 and high is None:
        return activations.get("relu")
    if isinstance(low, int | float) and isinstance(high, int | float) and low < high:
        return activations.get("hardtanh", min_val=float(low), max_val=float(high))
    return None


def _argument(node: Node, name: str, position: int) -> Arg:
    if name in node.options:
        return node.options[name]
    return node.args[position] if len(node.args) > position else None
