"""More small networks as people write them: in-place writes, spectra, scans, graphs, experts, ensembles, decoders."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.breadth.candidate import Arguments, Candidate, named, tensor, tokens
from benchmarks.breadth.written import make


class InPlace(nn.Module):
    """+=, slices that are written to, relu_ and clamp_."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu_() + x
        h *= 0.7
        y = torch.zeros_like(h)
        y[:, :16] = self.c(h[:, :16])
        y[:, 16:] = h[:, 16:] * 0.5
        y.add_(self.b(h)).clamp_(-5, 5)
        return y


class FourierMixer(nn.Module):
    """A spectral convolution: real FFT, complex weights on the low modes, inverse FFT."""

    def __init__(self, width: int = 32, modes: int = 6) -> None:
        super().__init__()
        self.modes = modes
        self.weight = nn.Parameter(torch.view_as_real(torch.randn(width, width, modes, dtype=torch.cfloat) / width))
        self.skip = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(x)
        out = torch.zeros_like(spectrum)
        low = torch.einsum("bim,iom->bom", spectrum[..., : self.modes], torch.view_as_complex(self.weight))
        out[..., : self.modes] = low
        return F.gelu(torch.fft.irfft(out, n=x.size(-1)) + self.skip(x))


class ComplexWeights(nn.Module):
    """The same with parameters of complex type."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(32, 17, dtype=torch.cfloat) * 0.02)
        self.out = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x + torch.fft.irfft(torch.fft.rfft(x, dim=1) * self.weight.T, dim=1, n=x.size(1)))


class LinearScan(nn.Module):
    """A gated linear recurrence by cumulative sums of logarithms, and a plain loop over time."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.value, self.out = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        decay = F.logsigmoid(self.gate(x)).cumsum(1)
        scanned = (self.value(x) * (-decay).exp()).cumsum(1) * decay.exp()
        h = torch.zeros_like(x[:, 0])
        steps: list[Tensor] = []
        for t in range(x.shape[1]):
            h = 0.9 * h + 0.1 * scanned[:, t]
            steps.append(h)
        return self.out(torch.stack(steps, dim=1))


class MessagePassing(nn.Module):
    """A graph network by index_add and scatter, with degree normalisation and a readout per graph."""

    def __init__(self) -> None:
        super().__init__()
        self.messages = nn.ModuleList(nn.Linear(64, 32) for _ in range(3))
        self.update = nn.ModuleList(nn.GRUCell(32, 32) for _ in range(3))
        self.out = nn.Linear(32, 5)

    def forward(self, x: Tensor, edges: Tensor, graph: Tensor) -> Tensor:
        start, end = edges
        degree = torch.zeros(len(x)).index_add_(0, end, torch.ones(end.shape[0])).clamp(min=1)
        for message, update in zip(self.messages, self.update, strict=True):
            m = F.relu(message(torch.cat([x[start], x[end]], dim=-1)))
            total = torch.zeros_like(x).index_add(0, end, m) / degree[:, None]
            x = update(total, x)
        pooled = torch.zeros(4, 32).scatter_add_(0, graph[:, None].expand_as(x), x)
        return self.out(pooled)


def _graph() -> Arguments:
    return (torch.randn(40, 32), torch.randint(40, (2, 120)), torch.arange(40) // 10), {}


class Deformable(nn.Module):
    """A spatial transformer: grid_sample at places that the network computes."""

    def __init__(self) -> None:
        super().__init__()
        self.where = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 32), nn.ReLU(), nn.Linear(32, 6))
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        theta = self.where(x).view(-1, 2, 3) + torch.eye(2, 3)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return self.conv(F.grid_sample(x, grid, align_corners=False))


class TopKRouter(nn.Module):
    """Experts chosen by topk, their answers put back with scatter and gather."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(32, 4)
        self.experts = nn.Parameter(torch.randn(4, 32, 32) / 32**0.5)

    def forward(self, x: Tensor) -> Tensor:
        weight, choice = self.gate(x).topk(2, dim=-1)
        every = torch.einsum("bd,edf->bef", x, self.experts)
        chosen = every.gather(1, choice[..., None].expand(-1, -1, 32))
        return x + (weight.softmax(-1)[..., None] * chosen).sum(1)


class Ensemble(nn.Module):
    """Five small networks at once by torch.func: functional_call under vmap over stacked weights."""

    def __init__(self) -> None:
        super().__init__()
        members = [nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 1)) for _ in range(5)]
        stacked, _ = torch.func.stack_module_state(members)  # pyright: ignore[reportArgumentType]
        self.names = list(stacked)
        self.weights = nn.ParameterList(nn.Parameter(stacked[n].detach()) for n in self.names)
        self.__dict__["skeleton"] = members[0].to("meta")

    def forward(self, x: Tensor) -> Tensor:
        def one(weights: dict[str, Tensor], x: Tensor) -> Tensor:
            return torch.func.functional_call(self.skeleton, weights, (x,))

        return torch.func.vmap(one, in_dims=(0, None))(dict(zip(self.names, self.weights, strict=True)), x).mean(0)


class HalfInside(nn.Module):
    """Half precision under autocast in the middle of the pass, and an explicit cast back."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(32, 64), nn.Linear(64, 32)
        self.norm = nn.LayerNorm(64)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            h = F.silu(self.first(x))
        return self.last(self.norm(h.float()))


