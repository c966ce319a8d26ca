"""Operations that no rule describes, run on entries drawn from their inputs' statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from firstlight.capture.replay import Replay, Slot
from firstlight.errors import ModelError
from firstlight.graph.ir import Arg, ConstantRef, Graph, Node, ParameterRef, Ref, TensorSpec
from firstlight.graph.signal import Array, Cotangent, Signal, replace
from firstlight.rules.gradients.gradient import scaled, times_signal, whole
from firstlight.rules.registry import Look, OwnBackward
from firstlight.rules.state.empirical import from_data, uniform

_LARGEST = 1 << 24  # entries of all inputs together beyond which an operation is not sampled
_ENOUGH, _REPEATS = 1 << 18, 16  # entries after which, and draws at most on which, gradients are measured
_SAME = 1e-3  # two gradients are the same if they differ by less, in root mean square: float32 through a few operations
_DIFFERENT = torch.finfo(torch.float32).eps ** 0.5  # directions below this share of the largest say nothing of a factor

Grads = tuple[Cotangent | None, ...]


class Sampler:
    """Runs operations of one graph on drawn entries; see `rules.registry.Sampler`.

    Args:
        graph: As captured; what it remembers of its calls is run again, others are looked up by name.
    """

    def __init__(self, graph: Graph) -> None:
        self._calls: Mapping[str, Replay] = graph.calls
        self._specs: dict[Arg, TensorSpec] = {
            Ref(n.name, i): spec for n in graph.nodes for i, spec in enumerate(n.outputs)
        }
        self._specs.update({ParameterRef(n): p.spec for n, p in graph.parameters.items()})
        self._specs.update({ConstantRef(n): c.spec for n, c in graph.constants.items()})

    def outputs(self, node: Node, look: Look) -> tuple[Signal, ...]:
        """Statistics of the outputs."""
        call = self._call(node)
        found: list[tuple[Tensor, ...]] = []
        entries = 0
        while not found or (entries < _ENOUGH and len(found) < _REPEATS):
            drawn = self._draw(node, call, look, seed=len(found))
            with _run(node), torch.no_grad():
                found.append(tuple(call(_copies(drawn))))
            entries += sum(t.numel() for t in drawn.values())
        return tuple(
            _levelled(_statistics(first, spec.shape), [made[i] for made in found])
            for i, (first, spec) in enumerate(zip(found[0], node.outputs, strict=False))
        )

    def gradients(self, node: Node, look: Look, grads: Grads) -> Mapping[Arg, Cotangent]:
        """Gradients of the inputs, for independent directions at the outputs of the size of their gradients."""
        return self._measured(node, self._call(node), look, grads)

    def own_backward(self, node: Node, look: Look, grads: Grads) -> OwnBackward:
        """What a custom function's backward pass does beside the derivative of its forward pass.

        Both are run on the same entries and direction. If they agree, the rules of what runs inside are right. If the
        gradient is the direction times a factor of the inputs alone (straight-through estimators, reversal, masks), it
        is that factor's rule; anything else is measured on directions of the size of the gradient.
        """
        call = self._call(node)
        drawn = self._draw(node, call, look, track=True)
        directions = _directions(node, grads, seed=1)
        with _run(node):
            own = _back(call(_copies(drawn)), drawn, directions)
        if _agree(own, _derivative(call, drawn, directions)):
            return OwnBackward(True, {})
        other = _directions(node, grads, seed=2)
        if len(grads) == 1 and grads[0] is not None and directions[0] is not None and other[0] is not None:
            with _run(node):
                again = _back(call(_copies(drawn)), drawn, other)
            factors = _factors(own, again, directions[0], other[0])
            if factors is not None:
                gradient = grads[0]
                return OwnBackward(False, {arg: _multiplied(gradient, f) for arg, f in factors.items()})
        return OwnBackward(False, self._measured(node, call, look, grads), measured=True)

    def _measured(self, node: Node, call: Replay, look: Look, grads: Grads) -> dict[Arg, Cotangent]:
        """Gradients on several draws of small inputs, for which one says little: their mean square over the draws."""
        found: list[dict[Arg, Tensor]] = []
        entries = 0
        while not found or (entries < _ENOUGH and len(found) < _REPEATS):
            drawn = self._draw(node, call, look, track=True, seed=len(found))
            directions = _directions(node, grads, seed=len(found) + 1)
            with _run(node):
                found.append(_back(call(_copies(drawn)), drawn, directions))
            entries += sum(t.numel() for t in drawn.values())
        first = next(whole(g) for g in grads if g is not None)
        out: dict[Arg, Cotangent] = {}
        for arg, g in found[0].items():
            level, sizes = float(g.square().mean()), [float(f[arg].square().mean()) for f in found if arg in f]
            seen = replace(from_data(g.double().numpy()), data=False, noise=first.noise)
            out[arg] = scaled(Cotangent(seen), (sum(sizes) / len(sizes) / level) ** 0.5 if level > 0.0 else 1.0)
        return out

    def _call(self, node: Node) -> Replay:
        kept = self._calls.get(node.name)
        if kept is not None:
            return kept
        function = _named(node)

        def slot(value: Arg) -> Any:
            if isinstance(value, tuple):
                return [slot(item) for item in value]
            return Slot(value) if isinstance(value, Ref | ParameterRef | ConstantRef) else value

        return Replay(function, tuple(slot(a) for a in node.args), {k: slot(v) for k, v in node.options.items()})

    def _draw(self, node: Node, call: Replay, look: Look, *, track: bool = False, seed: int = 0) -> dict[Arg, Tensor]:
        signals = {arg: look(arg) for arg in call.sources}
        entries = sum(s.numel for s in signals.values())
        if entries > _LARGEST:
            raise ModelError(
                node.name, got=f"inputs of {entries} entries", expected=f"at most {_LARGEST} to sample {node.op}"
            )
        generator = torch.Generator().manual_seed(2 * seed)
        return {arg: _entries(s, self._specs.get(arg), generator, track) for arg, s in signals.items()}


def _entries(v: Signal, spec: TensorSpec | None, generator: torch.Generator, track: bool) -> Tensor:
    """Known entries, or independent normal ones of their own means; an unknown index is 0, which every axis has."""
    if v.value is not None:
        known = torch.as_tensor(np.asarray(v.value))
        return known.float() if known.is_floating_point() else known
    if v.integer:
        return torch.zeros(v.shape, dtype=torch.int64 if spec is None else getattr(torch, spec.dtype))
    drawn = torch.randn(v.shape, dtype=torch.complex64 if v.complex else torch.float32, generator=generator)
    mean, sd = (_laid_out(f, v) for f in (v.mean, np.sqrt(np.maximum(v.q - np.square(v.mean), 0.0))))
    return drawn.mul_(sd).add_(mean).requires_grad_(track)


def _laid_out(field: Array, v: Signal) -> Tensor:
    """What is known of each entry, in the shape of the tensor (a diagonal differs from what is beside it)."""
    if field.size == 1:
        return torch.tensor(field.item(), dtype=torch.float32)
    return torch.from_numpy(np.broadcast_to(field, v.atoms).reshape(v.shape).astype(np.float32))


def _copies(drawn: Mapping[Arg, Tensor]) -> dict[Arg, Tensor]:
    """What the call may write to."""
    return {arg: t.clone() for arg, t in drawn.items()}


@contextmanager
def _run(node: Node) -> Iterator[None]:
    """Run an operation, with numbers of its own where it draws any, and say what it raised."""
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            yield
    except Exception as error:
        what = node.options.get("function", node.op)
        raise ModelError(
            node.name, got=f"{type(error).__name__}: {error}", expected=f"{what} to run on sampled inputs"
        ) from error


def _directions(node: Node, grads: Grads, seed: int) -> tuple[Tensor | None, ...]:
    """Independent normal entries whose mean square is that of each output's gradient (a loss has one entry)."""
    generator = torch.Generator().manual_seed(2 * seed + 1)
    found: list[Tensor | None] = []
    for g, spec in zip(grads, node.outputs, strict=False):
        drawn = None if g is None else torch.randn(spec.shape, generator=generator)
        if g is not None and drawn is not None and drawn.numel():
            drawn.mul_(whole(g).mean_q ** 0.5 / drawn.square().mean().sqrt())
        found.append(drawn)
    return tuple(found)


