"""Tables of the documentation, made from the registries while the site is built (a hook of mkdocs).

A line ``<!-- generated: NAME -->`` in a page is replaced by the table NAME; so no table can go stale.
"""

from __future__ import annotations

import csv
import html
import inspect
import json
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_MARK = re.compile(r"^<!-- generated: ([\w-]+) -->$", re.MULTILINE)


def markdown_table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; cells are escaped."""
    head = list(head)
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(_cell(c) for c in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    text = f"{value:.7g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def cite(keys: Iterable[str]) -> str:
    """Links to the bibliography."""
    from firstlight.theory import bibliography

    return "; ".join(f"[{_short(bibliography.citation(k))}](bibliography.md#{k})" for k in keys if k)


def _short(citation: str) -> str:
    """Authors and year of a citation."""
    match = re.match(r".*?\(\d{4}\)", citation)
    return match[0] if match else citation


def activations() -> str:
    """One row per activation, numbers computed by the library."""
    from firstlight.theory import activations as registry
    from firstlight.theory import log_moments, mean_field, random_walk

    rows = []
    for name in registry.names():
        act = registry.get(name)
        mean = random_walk.mean_gain(act)
        rows.append(
            (
                f"`{name}`",
                mean,
                random_walk.median_gain(act, 64),
                float(mean_field.chi(act, 1.0, mean**2)),
                log_moments.fluctuation(act),
                ", ".join(f"{k} = {v}" for k, v in act.parameters) or "",
                cite([act.reference]),
            )
        )
    head = ("name", "gain, mean", "gain, median, 64 units", "χ₁ at q = 1", "Eφ⁴/(Eφ²)² − 1", "parameters", "source")
    return markdown_table(head, rows)


def schemes() -> str:
    """One row per scheme."""
    from firstlight.schemes import schemes as registry

    rows = []
    for scheme in registry():
        options = ", ".join(
            f"`{k}`" if v is inspect.Parameter.empty else f"`{k}={v!r}`" for k, v in scheme.options.items()
        )
        names = ", ".join(f"`{v}`" for v in scheme.variants)
        rows.append((f"`{scheme.name}`", scheme.note, scheme.keeps or "—", options, names, cite(scheme.refs)))
    return markdown_table(("scheme", "law", "keeps", "options", "also as", "source"), rows)


def layers() -> str:
    """Fans of one example of each kind of layer, as the library counts them."""
    from torch import nn

    from firstlight.schemes.fans import all_sites

    examples: dict[str, Callable[[], nn.Module]] = {
        "nn.Linear(64, 256)": lambda: nn.Linear(64, 256),
        "nn.Conv2d(16, 32, 3)": lambda: nn.Conv2d(16, 32, 3),
        "nn.Conv2d(16, 32, 3, stride=2)": lambda: nn.Conv2d(16, 32, 3, stride=2),
        "nn.Conv2d(16, 32, 3, groups=4)": lambda: nn.Conv2d(16, 32, 3, groups=4),
        "nn.Conv2d(16, 16, 3, groups=16)": lambda: nn.Conv2d(16, 16, 3, groups=16),
        "nn.ConvTranspose2d(16, 32, 4, stride=2)": lambda: nn.ConvTranspose2d(16, 32, 4, stride=2),
        "nn.Bilinear(8, 8, 4)": lambda: nn.Bilinear(8, 8, 4),
        "nn.MultiheadAttention(32, 4)": lambda: nn.MultiheadAttention(32, 4),
        "nn.LSTM(16, 32)": lambda: nn.LSTM(16, 32),
    }
    rows = []
    for text, make in examples.items():
        module = make()
        found = all_sites(module)
        for name, p in module.named_parameters():
            site = found[name]
            if site.role == "weight":
                shape = "×".join(map(str, p.shape))
                rows.append((f"`{text}`", f"`{name}`", shape, f"{site.fan_in:g}", f"{site.fan_out:g}", site.split))
    return markdown_table(("layer", "parameter", "shape", "fan in", "fan out", "maps"), rows)


def checks() -> str:
    """All checks with their five sections."""
    from firstlight import checks as package  # noqa: F401 - importing the package registers the checks
    from firstlight.checks import registry

    parts = []
    for check in sorted(registry.checks(), key=lambda c: c.code):
        parts.append(f"## {check.code} {{ #{check.code.lower()} }}\n\n**{check.title}**\n")
        parts.extend(f"*{name}.* {check.section(name)}\n" for name in registry.SECTIONS)
    return "\n".join(parts)


def rules() -> str:
    """Coverage: one row per rule."""
    from firstlight import rules as package  # noqa: F401 - importing the package registers the rules
    from firstlight.rules import registry

    seen: dict[int, Any] = {id(r): r for r in registry.table().values()}
    ordered = sorted(seen.values(), key=lambda r: (r.kind, r.names))
    rows = [
        (r.kind, ", ".join(f"`{n}`" for n in r.names), "yes" if r.backward else "—", "; ".join(r.assumes), cite(r.refs))
        for r in ordered
    ]
    names = ", ".join(f"`{n}`" for n in registry.measured_operations())
    rows.append(("measured", names, "measured", "the inputs' entries are independent", "—"))
    return markdown_table(("kind", "operations", "gradient", "assumes", "source"), rows)


def bibliography() -> str:
    """Every source with its BibTeX."""
    from firstlight.theory import bibliography as registry

    parts = []
    keys = registry.keys()
    for key in keys:
        text = html.escape(registry.bibtex(key).rstrip())
        parts.append(f"### {key} {{ #{key} }}\n\n{registry.citation(key)}\n\n<pre><code>{text}</code></pre>\n")
    return "\n".join(parts)


def diagnosis() -> str:
    """The table of ``python -m benchmarks diagnosis`` as it was last run, then what was judged wrongly."""
    result = json.loads((ROOT / "benchmarks" / "diagnosis" / "result.json").read_text(encoding="utf-8"))
    parts = [markdown_table(result["head"], [row["cells"] for row in result["rows"] + result["peers"]]), result["note"]]
    parts += [f"- {line}" for line in result["reliability"]]
    for name, lines in result["wrong"].items():
        if lines:
            listed = "\n".join(f"- {html.escape(x)}" for x in lines)
            parts.append(f"## Judged wrongly, or ambiguous: {name}\n\n{listed}")
    return "\n\n".join(parts)


def canonical() -> str:
    """The canonical cases as ``python -m benchmarks canonical`` last found them: scores and wrong verdicts."""
    result = json.loads((ROOT / "benchmarks" / "canonical" / "result.json").read_text(encoding="utf-8"))
    parts = [markdown_table(result["head"], result["rows"])]
    for name, key in (("Judged wrongly, or ambiguous: now", "wrong"), ("Judged wrongly at first", "wrong_first")):
        listed = "\n".join(f"- {html.escape(x)}" for x in result[key] if key == "wrong" or "ambiguous" not in x)
        parts.append(f"### {name}\n\n{listed or 'None.'}")
    return "\n\n".join(parts)


def canonical_remedies() -> str:
    """What every draw that never starts and is found comes to, after its first finding's line of code."""
    result = json.loads((ROOT / "benchmarks" / "canonical" / "result.json").read_text(encoding="utf-8"))
    started, tried = result["share"]
    rows = [(case, code, f"`{line}`", after, level) for case, code, line, after, level in result["remedies"]]
    said = f"{started} of {tried} draws that never start and are found start after it ({started / tried:.3f})."
    return said + "\n\n" + markdown_table(result["remedy_head"], rows)


