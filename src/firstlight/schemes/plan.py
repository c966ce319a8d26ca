"""The plan of an initialization: for every parameter of a model, its law or the reason to leave it alone."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from torch import nn

from firstlight.errors import InputError, without_shape
from firstlight.graph.ir import Graph, Law
from firstlight.graph.uncollected import uncollected
from firstlight.schemes.connect import Connection, connections
from firstlight.schemes.context import Context, Draw, Target
from firstlight.schemes.fans import Site, all_sites
from firstlight.schemes.holders import Holder, holders
from firstlight.schemes.others import common
from firstlight.schemes.registry import Chosen, resolve
from firstlight.schemes.sequence import contexts
from firstlight.schemes.table import Row, Table

Only = str | Iterable[str] | Callable[[str, nn.Parameter], bool] | None
SchemeLike = str | Chosen | Callable[[Target, Context], Draw | str]

_UNSEEN = (
    "roles come from the module types, activations from nn.Sequential: for functional activations, readout, "
    "residual branches and raw parameters give a batch"
)


@dataclass(frozen=True)
class Entry:
    """One parameter (or group of originals of one parametrized parameter) with its law and its memory."""

    row: Row
    target: Target
    holder: Holder
    draw: Draw | None
    followers: tuple[Row, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What an initialization would do; nothing is drawn yet, so it works on the meta device."""

    model: str
    scheme: str
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()

    def laws(self) -> dict[str, Law]:
        """Declared laws by qualified name, of the parameters that would be drawn."""
        return {e.row.name: e.draw.law for e in self.entries if e.draw is not None}

    def table(self, seed: int) -> Table:
        """The table of the plan."""
        rows = tuple(r for e in self.entries for r in (e.row, *e.followers))
        return Table(self.model, self.scheme, seed, rows, written=False, notes=self.notes)


@uncollected()
def plan(
    model: nn.Module,
    scheme: SchemeLike = "he",
    *,
    graph: Graph | None = None,
    only: Only = None,
    frozen: bool = False,
) -> Plan:
    """Say what `scheme` would do to every parameter of `model`, without drawing.

    Args:
        model: Any module, also on the meta device.
        scheme: Spec string, or a function ``(Target, Context) -> Draw``.
        graph: The model's graph; without it roles come from the module types alone.
        only: Glob pattern(s) on qualified names, or a function (name, parameter) -> bool.
        frozen: Draw also parameters that do not require a gradient.

    Raises:
        InputError: Something that is not a module, lazy modules that have no shape yet, or `only` that matches
            nothing.
        RegistryError: Unknown scheme.
    """
    if not isinstance(model, nn.Module):
        raise InputError("model", got=f"a {type(model).__name__}", expected="a torch.nn.Module")
    chosen = resolve(scheme)
    found = holders(model)
    lazy = [h.name for h in found if h.lazy]
    if lazy:
        raise without_shape(lazy)
    wanted = _selection(only, found)
    sites = all_sites(model)
    seen: Mapping[str, Connection] = connections(graph, sites) if graph is not None else {}
    places = [(holder, *_site(holder, sites, seen)) for holder in found]
    beside = contexts(model) if any(connection is None for _, _, connection in places) else {}
    entries: list[Entry] = []
    for holder, site, connection in places:
        context = connection.context if connection is not None else beside.get(holder.name, Context())
        context = context if graph is None or context.traced else replace(context, traced=True)
        entries.append(_entry(holder, site, connection, chosen, wanted, frozen, context))
    notes = () if graph is not None else (_UNSEEN,)
    return Plan(type(model).__name__, chosen.spec, tuple(entries), notes)


def _site(holder: Holder, sites: Mapping[str, Site], seen: Mapping[str, Connection]) -> tuple[Site, Connection | None]:
    names = (holder.name, *holder.aliases)
    # The capture looks through torch.compile's wrapper, so its names lack the prefix.
    plain = (n.removeprefix("_orig_mod.") for n in (*names, *(p for p, _ in holder.parts)))
    connection = next((seen[n] for n in plain if n in seen), None)
    known = [sites[n] for n in names if n in sites]
    # A table that is tied to a map is drawn as the map: its rows are that map's weights.
    known.sort(key=lambda s: s.role in ("embedding", "other"))
    if connection is not None and connection.site is not None and not (known and known[0].role != "embedding"):
        return connection.site, connection
    return (known[0] if known else Site("other")), connection


