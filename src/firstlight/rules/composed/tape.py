"""Operations whose rule is composed of those of other operations: what runs forward is kept to run backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from firstlight.graph.ir import Node
from firstlight.graph.signal import Cotangent, Signal, next_id, replace
from firstlight.rules.gradients.gradient import total
from firstlight.rules.registry import Call, Rule, find, several

_Step = tuple[Rule, Call, dict[str, Any], Signal]


class Tape:
    """Rules applied one after the other, and their adjoints in reverse."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.steps: list[_Step] = []

    def __call__(self, op: str, *args: Any) -> Signal:
        """Apply the rule of an operation."""
        entry = find(op)
        assert entry is not None
        call = Call(Node(self.call.node.name, op), self.call.training, self.call.caveats)
        bound = entry.bind(call.node, args, {})
        out = entry.forward(call, **bound)
        if any(isinstance(x, Signal) and x.ident == out.ident for x in _signals(bound)):
            out = replace(out, ident=next_id())  # what changes nothing is a step with a gradient of its own
        self.steps.append((entry, call, bound, out))
        return out

    def back(self, seeds: dict[int, list[Cotangent]]) -> Callable[[Signal], Cotangent | None]:
        """What gives the gradient of a signal, from those of the results by ident."""
        owed = {k: list(v) for k, v in seeds.items()}
        for entry, call, bound, out in reversed(self.steps):
            found = owed.get(out.ident)
            if not found or entry.backward is None:
                continue
            grads = entry.backward(call, _all(found), out, **bound)
            for name, gradient in grads.items():
                given = bound.get(name)
                for x, g in zip(given, gradient, strict=False) if several(given) else ((given, gradient),):
                    if isinstance(g, Cotangent) and isinstance(x, Signal):
                        owed.setdefault(x.ident, []).append(g)

        def of(x: Signal) -> Cotangent | None:
            found = owed.get(x.ident)
            return _all(found) if found else None

        return of


def _signals(bound: dict[str, Any]) -> Iterator[Any]:
    """Arguments, those of a list one by one."""
    for x in bound.values():
        yield from x if several(x) else (x,)


def _all(found: list[Cotangent]) -> Cotangent:
    return found[0] if len(found) == 1 else total(found)
