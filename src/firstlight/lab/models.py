"""Deep stacks as frozen records: depth, width or a parameter budget, activation, residual weights, scheme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

from firstlight.errors import InputError
from firstlight.theory import activations

Kind = Literal["plain", "residual", "conv"]
KINDS: tuple[Kind, ...] = ("plain", "residual", "conv")


@dataclass(frozen=True)
class StackConfig:
    """One network of the lab: inputs → `depth` hidden layers → linear readout.

    plain: h_l = φ(W_l h_{l-1} + b_l). residual: the same first layer, then h_l = h_{l-1} + η_l φ(W_l h_{l-1}
    + b_l). conv: as plain, with k × k convolutions (padding k // 2, stride 1), a mean over positions and the
    readout.

    Attributes:
        inputs: Entries of one sample; for conv the number of input channels.
        outputs: Width of the readout.
        depth: Number D of hidden layers.
        width: Units (conv: channels) of every hidden layer, or one number per layer; None where `parameters`
            is given.
        parameters: Budget of weights and biases, readout included; the widest equal width that fits is taken.
        activation: Name in `theory.activations`.
        scheme: Name of an initialization of `lab.draws`.
        gain: g of σ_w² = g²/fan_in, in place of the scheme's own; None keeps the scheme's.
        readout_gain: g of the readout, in place of the scheme's own; None keeps the scheme's. Saturating stacks
            at criticality hand on small signals; a gain of 1/√q of the last layer gives outputs of size one.
        bias: Whether layers have biases (zero at the start).
        kind: "plain", "residual" or "conv".
        eta: Residual weight: one number, a sequence of depth - 1 numbers, or the text "1/sqrt(L)", L = depth
            - 1.
        kernel: Side k of the convolution kernels.

    Raises:
        InputError: If the numbers do not describe a network.
    """

    inputs: int
    outputs: int
    depth: int
    width: int | tuple[int, ...] | None = None
    parameters: int | None = None
    activation: str = "relu"
    scheme: str = "random-walk"
    gain: float | None = None
    bias: bool = True
    kind: Kind = "plain"
    eta: float | tuple[float, ...] | str = 1.0
    kernel: int = 3
    readout_gain: float | None = None

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs", "depth"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise InputError(f"stack, {name}", got=repr(getattr(self, name)), expected="a positive integer")
        if self.kind not in KINDS:
            raise InputError("stack, kind", got=repr(self.kind), expected=" or ".join(map(repr, KINDS)))
        if (self.width is None) == (self.parameters is None):
            raise InputError(
                "stack",
                got=f"width={self.width!r} and parameters={self.parameters!r}",
                expected="exactly one of the two",
            )
        if isinstance(self.width, Sequence):  # lists come from TOML and JSON
            object.__setattr__(self, "width", tuple(int(n) for n in self.width))
        if isinstance(self.width, tuple) and len(self.width) != self.depth:
            raise InputError("stack, width", got=f"{len(self.width)} widths", expected=f"{self.depth}, one a layer")
        given = self.width if isinstance(self.width, tuple) else () if self.width is None else (self.width,)
        if any(n < 1 for n in given):
            raise InputError("stack, width", got=repr(self.width), expected="positive integers")
        if self.kind == "residual" and len(set(self.hidden)) > 1:
            raise InputError("stack, width", got=repr(self.width), expected="equal widths in a residual stack")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise InputError("stack, kernel", got=repr(self.kernel), expected="an odd number")
        for name, gain in (("gain", self.gain), ("readout_gain", self.readout_gain)):
            if gain is not None and not (math.isfinite(gain) and gain >= 0):
                raise InputError(f"stack, {name}", got=repr(gain), expected="a finite number, 0 or more")
        activations.get(self.activation)
        _ = self.hidden, self.etas

    @cached_property  # a budget is solved once, not at every look at a layer
    def hidden(self) -> tuple[int, ...]:
        """Width of each hidden layer."""
        if isinstance(self.width, tuple):
            return self.width
        return (self.width or width_for(self),) * self.depth

    @property
    def widths(self) -> tuple[int, ...]:
        """Inputs, hidden widths, outputs: depth + 2 numbers."""
        return (self.inputs, *self.hidden, self.outputs)

    @property
    def etas(self) -> tuple[float, ...]:
        """η of hidden layers 2 … D; empty for stacks that are not residual."""
        if self.kind != "residual":
            return ()
        count = self.depth - 1
        if isinstance(self.eta, str):
            if self.eta.replace(" ", "") != "1/sqrt(L)":
                raise InputError("stack, eta", got=repr(self.eta), expected='a number, numbers, or "1/sqrt(L)"')
            return (1.0 / math.sqrt(max(count, 1)),) * count
        if isinstance(self.eta, Sequence):
            object.__setattr__(self, "eta", tuple(float(e) for e in self.eta))
            if len(self.eta) != count:
                raise InputError("stack, eta", got=f"{len(self.eta)} numbers", expected=f"{count}, depth - 1")
            return self.eta  # type: ignore[return-value]
        return (float(self.eta),) * count


def count_parameters(config: StackConfig, width: int | None = None) -> int:
    """Weights and biases, readout included, with all hidden layers `width` wide if that is given."""
    hidden = (width,) * config.depth if width else config.hidden
    widths, taps = (config.inputs, *hidden), config.kernel**2 if config.kind == "conv" else 1
    one = int(config.bias)
    layers = sum(n_out * (taps * n_in + one) for n_in, n_out in pairwise(widths))
    return layers + config.outputs * (widths[-1] + one)


def width_for(config: StackConfig) -> int:
    """Widest equal width whose parameters fit the budget `config.parameters`.

    Raises:
        InputError: If not even width 1 fits.
    """
    budget = config.parameters or 0
    if count_parameters(config, 1) > budget:
        raise InputError(
            "stack, parameters",
            got=f"{budget:,}",
            expected=f"at least {count_parameters(config, 1):,} for {config.depth} layers of one unit",
        )
    low, high = 1, 2
    while count_parameters(config, high) <= budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count_parameters(config, middle) <= budget else (low, middle)
    return low
