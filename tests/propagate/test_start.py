"""P(start): each condition alone, the contrast against drawn networks, and what a start needs no more than once."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import firstlight as fl
from firstlight.propagate.contrast import Contrast
from firstlight.propagate.start import LARGEST_SIGNAL, SMALLEST_SHARE, Edge, told_apart


def stack(depth: int, width: int, act: type[nn.Module] = nn.ReLU, bias: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width, bias=bias), act()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


X = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))


def test_a_network_of_the_usual_kind_starts() -> None:
    found = fl.predict(stack(6, 32), X, "he")
    assert found.p_start > 0.95
    assert found.p_start == pytest.approx(math.prod(found.start.parts.values()))


@pytest.mark.parametrize(
    ("model", "scheme", "part"),
    [
        (stack(30, 32), "normal(1.0)", "forward"),
        (stack(30, 32, bias=False), "normal(0.03)", "distinguishable"),  # the signal fades
        (stack(60, 32, nn.Sigmoid), "xavier", "distinguishable"),  # it does not, but all samples are alike
        (stack(100, 32, nn.Tanh), "normal(0.6)", "backward"),  # bounded signal, exploding gradient
        (nn.Sequential(nn.Linear(32, 3), *stack(60, 3)), "he", "alive"),
    ],
)
def test_each_condition_limits_where_it_should(model: nn.Module, scheme: str, part: str) -> None:
    found = fl.predict(model, X, scheme)
    assert found.p_start < 0.2
    assert found.start.parts[part] < 0.2
    assert found.start.where
    assert found.start.limit


def test_p_falls_with_depth_and_never_meets_itself() -> None:
    chances = [fl.predict(stack(d, 32, bias=False), X, "normal(0.05)").p_start for d in (2, 8, 12, 16, 24)]
    assert chances == sorted(chances, reverse=True)
    assert len(set(chances)) == len(chances)


def test_one_matrix_that_sees_samples_apart_is_enough() -> None:
    """A faded branch beside an open road does no harm; the same layers in series do."""

    class Beside(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.head = inner, nn.Linear(32, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x + self.inner(x))

    faded = stack(30, 32, bias=False)[:-1]
    assert fl.predict(Beside(faded), X, "normal(0.02)").p_start > 0.95
    assert fl.predict(nn.Sequential(*faded, nn.Linear(32, 10)), X, "normal(0.02)").p_start < 0.05


def test_batch_statistics_do_not_free_the_gradient_from_its_size() -> None:
    """Gradients explode through normalised layers as well: with depth, the smallest step reshuffles the features."""

    def build(depth: int) -> nn.Module:
        layers = [m for _ in range(depth) for m in (nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU())]
        return nn.Sequential(*layers, nn.Linear(32, 10))

    backward = [fl.predict(build(depth), X, "he").start.parts["backward"] for depth in (5, 30, 60, 90)]
    assert backward == sorted(backward, reverse=True)
    assert backward[0] > 0.95
    assert backward[-1] < 0.1


@pytest.mark.parametrize(("act", "width"), [(nn.Tanh, 11), (nn.ReLU, 24), (nn.LeakyReLU, 48)])
def test_the_gradient_of_a_narrow_batch_normalised_stack_is_that_of_drawn_ones(
    act: type[nn.Module], width: int
) -> None:
    """E |w|²/(wᵀΣw) is smaller than E|w|²·E 1/(wᵀΣw): the growth of a layer, to a factor of 1.1 (see the rule)."""
    depth = 20

    def build() -> nn.Sequential:
        layers = [m for _ in range(depth) for m in (nn.Linear(width, width), nn.BatchNorm1d(width), act())]
        return nn.Sequential(*layers, nn.Linear(width, 10))

    x = torch.randn(64, width, generator=torch.Generator().manual_seed(1))
    logs = []
    for seed in range(30):
        torch.manual_seed(seed)
        model = build()
        out = model[0](x)
        end = model[1:](out)
        (grad,) = torch.autograd.grad((end * torch.randn_like(end)).sum(), out)
        logs.append(math.log(float(grad.double().square().mean())))
    said = fl.predict(build(), x)["0:linear"].grad
    assert said is not None
    assert said.log_mean == pytest.approx(np.mean(logs), abs=depth * math.log(1.1) + 5 * np.std(logs) / math.sqrt(30))


def test_the_contrast_is_that_of_drawn_networks() -> None:
    """ln of (gradient at the output)² × (difference of the inputs)²/2, averaged over draws, at the last matrix."""
    seen = {c.node: c for c in _seen(stack(5, 32), X)}
    assert len(seen) == 6
    logs = []
    for seed in range(200):
        torch.manual_seed(seed)
        model = stack(5, 32)
        with torch.no_grad():
            h = model[:-1](X).double()
        # E over ordered pairs of different samples of (h - h')²/2 is the variance with n - 1; outputs' gradients are 1
        logs.append(math.log(float(h.var(0, correction=1).mean())))
    last = list(seen.values())[-1]
    error = np.std(logs, ddof=1) / math.sqrt(len(logs))
    assert last.log_mean == pytest.approx(np.mean(logs), abs=5 * error + 0.1)


@pytest.mark.parametrize("width", [8, 256])
def test_a_step_that_throws_the_outputs_about_is_no_start(width: int) -> None:
    """|a step of random signs on all weights of one matrix| moves an output by the predicted root mean square."""
    model = stack(6, width, nn.Tanh)
    x = torch.randn(64, width, generator=torch.Generator().manual_seed(2))
    seen = _seen(model, x)
    moved = []
    for seed in range(60):
        torch.manual_seed(seed)
        model = stack(6, width, nn.Tanh)
        weight = model[4].weight
        with torch.no_grad():
            before = model(x)
            weight += 1e-3 * torch.randn_like(weight).sign()
            moved.append(math.log(float(((model(x) - before) / 1e-3).double().square().mean())))
    error = np.std(moved, ddof=1) / math.sqrt(len(moved))
    assert seen[2].stir == pytest.approx(np.mean(moved), abs=5 * error + 0.1)


def _seen(model: nn.Module, x: torch.Tensor) -> tuple[Contrast, ...]:
    """What P(start) is told of every weight matrix."""
    from firstlight.capture.predict import predict as capture
    from firstlight.propagate import fluctuation

    kept: list[object] = []
    real = fluctuation.probability
    fluctuation.probability = lambda *a: (kept.append(a[4]), real(*a))[1]  # type: ignore[assignment]
    try:
        capture(model, (x,), {}, laws=None, scheme="live weights")
    finally:
        fluctuation.probability = real
    return kept[0]  # type: ignore[return-value]


def test_layers_wake_up_one_after_the_other() -> None:
    """The same faded signal is no obstacle to a wide or shallow stack; each sleeping layer costs 1/(fan·rate·φ')."""
    deep, shallow, wide = (
        fl.predict(stack(depth, width, nn.GELU, bias=False), torch.randn(32, width), "normal(0.02)").start
        for depth, width in ((14, 16), (4, 16), (14, 512))
    )
    assert deep.parts["distinguishable"] < 0.05 < shallow.parts["distinguishable"]
    assert "tell samples apart" in deep.limit
    sleeping = Contrast("a", -60.0, 0.1, pull=-60.0, waking=30.0)
    head = Contrast("z", -10.0, 0.1, pull=-60.0)
    chances = [told_apart([sleeping] * n + [head], head)[0] for n in (1, 4, 7, 20)]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] > 0.95
    assert chances[-1] < 0.05
    assert wide.parts["distinguishable"] > deep.parts["distinguishable"]


