"""Schemes for residual networks: the last layer of each branch is told apart from the others by the graph."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from firstlight.errors import InputError
from firstlight.schemes.context import Context, Draw, Target, iid
from firstlight.schemes.draws import Distribution
from firstlight.schemes.fixed import TABLES
from firstlight.schemes.registry import resolve, scheme
from firstlight.schemes.scaled import he
from firstlight.theory import residual


def _needs_graph(context: Context, name: str) -> None:
    if not context.traced:
        raise InputError(
            f"scheme {name!r}",
            got="a model whose graph was not seen",
            expected="residual branches, which only the graph shows",
            action="Give a batch: initialize(model, scheme, batch=x).",
        )


@scheme(
    "gpt-2",
    roles=TABLES,
    refs=("radford2019",),
    note="sd 0.02, and 0.02/√branches for the projections that write to the residual stream",
)
def gpt2(target: Target, context: Context, *, std: float = residual.GPT2_STD) -> Draw:
    """N(0, std²); layers that end a branch std/√(number of branches), which is 2·layers in a transformer."""
    _needs_graph(context, "gpt-2")
    if target.role == "branch end" and context.branches:
        factor = residual.scaled_branches(context.branches)
        return iid(Distribution("normal", std * factor), reason=f"writes to the stream, {context.branches} branches")
    return iid(Distribution("normal", std), reason=f"sd {std:g}")


@scheme(
    "fixup",
    refs=("zhang2019fixup",),
    note="branch ends and readout 0, other branch layers He·L^{-1/(2m-2)}: trains without normalisation",
)
def fixup(target: Target, context: Context) -> Draw:
    """He's law times L^{-1/(2m-2)} inside branches of m layers; zero at their ends and in the readout.

    The scalar multipliers and biases of Fixup are parameters that the model must own; they are not added
    here.
    """
    _needs_graph(context, "fixup")
    if target.role in ("branch end", "readout"):
        return iid(Distribution("constant"), reason=f"Fixup: {target.role} starts at 0")
    draw = he(target, context)
    if context.branch_layers < 2 or not context.branches:
        return draw
    factor = residual.fixup_scale(context.branches, context.branch_layers)
    assert draw.distribution is not None
    assert draw.gain is not None
    distribution = replace(draw.distribution, std=draw.distribution.std * factor)
    reason = f"{draw.reason}; × {factor:.3g} for {context.branches} branches of {context.branch_layers} layers"
    return iid(distribution, gain=draw.gain * factor, reason=reason)


@scheme(
    "scaled-branches",
    refs=("hayou2021", "hanin2018"),
    note="another scheme, with branch ends × 1/√branches (or 0): Σ of squared branch weights stays 1",
)
def scaled_branches(
    target: Target, context: Context, *, base: str = "he", end: Literal["scaled", "zero"] = "scaled"
) -> Draw | str:
    """The law of `base`, branch ends scaled by 1/√L for L branches, or zero as in SkipInit and ReZero."""
    _needs_graph(context, "scaled-branches")
    draw = resolve(base).function(target, context)
    if isinstance(draw, str):
        return draw
    if target.role != "branch end" or not context.branches:
        return draw
    if end == "zero":
        return iid(Distribution("constant", mean=residual.SKIP_GATE), reason="branch end starts at 0")
    factor = residual.scaled_branches(context.branches)
    law = replace(draw.law, mean=draw.law.mean * factor, variance=draw.law.variance * factor**2)
    reason = f"{draw.reason}; branch end × {factor:.3g} for {context.branches} branches"
    gain = None if draw.gain is None else draw.gain * factor
    if draw.distribution is not None:
        distribution = replace(draw.distribution, std=draw.distribution.std * factor)
        return Draw(law, distribution=distribution, gain=gain, reason=reason)
    build = draw.build
    assert build is not None
    return Draw(law, build=lambda stream, dtype: build(stream, dtype).mul_(factor), gain=gain, reason=reason)
