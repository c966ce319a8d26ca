"""Backward: cotangents in reverse execution order, summed where a tensor was used more than once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from firstlight.errors import FirstlightError
from firstlight.graph.ir import Arg, Node, ParameterRef, Ref
from firstlight.graph.signal import Cotangent, Signal, largest, next_id, number, replace
from firstlight.propagate import sharing
from firstlight.propagate.run import LARGEST, Run, resolve, settled
from firstlight.rules import Call, find
from firstlight.rules.gradients import images
from firstlight.rules.gradients.along import together
from firstlight.rules.gradients.gradient import total, whole, whole_shape
from firstlight.rules.gradients.seeds import random_direction
from firstlight.rules.moves.structural import like_shape
from firstlight.rules.registry import SHOWN, Sampler, several
from firstlight.rules.state.layout import reshape

_LONG = 4096  # entries beyond which the field of a finished gradient is not kept


def adjoint(run: Run, seeds: Mapping[Ref, Signal] | None = None, *, sampler: Sampler | None = None) -> Run:
    """Gradients of every tensor and parameter; fills `run` and returns it.

    Args:
        run: A forward pass, finished or on its way.
        seeds: Cotangents of outputs; the default is a random direction at every output.
        sampler: Measures operations without a rule.
    """
    incoming: dict[tuple[str, int], list[Cotangent]] = {}
    owed: dict[str, list[Cotangent]] = {}
    if seeds is None:
        floating = [r for r in dict.fromkeys(run.graph.outputs) if _floating(run, r)]
        seeds = {r: random_direction(run.signals[r.node][r.index]) for r in floating}
    for ref, signal in seeds.items():
        incoming.setdefault((ref.node, ref.index), []).append(Cotangent(signal))
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        for node in reversed(run.graph.nodes[: len(run.signals)]):
            outputs = run.signals[node.name]
            parts = [incoming.pop((node.name, i), None) for i in range(len(outputs))]
            grads = tuple(_collect(p, x) for p, x in zip(parts, outputs, strict=True))
            if all(g is None for g in grads):
                continue
            first = next(g for g in grads if g is not None)
            run.gradients[node.name] = _slim(whole(grads[0] or first))
            if any(_is_shown(g) for p in parts for g in p or ()):
                handed = [[g for g in p or () if not _is_shown(g)] for p in parts]
                grads = tuple(_collect(p, x) for p, x in zip(handed, outputs, strict=True))
                if all(g is None for g in grads):
                    continue
            if node.op != "input" and any(x.numel for x in outputs):
                _pass_on(run, node, grads, outputs, incoming, owed, sampler)
        for name, parts in owed.items():
            run.parameter_gradients[name] = _slim(whole(total(parts)))
    return run


def _is_shown(g: Cotangent) -> bool:
    return g.base.tag is not None and g.base.tag[0] == SHOWN


def _slim(g: Signal) -> Signal:
    """A gradient to look at when all is done: of long fields their means, and nothing that made it.

    What made it would keep every gradient behind it alive, long fields and all.
    """
    changes: dict[str, Any] = {}
    if g.terms or g.factors is not None or g.view is not None or g.made is not None:
        changes = {"terms": (), "factors": None, "view": None, "made": None}
    if max(g.q.size, g.mean.size) > _LONG:
        n = len(g.atoms)
        changes |= {"q": number(g.mean_q, n), "mean": number(g.mean_mean, n), "source": None, "values": None}
    return replace(g, **changes) if changes else g


def _floating(run: Run, ref: Ref) -> bool:
    node = next(n for n in run.graph.nodes if n.name == ref.node)
    return bool(node.outputs) and node.outputs[min(ref.index, len(node.outputs) - 1)].dtype.startswith(
        ("float", "bfloat")
    )


def _collect(parts: list[Cotangent] | None, x: Signal) -> Cotangent | None:
    if not parts:
        return None
    out = parts[0] if len(parts) == 1 else _joined(parts, x)
    if out.rest:
        return out
    base = out.base
    top = largest(base.q)
    if top > LARGEST or not math.isfinite(top):
        q = np.clip(np.nan_to_num(base.q, nan=LARGEST, posinf=LARGEST), 0.0, LARGEST)
        out = Cotangent(replace(base, q=q, corr=np.nan_to_num(base.corr, nan=0.0), ident=next_id()))
        top = LARGEST
    base = settled(out.base, top)
    return out if base is out.base else replace(out, base=base, whole=None)


def _joined(parts: list[Cotangent], x: Signal) -> Cotangent:
    """The sum of the gradients that arrive at x, with how far it goes along x over a site and over an image."""
    return images.together(parts, together(parts, total(parts), x), x)


def _pass_on(
    run: Run,
    node: Node,
    grads: tuple[Cotangent | None, ...],
    outputs: tuple[Signal, ...],
    incoming: dict[tuple[str, int], list[Cotangent]],
    owed: dict[str, list[Cotangent]],
    sampler: Sampler | None,
) -> None:
    entry = find(node.op)
    look, caveats = partial(resolve, run), run.caveats.get(node.name, [])
    call = Call(node, run.graph.training, caveats, sampler, look, run.signs, kept=run.kept.get(node.name))
    one, before = len(outputs) == 1, next_id()
    bound: dict[str, Any] = {}
    try:
        if entry is None:
            sampled = _sampled(call, grads)
            names: Mapping[str, Any] = {str(i): arg for i, arg in enumerate(sampled)}
            found: Mapping[str, Any] = {str(i): g for i, g in enumerate(sampled.values())}
        elif entry.backward is None:
            return
        else:
            names = entry.bind(node, node.args, node.options)
            bound = {k: resolve(run, a) for k, a in names.items()}
            found = entry.backward(call, grads[0] if one else grads, outputs[0] if one else outputs, **bound)
    except FirstlightError:
        raise
    except Exception as error:
        if run.strict:
            raise
        call.caveat(f"the adjoint failed ({type(error).__name__}: {error}): the gradient is passed on as it is")
        names, found = _fallback(run, node, grads)
    if call.caveats:
        run.caveats[node.name] = call.caveats
    mine, above = (outputs[0], grads[0]) if one else (outputs, grads)
    sharing.backward(run.shared, node, entry, bound, call, mine, above, found, before)
    for name, gradient in found.items():
        _deliver(run, names.get(name), gradient, incoming, owed)


def _sampled(call: Call, grads: tuple[Cotangent | None, ...]) -> Mapping[Arg, Cotangent]:
    """Gradients of an operation without a rule; none, said in a caveat, where it cannot be run."""
    if call.sampler is None or call.look is None:
        return {}
    try:
        return call.sampler.gradients(call.node, call.look, grads)
    except FirstlightError as error:
        call.caveat(f"no gradient behind it: it cannot be run on sampled inputs ({error.got})")
        return {}


def _fallback(run: Run, node: Node, grads: tuple[Cotangent | None, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    g = next(g for g in grads if g is not None)
    for i, a in enumerate(resolve(run, node.args)):
        if isinstance(a, Signal) and not a.integer:
            return {"0": node.args[i]}, {"0": Cotangent(like_shape(whole(g), a.shape))}
    return {}, {}


def _deliver(
    run: Run,
    arg: Arg,
    gradient: Any,
    incoming: dict[tuple[str, int], list[Cotangent]],
    owed: dict[str, list[Cotangent]],
) -> None:
    if gradient is None or arg is None:
        return
    if several(gradient):
        if isinstance(arg, tuple):
            for a, g in zip(arg, gradient, strict=False):
                _deliver(run, a, g, incoming, owed)
        return
    if isinstance(arg, Ref):
        target = run.signals[arg.node][min(arg.index, len(run.signals[arg.node]) - 1)]
        if not target.integer:
            incoming.setdefault((arg.node, arg.index), []).append(_shaped(gradient, target))
    elif isinstance(arg, ParameterRef):
        owed.setdefault(arg.name, []).append(
            _shaped(gradient, run.parameters[arg.name]) if arg.name in run.parameters else gradient
        )


def _shaped(g: Cotangent, like: Signal) -> Cotangent:
    shape = whole_shape(g)
    if shape == like.shape:
        return g
    base = whole(g)
    return Cotangent(reshape(base, like.shape) if base.numel == like.numel else like_shape(base, like.shape))