def accuracy(overall: bool = False) -> str:
    """Predicted against drawn, one row per network, depth and scheme, worst first; from the benchmark's CSV."""
    rows = _stored("accuracy/table")
    columns = {
        "network": "network", "depth": "depth", "scheme": "scheme", "draws": "draws", "operations": "operations",
        "q_median": "q, median %", "q_90": "90 %", "q_99": "99 %", "grad_q_median": "gradient, median %",
        "grad_q_90": "90 %", "grad_q_99": "99 %", "c_90": "correlation, 90 %", "c_max": "worst",
        "cos_90": "mean cosine, 90 %", "cos_max": "worst",
        "missed": "missed by > 10 %", "caveats": "with a caveat", "cpu_s": "CPU-s",
    }  # fmt: skip
    if overall:
        columns = {k: v for k, v in columns.items() if k not in ("depth", "scheme", "draws")}
    chosen = rows[:2] if overall else rows[2:]
    return markdown_table(columns.values(), ([_short_number(r[k]) for k in columns] for r in chosen))


def _short_number(text: str) -> str:
    """A number without the digits that nobody reads."""
    try:
        value = float(text)
    except ValueError:
        return text
    if math.isinf(value):
        return "∞"
    return f"{value:.3g}" if 0.0 < abs(value) < 1.0 else f"{value:,.0f}" if abs(value) < 1e6 else f"{value:.0e}"


