"""The rule table: one record per operation, forward and adjoint together.

    @rule("linear", assumes=(WEIGHTS_IID,), refs=("poole2016",), example="F.linear(x, torch.randn(64, 32))")
    def linear(call: Call, input: Signal, weight: Signal, bias: Signal | None = None) -> Signal: ...

    @linear.adjoint
    def _(call: Call, grad: Cotangent, out: Signal, input: Signal, weight: Signal, bias=None) -> Grads: ...

The forward function's parameter names are those of the torch function; arguments that it does not name are
ignored. The adjoint returns a gradient per tensor argument, by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard

from firstlight.errors import InputError, RegistryError
from firstlight.graph.ir import Arg, ConstantRef, Node, ParameterRef, Ref
from firstlight.graph.signal import Cotangent, Signal
from firstlight.graph.signs import UNSAID, Signs

Grads = Mapping[str, Any]

WEIGHTS_IID = "the weights are independent draws of one law"
WEIGHTS_ZERO_MEAN = "the weights have mean zero"
BACKWARD_INDEPENDENT = "in the backward pass the weights are independent of the forward pass"
GAUSSIAN_INPUT = "the input is Gaussian (a sum over many independent weights)"
EXCHANGEABLE = "all pairs of entries along an axis are alike"
CONCENTRATED = "statistics over the reduced axes differ little between draws"
INDEPENDENT_FACTORS = "the factors are independent"


SHOWN = "shown"  # tag of a gradient that is there to be looked at: what is in front of its tensor has had its own

_TENSORS = (Signal, Ref, ParameterRef, ConstantRef)
Look = Callable[[Arg], Any]  # the signal behind an argument
# From cotangents of some tensors to the gradients of those in front of them; None where there is none.
Back = Callable[[Mapping[Ref, Signal]], Callable[[Ref | ParameterRef], Signal | None]]


@dataclass(frozen=True, slots=True)
class OwnBackward:
    """What the backward pass of a custom function does.

    Attributes:
        plain: Whether it is the derivative of the forward pass.
        gradients: Of the inputs, where it is not.
        measured: Whether they were measured on sampled directions; else they are the gradient times a factor.
    """

    plain: bool
    gradients: Mapping[Arg, Cotangent]
    measured: bool = False


class Sampler(Protocol):
    """Runs real operations on entries drawn from their inputs' statistics; raises `ModelError` where one does not run.

    Its methods take the node, what finds the signals of its arguments, and the gradients of its outputs.
    """

    def outputs(self, node: Node, look: Look) -> tuple[Signal, ...]:
        """Statistics of the outputs."""
        ...

    def gradients(self, node: Node, look: Look, grads: tuple[Cotangent | None, ...]) -> Mapping[Arg, Cotangent]:
        """Gradients of the inputs."""
        ...

    def own_backward(self, node: Node, look: Look, grads: tuple[Cotangent | None, ...]) -> OwnBackward:
        """What a custom function makes of them."""
        ...


@dataclass(slots=True)
class Call:
    """One application of a rule.

    Attributes:
        node: The operation.
        training: Whether the pass runs in training mode.
        caveats: What the rule had to assume against the evidence; collected on the node.
        sampler: Runs the real operation; None where nothing may be run.
        look: The signals of the node's arguments, for the sampler.
        signs: What the graph says of its tensors' entries.
        back: The adjoint pass over the operations before this one.
        kept: What the forward rule leaves for its adjoint.
        moments: Whether nothing but the moments of what comes out is asked for.
    """

    node: Node
    training: bool = True
    caveats: list[str] = field(default_factory=list[str])
    sampler: Sampler | None = None
    look: Look | None = None
    signs: Signs = UNSAID
    back: Back | None = None
    kept: Any = None
    moments: bool = False

    def caveat(self, text: str) -> None:
        """Record that an assumption of the rule does not hold here."""
        if text not in self.caveats:
            self.caveats.append(text)


Forward = Callable[..., Any]
Adjoint = Callable[..., Grads]


@dataclass(slots=True)
class Rule:
    """One operation's rule.

    Attributes:
        names: Canonical operations.
        kind: The file in which it stands: "affine", "elementwise", ...
        forward: Signals in, signals out.
        backward: Cotangents of the outputs in, cotangents of the inputs out.
        assumes: Facts that the rule relies on.
        refs: Keys of `theory.bibliography`.
        example: An expression in x (and y), used by the conformance test.
        parameters: Names of the operation's arguments.
    """

    names: tuple[str, ...]
    kind: str
    forward: Forward
    assumes: tuple[str, ...]
    refs: tuple[str, ...]
    example: str
    parameters: tuple[str, ...]
    variadic: bool = False
    backward: Adjoint | None = None

    def adjoint(self, function: Adjoint) -> Adjoint:
        """Register the adjoint."""
        self.backward = function
        return function

    def bind(self, node: Node, args: tuple[Any, ...], options: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by name, signals or what stands for them; what the rule does not name is dropped.

        Raises:
            InputError: More positional arguments than the rule knows.
        """
        names = self.parameters
        if self.variadic:
            fixed = len(names) - 1
            bound = dict(zip(names[:fixed], args[:fixed], strict=False))
            rest = args[fixed:]
            if len(rest) == 1 and several(rest[0]):
                rest = rest[0]
            bound[names[-1]] = rest if rest else options.get(names[-1], rest)
            bound.update({k: v for k, v in options.items() if k in names})
            return bound
        if len(args) > len(names) and any(isinstance(a, _TENSORS) for a in args[len(names) :]):
            raise InputError(
                node.name, got=f"{len(args)} arguments", expected=f"at most {len(names)}: {', '.join(names)}"
            )
        bound = dict(zip(names, args, strict=False))
        if options:
            bound.update({k: v for k, v in options.items() if k in names})
        return bound