def test_what_units_have_in_common_matters_by_their_number() -> None:
    """Differences of 10⁻⁴ of the common part are enough for many units, and where that part is small."""
    few, many, small = (
        told_apart([Contrast("a", -5.0, 0.1, share=1e-3, own=1e-3, fan=fan, level=level)], Contrast("a", -5.0, 0.1))[0]
        for fan, level in ((8, 2.0), (512, 5.0), (8, -3.0))
    )
    assert few < 0.5 < 0.9 < many
    assert small > 0.95


def test_edges_are_soft_and_wider_with_the_draw() -> None:
    edge = Edge(2.0, 1.0)
    assert edge.below(2.0 * math.log(10.0), 0.3) == pytest.approx(0.5)
    assert edge.below(0.0, 0.0) == pytest.approx(1.0 - edge.above(0.0, 0.0))
    assert edge.below(0.0, 0.0) > edge.below(0.0, 5.0) > 0.5
    assert LARGEST_SIGNAL.at > 0.0 > SMALLEST_SHARE.at


def test_half_precision_counts_its_own_range() -> None:
    model = stack(8, 32)
    assert fl.predict(model, X * 3e5, "he", dtype="float16").start.parts["range"] < 0.01
    assert fl.predict(model, X * 3e5, "he", dtype="bfloat16").start.parts["range"] > 0.99


