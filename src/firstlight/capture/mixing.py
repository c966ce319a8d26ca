"""Whether one sample's answer depends on the others: the batch with one sample exchanged, run once more."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from firstlight.capture.inputs import Inputs
from firstlight.capture.preserve import preserved
from firstlight.capture.tensors import map_tensors, named_tensors, separate
from firstlight.checks.evidence import Mixing


def mixing(model: nn.Module, inputs: Inputs) -> Mixing | None:
    """How far the other samples' outputs change where the first sample is replaced by a copy of the last.

    In evaluation mode, where batch norms use what they have stored; two passes without gradients.

    Returns:
        None where it cannot be asked: one sample, inputs or outputs without a sample axis or with two of its length,
        first and last sample alike.
    """
    n = inputs.batch_size
    given = [t for _, t in named_tensors((tuple(inputs.args), dict(inputs.kwargs))) if t.shape[:1] == (n,)]
    if n < 2 or not given or any(n in t.shape[1:] for t in given) or all(bool((t[0] == t[-1]).all()) for t in given):
        return None
    named = [(path, m) for path, m in model.named_modules() if getattr(m, "batch_first", True) is False]
    first: list[str] = []

    def look(path: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
            x = args[0] if args else None
            if isinstance(x, Tensor) and x.dim() == 3 and x.shape[0] == n and x.shape[1] not in (1, n):
                first.append(path)  # (positions, 1, features) is one sequence

        return hook

    def exchanged(t: Tensor) -> Tensor:
        t = separate(t).clone()
        if t.shape[:1] == (n,):
            t[0] = t[-1]
        return t

    def outputs(change: Any) -> list[Tensor]:
        args, kwargs = map_tensors((tuple(inputs.args), dict(inputs.kwargs)), change)
        torch.manual_seed(0)
        out = [t for _, t in named_tensors(model(*args, **kwargs)) if t.is_floating_point()]
        return [t for t in out if t.dim() > 1 and t.shape[0] == n and n not in t.shape[1:]]

    with preserved(model, weights=True), torch.inference_mode(False), torch.enable_grad():
        hooks = [m.register_forward_pre_hook(look(path)) for path, m in named]
        modes = [(m, m.training) for m in model.modules()]
        try:
            for m, _ in modes:
                m.training = False
            pairs = list(zip(outputs(lambda t: separate(t).clone()), outputs(exchanged), strict=False))
        finally:
            for hook in hooks:
                hook.remove()
            for m, mode in modes:
                m.training = mode
    changes = [float((b - a)[1:].detach().double().norm() / a[1:].detach().double().norm()) for a, b in pairs]
    if not changes:
        return None
    return Mixing(max(changes), first[0] if first else "", all(a.dim() == 2 for a, _ in pairs))
