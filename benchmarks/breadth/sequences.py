"""Networks over text, sound and time as their papers' readers write them: recurrent, convolutional, attending."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from benchmarks.breadth.candidate import IDS, Arguments, tensor, tokens
from benchmarks.breadth.written import make

WIDTH, HEADS = 32, 4


class TextCNN(nn.Module):
    """Convolutions of three widths over words, the largest entry over time of each (Kim 2014)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(IDS, WIDTH)
        self.convs = nn.ModuleList(nn.Conv2d(1, WIDTH, (k, WIDTH)) for k in (3, 4, 5))
        self.out = nn.Linear(3 * WIDTH, IDS)

    def forward(self, words: Tensor) -> Tensor:
        x = self.embed(words).unsqueeze(1)
        maps = [F.relu(conv(x)).squeeze(3) for conv in self.convs]
        return self.out(torch.cat([F.max_pool1d(m, m.size(2)).squeeze(2) for m in maps], 1))


class LastState(nn.Module):
    """Two GRU layers, a classifier on the last state of the upper one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(IDS, WIDTH), nn.GRU(WIDTH, WIDTH, num_layers=2, batch_first=True)
        self.out = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, IDS))

    def forward(self, words: Tensor) -> Tensor:
        return self.out(self.rnn(self.embed(words))[1][-1])


class WeighedStates(nn.Module):
    """A bidirectional LSTM whose states are averaged with learnt weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(IDS, WIDTH), nn.LSTM(WIDTH, WIDTH, batch_first=True, bidirectional=True)
        self.weigh, self.out = nn.Linear(2 * WIDTH, 1), nn.Linear(2 * WIDTH, IDS)

    def forward(self, words: Tensor) -> Tensor:
        states = self.rnn(self.embed(words))[0]
        return self.out((torch.softmax(self.weigh(torch.tanh(states)), 1) * states).sum(1))


class Translator(nn.Module):
    """An encoder, and a decoder that looks back at it at each step (Bahdanau et al. 2014)."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(IDS, WIDTH), nn.Embedding(IDS, WIDTH)
        self.encoder = nn.LSTM(WIDTH, WIDTH, batch_first=True, bidirectional=True)
        self.bridge, self.attend = nn.Linear(2 * WIDTH, WIDTH), nn.Linear(3 * WIDTH, WIDTH)
        self.energy, self.cell = nn.Linear(WIDTH, 1, bias=False), nn.LSTMCell(3 * WIDTH, WIDTH)
        self.out = nn.Linear(3 * WIDTH, IDS)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        states, (last, _) = self.encoder(self.source(source))
        h = torch.tanh(self.bridge(torch.cat([last[-2], last[-1]], 1)))
        c, y, found = torch.zeros_like(h), self.target(target), []
        for t in range(target.size(1)):
            wide = torch.cat([h.unsqueeze(1).expand(-1, states.size(1), -1), states], 2)
            weights = F.softmax(self.energy(torch.tanh(self.attend(wide))).squeeze(2), 1)
            context = torch.bmm(weights.unsqueeze(1), states).squeeze(1)
            h, c = self.cell(torch.cat([y[:, t], context], 1), (h, c))
            found.append(self.out(torch.cat([h, context], 1)))
        return torch.stack(found, 1)


def _pair() -> Arguments:
    return (torch.randint(IDS, (4, 10)), torch.randint(IDS, (4, 5))), {}


class Causal(nn.Conv1d):
    """A convolution that sees no later step."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, ((self.kernel_size[0] - 1) * self.dilation[0], 0)))


class WaveNet(nn.Module):
    """Gated dilated convolutions with skips (van den Oord et al. 2016)."""

    def __init__(self, layers: int = 8) -> None:
        super().__init__()
        self.first = Causal(1, WIDTH, 2)
        steps = [2 ** (i % 4) for i in range(layers)]
        self.filters = nn.ModuleList(Causal(WIDTH, WIDTH, 2, dilation=d) for d in steps)
        self.gates = nn.ModuleList(Causal(WIDTH, WIDTH, 2, dilation=d) for d in steps)
        self.mix = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 1) for _ in steps)
        self.skip = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 1) for _ in steps)
        self.end = nn.Sequential(nn.ReLU(), nn.Conv1d(WIDTH, WIDTH, 1), nn.ReLU(), nn.Conv1d(WIDTH, 16, 1))

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self.first(x), torch.zeros(())
        for filters, gate, mix, skip in zip(self.filters, self.gates, self.mix, self.skip, strict=True):
            z = torch.tanh(filters(x)) * torch.sigmoid(gate(x))
            x, skips = x + mix(z), skips + skip(z)
        return self.end(skips)