def _back(
    made: tuple[Tensor, ...], drawn: Mapping[Arg, Tensor], directions: tuple[Tensor | None, ...]
) -> dict[Arg, Tensor]:
    """The gradients that arrive at the entries drawn."""
    wanted = {arg: t for arg, t in drawn.items() if t.requires_grad}
    pairs = [(t, v) for t, v in zip(_floating(made), directions, strict=False) if v is not None and t.requires_grad]
    if not pairs or not wanted:
        return {}
    roots, towards = [t for t, _ in pairs], [v.to(t.dtype) for t, v in pairs]
    found = torch.autograd.grad(roots, list(wanted.values()), towards, allow_unused=True)
    return {arg: _defined(g) for arg, g in zip(wanted, found, strict=True) if g is not None}


def _floating(made: tuple[Tensor, ...]) -> list[Tensor]:
    return [t for t in made if t.is_floating_point() or t.is_complex()]


def _derivative(
    call: Replay, drawn: Mapping[Arg, Tensor], directions: tuple[Tensor | None, ...]
) -> dict[Arg, Tensor] | None:
    """What autograd makes of a custom function's forward pass; None where it cannot follow it."""
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            return _back(call.opened(_copies(drawn)), drawn, directions)
    except Exception:  # noqa: BLE001 - a forward pass that was not made for it
        return None


