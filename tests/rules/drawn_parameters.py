"""Gradients of parameters over fresh networks, for which one network's own says little."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def drawn_gradients(make: Callable[[], nn.Module], *batch: Tensor, draws: int = 50) -> dict[str, tuple[float, float]]:
    """Mean of grad² over networks from `make`, behind random directions of mean square 1, and its standard error."""
    squares: dict[str, list[Tensor]] = {}
    for seed in range(draws):
        torch.manual_seed(seed)
        model = make()
        out = model(*batch)
        out.backward(torch.randn_like(out))
        for name, p in model.named_parameters():
            if p.grad is not None:
                squares.setdefault(name, []).append(p.grad.square().mean())
    rows = {name: torch.stack(found) for name, found in squares.items()}
    return {name: (float(v.mean()), float(v.std()) / draws**0.5) for name, v in rows.items()}