class TemporalBlocks(nn.Module):
    """Weight-normalised causal convolutions in residual pairs (Bai et al. 2018)."""

    def __init__(self, normed: bool) -> None:
        super().__init__()
        wrap = parametrizations.weight_norm if normed else (lambda m: m)
        sizes = [8, WIDTH, WIDTH, WIDTH]
        self.pairs = nn.ModuleList(
            nn.Sequential(
                wrap(Causal(a, b, 3, dilation=2**i)), nn.ReLU(), wrap(Causal(b, b, 3, dilation=2**i)), nn.ReLU()
            )
            for i, (a, b) in enumerate(itertools.pairwise(sizes))
        )
        self.down, self.out = nn.Conv1d(8, WIDTH, 1), nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        for i, pair in enumerate(self.pairs):
            x = torch.relu(pair(x) + (self.down(x) if i == 0 else x))
        return self.out(x[:, :, -1])


class Slopes(nn.Module):
    """Attention whose logits fall with the distance of a key (ALiBi, Press et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (a.view(b, t, HEADS, -1).transpose(1, 2) for a in self.qkv(x).chunk(3, -1))
        at, slopes = torch.arange(t), torch.tensor([2.0 ** -(2 * i + 2) for i in range(HEADS)])
        logits = q @ k.transpose(-1, -2) / math.sqrt(d // HEADS) - (at[:, None] - at).abs() * slopes[:, None, None]
        weights = logits.masked_fill(at[None, :] > at[:, None], float("-inf")).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(b, t, d))


class Kernels(nn.Module):
    """Linear attention, elu + 1 as feature map (Katharopoulos et al. 2020), by einsum or by running sums."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.qkv, self.out, self.causal = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH), causal

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (a.view(b, t, HEADS, -1) for a in self.qkv(x).chunk(3, -1))
        q, k = F.elu(q) + 1, F.elu(k) + 1
        if self.causal:
            pairs, total = torch.cumsum(k.unsqueeze(-1) * v.unsqueeze(-2), 1), torch.cumsum(k, 1)
            y = torch.einsum("bthd,bthde->bthe", q, pairs) / ((q * total).sum(-1, keepdim=True) + 1e-6)
        else:
            scale = 1 / (torch.einsum("bthd,bhd->bth", q, k.sum(1)) + 1e-6)
            y = torch.einsum("bthd,bhde,bth->bthe", q, torch.einsum("bthd,bthe->bhde", k, v), scale)
        return self.out(y.reshape(b, t, d))


class Retention(nn.Module):
    """Decayed attention without a softmax (Sun et al. 2023)."""

    decay: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.qkvg, self.out = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.norm = nn.GroupNorm(HEADS, WIDTH, affine=False)
        self.register_buffer("decay", 1 - torch.exp(torch.linspace(math.log(1 / 32), math.log(1 / 512), HEADS)))

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        *qkv, gate = self.qkvg(x).chunk(4, -1)
        q, k, v = (a.view(b, t, HEADS, -1).transpose(1, 2) for a in qkv)
        apart = torch.arange(t)[:, None] - torch.arange(t)
        decay = self.decay[:, None, None] ** apart.clamp(min=0) * (apart >= 0)
        y = (q @ k.transpose(-1, -2) * (d // HEADS) ** -0.5 * decay) @ v
        y = self.norm(y.transpose(1, 2).reshape(b * t, d)).view(b, t, d)
        return self.out(F.silu(gate) * y)


class Simplified(nn.Module):
    """Self-attention as it is first taught: no projections, softmax(x·xᵀ)·x."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x @ x.transpose(1, 2) / x.size(-1) ** 0.5, -1) @ x


class LanguageModel(nn.Module):
    """Blocks with the norm in front around a mixer of positions."""

    def __init__(self, mixer: type[nn.Module], *args: object) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(IDS, WIDTH), nn.Embedding(16, WIDTH)
        self.mixers = nn.ModuleList(mixer(*args) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(4))
        self.inner = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)) for _ in range(2)
        )
        self.out = nn.Linear(WIDTH, IDS, bias=False)

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words) + self.places(torch.arange(words.size(1)))
        for i, (mixer, inner) in enumerate(zip(self.mixers, self.inner, strict=True)):
            x = x + mixer(self.norms[2 * i](x))
            x = x + inner(self.norms[2 * i + 1](x))
        return self.out(x)


CANDIDATES = (
    make("text CNN", TextCNN, tokens(8, 16)),
    make("GRU classifier", LastState, tokens(8, 12)),
    make("LSTM with attention", WeighedStates, tokens(8, 12)),
    make("Bahdanau translator", Translator, _pair),
    make("WaveNet", WaveNet, tensor(4, 1, 48)),
    make("temporal blocks", TemporalBlocks, tensor(8, 8, 32), False),
    make("temporal blocks with weight norm", TemporalBlocks, tensor(8, 8, 32), True),
    make("ALiBi language model", LanguageModel, tokens(4, 16), Slopes),
    make("linear attention", LanguageModel, tokens(4, 16), Kernels, False),
    make("causal linear attention", LanguageModel, tokens(4, 16), Kernels, True),
    make("retention", LanguageModel, tokens(4, 16), Retention),
    make("attention without projections", LanguageModel, tokens(4, 16), Simplified),
)
