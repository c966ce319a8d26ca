"""The law of everything that is not a weight, common to all schemes that do not say otherwise."""

from __future__ import annotations

from firstlight.schemes.context import Context, Draw, Target, iid
from firstlight.schemes.draws import Distribution


def common(target: Target, context: Context, *, bias_std: float = 0.0) -> Draw | str:
    """The draw of a bias, norm gain or embedding, or the reason for which the parameter is left alone.

    Biases are N(0, bias_std²), zero by default; norm gains are 1 (0 where the gain is 1 + w); an embedding is
    N(0, 1), because a lookup hands the table's own length on. (A table that is tied to a readout is drawn as
    that readout's weight.)
    """
    if target.role == "bias":
        kind = "normal" if bias_std > 0.0 else "constant"
        if target.module_type in _NORMS:
            return iid(Distribution("constant"), reason="shift of a normalisation: 0")
        return iid(Distribution(kind, bias_std), reason=f"bias: sd {bias_std:g}" if bias_std else "bias: 0")
    if target.role == "gain":
        mean = 1.0 - target.offset
        what = f"gain {target.offset:g} + w" if target.offset else "gain"
        return iid(Distribution("constant", mean=mean), reason=f"{what} of a normalisation: {mean:g}")
    if target.role == "embedding":
        return iid(Distribution("normal", 1.0), reason="a lookup hands on the table's length: 1")
    if target.role == "slope":
        return "slope of an activation, not of a map"
    if not context.traced:
        return "its use is not known from the module types; give a batch, so that the graph tells"
    return "the graph shows no use that a scheme speaks about"


_NORMS = frozenset(
    f"{kind}{n}d" for kind in ("BatchNorm", "InstanceNorm", "LazyBatchNorm", "LazyInstanceNorm") for n in (1, 2, 3)
) | {"SyncBatchNorm", "LayerNorm", "GroupNorm", "RMSNorm"}
