"""Operations that no rule describes, run on entries drawn from their inputs' statistics."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from firstlight.capture.drawn import Draw
from firstlight.capture.replay import Replay, Slot
from firstlight.errors import ModelError
from firstlight.graph.ir import Arg, ConstantRef, Graph, Node, ParameterRef, Ref, TensorSpec
from firstlight.graph.noise import Noise
from firstlight.graph.signal import Cotangent, Signal, replace
from firstlight.rules.gradients.gradient import scale, scaled, times_signal, whole
from firstlight.rules.registry import SHOWN, Look, OwnBackward
from firstlight.rules.state.cross import add
from firstlight.rules.state.empirical import from_data, uniform
from firstlight.rules.state.forms import combine

_LARGEST = 1 << 24  # entries of all inputs together beyond which an operation is not sampled
_ENOUGH, _REPEATS = 1 << 18, 16  # entries after which, and draws at most on which, gradients are measured
_LONGER, _ROOTS = 1.1, 6  # by what an input is longer to see what follows, and inputs up to which each one is
_MOSTLY = 0.8  # share of an output's variance from which it goes along an input
_SHIFTS = 0.05  # and what the slope of one that is shifted with its input may be off by on drawn entries
_SAME = 1e-3  # two gradients are the same if they differ by less, in root mean square: float32 through a few operations
_DIFFERENT = torch.finfo(torch.float32).eps ** 0.5  # directions below this share of the largest say nothing of a factor

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")
Grads = tuple[Cotangent | None, ...]


class Sampler:
    """Runs operations of one graph on drawn entries; see `rules.registry.Sampler`.

    Args:
        graph: As captured; what it remembers of its calls is run again, others are looked up by name.
    """

    def __init__(self, graph: Graph) -> None:
        self._calls: Mapping[str, Replay] = graph.calls
        self._graph, self._nodes = graph, graph.named

    @functools.cached_property
    def _specs(self) -> dict[Arg, TensorSpec]:
        """Of every tensor; most networks have no operation that asks."""
        graph = self._graph
        found: dict[Arg, TensorSpec] = {Ref(n.name, i): spec for n in graph.nodes for i, spec in enumerate(n.outputs)}
        found.update({ParameterRef(n): p.spec for n, p in graph.parameters.items()})
        found.update({ConstantRef(n): c.spec for n, c in graph.constants.items()})
        return found

    def outputs(self, node: Node, look: Look) -> tuple[Signal, ...]:
        """Statistics of the outputs, and how they fluctuate with the inputs."""
        call = self._call(node)

        def run(seed: int, longer: tuple[Arg, float] | None = None) -> tuple[_Drawn, list[Tensor]]:
            drawn = self._draw(node, call, look, seed=seed, longer=longer)
            with _run(node), torch.no_grad():
                return drawn, list(call(_copies(drawn.tensors)))

        rows, varied = _repeated(run)
        found: list[Signal] = []
        for i, (first, spec) in enumerate(zip(rows[0][1], node.outputs, strict=False)):
            made = [made[i] for _, made in rows]
            noise = _noise([drawn for drawn, _ in rows], made, {a: t[i] for a, t in varied.items()}, [])
            along = _along_an_input([(drawn.tensors, t) for (drawn, _), t in zip(rows, made, strict=True)], look)
            level = replace(_levelled(_statistics(first, spec.shape), made), noise=noise)
            found.append(level if along is None else along)
        return tuple(found)

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
        drawn = {a: t.detach() for a, t in self._draw(node, call, look).tensors.items()}
        drawn = {a: t.requires_grad_(t.is_floating_point() or t.is_complex()) for a, t in drawn.items()}
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

        def run(seed: int, longer: tuple[Arg, float] | None = None) -> tuple[_Drawn, dict[Arg, Tensor]]:
            drawn = self._draw(node, call, look, track=True, seed=seed, longer=longer)
            directions = _directions(node, grads, seed=seed + 1)
            with _run(node):
                return drawn, _back(call(_copies(drawn.tensors)), drawn.wanted, directions)

        rows, varied = _repeated(run)
        inherited = [(1.0, next(whole(g) for g in grads if g is not None).noise)]
        out: dict[Arg, Cotangent] = {}
        for arg, g in rows[0][1].items():
            draws, found = [d for d, f in rows if arg in f], [f[arg] for _, f in rows if arg in f]
            level, sizes = _size(g), [_size(f) for f in found]
            noise = _noise(draws, found, {a: f[arg] for a, f in varied.items() if arg in f}, inherited)
            seen = replace(from_data(g.double().numpy()), data=False, noise=noise)
            out[arg] = scaled(Cotangent(seen), (sum(sizes) / len(sizes) / level) ** 0.5 if level > 0.0 else 1.0)
            if arg not in draws[0].handed:
                out[arg] = Cotangent(replace(whole(out[arg]), tag=(SHOWN, 0, 0.0)))
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

    def _draw(
        self, node: Node, call: Replay, look: Look, *, track: bool = False, seed: int = 0,
        longer: tuple[Arg, float] | None = None,
    ) -> _Drawn:  # fmt: skip
        entries = sum(look(arg).numel for arg in call.sources)
        if entries > _LARGEST:
            raise ModelError(
                node.name, got=f"inputs of {entries} entries", expected=f"at most {_LARGEST} to sample {node.op}"
            )
        draw = Draw(self._nodes, self._calls, self._specs, look, seed, track, longer)
        with _run(node):
            tensors = {arg: draw.tensor(arg) for arg in call.sources}
            met = draw.met
            drawn = {arg: draw.tensor(arg) for arg in draw.roots}
        sizes = {} if longer else {arg: _size(t) for arg, t in drawn.items()}
        if not met:
            tensors = {arg: t.detach() for arg, t in tensors.items()}
            if track:
                tensors = {a: t.requires_grad_(t.is_floating_point() or t.is_complex()) for a, t in tensors.items()}
            drawn = tensors
        return _Drawn(tensors, draw.roots, sizes, drawn | tensors if track else drawn, set(drawn))


class _Drawn(NamedTuple):
    """The tensors that an operation reads, and what was drawn to make them.

    Attributes:
        tensors: That it reads.
        roots: Statistics of what was drawn.
        sizes: Its mean squares, where nothing is longer.
        wanted: What gets gradients: what it reads, and what was drawn.
        handed: What gets those that go on: what it reads, or what was drawn where one tensor comes on several ways,
            since X and (XᵀX)⁻¹ do not go back by themselves.
    """

    tensors: dict[Arg, Tensor]
    roots: dict[Arg, Signal]
    sizes: dict[Arg, float]
    wanted: dict[Arg, Tensor]
    handed: set[Arg]


class _Run(Protocol[T_co]):
    def __call__(self, seed: int, longer: tuple[Arg, float] | None = None) -> tuple[_Drawn, T_co]: ...


def _repeated(run: _Run[T]) -> tuple[list[tuple[_Drawn, T]], dict[Arg, T]]:
    """Several draws of small inputs, and the first one again with each of what was drawn made longer."""
    rows: list[tuple[_Drawn, T]] = []
    entries = 0
    while not rows or (entries < _ENOUGH and len(rows) < _REPEATS):
        rows.append(run(len(rows)))
        entries += sum(t.numel() for t in rows[-1][0].tensors.values())
    roots = rows[0][0].roots
    return rows, {arg: run(0, (arg, _LONGER))[1] for arg in roots} if len(roots) <= _ROOTS else {}


def _along_an_input(rows: Sequence[tuple[Mapping[Arg, Tensor], Tensor]], look: Look) -> Signal | None:
    """y = a·x + a rest, where that is most of it: ln Σe^x of a running sum, which is subtracted again."""
    drawn, first = rows[0]
    if not first.is_floating_point() or not bool(first.isfinite().all()):
        return None
    for arg, x in drawn.items():
        if x.shape != first.shape or not x.is_floating_point() or look(arg).value is not None or x.numel() < 2:
            continue
        pairs = torch.stack([torch.cov(torch.stack([d[arg].detach().flatten(), y.flatten()])) for d, y in rows]).mean(0)
        own, both, whole = float(pairs[0, 0]), float(pairs[0, 1]), float(pairs[1, 1])
        if own * whole <= 0.0 or both * both < _MOSTLY * own * whole:
            continue
        slope = 1.0 if abs(both / own - 1.0) < _SHIFTS else both / own  # it moves with all that moves its input
        rests = [y - slope * d[arg].detach() for d, y in rows]
        return add(scale(look(arg), slope), _levelled(_statistics(rests[0], first.shape), rests))
    return None


def _size(t: Tensor) -> float:
    """Mean square; the norm in double precision makes no copies."""
    if not t.numel():
        return 0.0
    t = _defined(t.detach() if t.is_floating_point() or t.is_complex() else t.double())
    kind = torch.complex128 if t.is_complex() else torch.float64
    return float(torch.linalg.vector_norm(t, dtype=kind)) ** 2 / t.numel()


def _noise(
    draws: Sequence[_Drawn], made: Sequence[Tensor], longer: Mapping[Arg, Tensor], inherited: list[tuple[float, Noise]]
) -> Noise:
    """How ln|y|² fluctuates: with those of what was drawn, by the exponents that longer ones show, and by itself.

    Exponents are d ln|y|²/d ln|x|² on one draw; what other draws scatter by beside them is its own.
    """
    levels = [_size(t) for t in made]
    if min(levels) <= 0.0 or not math.isfinite(max(levels)) or not made[0].is_floating_point():
        return combine(inherited)
    step = 2.0 * math.log(_LONGER)
    exponents = {a: math.log(size / levels[0]) / step for a, t in longer.items() if (size := _size(t)) > 0.0}
    rest = [
        math.log(level) - sum(s * math.log(d.sizes[a]) for a, s in exponents.items() if d.sizes.get(a, 0.0) > 0.0)
        for d, level in zip(draws, levels, strict=True)
    ]
    own = float(np.var(rest, ddof=1)) if len(rest) > 1 else 0.0
    return combine([*inherited, *((s, draws[0].roots[a].noise) for a, s in exponents.items())], own, -0.5 * own)


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
    if bool(torch.linalg.vector_norm(t).isfinite()):  # of an infinite entry it is infinite
        return t
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
