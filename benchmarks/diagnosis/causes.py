"""Which codes count as the right cause of a network that was broken in a known way."""

from __future__ import annotations

from benchmarks.diagnosis.nets import Config

_FAULTS = {
    "zero_layer": ("WGT003",),
    "all_zero": ("WGT003",),
    "scale_layer": ("WGT005", "FWD001", "FWD002"),
    "scale_head": ("WGT005", "OUT002", "LRN002"),
    "identical_rows": ("WGT004",),
    "bias": ("WGT008", "ACT001", "ACT002"),
    "bias_layer": ("WGT008", "ACT001", "ACT002"),
    "garbage": ("WGT002",),
    "nan_weight": ("WGT001",),
    "inf_weight": ("WGT001",),
    "frozen_all": ("GRD001",),
    "frozen_but_head": ("GRD005",),
    "cut_end": ("GRD001",),
    "cut_before_head": ("GRD002", "GRD005"),
    "root": ("NUM001",),
    "shift": ("ACT002",),
    "dead_head": ("ACT001",),
    "head_relu_dead": ("ACT001", "WGT008"),
    "float16": ("NUM002",),
}
_INPUTS = {
    "raw": ("INP002", "INP004"),
    "huge": ("INP002",),
    "tiny": ("INP002",),
    "constant": ("INP003",),
    "zero": ("INP003",),
    "nan": ("error: batch",),
}
_SCALE_UP = ("NUM001", "FWD001", "FWD006", "GRD004", "WGT005", "WGT006", "LRN002", "OUT002", "ACT002")
_SCALE_DOWN = ("FWD002", "FWD004", "FWD005", "GRD003", "WGT005")


def expected(c: Config) -> tuple[str, ...]:
    """Codes of which one must come first; empty where the cause is not known beforehand."""
    if c.inputs:
        return _INPUTS[c.inputs]
    if c.fault:
        found = _FAULTS.get(c.fault.split(":")[0], ())
        if found:
            return found
    if c.head == "relu":
        return ("ACT001", *_SCALE_DOWN)
    if c.head == "softmax1":
        return ("OUT001",)
    if c.task.endswith("_raw"):
        return ("INP002", "INP004", "OUT003")
    name, _, value = c.scheme.partition(":")
    if name == "zeros":
        return ("WGT003",)
    if name == "constant":
        return ("WGT004",)
    if name == "positive":
        return ("WGT006",)
    narrow = c.activation in {"relu", "relu6"} and c.width <= 6
    if narrow:
        return ("ACT001", "FWD003", *_SCALE_DOWN)
    if c.family == "transformer" and not c.norm and name in {"he", "he_uniform", "orthogonal", "xavier"}:
        return _SCALE_UP
    if c.norm == "dropout" and c.depth >= 20:
        return ("LRN001", *_SCALE_DOWN)
    if c.activation == "sigmoid" and c.depth >= 5:
        return ("ACT002", *_SCALE_DOWN)  # sigmoids fade at any scale
    if name in {"he", "normal", "uniform", "orthogonal"} and value and float(value) >= 2 * (name == "he") and _large(c):
        return _SCALE_UP
    return _SCALE_DOWN if c.norm in {"", "dropout"} and c.depth >= 5 else ()


def _large(c: Config) -> bool:
    name, _, value = c.scheme.partition(":")
    v = float(value)
    squared = {"he": v, "normal": v * v * c.width, "uniform": v * v / 3 * c.width, "orthogonal": v * v}[name]
    return squared > 2.5
