"""Entries drawn from statistics, for operations that are run because no rule describes them.

What an operation is given often belongs together: both factors of X·Xᵀ are one tensor, the second argument of
atan2(x, eʸ) is positive. So what lies in between is run as well, back to tensors that are sums over many independent
weights, and those are drawn: independent entries, samples as alike as they are, chains over one Gaussian source from
one draw of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping

import numpy as np
import torch
from torch import Tensor

from firstlight.capture.replay import Replay
from firstlight.graph.ir import Arg, Node, ParameterRef, Ref, TensorSpec
from firstlight.graph.operations import RANDOM
from firstlight.graph.signal import Array, Signal
from firstlight.rules.registry import Look
from firstlight.rules.state.noise import sample_correlation, two_samples

_STEPS = 64  # operations that are run to make the inputs of one: a gated delta rule has 40 behind its triangular system
_LARGEST = 1 << 22  # entries up to which a tensor on the way is worked out
_STILL = frozenset({"input", "autograd_function", "dropout", "alpha_dropout", "feature_alpha_dropout", *RANDOM})


class Draw:
    """One draw of the tensors that an operation reads.

    Args:
        nodes: Of the graph, by name.
        calls: How to run them again.
        specs: Of what they make.
        look: The signal behind an argument.
        seed: Of the draw.
        track: Whether gradients are to reach what is drawn.
        longer: (argument, factor) of a drawn tensor that is to be longer than its statistics say.
    """

    def __init__(
        self, nodes: Mapping[str, Node], calls: Mapping[str, Replay], specs: Mapping[Arg, TensorSpec], look: Look,
        seed: int, track: bool = False, longer: tuple[Arg, float] | None = None,
    ) -> None:  # fmt: skip
        self._nodes, self._calls, self._specs, self._look, self._longer = nodes, calls, specs, look, longer
        self._track = track
        self._asked: Counter[Arg] = Counter()
        self._generator = torch.Generator().manual_seed(2 * seed)
        self._made: dict[Arg, Tensor] = {}
        self._normal: dict[Hashable, Tensor] = {}
        self._left = _STEPS
        self.roots: dict[Arg, Signal] = {}

    def tensor(self, arg: Arg) -> Tensor:
        """The entries behind an argument."""
        self._asked[arg] += 1
        if arg not in self._made:
            signal = self._look(arg)
            if not self._run(arg, signal):
                entries = self._entries(arg, signal)
                self._made[arg] = entries.requires_grad_(self._track and arg in self.roots)
        return self._made[arg]

    @property
    def met(self) -> bool:
        """Whether one tensor comes to the operation on several ways."""
        return any(n > 1 and self._look(arg).value is None for arg, n in self._asked.items())

    def _run(self, arg: Arg, signal: Signal) -> bool:
        """Work a tensor out from what it was made of; whether that could be done."""
        if not isinstance(arg, Ref) or signal.value is not None or signal.numel > _LARGEST:
            return False
        node, call = self._nodes.get(arg.node), self._calls.get(arg.node)
        if node is None or call is None or node.op in _STILL:
            return False
        if self._left <= 0 and node.op != "cumsum":  # drawn alone, entries are no running sum: e^(a - b) explodes
            return False
        if signal.gaussian and any(isinstance(a, ParameterRef) for a in call.sources):
            return False  # a sum over weights
        self._left -= 1
        given = {a: self.tensor(a) for a in call.sources}
        try:
            with torch.set_grad_enabled(self._track):
                made = call({a: t.clone() for a, t in given.items()})
        except Exception:  # noqa: BLE001 - what does not run on drawn entries is drawn itself
            return False
        if [tuple(t.shape) for t in made] != [tuple(o.shape) for o in node.outputs]:
            return False
        self._made |= {Ref(arg.node, i): t for i, t in enumerate(made)}
        return arg in self._made

    def _entries(self, arg: Arg, v: Signal) -> Tensor:
        """Known entries, or drawn ones; an unknown index is 0, which every axis has."""
        if v.value is not None:
            known = torch.as_tensor(np.asarray(v.value))
            return known.float() if known.is_floating_point() else known
        if v.integer:
            spec = self._specs.get(arg)
            return torch.zeros(v.shape, dtype=torch.int64 if spec is None else getattr(torch, spec.dtype))
        self.roots[arg] = v
        factor = self._longer[1] if self._longer is not None and self._longer[0] == arg else 1.0
        source = v.source
        if source is not None and v.values is not None and len(source.sd) == 1 and not v.complex:
            z = self._normal.get((source.key, v.shape))
            if z is None:
                alike = float(source.corr[two_samples(v.batch, source.corr.shape)])
                z = self._normal[source.key, v.shape] = _normal(v, alike, self._generator)
            found = np.interp(z.numpy(), source.grid.z, v.values[0])
            return torch.from_numpy(found.astype(np.float32)).mul_(factor)
        mean, sd = (_laid_out(f, v) for f in (v.mean, np.sqrt(np.maximum(v.q - np.square(v.mean), 0.0))))
        level = v.mean_mean**2 / v.mean_q if v.mean_q > 0.0 else 0.0
        alike = (sample_correlation(v) - level) / max(1.0 - level, 1e-12)
        return _normal(v, alike, self._generator).mul_(sd).add_(mean).mul_(factor)


def _normal(v: Signal, alike: float, generator: torch.Generator) -> Tensor:
    """Standard normal entries, laid out like a signal, `alike` of them what all samples have in common."""
    kind = torch.complex64 if v.complex else torch.float32
    own = torch.randn(v.shape, dtype=kind, generator=generator)
    alike = min(max(alike, 0.0), 1.0)
    if not any(v.batch) or alike <= 0.0:
        return own
    few = [1 if b else n for n, b in zip(v.atoms, v.batch, strict=True)]
    shared = torch.randn(few, dtype=kind, generator=generator).expand(v.atoms).reshape(v.shape)
    return own.mul_((1.0 - alike) ** 0.5).add_(shared, alpha=alike**0.5)


def _laid_out(field: Array, v: Signal) -> Tensor:
    """What is known of each entry, in the shape of the tensor (a diagonal differs from what is beside it)."""
    if field.size == 1:
        return torch.tensor(field.item(), dtype=torch.float32)
    return torch.from_numpy(np.broadcast_to(field, v.atoms).reshape(v.shape).astype(np.float32))