def contributing() -> str:
    """CONTRIBUTING.md, which stands in the repository's root, without its title."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return text.split("\n", 1)[1]


def start(which: str) -> Callable[[], str]:
    """One table of the start benchmark, from its stored labels and scores."""

    def make() -> str:
        import sys

        sys.path.insert(0, str(ROOT))  # the benchmarks are no part of the package
        try:
            from benchmarks.start import report
            from benchmarks.start.score import held_out
        finally:
            sys.path.remove(str(ROOT))
        rows = held_out()
        if which == "summary":
            return report.summary(rows)
        return markdown_table(*getattr(report, which)(rows))

    return make


def lab(which: str) -> Callable[[], str]:
    """One table of the page about the lab."""

    def make() -> str:
        import sys

        sys.path.insert(0, str(ROOT / "docs"))
        try:
            import generate_lab
        finally:
            sys.path.remove(str(ROOT / "docs"))
        return markdown_table(*getattr(generate_lab, which)())

    return make


def _stored(name: str) -> list[dict[str, str]]:
    with (ROOT / "benchmarks" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


SPEED = {
    "network": "network", "operations": "operations", "capture": "capture, s", "predict": "predict, s",
    "per_operation_ms": "ms an operation", "of_capture": "of the capture", "of_export": "of torch.export",
    "peak_gib": "peak, GiB",
}  # fmt: skip
BREADTH = ["name", "source", "operations", "forward", "backward", "missing", "verdict", "loss_fell", "failed", "error"]


def _shown(name: str, head: dict[str, str]) -> str:
    return markdown_table(head.values(), ([row[key] for key in head] for row in _stored(name)))


def overhead() -> str:
    """What `measure` costs beside the model's own pass, as ``python -m benchmarks overhead`` last measured it."""
    head = {
        "model": "model", "own_s": "own CPU s", "measured_s": "measured CPU s", "time": "time ×",
        "with_input": "own pass with input gradient ×", "floor": "floor ×", "own_mb": "own MB", "memory": "memory ×",
        "pairs": "pairs", "load": "load of the machine",
    }  # fmt: skip
    return markdown_table(head.values(), ([row[key] for key in head] for row in _stored("overhead")))


def calibration() -> str:
    """P(off by more than 10×), predicted and measured, as ``python -m benchmarks calibration`` last found them."""
    lines = []
    for row in _stored("calibration"):
        difference = float(row["predicted"]) - float(row["measured"])
        numbers = (row["predicted"], row["measured"], row["error"], f"{difference:+.3f}", row["draws"])
        lines.append((row["network"], row["direction"], *numbers))
    head = ("network (depth×width)", "direction", "predicted", "measured", "±", "difference", "draws")
    return markdown_table(head, lines)


TABLES: dict[str, Callable[[], str]] = {
    "activations": activations,
    "schemes": schemes,
    "layers": layers,
    "checks": checks,
    "rules": rules,
    "bibliography": bibliography,
    "diagnosis": diagnosis,
    "canonical": canonical,
    "canonical-remedies": canonical_remedies,
    "contributing": contributing,
    "accuracy": accuracy,
    "breadth": lambda: _shown("breadth/table", dict(zip(BREADTH, BREADTH, strict=True))),
    "speed": lambda: _shown("propagation", SPEED),
    "calibration": calibration,
    "overhead": overhead,
    "accuracy-overall": lambda: accuracy(overall=True),
    **{f"lab-{name}": lab(name) for name in ("times", "trainer", "depth", "medians", "article")},
    **{f"start-{name}": start(name) for name in ("summary", "comparison", "calibration", "strata", "misses")},
}


def on_config(config: Any, **_: object) -> Any:
    """Put pages that mkdocs.yml does not name into the section "Inside"; called by mkdocs."""
    named = set(_pages(config["nav"]))
    docs = Path(config["docs_dir"])
    rest = sorted(p.relative_to(docs).as_posix() for p in docs.rglob("*.md"))
    inside: list[Any] = next(iter(s["Inside"] for s in config["nav"] if isinstance(s, dict) and "Inside" in s))
    inside.extend(page for page in rest if page not in named)
    return config


def _pages(nav: Any) -> Iterable[str]:
    """All pages that a navigation names."""
    if isinstance(nav, str):
        yield nav
    else:
        for item in nav.values() if isinstance(nav, dict) else nav:
            yield from _pages(item)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Fill the marks of one page; called by mkdocs.

    Raises:
        KeyError: A mark that names no table.
    """
    return _MARK.sub(lambda match: TABLES[match[1]](), markdown)