def _agree(own: Mapping[Arg, Tensor], other: Mapping[Arg, Tensor] | None) -> bool:
    if other is None or own.keys() != other.keys():
        return False
    return all(float((g - other[a]).norm()) <= _SAME * float(other[a].norm()) for a, g in own.items())


def _factors(
    own: Mapping[Arg, Tensor], again: Mapping[Arg, Tensor], first: Tensor, second: Tensor
) -> dict[Arg, Tensor] | None:
    """Each gradient over the direction, entry by entry; None where it is not the same for two directions."""
    found: dict[Arg, Tensor] = {}
    for arg, g in own.items():
        if g.shape != first.shape or arg not in again:
            return None
        seen = (first.abs() > _DIFFERENT * first.abs().max()) & (second.abs() > _DIFFERENT * second.abs().max())
        one, two = torch.where(seen, g / first, 0.0), torch.where(seen, again[arg] / second, 0.0)
        if float((one - two).norm()) > _SAME * float(one.norm()):
            return None
        found[arg] = torch.where(seen, one, one.mean())
    return found


def _multiplied(g: Cotangent, factor: Tensor) -> Cotangent:
    level = float(factor.double().mean())
    if float((factor - level).norm()) <= _SAME * float(factor.norm()):
        return scaled(g, level)
    return times_signal(g, replace(from_data(factor.double().numpy()), data=False))


def _levelled(first: Signal, made: list[Tensor]) -> Signal:
    """Statistics of one draw, at the mean square of all."""
    if first.integer or first.complex or len({t.shape for t in made}) > 1 or first.mean_q <= 0.0:
        return first
    sizes = [float(_defined(t.detach().double()).square().mean()) for t in made]
    ratio = sum(sizes) / len(sizes) / first.mean_q
    return replace(first, mean=first.mean * ratio**0.5, q=first.q * ratio) if 0.0 < ratio < math.inf else first


def _statistics(t: Tensor, shape: tuple[int, ...]) -> Signal:
    if t.is_complex() or t.numel() == 0:
        return uniform(
            shape, 0.0, float(t.abs().double().square().mean()) if t.numel() else 0.0, complex=t.is_complex()
        )
    if not t.is_floating_point():
        return uniform(shape, 0.0, 1.0, integer=True)
    return from_data(_defined(t.detach().double()).numpy())


def _defined(t: Tensor) -> Tensor:
    """The entries, those outside of the operation's domain (which the network's lie in) as large as the others."""
    inside = t.isfinite()
    if bool(inside.all()) or not bool(inside.any()):
        return t
    return torch.where(inside, t, t[inside].square().mean().sqrt().copysign(t[inside].mean()))


def _named(node: Node) -> Callable[..., Any]:
    """The function of torch that is called like the operation: for graphs that no capture in this process made."""
    for prefix in ("", "special_", "linalg_", "fft_"):
        for space in (torch.nn.functional, torch, torch.Tensor, torch.linalg, torch.special, torch.fft):
            found = getattr(space, node.op.removeprefix(prefix), None)
            if callable(found):
                return found
    raise ModelError(
        node.name,
        got=f"the operation {node.op!r}, which is no function of torch",
        expected="an operation that can be run again",
        action="Register a rule for it (firstlight.rules.registry).",
    )
