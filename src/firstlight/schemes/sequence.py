"""What can be known without a graph: in ``nn.Sequential`` the modules stand in the order of the signal."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from firstlight.schemes.context import Context
from firstlight.schemes.fans import sites
from firstlight.theory import activations
from firstlight.theory.activations import Activation

_TRANSPARENT = (
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    nn.modules.dropout._DropoutNd,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.Upsample,
)
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_PARAMETERS = ("negative_slope", "alpha", "beta", "threshold", "min_val", "max_val")


def contexts(model: nn.Module) -> dict[str, Context]:
    """Contexts, by qualified name, of the weights in an ``nn.Sequential``, in recurrent layers and in attention.

    A weight at the border of a Sequential that is not the model itself is left out, unless its activation is
    inside.
    """
    found: dict[str, Context] = {}
    for path, chain in _chains(model, ""):
        whole = chain is model
        modules = list(_leaves(chain, path)) if isinstance(chain, nn.Sequential) else [(path, chain)]
        for i, (name, module) in enumerate(modules):
            site = sites(module).get("weight")
            if site is None or site.role != "weight" or site.channels is None:
                continue
            before = _search((modules[j][1] for j in range(i - 1, -1, -1)), through_norms=False)
            after = _search((modules[j][1] for j in range(i + 1, len(modules))), through_norms=True)
            context: Context | None = None
            if before is not None:
                width = site.channels[0] * (site.split if site.kernel_axes else 1)
                context = Context(before, "before", after is not None, width=width, neighbours=True)
            elif after is not None and after.degree == 1.0:
                width = site.channels[1] * site.split
                context = Context(after, "after", True, width=width, neighbours=True)
            elif whole or 0 < i < len(modules) - 1:
                width = site.channels[1] * site.split
                context = Context(feeds_activation=after is not None, width=width, neighbours=True)
            if context is not None:
                found.setdefault(f"{name}.weight" if name else "weight", context)
    for path, module in model.named_modules():
        for name in _after_no_activation(module):
            found.setdefault(f"{path}.{name}" if path else name, Context(neighbours=True))
    return found


def _after_no_activation(module: nn.Module) -> list[str]:
    """Weights whose input is no activation's output, whatever the network: of gates and of attention."""
    if isinstance(module, nn.MultiheadAttention):
        return [*(name for name, site in sites(module).items() if site.role == "weight"), "out_proj.weight"]
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return [name for name, site in sites(module).items() if site.role == "weight"]
    return []


def _chains(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """The outermost Sequentials; the model itself where it is a single layer."""
    if _is_chain(module) or (path == "" and sites(module)):
        yield path, module
        return
    for name, child in module.named_children():
        yield from _chains(child, f"{path}.{name}" if path else name)


def _is_chain(module: nn.Module) -> bool:
    """A Sequential that runs its modules in order; a subclass with a forward of its own need not."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _leaves(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    if not _is_chain(module):
        yield path, module
        return
    for name, child in module.named_children():
        yield from _leaves(child, f"{path}.{name}" if path else name)


def _search(modules: Iterator[nn.Module], *, through_norms: bool) -> Activation | None:
    for module in modules:
        act = activation_of_module(module)
        if act is not None:
            return act
        if not isinstance(module, _TRANSPARENT) and not (through_norms and isinstance(module, _NORMS)):
            return None
    return None


def activation_of_module(module: nn.Module) -> Activation | None:
    """The record of an activation module, parameters included; None if it is none."""
    if not type(module).__module__.startswith("torch.nn") or isinstance(module, nn.Identity | nn.Linear):
        return None
    tanh = getattr(module, "approximate", "none") == "tanh"  # nn.GELU(approximate="tanh")
    name = "gelu-tanh" if tanh else activations.find(type(module).__name__)
    if name is None:
        return None
    known = {k for k, _ in activations.get(name).parameters}
    given = {k: getattr(module, k) for k in _PARAMETERS if k in known and hasattr(module, k)}
    return activations.get(name, **given)
