"""Train one network at several learning rates at once: every parameter and activation gets an axis of members.

Small operations cost the same for one member as for several, so a deep narrow network is labelled several times faster.
The members' losses and gradients are those of the network alone (tests/benchmarks/test_start.py holds them together).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.start.networks import Attention, Branch, MeanToken, Rows

Map = Callable[[Tensor], Tensor]


class Ensemble:
    """Copies of a network, all with its drawn weights. Activations have the shape (members, samples, ...).

    Attributes:
        members: How many.
        vector: All parameters of all members, one chunk (members, *shape) per parameter.
        parameters: Leaves that share the vector's memory, shapes (members, *shape).
    """

    def __init__(self, model: nn.Module, members: int) -> None:
        own = list(model.parameters())
        self.members = members
        self.vector = torch.cat([p.detach().expand(members, *p.shape).flatten() for p in own])
        self.parameters: list[Tensor] = []
        place = 0
        for p in own:
            size = members * p.numel()
            self.parameters.append(self.vector[place : place + size].view(members, *p.shape).requires_grad_())
            place += size
        self.forward = _emit(model, iter(self.parameters), members)

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        """Cross entropy of each member on one batch, shape (members,)."""
        out = self.forward(x.expand(self.members, *x.shape))
        flat = F.cross_entropy(out.flatten(0, 1), y.repeat(self.members), reduction="none")
        return flat.view(self.members, -1).mean(1)

    def gradient(self, losses: Tensor) -> Tensor:
        """∂losses[i]/∂(parameters of member i), laid out like `vector`; zero where none arrives."""
        found = torch.autograd.grad(losses.sum(), self.parameters, allow_unused=True)
        pairs = zip(found, self.parameters, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])

    def per_member(self, values: tuple[float, ...]) -> Tensor:
        """One value per member, spread over the layout of `vector`."""
        v = torch.tensor(values)
        return torch.cat([v.repeat_interleave(p[0].numel()) for p in self.parameters])


def _emit(m: nn.Module, parameters: Iterator[Tensor], members: int) -> Map:
    """The module as a function of activations with the members' axis in front."""
    match m:
        case nn.Sequential():
            parts = [_emit(c, parameters, members) for c in m]
            return lambda x: _chain(parts, x)
        case Branch():
            inner, scale = _emit(m.inner, parameters, members), m.scale
            return lambda x: x + scale * inner(x)
        case nn.Linear():
            return _linear(next(parameters), next(parameters))
        case nn.Conv2d():
            return _conv(next(parameters), next(parameters), m)
        case nn.LayerNorm() | nn.GroupNorm():
            return _layer_norm(next(parameters), next(parameters), m)
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return _batch_norm(next(parameters), next(parameters), m.eps)
        case Attention():
            mix, out = _linear(next(parameters), next(parameters)), _linear(next(parameters), next(parameters))
            return lambda x: out(_attend(mix(x), m.heads))
        case nn.Flatten():
            return lambda x: x.flatten(2)
        case Rows():
            return lambda x: x.squeeze(2)
        case MeanToken():
            return lambda x: x.mean(2)
        case nn.AdaptiveAvgPool2d():
            return lambda x: x.mean((-2, -1), keepdim=True)
        case _ if not list(m.parameters()):
            return m  # pointwise
        case _:
            raise TypeError(f"no ensemble form of {type(m).__name__}")


def _chain(parts: list[Map], x: Tensor) -> Tensor:
    for part in parts:
        x = part(x)
    return x


def _linear(w: Tensor, b: Tensor) -> Map:
    def run(x: Tensor) -> Tensor:
        flat = x.flatten(1, -2) if x.dim() > 3 else x
        out = torch.baddbmm(b.unsqueeze(1), flat, w.transpose(1, 2))
        return out.view(*x.shape[:-1], -1) if x.dim() > 3 else out

    return run


def _conv(w: Tensor, b: Tensor, m: nn.Conv2d) -> Map:
    def run(x: Tensor) -> Tensor:
        r, n, c, h, k = x.shape
        merged = x.transpose(0, 1).reshape(n, r * c, h, k)
        out = F.conv2d(merged, w.flatten(0, 1), b.flatten(), m.stride, m.padding, groups=r)
        return out.view(n, r, -1, *out.shape[-2:]).transpose(0, 1)

    return run


def _layer_norm(g: Tensor, b: Tensor, m: nn.LayerNorm | nn.GroupNorm) -> Map:
    def run(x: Tensor) -> Tensor:
        channels = isinstance(m, nn.GroupNorm)  # one group: the whole sample
        z = F.layer_norm(x, tuple(x.shape[2:] if channels else x.shape[-1:]), eps=m.eps)
        shape = (len(g), 1, -1, *[1] * (x.dim() - 3)) if channels else (len(g), *[1] * (x.dim() - 2), -1)
        return z * g.view(shape) + b.view(shape)

    return run


def _batch_norm(g: Tensor, b: Tensor, eps: float) -> Map:
    def run(x: Tensor) -> Tensor:
        dims = (1, *range(3, x.dim()))
        mean = x.mean(dims, keepdim=True)
        variance = x.var(dims, correction=0, keepdim=True)
        shape = (len(g), 1, -1, *[1] * (x.dim() - 3))
        return (x - mean) * (variance + eps).rsqrt() * g.view(shape) + b.view(shape)

    return run


def _attend(mixed: Tensor, heads: int) -> Tensor:
    r, n, t, d = mixed.shape
    q, k, v = mixed.view(r, n, t, 3, heads, d // (3 * heads)).permute(3, 0, 1, 4, 2, 5).flatten(1, 2)
    y = F.scaled_dot_product_attention(q, k, v)
    return y.transpose(1, 2).reshape(r, n, t, -1)