_RULES: dict[str, Rule] = {}


def rule(
    *names: str,
    assumes: tuple[str, ...] = (),
    refs: tuple[str, ...] = (),
    example: str = "",
    kind: str = "",
    variadic: bool = False,
) -> Callable[[Forward], Rule]:
    """Register the rule of one operation (or of several that obey the same one).

    Args:
        names: Canonical operations.
        assumes: Facts that the rule relies on.
        refs: Keys of the bibliography.
        example: An expression for the conformance test.
        kind: Overrides the kind taken from the file's name.
        variadic: Whether the last parameter takes all further positional arguments.

    Raises:
        RegistryError: A name that already has a rule.
    """

    def register(function: Forward) -> Rule:
        parameters = tuple(inspect.signature(function).parameters)[1:]
        where = kind or function.__module__.rsplit(".", 1)[-1]
        record = Rule(names, where, function, assumes, refs, example, parameters, variadic)
        for name in names:
            if name in _RULES:
                raise RegistryError(
                    f"rule {name!r}", got="a second rule", expected="one rule per operation", action="Rename one."
                )
            _RULES[name] = record
        return record

    return register


_MEASURED: dict[str, str] = {}


def measured(*names: str, example: str = "") -> None:
    """Operations that have no formula, or are too rare for one: their results are measured on sampled entries.

    The sampler runs the real operation, forward and backward, on independent entries drawn from the statistics of its
    inputs (`Sampler`); the node says so in a caveat.

    Args:
        names: Canonical operations.
        example: An expression for the conformance test.

    Raises:
        RegistryError: An operation that has a rule or is measured already.
    """
    for name in names:
        if name in _RULES or name in _MEASURED:
            raise RegistryError(
                f"operation {name!r}", got="a second entry", expected="a rule or a sampler", action="Remove one."
            )
        _MEASURED[name] = example


def measured_operations() -> Mapping[str, str]:
    """The operations that are measured, each with its example."""
    return dict(sorted(_MEASURED.items()))


def several(given: Any) -> TypeGuard[tuple[Any, ...]]:
    """Whether an argument, an output or a gradient is several of them."""
    return isinstance(given, tuple)


def first_of(given: Any) -> Any:
    """The first of several outputs or gradients, or the only one."""
    return given[0] if several(given) else given


def listed(given: Any) -> tuple[Any, ...]:
    """Outputs or gradients of an operation that gives a list, which of a list of one are handed over as that one."""
    return given if several(given) else (given,)


def find(op: str) -> Rule | None:
    """The rule of an operation, or None."""
    return _RULES.get(op)


def table() -> Mapping[str, Rule]:
    """All rules by operation."""
    return dict(sorted(_RULES.items()))


__all__ = [
    "Call", "Cotangent", "Grads", "Rule", "Signal", "find", "first_of", "measured", "measured_operations", "rule",
    "several", "table",
]  # fmt: skip
