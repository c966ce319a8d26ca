"""Draw and write, all or nothing; undo bit for bit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from firstlight.errors import InputError, ModelError
from firstlight.graph.ir import Graph
from firstlight.schemes.context import Draw, Target
from firstlight.schemes.draws import CHUNK, Stream
from firstlight.schemes.plan import Entry, Only, Plan, SchemeLike, meta_parameters, plan
from firstlight.schemes.shards import is_sharded, local_part, norm, write_part
from firstlight.schemes.table import Table

if TYPE_CHECKING:
    import pandas as pd

_BLOCK = 64 * CHUNK  # entries that pass through a buffer at once, where a tensor cannot be filled directly
_Saved = list[tuple[str, torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Initialization:
    """The result of `initialize`: the table, and the way back.

    Attributes:
        table: What was drawn, from which law, and what was left alone and why.
    """

    table: Table
    _saved: _Saved = field(default_factory=list, repr=False)

    def undo(self) -> None:
        """Put back, bit for bit, what was there before; also after training. The copies are then given up.

        Raises:
            ModelError: It was already undone, it was a dry run, or a parameter has changed its shape, type
                or device since; then nothing is changed.
        """
        if self.table.written and not self.table.changed:
            return  # every parameter was left alone
        if not self._saved:
            raise ModelError(
                "undo",
                got="nothing to put back",
                expected="an initialization that was written and not yet undone",
            )
        for name, parameter, old in self._saved:
            tensor = local_part(parameter)
            if tensor.shape != old.shape or tensor.dtype != old.dtype or tensor.device != old.device:
                raise ModelError(
                    f"undo, {name}",
                    got=f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device}",
                    expected=f"{tuple(old.shape)} {old.dtype} on {old.device}, as it was",
                    action="Bring the model back to the type and device it had.",
                )
        _restore(self._saved)
        self._saved.clear()

    def to_frame(self) -> pd.DataFrame:
        """As a pandas DataFrame with one row per parameter."""
        return self.table.to_frame()

    def to_json(self, indent: int | None = None) -> str:
        """As JSON that ``Table.from_json`` reads back."""
        return self.table.to_json(indent)

    def __rich__(self) -> Table:
        """The table that rich prints."""
        return self.table

    def __str__(self) -> str:
        """The table as plain text."""
        return str(self.table)


def initialize(
    model: nn.Module,
    scheme: SchemeLike = "he",
    *,
    graph: Graph | None = None,
    seed: int = 0,
    only: Only = None,
    frozen: bool = False,
    dry_run: bool = False,
) -> Initialization:
    """Plan and write; see `firstlight.initialize`, which captures the graph first."""
    check_seed(seed)
    chosen = plan(model, scheme, graph=graph, only=only, frozen=frozen)
    return Initialization(chosen.table(seed)) if dry_run else write(chosen, seed)


def check_seed(seed: int) -> int:
    """The seed, if it is a whole number ≥ 0.

    Raises:
        InputError: Anything else.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError("seed", got=repr(seed), expected="a whole number ≥ 0")
    return seed


