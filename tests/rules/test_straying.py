"""A softmax over keys alike by chance, uneven and in few dimensions, against attention drawn and differentiated."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.accuracy.draws import drawn
from benchmarks.accuracy.errors import errors
from firstlight.capture import predict as capture
from firstlight.capture.trace import trace
from firstlight.rules.attention import participation, straying
from firstlight.rules.state import noise
from firstlight.schemes.plan import plan
from tests.zoo.sequence import Pooled

KEYS, SETS = 32, 600


def brute(units, dims, uneven, common):
    """One row per set of tokens: Σp², E y², |dℓ|², |dq|², |dk|² of attention with fresh maps, tokens and gradients.

    And |dℓ|², |dq|² of gradients of the weights that are independent from key to key.
    """
    g = torch.Generator().manual_seed(3)

    def normal(*shape):
        return torch.randn(SETS, *shape, generator=g, dtype=torch.float64)

    x = F.normalize(normal(KEYS, units), dim=-1)
    rng = np.random.default_rng(3)
    if uneven:
        x = x * torch.from_numpy(rng.gamma(1.0 / uneven, uneven, (SETS, KEYS, 1))).sqrt()
    # each entry of a map's image of a token has the variance |x|²; queries of tokens of their own, as for other rows
    asked = F.normalize(normal(KEYS, units), dim=-1)
    if uneven:
        asked = asked * torch.from_numpy(rng.gamma(1.0 / uneven, uneven, (SETS, KEYS, 1))).sqrt()
    if common:
        whole = torch.from_numpy(rng.gamma(1.0 / common, common, (SETS, 1, 1))).sqrt()
        x, asked = x * whole, asked * whole
    q, k, v = (t @ normal(units, dims) for t in (asked, x, x))
    logits = (q @ k.mT / dims**0.5).requires_grad_()
    p = logits.softmax(-1)
    y = p @ v
    (dl,) = torch.autograd.grad(y, logits, normal(KEYS, dims), retain_graph=True)
    (own,) = torch.autograd.grad(p, logits, normal(KEYS, KEYS))
    p, y = p.detach(), y.detach()
    out = [p.square().sum(-1), y.square().mean(-1), dl.square().sum(-1), (dl @ k).square().mean(-1)]
    out += [(dl.mT @ q).square().mean(-1), own.square().sum(-1), (own @ k).square().mean(-1)]
    return np.stack([t.mean(-1).numpy() for t in out], axis=1)


@pytest.mark.parametrize(
    ("units", "dims", "uneven", "common"),
    [(16, 8, 0.0, 0.0), (24, 4, 0.0, 0.0), (24, 8, 0.2, 0.0), (24, 8, 0.1, 0.2), (24, 80, 0.1, 0.2)],
)
def test_sums_over_keys_and_rows(units, dims, uneven, common):
    rows = brute(units, dims, uneven, common)
    n = np.array([float(KEYS)])
    found = straying.straying(1.0, n, 1.0 / units, 2.0 / dims, uneven, common)
    share = participation.participation(1.0, n)[0] * found.sharper
    own = participation.jacobian(np.array([share]), n)[0] * found.less * dims
    told = np.array([share, share + found.alike, own, own * found.coherent, own * found.rows])
    rows, alone = rows[:, :5], rows[:, 5:]
    spread = rows.std(axis=0) * (1.0 / SETS + 1.0 / straying._sets(KEYS)) ** 0.5
    assert np.all(np.abs(told - rows.mean(axis=0)) < 4.0 * spread), (told, rows.mean(axis=0), spread)
    # and independent logits would be refused
    plain = participation.participation(1.0, n)[0]
    flat = participation.jacobian(np.array([plain]), n)[0] * dims
    assert np.any(np.abs(np.array([plain, plain, flat, flat, flat]) - rows.mean(axis=0)) > 4.0 * spread)
    left = alone[:, 1] - found.apart * alone[:, 0]  # dq of gradients that have nothing to do with the values
    assert abs(left.mean()) < 4.0 * left.std() * (1.0 / SETS + 1.0 / straying._sets(KEYS)) ** 0.5


def test_a_tensor_of_one_entry_has_no_two_samples():
    assert noise.two_samples((), ()) == ()
    assert noise.two_samples((False, False), (2, 2)) == (1, 0)


def judged(model, batch, scheme, draws):
    """Errors of all operations under a scheme, beside that many draws."""
    graph = trace(model, (batch,), {})
    laws = plan(model, scheme, graph=graph, frozen=True).laws()
    found = capture.predict(model, (batch,), {}, laws=laws, scheme=scheme, graph=graph, on_missing="raise")
    return errors(found, drawn(model, (batch,), {}, scheme, graph, draws))


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.inside, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.maps = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(3))
        self.heads = heads

    def forward(self, x):
        x = F.rms_norm(self.inside(x), x.shape[-1:])
        q, k, v = (m(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for m in self.maps)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_gradients_of_heads_of_few_dimensions():
    """Rows of long queries are sharp, and keys get their gradients from them: without it keys' are a quarter less."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, x = Attention(64, 16), torch.randn(2, 48, 64)
    for e in judged(model, x, "xavier", 24):
        assert e.q <= 0.05, (e.node, e.values)
        assert not e.grad_q > 0.05, (e.node, e.values)


def test_sharp_rows_of_tokens_without_norms():
    """Lengths grow sample by sample, logits sharp, and the keys that win are alike: queries' gradients are short."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, x = Pooled(6, 32), torch.randn(8, 12, 32)
    for e in judged(model, x, "he", 48):
        assert not e.q > 0.1, (e.node, e.values)
        if not e.node.startswith(("layers.0", "layers.1")):  # there samples that are long get more gradient
            assert not e.grad_q > 0.1, (e.node, e.values)


class Repeated(nn.Module):
    """Attention among look-ups of a small table, behind a gain that is written in front of what it scales."""

    def __init__(self, width):
        super().__init__()
        self.table, self.gain = nn.Embedding(40, width), nn.Parameter(torch.ones(width))
        self.maps = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, ids):
        x = self.table(ids)
        x = self.gain * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
        q, k, v = (m(x) for m in self.maps)
        return F.scaled_dot_product_attention(q, k, v)


def test_keys_of_equal_tokens():
    """They get like weights and like gradients: queries' would be .76 of drawn without it, and are .87."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, ids = Repeated(64), torch.randint(40, (4, 24))
    for e in judged(model, ids, "xavier", 48):
        if e.node.startswith("maps"):
            assert e.grad_q <= 0.1, (e.node, e.values)


class Returned(Attention):
    """The weights are an output beside the values' mean."""

    def forward(self, x):
        x = F.rms_norm(self.inside(x), x.shape[-1:])
        q, k, v = (m(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for m in self.maps)
        p = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1)
        return (p @ v).transpose(1, 2).flatten(2), 4.0 * p


def test_weights_that_are_returned_have_gradients_of_their_own():
    """What comes through values adds up over like keys; a gradient of the weights themselves does not."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, x = Returned(16, 2), torch.randn(2, 48, 16)
    for e in judged(model, x, "xavier", 32):
        if e.node.startswith("maps"):
            assert e.grad_q <= 0.1, (e.node, e.values)
