"""Routers: the largest weights of a softmax over their sum, against the same drawn and differentiated."""

import numpy as np
import pytest
import torch

from firstlight.graph.signal import Cotangent
from firstlight.rules.attention import shares
from firstlight.rules.attention.participation import jacobian
from firstlight.rules.gradients.along import fresh, of_summands
from firstlight.rules.reductions.ordering import TOP_SHARES
from firstlight.rules.state.empirical import uniform

ROWS = 200_000


def brute(n, k, sd, known):
    """Gradients of the weights, their sum and the logits, of shares of rows y_r: g_r = G·y_r, E (Σ g·w)² given."""
    g = torch.Generator().manual_seed(0)
    logits = (sd * torch.randn(ROWS, n, generator=g, dtype=torch.float64)).requires_grad_()
    p = logits.softmax(-1)
    top = torch.topk(p, k, -1)[0]
    top.retain_grad()
    total = top.sum(-1, keepdim=True)
    total.retain_grad()
    w = top / total
    dw = torch.randn(ROWS, k, generator=g, dtype=torch.float64)
    unit = (w / w.square().sum(-1, keepdim=True).sqrt()).detach()
    dw = dw - (1.0 - known**0.5) * unit * (unit * dw).sum(-1, keepdim=True)
    w.backward(dw)
    along = (w.detach() * dw).sum(-1).square().mean()
    logits = logits.detach() * 1.0, logits.grad
    rows = [top.grad.square()[:, r] for r in range(k)]
    rows += [total.grad.square()[:, 0], logits[1].square().mean(-1), (logits[1] * logits[0]).sum(-1).square()]
    found = np.array([[float(r.mean()), float(r.std())] for r in rows])
    return found, float(w.detach().square().mean()), float(along), float(p.detach().square().mean())


def rule(n, k, level, w2, along, known):
    """What the rules say of the same, in the same order."""
    x = uniform((ROWS, k), 0.5, 0.5, tag=(TOP_SHARES, n, level))
    total = uniform((ROWS, 1), 0.5, 0.5, tag=("sum", x.ident, 0.0))
    assert shares.are_shares(x, total)
    w = uniform((ROWS, k), 0.5, w2)
    grads = shares.shares_back(
        Cotangent(uniform((ROWS, k), 0.0, 1.0 - (1.0 - known) / k), along=fresh(along)), w, x, total
    )
    weights = grads["input"].base
    spread = uniform((ROWS, n), 0.0, weights.mean_q * k / n, tag=weights.tag)
    back = shares.behind_softmax(spread, uniform((ROWS, n), 0.0, 1.0), uniform((ROWS, n), 1.0 / n, level / n**2))
    assert back is not None
    assert back.along is not None
    return np.array([*weights.q.ravel(), grads["other"].base.mean_q, back.base.mean_q, back.along.variance])


@pytest.mark.parametrize(
    ("n", "k", "sd", "known"), [(4, 2, 1.0, 1.0), (4, 2, 1.0, 0.1), (8, 2, 1.5, 0.0), (8, 3, 0.7, 1.5)]
)
def test_gradients_of_shares(n, k, sd, known):
    found, w2, along, p2 = brute(n, k, sd, known)
    level = float(f"{p2 * n * n:.3g}")
    told = rule(n, k, level, w2, along, known)
    rounding = np.abs(rule(n, k, level + 0.01, w2, along, known) - told)  # the level is kept to three digits
    error = found[:, 1] * (1.0 / ROWS + 1.0 / 16384) ** 0.5  # the rule's rows are sampled, too
    assert np.all(np.abs(told - found[:, 0]) < 4.0 * error + rounding), (told, found)
    if n == 4 and known == 1.0:  # a gradient that is anywhere alike would be let through much less
        anywhere = float(jacobian(np.array([p2 * n]), np.array([float(n)]))[0]) / n
        assert told[:k].sum() / n * anywhere < 0.7 * found[k + 1, 0]


def test_only_the_sum_of_the_same_weights_makes_shares():
    x = uniform((8, 2), 0.5, 0.5, tag=(TOP_SHARES, 4, 1.5))
    assert not shares.are_shares(x, uniform((8, 1), 0.5, 0.5))
    assert not shares.are_shares(x, uniform((8, 1), 0.5, 0.5, tag=("sum", x.ident + 1, 0.0)))
    assert not shares.are_shares(uniform((8, 2), 0.5, 0.5), uniform((8, 1), 0.5, 0.5, tag=("sum", x.ident, 0.0)))


@pytest.mark.parametrize("k", [2, 5])
def test_forms_of_the_terms_of_a_sum(k):
    """g at right angles to part of y = Σ x_r: what is left of each Σ g·x_r."""
    rng = np.random.default_rng(1)
    x, g = rng.standard_normal((20_000, k, 24)), rng.standard_normal((20_000, 24))
    y = x.sum(1)
    g -= 0.6 * y * (g * y).sum(-1, keepdims=True) / np.square(y).sum(-1, keepdims=True)
    known, each = np.square((g * y).sum(-1)), np.square(np.einsum("bd,bkd->bk", g, x)).mean(1)
    signal = uniform((20_000, k, 24), 0.0, 1.0)
    grad = Cotangent(uniform((20_000, 24), 0.0, float(np.square(g).mean())), along=fresh(float(known.mean())))
    told = of_summands(grad, signal, uniform((20_000, 24), 0.0, float(np.square(y).mean())), [1])
    assert told is not None
    error = each.std() / len(each) ** 0.5
    # |g|² and the lengths of the terms go together by 1/24: of that order is what is left out
    assert abs(told.variance - each.mean()) < 4.0 * error + each.mean() / 24.0
    assert of_summands(grad, signal, signal, [-1]) is None
