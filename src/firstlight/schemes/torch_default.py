"""The laws that torch's layers give themselves in ``reset_parameters``, module type by module type."""

from __future__ import annotations

import math
from typing import get_args

from firstlight.schemes.context import Context, Draw, Role, Target, iid
from firstlight.schemes.draws import Distribution
from firstlight.schemes.registry import scheme

EVERYTHING: frozenset[Role] = frozenset[Role](get_args(Role))


@scheme(
    "torch-default",
    roles=EVERYTHING,
    variants={"torch": {}, "default": {}},
    refs=("paszke2019",),
    note="what each layer's reset_parameters() draws: U(±1/√fan_in) for linear and convolution layers",
)
def torch_default(target: Target, context: Context) -> Draw | str:
    """The layer's own law; layers that are not torch's have none, and are left alone."""
    builtin = target.builtin
    if builtin is None:
        return f"{target.module_type or 'its module'} is not a layer of torch: no default is known"
    if builtin.kind == "uniform":
        return iid(Distribution("uniform", builtin.value / math.sqrt(3.0)), reason=f"U(±{builtin.value:.4g})")
    if builtin.kind == "normal":
        return iid(Distribution("normal", builtin.value), reason=f"N(0, {builtin.value:.4g}²)")
    return iid(Distribution("constant", mean=builtin.value), reason=f"constant {builtin.value:g}")
