"""What a module consists of, found in one walk: torch's own iterators walk the whole tree for every question."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class Census(NamedTuple):
    """Modules, parameters and buffers of a model.

    Attributes:
        modules: (path, module), each module once, as in `named_modules`.
        parameters: Name -> parameter, each parameter once, as in `named_parameters`.
        buffers: Name -> buffer, each buffer once, as in `named_buffers`.
        names: id of a parameter -> all its qualified names, the first one first; those of shared modules too.
    """

    modules: tuple[tuple[str, nn.Module], ...]
    parameters: dict[str, nn.Parameter]
    buffers: dict[str, Tensor]
    names: dict[int, list[str]]


def census(model: nn.Module) -> Census:
    """Count what `model` consists of."""
    modules: dict[int, tuple[str, nn.Module]] = {}
    parameters: dict[str, nn.Parameter] = {}
    buffers: dict[str, Tensor] = {}
    names: dict[int, list[str]] = {}
    seen: set[int] = set()
    places: list[tuple[str, nn.Module]] = []
    _walk(model, "", places, set())
    for path, module in places:
        prefix = f"{path}." if path else ""
        for name, p in module._parameters.items():
            if p is not None:
                full = prefix + name
                if id(p) in names:
                    names[id(p)].append(full)
                else:
                    names[id(p)] = [full]
                    parameters[full] = p
        if id(module) in modules:
            continue
        modules[id(module)] = path, module
        for name, b in module._buffers.items():
            if b is not None and id(b) not in seen:
                seen.add(id(b))
                buffers[prefix + name] = b
    return Census(tuple(modules.values()), parameters, buffers, names)


def _walk(module: nn.Module, path: str, places: list[tuple[str, nn.Module]], above: set[int]) -> None:
    """List every path to every module, the root first; a module that holds itself ends there."""
    if id(module) in above:
        return
    places.append((path, module))
    if module._modules:
        above.add(id(module))
        prefix = f"{path}." if path else ""
        for name, child in module._modules.items():
            if child is not None:
                _walk(child, prefix + name, places, above)
        above.discard(id(module))
