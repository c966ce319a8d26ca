"""Tensors that the forward pass draws: `torch.rand`, `torch.normal(mean, std)`, `x.bernoulli_(p)` and their like.

In place (``x.normal_(0, 0.1)``) the first argument is what is written over: nothing of it is left. torch sends no
gradient to the parameters of a draw.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from firstlight.graph.signal import Array, Cotangent, Signal, Source, next_id, replace
from firstlight.rules.chains.grids import grid
from firstlight.rules.composed.tape import Tape
from firstlight.rules.registry import Call, Grads, rule
from firstlight.rules.state.empirical import uniform as independent
from firstlight.rules.state.layout import correlations, moments
from firstlight.rules.state.views import source_key
from firstlight.theory import special


def _law(call: Call, mean: float, variance: float, quantile: Callable[[Array], Array]) -> Signal:
    """Independent entries of one law that is no Gaussian: values T(z) on the nodes of a source, z normal.

    Args:
        call: The draw.
        mean: E T.
        variance: Of T.
        quantile: T, of normal z.
    """
    out = independent(call.node.outputs[0].shape, mean, variance + mean * mean)
    corr = np.zeros(out.corr.shape)
    corr[(0,) * corr.ndim] = 1.0
    nodes = grid()
    one, sd = np.ones(1), variance**0.5
    source = Source(
        source_key(out), one * mean, one * sd, one, None, corr, nodes, quantiles=(quantile(nodes.z) - mean) / sd
    )
    return replace(out, source=source, values=source.values)


@rule("randn", "randn_like", example="x + torch.randn_like(x)")
def randn(call: Call, unused: Any = None) -> Signal:
    """Standard normal entries."""
    del unused
    return independent(call.node.outputs[0].shape, 0.0, 1.0, gaussian=True)


@rule("normal", example="torch.normal(torch.tanh(x), 0.5)")
def normal(call: Call, mean: Any = 0.0, std: Any = None, more: Any = None) -> Signal:
    """m + s·z: ``torch.normal(m, s)``, with numbers or tensors, or ``x.normal_(m, s)``."""
    if isinstance(mean, Signal) and (std is None or (more is not None and not isinstance(more, tuple))):
        mean, std = (0.0, 1.0) if std is None else (std, more)  # in place
    std = 1.0 if std is None else std
    z = randn.forward(call)
    tape = Tape(call)
    shape = call.node.outputs[0].shape
    if isinstance(mean, Signal) and mean.shape != shape:
        mean = tape("expand", mean, shape)
    return tape("add", tape("mul", z, std), mean)


@rule("rand", "rand_like", example="x + torch.rand_like(x)")
def rand(call: Call, unused: Any = None) -> Signal:
    """Uniform on [0, 1)."""
    del unused
    return _law(call, 0.5, 1.0 / 12.0, special.ndtr)


@rule("uniform", example="x + torch.empty_like(x).uniform_(-0.5, 0.5)")
def uniform(call: Call, unused: Any = None, low: Any = 0.0, high: Any = 1.0) -> Signal:
    """Uniform on [low, high), in place; with one argument of `torch.distributions` on [0, 1)."""
    del unused
    a, b = float(low), float(high)
    if a == b:
        return independent(call.node.outputs[0].shape, a, a * a)
    return _law(call, 0.5 * (a + b), (b - a) ** 2 / 12.0, lambda z: a + (b - a) * special.ndtr(z))


@rule("exponential", example="x - torch.empty_like(x).exponential_().log()")
def exponential(call: Call, unused: Any = None, lambd: Any = 1.0) -> Signal:
    """Exponential with mean 1/λ, in place: -ln of it is Gumbel's law."""
    del unused
    m = 1.0 / float(lambd)
    return _law(call, m, m * m, lambda z: -m * np.log(special.ndtr(-z)))


@rule("bernoulli", example="x * torch.bernoulli(torch.full_like(x, 0.3))")
def bernoulli(call: Call, input: Any = 0.5, p: Any = None) -> Signal:
    """1 with probability p, else 0: ``torch.bernoulli(p)`` of a tensor, or ``x.bernoulli_(p)``.

    E b = E b² = E p, and two entries have E p p' in common.
    """
    chance = input if p is None else p
    shape = call.node.outputs[0].shape
    if not isinstance(chance, Signal):
        return independent(shape, float(chance), float(chance))
    if chance.shape != shape:
        chance = Tape(call)("expand", chance, shape)
    q = np.clip(chance.mean, 0.0, 1.0)
    raw = np.array(moments(chance)) * chance.mean_q
    raw[(0,) * raw.ndim] = float(q.mean())
    return replace(
        chance, q=q, mean=q, corr=correlations(raw, q), source=None, values=None, value=None, weights=None, terms=(),
        gaussian=False, data=False, ident=next_id(),
    )  # fmt: skip


@rule("poisson", example="torch.poisson(torch.exp(0.3 * x))")
def poisson(call: Call, input: Signal) -> Signal:
    """Counts with mean λ: E n² = E λ² + E λ, and two entries have E λ λ' in common."""
    del call
    q = input.q + np.maximum(input.mean, 0.0)
    raw = np.array(moments(input)) * input.mean_q
    raw[(0,) * raw.ndim] = float(q.mean())
    return replace(
        input, q=q, corr=correlations(raw, q), source=None, values=None, value=None, weights=None, terms=(),
        gaussian=False, data=False, ident=next_id(),
    )  # fmt: skip


@rule("randint", "randint_like", "randperm", "multinomial", example="x[torch.randint(0, 16, (16,))]")
def integers(
    call: Call, input: Any = None, num_samples: Any = None, size: Any = None, replacement: Any = None
) -> Signal:
    """Places chosen by chance."""
    del input, num_samples, size, replacement
    return independent(call.node.outputs[0].shape, 0.0, 1.0, integer=True)


def _nothing(call: Call, grad: Cotangent, out: Signal, *_: Any, **__: Any) -> Grads:
    """Draws pass no gradient on."""
    del call, grad, out
    return {}


for _entry in (randn, normal, rand, uniform, exponential, bernoulli, poisson, integers):
    _entry.variadic = False
    _entry.adjoint(_nothing)
