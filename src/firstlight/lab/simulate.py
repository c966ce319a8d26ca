"""Lengths of activations and gradients in many random networks at once, without training.

Two ways, equal in law where both apply:

- *weights*: every weight is drawn; any scheme, activation and stack. Networks go through in groups that fit
  the cache, as batched products.
- *projected*: independent normal weights without biases, one input and one cotangent per network. A layer's
  W is never made; only what the two passes see of it is drawn. Forward, W h = s|h| ξ with ξ ~ N(0, I).
  Backward, given z = W h the part of W that acts on h is known and the rest is still free, so
  Wᵀδ = h (z·δ)/|h|² + s|δ| (I - hhᵀ/|h|²) ζ, ζ ~ N(0, I). That is exact and costs n draws a layer in place
  of n².
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from firstlight.errors import InputError
from firstlight.lab.draws import layer_draw
from firstlight.lab.kernels import Kernel, kernel
from firstlight.lab.models import StackConfig
from firstlight.lab.progress import tell
from firstlight.schemes.context import Draw, Target
from firstlight.schemes.draws import Stream

Array = NDArray[np.float64]
Method = Literal["auto", "weights", "projected"]
_GROUP_BYTES = 32 << 20  # weights of one group of networks: about a core's share of the cache


@dataclass(frozen=True)
class Lengths:
    """Mean squares in `draws` random networks.

    Attributes:
        input: M_0 of each network's input (draws,).
        forward: M_l = |h_l|²/n_l after hidden layer l = 1 … D (draws, D).
        backward: |∂/∂h_l|²/n_l for a random cotangent of mean square 1 on h_D (draws, D): the last column is
            the cotangent's own.
        method: Which way they were drawn.
    """

    input: Array
    forward: Array
    backward: Array
    method: str


def simulate(
    config: StackConfig,
    draws: int,
    *,
    seed: int = 0,
    x: NDArray[np.floating] | None = None,
    gain: float | None = None,
    method: Method = "auto",
    backward: bool = True,
    side: int = 8,
) -> Lengths:
    """Draw `draws` networks and follow one input forward and one random cotangent backward.

    Args:
        config: The network; the readout is left out, biases are zero.
        draws: Number of networks.
        seed: Of weights, inputs and cotangents.
        x: One input (inputs,), or one per network (draws, inputs); N(0, 1) entries if not given. For conv
            (inputs, side, side).
        gain: g in place of the configuration's.
        method: "auto" takes "projected" where it applies.
        backward: Whether to go back too.
        side: Height and width of a conv network's N(0, 1) input.

    Raises:
        InputError: Nothing to draw, an input that does not fit, or "projected" where it does not apply.
    """
    if draws < 1:
        raise InputError("simulate, draws", got=str(draws), expected="at least 1")
    laws = [layer_draw(config, layer) for layer in range(config.depth)]
    gain = gain if gain is not None else config.gain
    normal = all(law.distribution is not None and law.distribution.kind == "normal" for _, law in laws)
    applies = normal and config.kind == "plain"
    if method == "projected" and not applies:
        raise InputError("simulate, method", got="'projected'", expected="a plain stack of normal weights")
    rng = np.random.default_rng((seed, draws))
    shape = (config.inputs, side, side) if config.kind == "conv" else (config.inputs,)
    if x is None:
        x = rng.standard_normal((draws, *shape), dtype=np.float32)
    x = np.broadcast_to(x, (draws, *x.shape[-len(shape) :]))
    if x.shape[1] != config.inputs or not np.isfinite(x).all():
        raise InputError("simulate, x", got=f"shape {x.shape[1:]}", expected=f"finite entries of shape {shape}")
    chosen = "projected" if applies and method != "weights" else "weights"
    f = kernel(config.activation)
    scales = [_scale(law, gain) for _, law in laws]
    if chosen == "projected":
        group, follow = draws, _projected
    else:
        per_net = 4 * sum(int(np.prod(target.shape)) for target, _ in laws)
        group = max(1, min(draws, _GROUP_BYTES // max(per_net, 1)))
        follow = _convolve if config.kind == "conv" else _multiply
    forward, back = np.empty((draws, config.depth)), np.full((draws, config.depth), np.nan)
    with np.errstate(all="ignore"):
        for number, at in enumerate(range(0, draws, group)):
            stop = min(at + group, draws)
            h = torch.from_numpy(np.array(x[at:stop], dtype=np.float32))
            streams = _Streams(seed, number)
            forward[at:stop], gradient = follow(config, laws, scales, f, h, streams, backward)
            if gradient is not None:
                back[at:stop] = gradient
            tell(stop, draws)
    return Lengths(np.square(x.astype(np.float64)).reshape(draws, -1).mean(1), forward, back, chosen)


class _Streams:
    """Random numbers of one group of networks, by purpose.

    Normal and uniform entries come from torch's generator, which fills a buffer about three times as fast as
    NumPy's.
    """

    def __init__(self, seed: int, group: int) -> None:
        self.seed, self.group = seed, group

    def _generator(self, purpose: str) -> torch.Generator:
        state = Stream(self.seed, f"{purpose} {self.group}").generator().integers(1 << 62)
        return torch.Generator().manual_seed(int(state))

    def normal(self, purpose: str, *shape: int) -> Tensor:
        """Standard normal entries."""
        return torch.empty(shape).normal_(generator=self._generator(purpose))

    def weights(self, target: Target, law: Draw, count: int) -> Tensor:
        """One layer's weights in `count` networks."""
        given = law.distribution
        if given is not None:
            out, generator = torch.empty(count, *target.shape), self._generator(target.name)
            if given.kind == "normal":
                return out.normal_(given.mean, given.std, generator=generator)
            if given.kind == "uniform":
                bound = math.sqrt(3.0) * given.std
                return out.uniform_(given.mean - bound, given.mean + bound, generator=generator)
            given.fill(Stream(self.seed, f"{target.name} {self.group}").generator(), out.view(-1).numpy())
            return out
        assert law.build is not None
        streams = (Stream(self.seed, f"{target.name} {self.group} {net}") for net in range(count))
        return torch.stack([law.build(stream, torch.float32) for stream in streams])