def _entry(
    holder: Holder,
    site: Site,
    connection: Connection | None,
    chosen: Chosen,
    wanted: Callable[[Holder], bool],
    frozen: bool,
    context: Context,
) -> Entry:
    role = site.role
    if connection is not None and role == "weight":
        role = connection.role
    target = Target(
        name=holder.name,
        shape=holder.shape,
        role=role,
        module_type=holder.module_type,
        fan_in=site.fan_in,
        fan_out=site.fan_out,
        split=site.split,
        in_axes=site.in_axes,
        kernel_axes=site.kernel_axes,
        channels=site.channels,
        builtin=site.builtin,
        zero_rows=site.zero_rows,
        offset=site.offset,
    )
    answer: Draw | str
    if not wanted(holder):
        answer = "not selected by `only`"
    elif holder.frozen and not frozen:
        answer = "frozen (requires_grad is False); frozen=True draws it too"
    elif holder.obstacle:
        answer = holder.obstacle
    elif role in chosen.roles:
        answer = chosen.function(target, context)
    else:
        answer = common(target, context, bias_std=chosen.bias_std)
        if isinstance(answer, str) and role == "other" and context.traced and connection is None:
            answer = "no operation of the forward pass reads it"
    draw = answer if isinstance(answer, Draw) else None
    reason = draw.reason if draw is not None else str(answer)
    if draw is not None and holder.through:
        reason = f"{reason}; written through {holder.through}" if reason else f"written through {holder.through}"
    first, *rest = holder.parts
    row = Row(
        name=first[0],
        shape=tuple(first[1].shape),
        dtype=str(first[1].dtype).removeprefix("torch."),
        role=role,
        module_type=holder.module_type,
        action="leave" if draw is None else "draw",
        reason=reason,
        aliases=holder.aliases,
        fan_in=site.fan_in,
        fan_out=site.fan_out,
        activation=context.activation.name if context.activation else "",
        gain=draw.gain if draw else None,
        law=draw.law if draw else None,
    )
    followers = tuple(
        Row(
            name=name,
            shape=tuple(p.shape),
            dtype=str(p.dtype).removeprefix("torch."),
            role=role,
            module_type=holder.module_type,
            action=row.action,
            reason=f"follows from {first[0]}" if draw is not None else reason,
        )
        for name, p in rest
    )
    return Entry(row, target, holder, draw, followers)


def _selection(only: Only, found: list[Holder]) -> Callable[[Holder], bool]:
    if only is None:
        return lambda holder: True
    if callable(only) and not isinstance(only, str):
        predicate = only
        return lambda holder: any(predicate(name, p) for name, p in holder.parts)
    if not isinstance(only, Iterable):
        raise InputError(
            "only", got=repr(only), expected="glob patterns on parameter names, or a function (name, parameter) -> bool"
        )
    patterns = [only] if isinstance(only, str) else list(only)
    known = [n for h in found for n in h.all_names]
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise InputError(
                "only",
                got=f"a {type(pattern).__name__}",
                expected="glob patterns on parameter names, or a function",
            )
        if not any(fnmatchcase(n, pattern) for n in known):
            near = difflib.get_close_matches(pattern, known, n=1, cutoff=0.3)
            raise InputError(
                "only",
                got=f"{pattern!r}, which matches no parameter",
                expected="a glob pattern on parameter names",
                action=f"Did you mean {near[0]!r}?" if near else "",
            )
    return lambda holder: any(fnmatchcase(n, p) for n in holder.all_names for p in patterns)


def meta_parameters(plan: Plan) -> list[str]:
    """Names of the parameters to be drawn that have no memory."""
    return [
        name
        for entry in plan.entries
        if entry.draw is not None
        for name, p in entry.holder.parts
        if p.device == torch.device("meta")
    ]
