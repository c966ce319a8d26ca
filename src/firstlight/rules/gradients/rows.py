"""How far gradients go along rows of which several make up a site (experts): Σ g·x there and back.

A router sends a site to k experts, takes its row for each, and adds the weighted results: y = Σ_r y_r. The gradient of
y is that of every row, so that s = Σ g·y = Σ_r s_r is shared out: of isotropic g and y_r, with f = E y_r²/E y²,

    s_r = f·s + e_r,   E e_r² = E|g|²·(E y_r² - f²·E y²),   Σ_r e_r = 0.

In front of the experts the rows of a site are added again. What they have of s does so in amplitude, what an expert
has added by itself (from a sampled function, say) in its squares, and the e_r, as far as each went through unchanged,
are gone. So e gets a negative number (`graph.along`): sources that are older are those of the whole site, younger ones
are a row's own.

Where the rows of a site come back all at once (a sorted list of all rows), R rows a site, that is R·f·s + √R·own.
Where they come back one expert after the other, each has a row for a part R < 1 of the sites: in the mean over sites
its form is R·f·s, and it scatters besides, by R·(1 - R)·(f·s)² and by R·E e², which the other experts take back.
"""

from __future__ import annotations

import dataclasses

from firstlight.graph.along import Along
from firstlight.graph.signal import Cotangent, Signal, replace
from firstlight.rules.gradients.along import energy, mixed, of_rows
from firstlight.rules.gradients.along import shared as shared_out

ADDED = "rows added"  # tag of a tensor to which rows were added


def shared(g: Cotangent, out: Signal, before: Signal, row: float) -> tuple[Cotangent, Along | None]:
    """Behind rows that are added to a tensor: the gradient of that tensor with its form, and the rows' form.

    Args:
        g: The gradient of the sum.
        out: The sum.
        before: The tensor without these rows.
        row: Mean square of the rows.
    """
    if g.along is None:
        return g, None
    whole = g.along.complete or out.mean_q
    f = min(row / whole, 1.0) if whole > 0.0 else 1.0
    rows = mixed([(f, g.along)], balanced=energy(g) * max(row - f * f * whole, 0.0))
    if before.tag is not None and before.tag[0] == ADDED:  # the site is not complete before all of its rows are there
        return replace(g, along=dataclasses.replace(g.along, complete=whole)), rows
    form, _ = shared_out(g, before.mean_q, max(whole - before.mean_q, 0.0), 0.0)
    return replace(g, along=form), rows


def added(form: Along | None, ratio: float, disjoint: bool = False) -> Along | None:
    """Of the sites, from the form of their rows, so many for each.

    Args:
        form: Of a row.
        ratio: R, rows for each site.
        disjoint: Whether rows of one site are different entries of it.
    """
    marks = [] if form is None else [-number for number, _ in form.loads if number < 0]
    if form is None or not marks or ratio == 1.0:
        return of_rows(form, ratio)
    mark, loads, balanced = max(marks), list[tuple[int, float]](), 0.0
    for number, load in form.loads:
        if number == -mark:
            balanced += ratio * load * load if ratio < 1.0 else 0.0
        elif abs(number) < mark:
            loads.append((number, ratio * load))
            balanced += max(ratio - ratio * ratio, 0.0) * load * load
        else:
            loads.append((number, ratio**0.5 * load))
    return Along(tuple(loads), balanced, disjoint)
