"""Schemes that look at nothing but their numbers: zeros, constant, normal, uniform."""

from __future__ import annotations

import math
from typing import Literal

from firstlight.errors import InputError
from firstlight.schemes.context import WEIGHTS, Context, Draw, Role, Target, iid
from firstlight.schemes.draws import Distribution
from firstlight.schemes.registry import scheme

TABLES: frozenset[Role] = WEIGHTS | frozenset[Role]({"embedding"})


@scheme(
    "zeros",
    roles=TABLES,
    variants={"zero": {}},
    note="all weights 0: nothing gets through, nothing comes back",
)
def zeros(target: Target, context: Context) -> Draw:
    """Zero entries."""
    return iid(Distribution("constant"), reason="zeros")


@scheme("constant", roles=TABLES, note="all weights c: units stay identical for ever")
def constant(target: Target, context: Context, *, value: float) -> Draw:
    """Equal entries."""
    return iid(Distribution("constant", mean=value), reason=f"constant {value:g}")


@scheme("normal", roles=TABLES, note="N(mean, std²), the same for all layers")
def normal(
    target: Target,
    context: Context,
    *,
    std: float,
    mean: float = 0.0,
    distribution: Literal["normal", "truncated"] = "normal",
) -> Draw:
    """Entries N(mean, std²); "truncated" is cut at ±2 sd of its parent, rescaled so that `std` is true."""
    if std < 0.0:
        raise InputError("scheme 'normal', std", got=repr(std), expected="a number ≥ 0")
    return iid(Distribution(distribution, std, mean), reason=f"sd {std:g} for all layers")


@scheme("uniform", roles=TABLES, note="U(-bound, bound), the same for all layers")
def uniform(target: Target, context: Context, *, bound: float) -> Draw:
    """Entries U(-bound, bound), of variance bound²/3."""
    if bound < 0.0:
        raise InputError("scheme 'uniform', bound", got=repr(bound), expected="a number ≥ 0")
    return iid(Distribution("uniform", bound / math.sqrt(3.0)), reason=f"bound {bound:g} for all layers")
