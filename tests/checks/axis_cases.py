"""Networks whose softmax adds up to one along the right axis, or along another, or that the loss takes for another."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from check_cases import Case, data, mlp, seeded
from torch import nn

SAMPLES, POSITIONS, WIDTH, CLASSES = 8, 12, 16, 5


def sequences() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(4)
    return torch.randn(SAMPLES, POSITIONS, WIDTH, generator=g), torch.randint(
        CLASSES, (SAMPLES, POSITIONS), generator=g
    )


def each_position(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(out.flatten(0, 1), y.flatten())


def each_sample(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(out, y[:, 0])


def on_sequences(model: type[nn.Module], *args: object, loss: Callable[..., torch.Tensor] = each_position) -> Case:
    seeded()
    x, y = sequences()
    return Case(model(*args), x, loss, y)


class Attention(nn.Module):
    """Self-attention written out; the softmax over the keys is that along the last axis."""

    def __init__(self, axis: int | None, einsum: bool = False, causal: bool = False) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, CLASSES)
        self.axis, self.einsum, self.causal = axis, einsum, causal

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (t.unflatten(-1, (4, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        scores = torch.einsum("bhqd,bhkd->bhqk", q, k) if self.einsum else q @ k.transpose(-2, -1)
        if self.causal:
            hidden = torch.ones(POSITIONS, POSITIONS, dtype=torch.bool).triu(1)
            scores = scores.masked_fill(hidden, float("-inf"))
        weights = F.dropout((scores / 2).softmax(self.axis), 0.1, self.training)
        y = torch.einsum("bhqk,bhkd->bhqd", weights, v) if self.einsum else weights @ v
        return self.out(y.transpose(1, 2).flatten(2))


class Slots(nn.Module):
    """Slot attention: slots compete for positions, then each slot takes the mean of what it won."""

    def __init__(self, divided: bool = True) -> None:
        super().__init__()
        self.slots = nn.Parameter(torch.randn(6, WIDTH))
        self.k, self.v, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(6 * WIDTH, CLASSES)
        self.divided = divided

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = ((self.slots + x.mean(1, keepdim=True)) @ self.k(x).mT / 4).softmax(1)
        if self.divided:
            weights = weights / weights.sum(-1, keepdim=True)
        return self.out((weights @ self.v(x)).flatten(1))


class Clusters(nn.Module):
    """Each position is shared out among clusters (DiffPool): the scores are no product of two signals."""

    def __init__(self) -> None:
        super().__init__()
        self.share, self.v, self.out = nn.Linear(WIDTH, 6), nn.Linear(WIDTH, WIDTH), nn.Linear(6 * WIDTH, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out((self.share(x).softmax(-1).transpose(1, 2) @ self.v(x).relu()).flatten(1))


class Efficient(nn.Module):
    """Linear attention: queries add up to one over channels, keys over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.out(q.softmax(-1) @ (k.softmax(1).transpose(1, 2) @ v))


class Pooled(nn.Module):
    """The mean of the positions, weighed by a layer of one unit."""

    def __init__(self, axis: int | None) -> None:
        super().__init__()
        self.inner, self.score, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1), nn.Linear(WIDTH, CLASSES)
        self.axis = axis

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = F.softmax(self.score(self.inner(x).tanh()), dim=self.axis)
        return self.out((weights * x).sum(1))


class TimeFirst(nn.Module):
    """A recurrent network with time along the first axis, which its attention runs over."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.score, self.out = nn.LSTM(WIDTH, WIDTH), nn.Linear(WIDTH, 1), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.cells(x)[0]
        return self.out(h + (F.softmax(self.score(h), dim=0) * h).sum(0))


class Ended(nn.Module):
    """The last state of a recurrent layer."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.cells, self.out = nn.LSTM(WIDTH, WIDTH, batch_first=batch_first), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.cells(x)[0][:, -1])


class Segmented(nn.Module):
    """One answer per pixel."""

    def __init__(self, end: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.inner, self.out = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, CLASSES, 3, padding=1)
        self.end = end

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.out(self.inner(x).relu()))


def segmented(end: Callable[[torch.Tensor], torch.Tensor], loss: Callable[..., torch.Tensor]) -> Case:
    seeded()
    g = torch.Generator().manual_seed(5)
    x = torch.randn(SAMPLES, 1, 10, 10, generator=g)
    return Case(Segmented(end), x, loss, (x[:, 0] * 2).long().clamp(0, CLASSES - 1))


def ending(end: nn.Module | None, loss: Callable[..., torch.Tensor]) -> Case:
    x, y = data()
    return Case(mlp() if end is None else nn.Sequential(*mlp(), end), x, loss, y)


def squared(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(p, F.one_hot(y, p.shape[-1]).float())


def own_logarithm(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.nll_loss((p + 1e-9).log(), y)


def layers(between: int, functions: bool) -> Case:
    seeded()
    x, y = data()
    inner = [nn.Linear(16, between), nn.ReLU()] if functions else [nn.Linear(16, between)]
    return Case(nn.Sequential(*inner, nn.Linear(between, 32), nn.ReLU(), nn.Linear(32, 4)), x, F.cross_entropy, y)
