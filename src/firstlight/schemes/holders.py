"""Where a parameter's entries live: plain, tied, or behind a parametrization; and what stands in the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from firstlight.schemes.shards import is_sharded

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Holder:
    """One parameter as the layer sees it, and the tensors that it is kept in.

    Attributes:
        name: Qualified name as the layer sees it ("0.weight" also where it is parametrized).
        parts: (qualified name, tensor) that hold it: one, or the originals of a parametrization.
        shape: Shape as the layer sees it.
        module_type: Class name of the owning module.
        aliases: Further names of the same tensor.
        inverse: From the tensor that the layer shall see to the parts; None for plain parameters.
        through: Names of the parametrizations.
        buffers: (qualified name, tensor) of the parametrizations' buffers, which `inverse` may write to.
        obstacle: Why it cannot be drawn; "" where it can.
        lazy: Whether it has no shape yet.
    """

    name: str
    parts: tuple[tuple[str, nn.Parameter], ...]
    shape: tuple[int, ...]
    module_type: str
    aliases: tuple[str, ...] = ()
    inverse: Callable[[torch.Tensor], tuple[torch.Tensor, ...]] | None = None
    through: str = ""
    buffers: tuple[tuple[str, torch.Tensor], ...] = ()
    obstacle: str = ""
    lazy: bool = False

    @property
    def frozen(self) -> bool:
        """Whether none of the tensors requires a gradient."""
        return not any(p.requires_grad for _, p in self.parts)

    @property
    def all_names(self) -> tuple[str, ...]:
        """Every name that a user may know it by."""
        return tuple(dict.fromkeys((self.name, *(n for n, _ in self.parts), *self.aliases)))


@dataclass
class _Memory:
    """Which bytes are spoken for: tensors that share memory must be drawn once."""

    spans: dict[int, list[tuple[int, int, str]]] = field(default_factory=dict)

    def claim(self, name: str, p: torch.Tensor) -> str:
        """The earlier parameter whose memory `p` overlaps, or "" (and `p` is entered)."""
        if p.device.type == "meta" or p.numel() == 0 or p.layout is not torch.strided or is_sharded(p):
            return ""
        try:
            key = p.untyped_storage().data_ptr()
        except (RuntimeError, NotImplementedError):  # wrapper subclasses keep their entries elsewhere
            return ""
        low = p.storage_offset() * p.element_size()
        reach = sum((n - 1) * s for n, s in zip(p.shape, p.stride(), strict=True))
        high = low + (reach + 1) * p.element_size()
        for a, b, owner in self.spans.setdefault(key, []):
            if low < b and a < high:
                return owner
        self.spans[key].append((int(low), int(high), name))
        return ""


def holders(model: nn.Module) -> list[Holder]:
    """All parameters of a model, in the order of ``named_parameters()``, tied ones once."""
    tied: dict[int, tuple[nn.Parameter, list[str]]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        tied.setdefault(id(p), (p, []))[1].append(name)
    modules = dict(model.named_modules(remove_duplicate=False))
    memory = _Memory()
    found: list[Holder] = []
    done: set[str] = set()
    for p, (name, *aliases) in tied.values():
        path, _, local = name.rpartition(".")
        owner = modules.get(path)
        if name in done:
            continue
        if isinstance(owner, parametrize.ParametrizationList):
            holder = _parametrized(modules, path, owner)
            done.update(n for n, _ in holder.parts)
            found.append(holder)
            continue
        found.append(
            Holder(
                name=name,
                parts=((name, p),),
                shape=() if isinstance(p, UninitializedParameter) else tuple(p.shape),
                module_type=_plain_type(owner) if owner is not None else "",
                aliases=tuple(aliases),
                obstacle=_obstacle(name, p, owner, local, memory),
                lazy=isinstance(p, UninitializedParameter),
            )
        )
    return found


def _obstacle(name: str, p: nn.Parameter, owner: nn.Module | None, local: str, memory: _Memory) -> str:
    if isinstance(p, UninitializedParameter):
        return ""
    if isinstance(owner, torch.jit.ScriptModule):
        return "its module is scripted, so what it is used for cannot be seen; initialize before scripting"
    if p.dtype not in _FLOATS:
        return f"its type {str(p.dtype).removeprefix('torch.')} is no real type of 16 to 64 bits"
    if p.is_inference():
        return "it was made under torch.inference_mode() and cannot be written to"
    if any(s == 0 and n > 1 for n, s in zip(p.shape, p.stride(), strict=True)):
        return "several of its entries share one place in memory (an expanded tensor)"
    if local in ("weight_g", "weight_v") and any(
        type(hook).__name__ == "WeightNorm" for hook in getattr(owner, "_forward_pre_hooks", {}).values()
    ):
        return (
            "held by the old hook-based weight_norm, which sets the weight from it at every call; initialize before "
            "wrapping, or use torch.nn.utils.parametrizations.weight_norm"
        )
    if any(
        type(hook).__name__ == "SpectralNorm" and local == f"{hook.name}_orig"
        for hook in getattr(owner, "_forward_pre_hooks", {}).values()
    ):
        return (
            "held by the old hook-based spectral_norm, which sets the weight from it at every call; initialize before "
            "wrapping, or use torch.nn.utils.parametrizations.spectral_norm"
        )
    other = memory.claim(name, p)
    return f"it shares memory with {other}" if other else ""


def _parametrized(modules: dict[str, nn.Module], path: str, chain: parametrize.ParametrizationList) -> Holder:
    """The holder of ``x.weight`` for the originals under ``x.parametrizations.weight``."""
    outer, _, local = path.rpartition(".")
    layer_path = outer.removesuffix("parametrizations").removesuffix(".")
    layer = modules[layer_path]
    parts = tuple((f"{path}.{n}", p) for n, p in chain.named_parameters(recurse=False))
    inner = [m for m in chain.children() if any(True for _ in m.parameters())]
    steps = list(reversed(list(chain.children())))
    obstacle = ""
    if not all(hasattr(step, "right_inverse") for step in steps):
        missing = next(type(s).__name__ for s in steps if not hasattr(s, "right_inverse"))
        obstacle = f"its parametrization {missing} has no right_inverse, so no original can be found for a weight"
    elif inner:
        obstacle = "its parametrization has parameters of its own"
    elif any(is_sharded(p) for _, p in parts):
        obstacle = "it is parametrized and spread over several processes"

    held = [(m, n, b) for m in chain.modules() for n, b in m.named_buffers(recurse=False)]

    def inverse(weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
        value: torch.Tensor | tuple[torch.Tensor, ...] = weight
        for step in steps:
            value = step.right_inverse(value)  # type: ignore[operator]
        for module, name, buffer in held:  # where it made a new one, the old one takes its entries and its place
            now = module._buffers[name]
            if now is not None and now is not buffer and now.shape == buffer.shape:
                module._buffers[name] = buffer.copy_(now)
        return (value,) if isinstance(value, torch.Tensor) else tuple(value)

    return Holder(
        name=f"{layer_path}.{local}" if layer_path else local,
        parts=parts,
        shape=_outer_shape(chain),
        module_type=_plain_type(layer),
        inverse=inverse,
        through=" and ".join(_described(s) for s in steps),
        buffers=tuple((f"{path}.{n}", b) for n, b in chain.named_buffers()),
        obstacle=obstacle,
    )


def _plain_type(module: nn.Module) -> str:
    """Class name, without the classes that wrappers put in front of it at run time."""
    classes = (k.__name__ for k in type(module).__mro__)
    return next(n for n in classes if not n.startswith(("Parametrized", "FSDP")))


def _described(step: nn.Module) -> str:
    name = type(step).__name__
    imposes = {
        "_SpectralNorm": "divides by the largest singular value",
        "_Orthogonal": "makes it orthonormal",
    }
    return f"{name}, which then {imposes[name]}" if name in imposes else name


def _outer_shape(chain: parametrize.ParametrizationList) -> tuple[int, ...]:
    # In evaluation mode, because spectral normalisation takes a power iteration in training mode.
    modes = [(m, m.training) for m in chain.modules()]
    try:
        chain.eval()
        with torch.no_grad():
            return tuple(chain().shape)
    finally:
        for module, mode in modes:
            module.training = mode