class Standardised(nn.Module):
    """Weights that no operation holds as they are: each is centred and scaled on its way (weight standardization)."""

    def __init__(self, depth: int, divisor: float = 4.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(32, 32, bias=False) for _ in range(depth)])
        self.divisor = divisor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            w = nn.functional.batch_norm(layer.weight.view(1, 32, 32), None, None, training=True)
            w = w.view(32, 32) / self.divisor
            x = torch.relu(nn.functional.linear(x, w))
        return x


class Dropping(nn.Module):
    """A layer that a comparison may skip, and a scale that starts at zero behind its own norm (ConvNeXt v2)."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.out = nn.Linear(32, 32), nn.Linear(32, 10)
        self.scale = nn.Parameter(torch.zeros(1, 32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.inside(x))
        length = y.norm(dim=0, keepdim=True)
        y = self.scale * (y * (length / (length.mean(-1, keepdim=True) + 1e-6))) + y
        return self.out(torch.where(torch.rand([]) < 0.05, x, y))


@pytest.mark.parametrize("model", [Standardised(6), Dropping()], ids=["standardised", "dropping"])
def test_networks_that_start_are_not_called_lost(model: nn.Module) -> None:
    """Said were 0 (no matrix that a gradient reaches was found) and .05 (a false comparison was a dead layer)."""
    found = fl.predict(model, X)
    assert found.p_start > 0.95, found.start
    assert all(math.isfinite(n.output.log_sd) and n.output.log_sd < 10.0 for n in found.nodes)


def test_standardised_weights_that_let_nothing_through_are_found() -> None:
    """The matrices are known by what is made of them: at a tenth of the scale the signal is gone after 30 layers."""
    lost = fl.predict(Standardised(30, 40.0), X)
    assert lost.p_start < 0.05, lost.start
    assert lost.start.parts["distinguishable"] < 0.05


class Tokens(nn.Module):
    """A language model that lays its indices out anew, as people do: [batch, time] once more, or [time, batch]."""

    def __init__(self, turned: bool) -> None:
        super().__init__()
        self.turned, self.words, self.places = turned, nn.Embedding(50, 32), nn.Embedding(12, 32)
        self.inside, self.head = nn.Linear(32, 32), nn.Linear(32, 50)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        if self.turned:
            ids, at = ids.transpose(0, 1).contiguous(), torch.arange(ids.shape[1])[:, None]
        else:
            ids, at = ids.view(-1, ids.shape[-1]), torch.arange(ids.shape[1])
        x = self.words(ids) + self.places(at)
        return self.head(torch.relu(self.inside(x)))


@pytest.mark.parametrize("turned", [False, True])
def test_words_that_were_looked_up_are_no_weights(turned: bool) -> None:
    """All that came after them counted as made of parameters alone: OPT, GPT and XLNet had P(start) 0."""
    torch.manual_seed(0)
    found = fl.predict(Tokens(turned), torch.randint(50, (8, 12)))
    assert found.p_start > 0.95
    assert found[":add"].output.c_batch == pytest.approx(0.5, abs=0.1)


class Policy(nn.Module):
    """The logarithm of a density whose deviation is learnt and starts at one: log(exp(0)) is zero, and not dead."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.scale = (
            nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 4)),
            nn.Parameter(torch.zeros(4)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        deviation = self.scale.exp()
        return (-((1.0 - self.mean(x)) ** 2) / (2.0 * deviation**2) - deviation.log()).sum(-1)


def test_what_is_zero_and_hands_its_gradient_on_is_not_dead() -> None:
    torch.manual_seed(0)
    found = fl.predict(Policy(), X)
    assert found.start.parts["alive"] == 1.0
    assert found.p_start > 0.95
    silent = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    nn.init.zeros_(silent[0].weight)
    nn.init.constant_(silent[0].bias, -1.0)
    assert fl.predict(silent, X).p_start == 0.0


class Unpatchify(nn.Module):
    """A linear map whose outputs an einsum puts in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.net = stack(2, 32)
        self.out = nn.Linear(10, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("npqc->nqpc", self.out(self.net(x)).view(-1, 2, 2, 4))


def test_an_einsum_of_one_tensor_is_a_change_of_layout() -> None:
    torch.manual_seed(0)
    assert fl.predict(Unpatchify(), X).p_start > 0.95
