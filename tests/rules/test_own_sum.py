"""x/Σx: shares, guards that keep a division from zero, and Sinkhorn's iteration, against draws of the weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import firstlight

DRAWS = 48
X = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))


class Streams(nn.Module):
    """A mixing matrix of four streams with rows and columns that sum to one, as hyper-connections have it."""

    def __init__(self, rounds: int, size: float) -> None:
        super().__init__()
        self.mix, self.head, self.rounds, self.size = nn.Linear(64, 16), nn.Linear(16, 8), rounds, size

    def forward(self, x: Tensor) -> Tensor:
        m = (self.size * self.mix(x)).view(-1, 4, 4).exp()
        for _ in range(self.rounds):
            m = m / (m.sum(-1, keepdim=True) + 1e-6)
            m = m / (m.sum(-2, keepdim=True) + 1e-6)
        return self.head(m.flatten(1))


class Router(nn.Module):
    """Weights of the chosen experts, divided by their sum, which is kept from zero."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.head = nn.Linear(64, 16), nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        p = self.router(x).softmax(-1)
        w = p.gather(-1, (p + 0.1).topk(4).indices)
        return self.head(w / w.sum(-1, keepdim=True).clamp(min=1e-12))


def drawn(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Mean squares of outputs and gradients by node, one for each draw."""
    forward: dict[str, list[float]] = {}
    back: dict[str, list[float]] = {}
    for seed in range(DRAWS):
        firstlight.initialize(model, "lecun", seed=seed, batch=X)
        for n in firstlight.measure(model, X, seed=seed).nodes:
            forward.setdefault(n.name, []).append(n.output.q)
            back.setdefault(n.name, []).append(n.grad.q if n.grad is not None else float("nan"))
    return {k: torch.tensor(v) for k, v in forward.items()}, {k: torch.tensor(v) for k, v in back.items()}


@pytest.mark.parametrize("rounds", [1, 8])
def test_rows_and_columns_in_turn(rounds: int) -> None:
    """The first order in the shares' unevenness, here a tenth: of the second a few hundredths are left."""
    forward, back = drawn(model := Streams(rounds, 0.3))
    found = {n.name: n for n in firstlight.predict(model, X, "lecun").nodes}
    last = f":div#{2 * rounds - 1}"
    for name in (":div", last):
        assert found[name].output.q == pytest.approx(float(forward[name].mean()), rel=0.04)
    for name in (":div", ":div#1", "mix:linear"):
        error = float(back[name].std()) / DRAWS**0.5 / float(back[name].mean())
        assert found[name].grad is not None
        assert found[name].grad.q / float(back[name].mean()) == pytest.approx(1.0, abs=4 * error + 0.1)


def test_twenty_rounds_stay_in_range() -> None:
    for size in (0.1, 0.3, 1.0):
        found = firstlight.predict(Streams(20, size), X, "lecun")
        assert found.p_start > 0.9
        assert max(n.grad.q for n in found.nodes if n.grad is not None) <= 1.0


def test_a_guard_of_a_positive_sum_takes_nothing() -> None:
    found = {n.name: n for n in firstlight.predict(Router(), X, "lecun").nodes}
    assert 1 / 16 < found[":div"].output.q < 1 / 8  # shares of four, of which none is most; 1e19 with a Gaussian's tail
    assert found[":clamp"].output.q == found[":sum"].output.q
    assert not found[":clamp"].caveats


def test_guards_in_other_words_take_nothing_either() -> None:
    """Depths as means over bins: a shift that is held above zero, `nan_to_num` and `clamp_min` (q had been 10^14)."""

    class Bins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(64, 64), nn.Linear(64, 8)

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x).relu()
            h = h + (-h.amin(1, keepdim=True)).clamp_min(0.0).clamp_max(1e-4) + 1e-8
            return self.head(h / torch.nan_to_num(h.sum(1, keepdim=True), nan=1.0).clamp_min(1e-12))

    forward, back = drawn(model := Bins())
    found = {n.name: n for n in firstlight.predict(model, X, "lecun").nodes}
    assert found[":clamp_min#1"].output.q == found[":sum"].output.q
    for seen, name in ((forward, ":div"), (back, ":div"), (back, "first:linear")):
        n = found[name]
        q = n.output.q if seen is forward else n.grad.q if n.grad is not None else 0.0
        error = float(seen[name].std()) / DRAWS**0.5
        assert abs(q - float(seen[name].mean())) < 4 * error + 0.05 * float(seen[name].mean())


def test_a_sum_of_both_signs_is_clamped() -> None:
    class Clamped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Tensor:
            return self.first(x).sum(-1, keepdim=True).clamp(min=1e-3)

    found = {n.name: n for n in firstlight.predict(Clamped(), X, "lecun").nodes}
    assert found[":clamp"].output.q == pytest.approx(0.5 * found[":sum"].output.q, rel=0.01)


def test_scores_of_masked_keys_scatter_as_their_logits_do() -> None:
    """Attention whose sinks read ln Σ e^l of logits of variance 300: its noise was not finite."""

    class Sinks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(64, 64) for _ in range(3))
            self.sink = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            mask = torch.full((16, 16), torch.finfo(x.dtype).min).triu(1)
            logits = 40.0 * self.q(x) @ self.k(x).mT / 8.0 + mask
            gate = torch.sigmoid(logits.logsumexp(-1) - self.sink)
            return logits.softmax(-1) @ self.v(x) * gate[..., None]

    x = torch.randn(8, 16, 64, generator=torch.Generator().manual_seed(1))
    model = Sinks()
    drawn: list[float] = []
    for seed in range(DRAWS):
        firstlight.initialize(model, "lecun", seed=seed, batch=x)
        drawn.append(next(n for n in firstlight.measure(model, x, seed=seed).nodes if n.op == "logsumexp").output.q)
    q = torch.tensor(drawn)
    found = firstlight.predict(model, x, "lecun")
    level = next(n for n in found.nodes if n.op == "logsumexp").output.q
    assert abs(level - float(q.mean())) < 4 * float(q.std()) / DRAWS**0.5 + 0.05 * float(q.mean())
    assert found.p_start > 0.9


def test_scores_written_over_what_hides_the_others() -> None:
    """Llama 4's router: the sigmoid of a score where it is chosen, and 0 elsewhere."""

    class Chosen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.router, self.head = nn.Linear(64, 16), nn.Linear(16, 8)

        def forward(self, x: Tensor) -> Tensor:
            scores = self.router(x)
            best, which = scores.topk(2, dim=1)
            return self.head(torch.full_like(scores, float("-inf")).scatter_(1, which, best).sigmoid())

    forward, back = drawn(model := Chosen())
    prediction = firstlight.predict(model, X, "lecun")
    found = {n.name: n for n in prediction.nodes}
    for seen, name in ((forward, ":sigmoid"), (forward, "head:linear"), (back, ":sigmoid"), (back, ":topk")):
        mean = float(seen[name].mean())
        q = found[name].output.q if seen is forward else found[name].grad.q
        assert abs(q - mean) < 4 * float(seen[name].std()) / DRAWS**0.5 + 0.05 * mean, name
    assert prediction.p_start > 0.9