class Generator(nn.Module):
    """Decodes step by step with a growing cache of keys and values."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(60, dim)
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.head = nn.Linear(dim, 60)

    def forward(self, words: Tensor) -> Tensor:
        cache: dict[str, Tensor] = {}
        logits: list[Tensor] = []
        for t in range(words.shape[1]):
            x = self.embed(words[:, t : t + 1])
            k, v = self.k(x), self.v(x)
            cache["k"] = torch.cat([cache["k"], k], 1) if "k" in cache else k
            cache["v"] = torch.cat([cache["v"], v], 1) if "v" in cache else v
            a = torch.softmax(self.q(x) @ cache["k"].mT / x.shape[-1] ** 0.5, -1)
            logits.append(self.head(x + self.o(a @ cache["v"])))
        return torch.cat(logits, 1)


class NeuralODE(nn.Module):
    """Runge-Kutta steps of one vector field."""

    def __init__(self) -> None:
        super().__init__()
        self.field = nn.Sequential(nn.Linear(17, 64), nn.Tanh(), nn.Linear(64, 16))

    def f(self, t: float, y: Tensor) -> Tensor:
        return self.field(torch.cat([y, torch.full_like(y[:, :1], t)], dim=1))

    def forward(self, y: Tensor, steps: int = 4) -> Tensor:
        h = 1.0 / steps
        for i in range(steps):
            t = i * h
            k1 = self.f(t, y)
            k2 = self.f(t + h / 2, y + h / 2 * k1)
            k3 = self.f(t + h / 2, y + h / 2 * k2)
            k4 = self.f(t + h, y + h * k3)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return y


class HyperNetwork(nn.Module):
    """One network writes the weights of another."""

    def __init__(self) -> None:
        super().__init__()
        self.writer = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 16 * 16 + 16))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        w, b = self.writer(z).split([256, 16], dim=-1)
        return torch.bmm(w.view(-1, 16, 16), x.unsqueeze(-1)).squeeze(-1) + b


class Variational(nn.Module):
    """An autoencoder with the reparametrised draw, and its three terms returned in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(64, 64), nn.ELU(), nn.Linear(64, 32))
        self.decode = nn.Sequential(nn.Linear(16, 64), nn.ELU(), nn.Linear(64, 64))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        mean, log_variance = self.encode(x).chunk(2, -1)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        divergence = -0.5 * (1 + log_variance - mean.pow(2) - log_variance.exp()).sum(-1)
        return {"reconstruction": self.decode(z).sigmoid(), "divergence": divergence, "mean": mean}


class Spiking(nn.Module):
    """Leaky integrate-and-fire units with a surrogate gradient over ten steps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(32, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        v = torch.zeros(x.shape[0], 64)
        out = torch.zeros(x.shape[0], 10)
        for _ in range(10):
            v = 0.9 * v + self.first(x)
            soft = torch.sigmoid(4 * (v - 1))
            spike = (v > 1).float() + soft - soft.detach()
            v = v * (1 - spike.detach())
            out = out + self.last(spike)
        return out / 10


class Quantized(nn.Module):
    """A vector-quantised bottleneck: nearest code by cdist and argmin, straight-through gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(32, 16), nn.Linear(16, 32)
        self.codes = nn.Embedding(24, 16)

    def forward(self, x: Tensor) -> Tensor:
        z = self.encode(x)
        nearest = torch.cdist(z, self.codes.weight).argmin(-1)
        return self.decode(z + (self.codes(nearest) - z).detach())


class Siamese(nn.Module):
    """Two passes of one encoder, normalised, and the matrix of their cosines."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(32, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 16))
        self.temperature = nn.Parameter(torch.tensor(2.6))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = F.normalize(self.encoder(a), dim=-1), F.normalize(self.encoder(b), dim=-1)
        return self.temperature.exp() * a @ b.T


class Splines(nn.Module):
    """A layer of learned piecewise-linear functions on every edge, by hat functions on a grid."""

    def __init__(self, width: int = 16, knots: int = 8) -> None:
        super().__init__()
        self.register_buffer("grid", torch.linspace(-2, 2, knots))
        self.coefficients = nn.ParameterList(nn.Parameter(torch.randn(width, width, knots) * 0.1) for _ in range(3))
        self.base = nn.ParameterList(nn.Parameter(torch.randn(width, width) / width**0.5) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for c, w in zip(self.coefficients, self.base, strict=True):
            hats = F.relu(1 - (x.unsqueeze(-1) - self.grid).abs() / (self.grid[1] - self.grid[0]))
            x = torch.einsum("bik,oik->bo", hats, c) + F.silu(x) @ w.T
        return x


CANDIDATES: tuple[Candidate, ...] = (
    make("in place", InPlace, tensor(16, 32)),
    make("Fourier mixer", FourierMixer, tensor(4, 32, 24)),
    make("complex weights", ComplexWeights, tensor(4, 32, 32)),
    make("linear scan", LinearScan, tensor(4, 8, 32)),
    make("message passing", MessagePassing, _graph),
    make("spatial transformer", Deformable, tensor(4, 3, 16, 16)),
    make("top-k router", TopKRouter, tensor(16, 32)),
    make("vmapped ensemble", Ensemble, tensor(16, 16)),
    make("half inside", HalfInside, tensor(16, 32)),
    make("cached generator", Generator, tokens(4, 6)),
    make("neural ODE", NeuralODE, tensor(16, 16)),
    make("hypernetwork", HyperNetwork, named(x=(16, 16), z=(16, 8))),
    make("variational", Variational, tensor(16, 64)),
    make("spiking", Spiking, tensor(16, 32)),
    make("vector-quantised", Quantized, tensor(16, 32)),
    make("siamese", Siamese, named(a=(16, 32), b=(16, 32))),
    make("splines", Splines, tensor(16, 16)),
)
