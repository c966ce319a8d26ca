"""``torch.func`` while a network is looked at: its transforms by plain autograd, all operations ordinary ones.

``grad``, ``vjp``, ``jvp`` and what is built from them (``jacrev``, ``jacfwd``, ``hessian``) wrap tensors for a level of
their own, which hides their entries. What they give is what ``torch.autograd.grad`` gives with ``create_graph=True``;
they are written with it, and mark what they differentiate by functions that are replaced here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch._functorch.eager_transforms as transforms
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_map_only, tree_unflatten

from firstlight.capture.mapped import written_out
from firstlight.capture.shared import Shared, replaced


@contextmanager
def opened() -> Iterator[None]:
    """Run functions under the transforms of ``torch.func`` as the loops and gradients that they stand for."""
    with written_out(), _OPENED.entered():
        yield


@contextmanager
def _level() -> Iterator[int]:
    yield 0


def _own(tree: Any, _level: int) -> Any:
    """Other names for the same tensors: what is differentiated is this use of them, not all others."""
    return tree_map_only(Tensor, lambda t: t.view_as(t), tree)


def _differentiable(tree: Any, level: int) -> Any:
    def asked(x: Any) -> Tensor:
        if not isinstance(x, Tensor):
            raise ValueError(f"torch.func: what is differentiated must be a tensor, got {type(x).__name__}")
        return x if x.requires_grad else x.requires_grad_()

    return tree_map(asked, tree)


def _as_it_is(tree: Any, level: int) -> Any:
    return tree


def _gradients(outputs: Any, inputs: Any, grad_outputs: Any = None, **_options: Any) -> Any:
    """The graph is kept: it is also that of the network, which is still to be differentiated."""
    return _THEIRS["_autograd_grad"](outputs, inputs, grad_outputs, retain_graph=True, create_graph=True)


def _forward_mode(
    func: Callable[..., Any],
    primals: tuple[Any, ...],
    tangents: Any,
    argnums: Any,
    *,
    strict: bool = False,
    has_aux: bool,
) -> tuple[Any, ...]:
    """J·t by two gradients: that of ⟨Jᵀw, t⟩ by w, which is linear in w."""
    vjp: Any = getattr(transforms, "_vjp_with_argnums")  # noqa: B009 - a name that torch keeps to itself
    result, pull_back, *aux = vjp(func, *primals, argnums=argnums, has_aux=has_aux)
    w, spec = tree_flatten(tree_map(lambda t: torch.zeros_like(t).requires_grad_(), result))
    pulled = tree_leaves(pull_back(tree_unflatten(w, spec), retain_graph=True, create_graph=True))
    return result, tree_unflatten(_gradients(pulled, w, tree_leaves(tangents)), spec), *aux


_OURS: dict[str, Callable[..., Any]] = {
    "grad_increment_nesting": _level,
    "_wrap_all_tensors": _own,
    "_create_differentiable": _differentiable,
    "_undo_create_differentiable": _as_it_is,
    "_autograd_grad": _gradients,
    "_jvp_with_argnums": _forward_mode,
}
_THEIRS: dict[str, Callable[..., Any]] = {name: getattr(transforms, name) for name in _OURS}


@contextmanager
def _replaced() -> Iterator[None]:
    with ExitStack() as stack:
        for name, ours in _OURS.items():
            stack.enter_context(replaced(transforms, name, _mine(ours, _THEIRS[name])))
        yield


def _mine(ours: Callable[..., Any], theirs: Callable[..., Any]) -> Callable[..., Any]:
    """For threads that look at a network one function, for all others the other."""

    def chosen(*args: Any, **kwargs: Any) -> Any:
        return (ours if _OPENED.is_mine() else theirs)(*args, **kwargs)

    return chosen


_OPENED = Shared(_replaced)
