"""The table of what an initialization changed and left alone: frozen rows, data frame, JSON, print."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from firstlight.graph.ir import Law
from firstlight.graph.records import from_json, to_json
from firstlight.schemes.context import Role

if TYPE_CHECKING:
    import pandas as pd

_LONGEST_NAME = 40  # characters; longer names are folded
_MOST_ROWS = 60  # a longer table is shortened on the terminal; the data frame and the JSON hold everything


@dataclass(frozen=True, slots=True)
class Row:
    """One parameter in the table.

    Attributes:
        name: Qualified name, the first one of a tied group.
        shape: Sizes.
        dtype: "float32", ...
        role: What the entries do to the signal.
        module_type: Class name of the owning module.
        action: "draw": it is drawn; "leave": it keeps its entries.
        reason: Why this law, or why it is left alone.
        aliases: Further names of the same tensor.
        fan_in: Input entries that one output entry sums over; None where there is no such thing.
        fan_out: Output entries that one input entry reaches; None likewise.
        activation: Name of the activation whose gain was taken; "" for none.
        gain: The gain g in variance g²/fan; None where the scheme has none.
        law: Declared law; None where it is left alone, or follows from another row.
        q_before: Mean square of the entries before; None where nothing was written.
        q_after: Mean square of the entries after; None likewise.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: Role
    module_type: str
    action: Literal["draw", "leave"]
    reason: str
    aliases: tuple[str, ...] = ()
    fan_in: float | None = None
    fan_out: float | None = None
    activation: str = ""
    gain: float | None = None
    law: Law | None = None
    q_before: float | None = None
    q_after: float | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """All parameters of a model under one scheme.

    Attributes:
        model: Class name of the root module.
        scheme: Canonical spec.
        seed: Seed of the random numbers.
        rows: One per parameter, in the order of ``named_parameters()``.
        written: False for a plan that was not carried out.
        notes: What was assumed or could not be seen.
    """

    model: str
    scheme: str
    seed: int
    rows: tuple[Row, ...]
    written: bool
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of the parameters that are drawn."""
        return tuple(r.name for r in self.rows if r.action == "draw")

    @property
    def left(self) -> dict[str, str]:
        """Names of the parameters that are left alone, with the reason."""
        return {r.name: r.reason for r in self.rows if r.action == "leave"}

    def to_frame(self) -> pd.DataFrame:
        """As a pandas DataFrame with one row per parameter, law included."""
        import pandas as pd

        fields = [f for f in Row.__dataclass_fields__ if f != "law"]
        rows = []
        for r in self.rows:
            law = r.law
            rows.append(
                {f: getattr(r, f) for f in fields}
                | {
                    "mean": law.mean if law else None,
                    "std": law.variance**0.5 if law else None,
                    "kurtosis": law.kurtosis if law else None,
                    "structure": law.structure if law else None,
                }
            )
        return pd.DataFrame(rows, columns=[*fields, "mean", "std", "kurtosis", "structure"])

    def to_json(self, indent: int | None = None) -> str:
        """As JSON that `from_json` reads back."""
        return to_json(self, indent)

    @classmethod
    def from_json(cls, text: str) -> Table:
        """Read what `to_json` wrote.

        Raises:
            DataError: If the text is not JSON or not such a table.
        """
        return from_json(cls, text)

    def __rich__(self) -> RenderableType:
        """The table that rich prints."""
        return _view(self)

    def __str__(self) -> str:
        """The same table as plain text, 110 columns wide."""
        console = Console(width=110, record=True, file=io.StringIO(), color_system=None)
        console.print(self)
        return console.export_text().rstrip()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _view(table: Table) -> RenderableType:
    drawn = len(table.changed)
    verb = "drawn" if table.written else "would be drawn"
    head = Text(f"{table.model}: {drawn} of {len(table.rows)} parameters {verb} by {table.scheme}, seed {table.seed}")
    if not table.rows:
        return Group(head, Text("The model has no parameters, so nothing was changed."))
    grid = RichTable(box=None, pad_edge=False, header_style="bold")
    for column in ("parameter", "shape", "role", "fan in", "fan out", "gain", "sd"):
        right = column in ("fan in", "fan out", "gain", "sd")
        grid.add_column(column, justify="right" if right else "left", overflow="fold")
    grid.add_column("why", overflow="fold")
    shown = table.rows if len(table.rows) <= _MOST_ROWS else table.rows[: _MOST_ROWS // 2]
    rest = table.rows[-(_MOST_ROWS // 2) :] if len(table.rows) > _MOST_ROWS else ()
    longest = max(len(line) for r in (*shown, *rest) for line in _name(r).splitlines())
    grid.columns[0].width = min(max(longest, 20 if rest else len("parameter")), _LONGEST_NAME)
    for row in shown:
        grid.add_row(*_cells(row), style=None if row.action == "draw" else "dim")
    if rest:
        grid.add_row(f"... {len(table.rows) - len(shown) - len(rest)} more ...")
    for row in rest:
        grid.add_row(*_cells(row), style=None if row.action == "draw" else "dim")
    notes = [Text(f"Note: {note}") for note in table.notes]
    return Group(head, grid, *notes)


def _name(row: Row) -> str:
    """The parameter's names, one a line; what a name holds besides printable characters is spelled out."""
    names = [row.name, *(f"= {alias}" for alias in row.aliases)]
    return "\n".join(n if n.isprintable() else n.encode("unicode_escape").decode() for n in names)


def _cells(row: Row) -> list[str]:
    law = row.law
    sd = "" if law is None else f"= {law.mean:g}" if law.variance == 0.0 else _number(law.variance**0.5)
    why = row.reason if row.action == "draw" else f"left alone: {row.reason}"
    shape = "×".join(map(str, row.shape)) or "scalar"
    numbers = [_number(row.fan_in), _number(row.fan_out), _number(row.gain), sd]
    if row.role not in ("weight", "readout", "branch end"):
        numbers[:2] = ["", ""]
    return [escape(_name(row)), shape, row.role, *numbers, escape(why)]
