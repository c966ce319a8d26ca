"""Gradients behind weights whose rows a normalisation had divided by their own length."""

from __future__ import annotations

from firstlight.graph.signal import Signal, replace

PER_ROW = "per row"  # tag of a gradient that was divided by the length of a row of weights, with what that adds
_KNOWN_GAIN = 1.25  # E v·E 1/v up to which 1 + Var v/(E v)² says what it is, whatever the law of v


def past_weights(dx: Signal, g: Signal, fan: float, samples: int | None = None) -> Signal:
    """A gradient behind the weights whose rows had been divided by their own length over a batch.

    The gradient g in front of a batch normalisation carries E 1/v̂, v̂ = wᵀΣw of each row w of n = fan normal entries,
    larger than 1/E v̂. Behind the weights stands E |w|²/v̂ instead. Of each direction i of Σ, by Stein's identity,
    E w_i²/v̂ = E 1/v̂ - 2λ_i·E w_i²/v̂² (in units of E w_i²), and Σ λ_i w_i² = v̂: whatever Σ is, E |w|²/v̂ is
    (n - 2)·E 1/v̂, and the rows have 1 - 2/n of it. (A row is not divided by less than it has been.)

    What g has gained, E v̂·E 1/v̂, is known to second order in the scatter of v̂. Where that is large, stacks of batch
    norms have made Σ isotropic on r of the n directions (Daneshmand, Joudaki and Bach 2106.03970), which no mean field
    sees: the gain is then r/(r - 2), or a stack of thirty layers of tanh would seem to explode.

    Args:
        dx: The gradient behind the weights.
        g: The gradient in front of them.
        fan: Entries of a row, n; of others than normal ones 2/n is the relative variance of |w|².
        samples: Samples over which the rows were divided, less one, r at most; None for patches of an image.
    """
    if g.tag is None or g.tag[0] != PER_ROW:
        return dx
    kept, gain = 1.0 - 2.0 / max(fan, 3), g.tag[2]
    r = 0 if samples is None else min(fan, samples)
    if gain <= _KNOWN_GAIN or r <= 4:
        return replace(dx, q=dx.q * max(kept, 1.0 / gain))
    return replace(dx, q=dx.q * min(kept * r / (r - 2.0) / gain, 1.0))