def _scale(law: Draw, gain: float | None) -> float:
    return gain / law.gain if gain is not None and law.gain else 1.0


def _mean_square(t: Tensor) -> Array:
    return t.double().square().flatten(1).mean(1).numpy()


def _slope(f: Kernel, z: Tensor, h: Tensor) -> Tensor:
    out = torch.empty_like(z)
    f.derivative(h if f.saves_output else z, out)
    return out


_Laws = list[tuple[Target, Draw]]


def _multiply(
    config: StackConfig,
    laws: _Laws,
    scales: list[float],
    f: Kernel,
    h: Tensor,
    streams: _Streams,
    backward: bool,
) -> tuple[Array, Array | None]:
    """Draw all weights of a group of networks and multiply; h (E, n_in)."""
    E, forward, weights, slopes = len(h), [], [], []
    for layer, ((target, law), scale) in enumerate(zip(laws, scales, strict=True)):
        w = streams.weights(target, law, E)
        z = torch.from_numpy(np.matmul(w.numpy(), h.unsqueeze(-1).numpy()))[..., 0]
        z = z.mul_(scale) if scale != 1.0 else z
        out = f.f(z)
        if backward:
            weights.append(w)
            slopes.append(_slope(f, z, out))
        h = h + config.etas[layer - 1] * out if config.kind == "residual" and layer > 0 else out
        forward.append(_mean_square(h))
    if not backward:
        return np.stack(forward, 1), None
    g = streams.normal("cotangent", *h.shape)
    g /= g.square().mean(1, keepdim=True).sqrt()
    back = [_mean_square(g)]
    for layer in range(config.depth - 1, 0, -1):
        delta = g * slopes[layer] * scales[layer]
        residual = config.kind == "residual"
        if residual:
            delta *= config.etas[layer - 1]
        down = torch.from_numpy(np.matmul(delta.unsqueeze(1).numpy(), weights[layer].numpy()))[:, 0]
        g = g + down if residual else down
        back.append(_mean_square(g))
    return np.stack(forward, 1), np.stack(back[::-1], 1)


def _projected(
    config: StackConfig,
    laws: _Laws,
    scales: list[float],
    f: Kernel,
    h: Tensor,
    streams: _Streams,
    backward: bool,
) -> tuple[Array, Array | None]:
    """Draw only what the two passes see; h (E, n_in)."""
    forward, seen = [], []
    for (target, law), scale in zip(laws, scales, strict=True):
        assert law.distribution is not None
        sd = law.distribution.std * scale
        z = streams.normal(target.name, len(h), target.shape[0])
        z *= h.double().norm(dim=1, keepdim=True).mul(sd).float()
        out = f.f(z)
        if backward:
            seen.append((h, z, _slope(f, z, out), sd))
        h = out
        forward.append(_mean_square(h))
    if not backward:
        return np.stack(forward, 1), None
    g = streams.normal("cotangent", *h.shape)
    g /= g.square().mean(1, keepdim=True).sqrt()
    back = [_mean_square(g)]
    for layer in range(config.depth - 1, 0, -1):
        below, z, slope, sd = seen[layer]
        delta = g * slope
        unit = F.normalize(below, dim=1, eps=1e-45)
        along = (z * delta).sum(1, keepdim=True) / below.norm(dim=1, keepdim=True).clamp_min(1e-45)
        free = streams.normal(f"back {layer}", *below.shape) * (sd * delta.norm(dim=1, keepdim=True))
        g = free + unit * (along - (free * unit).sum(1, keepdim=True))
        back.append(_mean_square(g))
    return np.stack(forward, 1), np.stack(back[::-1], 1)


def _convolve(
    config: StackConfig,
    laws: _Laws,
    scales: list[float],
    f: Kernel,
    h: Tensor,
    streams: _Streams,
    backward: bool,
) -> tuple[Array, Array | None]:
    """One grouped convolution per layer; h (E, c, H, W), zero padding. Forward lengths only."""
    E, forward = len(h), []
    h = h.reshape(1, -1, *h.shape[2:])
    for (target, law), scale in zip(laws, scales, strict=True):
        w = streams.weights(target, law, E) * scale
        h = f.f(F.conv2d(h, w.flatten(0, 1), padding=config.kernel // 2, groups=E))
        forward.append(_mean_square(h.reshape(E, -1)))
    return np.stack(forward, 1), None