def sample(target: Target, draw: Draw, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A new CPU tensor drawn from a declared law; no parameter is touched.

    Half-precision types are drawn in single precision and rounded.
    """
    out = torch.empty(target.shape, dtype=dtype)
    _fill(target, draw, seed, out)
    return out


def write(chosen: Plan, seed: int) -> Initialization:
    """Carry out a plan: draw into the parameters, in place. On any error nothing has changed.

    The old entries are copied first; they are what `undo` puts back, and what is put back if anything goes
    wrong in the middle, an interrupt included. Apart from these copies memory grows by one buffer of 16 MiB,
    or by the size of the largest tensor where that is not independent entries (orthogonal), parametrized or
    not contiguous.

    Raises:
        InputError: A seed that is no whole number ≥ 0.
        ModelError: Parameters on the meta device, or of a type whose range the draw exceeds.
    """
    check_seed(seed)
    meta = meta_parameters(chosen)
    if meta:
        raise ModelError(
            "model",
            got=f"{len(meta)} parameters on the meta device, the first {meta[0]}",
            expected="parameters with memory",
            action="Call model.to_empty(device='cpu') first, or ask for the plan alone: dry_run=True, or --dry-run.",
        )
    drawn = [e for e in chosen.entries if e.draw is not None]
    parts = [part for e in drawn for part in e.holder.parts]
    saved: _Saved = [
        (name, p, local_part(p).clone(memory_format=torch.preserve_format))
        for name, p in (*parts, *(b for e in drawn for b in e.holder.buffers))
    ]
    before = {name: mean_square(p) for name, p in parts}
    with _all_or_nothing(saved):
        for entry in drawn:
            _write_entry(entry, seed)
        after = {name: mean_square(p) for name, p in parts}
        table = chosen.table(seed)
        for name, p in parts:
            if math.isinf(after[name]) or (math.isnan(after[name]) and p.numel()):
                kind = str(p.dtype).removeprefix("torch.")
                raise ModelError(
                    name,
                    got=f"a draw by {table.scheme!r} that {kind} cannot hold",
                    expected="finite entries",
                    action="Choose a smaller scale, or a type of wider range such as bfloat16 or float32.",
                )
        rows = tuple(
            replace(r, q_before=before[r.name], q_after=after[r.name]) if r.name in before else r for r in table.rows
        )
        return Initialization(replace(table, rows=rows, written=True), saved)


def mean_square(tensor: torch.Tensor) -> float:
    """Mean square q of the entries, accumulated in double precision; NaN for an empty tensor."""
    if tensor.numel() == 0:
        return math.nan
    return norm(tensor) ** 2 / tensor.numel()


@contextmanager
def _all_or_nothing(saved: _Saved) -> Iterator[None]:
    try:
        yield
    except BaseException:
        while True:
            try:
                _restore(saved)
                break
            except KeyboardInterrupt:  # a second Ctrl-C must not leave half of it restored
                continue
        raise


def _restore(saved: _Saved) -> None:
    with torch.no_grad():
        for _, tensor, old in saved:
            local_part(tensor).copy_(old)


def _write_entry(entry: Entry, seed: int) -> None:
    draw, holder = entry.draw, entry.holder
    assert draw is not None
    with torch.no_grad():
        if is_sharded(holder.parts[0][1]):
            parameter = holder.parts[0][1]
            write_part(parameter, sample(entry.target, draw, seed, parameter.dtype))
            return
        if holder.inverse is None:
            _fill(entry.target, draw, seed, holder.parts[0][1].detach())
            return
        first = holder.parts[0][1]
        whole = sample(entry.target, draw, seed, first.dtype).to(first.device)
        originals = holder.inverse(whole)
        for (name, p), value in zip(holder.parts, originals, strict=True):
            if value.shape != p.shape:
                raise ModelError(name, got=f"shape {tuple(value.shape)}", expected=f"{tuple(p.shape)}")
            p.detach().copy_(value)


def _fill(target: Target, draw: Draw, seed: int, out: torch.Tensor) -> None:
    """Fill `out` (the target's shape; any strides, floating type and device) in place."""
    stream = Stream(seed, target.name)
    if draw.build is not None:
        exact = torch.float64 if out.dtype == torch.float64 else torch.float32
        out.copy_(draw.build(stream, exact))
    elif draw.distribution is not None:
        distribution = draw.distribution
        if not out.is_contiguous():
            whole = torch.empty(target.shape)
            stream.fill(distribution, whole.view(-1).numpy())
            out.copy_(whole)
        elif out.dtype == torch.float32 and out.device.type == "cpu":
            stream.fill(distribution, out.view(-1).numpy())
            torch.autograd.graph.increment_version(out)  # NumPy wrote behind autograd's back
        else:
            flat = out.view(-1)
            buffer = torch.empty(min(_BLOCK, flat.numel()))
            for start in range(0, flat.numel(), _BLOCK):
                part = buffer[: min(_BLOCK, flat.numel() - start)]
                stream.fill(distribution, part.numpy(), start=start)
                flat[start : start + part.numel()].copy_(part)
    else:
        raise InputError(
            f"scheme, {target.name}", got="a Draw without distribution and build", expected="one of the two"
        )
    for row in target.zero_rows:
        out[row] = 0.0
