"""Check on the theory itself: THY001."""

from __future__ import annotations

import math
from collections.abc import Iterator

from firstlight.checks.evidence import Evidence
from firstlight.checks.phrases import number
from firstlight.checks.registry import check
from firstlight.graph.results import Finding

# Standard errors beyond which chance is out of the question over some thousand operations, and the ratio of mean
# squares below which a disagreement is of no consequence.
Z, RATIO = 6.0, 2.0


@check("THY001", stage=70)
def theory_fails(e: Evidence) -> Iterator[Finding]:
    """Theory and measurement disagree.

    What it measures:
        The first operation at which measured and predicted mean square differ by more than six standard errors of the
        draw and by more than a factor of two, while all operations that it reads agree. Only with
        `diagnose(..., theory=True)`.
    Why it matters:
        The prediction takes weights as independent, centred draws. Where it fails they are not: trained or structured
        weights, tied ones, weights aligned with the data. Quantiles and P(start) then do not hold either.
    When it is harmless:
        For pretrained weights, which are aligned with the data on purpose.
    Remedy:
        Look at the caveats of that operation: `firstlight.predict(model, batch).to_frame()`.
    Source:
        Central limit theorem over the fan-in (Neal 1996; Poole et al. 1606.05340); z as defined by `compare`.
    """
    if e.comparison is None:
        return
    rows = {n.node: n for n in e.comparison.nodes}
    bad = {
        name
        for name, n in rows.items()
        if abs(n.q_z) > Z and n.q_predicted > 0.0 and n.q_measured > 0.0
        and abs(math.log(n.q_measured / n.q_predicted)) > math.log(RATIO)
    }  # fmt: skip
    for node in e.nodes:
        if node.name in bad and not any(name in bad for name in node.inputs):
            row = rows[node.name]
            named = (
                "; ".join(row.caveats) or "the weights are no independent centred draw, or are aligned with the data"
            )
            yield Finding(
                "THY001", "info", node.name,
                f"mean square {number(row.q_measured)} measured, {number(row.q_predicted)} predicted ({row.q_z:+.0f} "
                f"standard errors); so at {len(bad)} operations",
                f"{Z:.0f} standard errors and a factor of {RATIO:.0f}",
                f"An assumption of the theory fails here: {named}.",
                "firstlight.predict(model, batch).to_frame()  # the column of caveats",
                evidence={"z": row.q_z, "measured": row.q_measured, "predicted": row.q_predicted},
            )  # fmt: skip
            return
