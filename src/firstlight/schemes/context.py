"""What a scheme is told and what it answers: `Target` and `Context` in, `Draw` out. All frozen.

A scheme is one pure function ``(Target, Context) -> Draw``. The `Draw` declares its law without drawing, so
that a prediction can use it before any weight exists; the same `Draw` fills the tensor when it is asked to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from firstlight.graph.ir import Law
from firstlight.schemes.draws import Distribution, Stream
from firstlight.theory.activations import Activation

Role = Literal["weight", "readout", "branch end", "embedding", "bias", "gain", "slope", "other"]
WEIGHTS: frozenset[Role] = frozenset[Role]({"weight", "readout", "branch end"})


@dataclass(frozen=True, slots=True)
class Builtin:
    """The law that the layer's own ``reset_parameters`` gives to a parameter.

    Attributes:
        kind: "uniform" (value: bound), "normal" (value: sd) or "constant" (value: the constant).
        value: See `kind`.
    """

    kind: Literal["uniform", "normal", "constant"]
    value: float


@dataclass(frozen=True, slots=True)
class Target:
    """One parameter, seen as part of its layer.

    Attributes:
        name: Qualified name; the key of its random numbers.
        shape: Sizes.
        role: What the entries do to the signal.
        module_type: Class name of the owning module.
        fan_in: Entries of the input that one entry of the output sums over, on average over output positions
            (zero padding not counted).
        fan_out: Entries of the output that one entry of the input reaches, likewise.
        split: Independent maps stacked along axis 0: gates, query/key/value, groups.
        in_axes: Axes summed over; the others index outputs.
        kernel_axes: Spatial axes of a convolution's kernel.
        channels: (inputs, outputs) of one of the `split` maps, kernel positions not counted.
        builtin: The law of the layer's own ``reset_parameters``, where it is known.
        zero_rows: Rows that stay zero (an embedding's ``padding_idx``).
        offset: What the network adds to a gain before it multiplies with it: 1 in norms whose gain is 1 + w.
    """

    name: str
    shape: tuple[int, ...]
    role: Role
    module_type: str = ""
    fan_in: float | None = None
    fan_out: float | None = None
    split: int = 1
    in_axes: tuple[int, ...] = (1,)
    kernel_axes: tuple[int, ...] = ()
    channels: tuple[int, int] | None = None
    builtin: Builtin | None = None
    zero_rows: tuple[int, ...] = ()
    offset: float = 0.0

    @property
    def numel(self) -> int:
        """Number of entries."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True, slots=True)
class Context:
    """Where a layer stands in the network.

    Attributes:
        activation: The nonlinearity whose gain the layer takes: the one whose output it reads; else, if that
            one is homogeneous, the one that follows; None where there is neither.
        activation_side: "before", "after", or "" where there is none.
        feeds_activation: Whether an activation follows before the next weight layer.
        factor: What the layer's output is multiplied with besides its own weights: constants between the activation
            before and the layer, on the weights, and between the layer and the activation behind.
        width: Units of that nonlinearity's layer (channels of a convolution); None if unknown.
        depth: Weight layers on the longest path through the network; 0 where the graph was not seen.
        branches: Residual branches in the network.
        branch_layers: Weight layers in this layer's branch; 0 outside branches.
        traced: Whether roles come from the graph.
        neighbours: Whether it is known what stands before and behind the layer, from the graph or because it
            stands in an ``nn.Sequential``.
    """

    activation: Activation | None = None
    activation_side: str = ""
    feeds_activation: bool = False
    factor: float = 1.0
    width: int | None = None
    depth: int = 0
    branches: int = 0
    branch_layers: int = 0
    traced: bool = False
    neighbours: bool = False


@dataclass(frozen=True, slots=True)
class Draw:
    """A parameter's law, and the way to draw from it.

    Attributes:
        law: Mean, variance, kurtosis and structure of the entries.
        distribution: Law of iid entries; None where `build` makes the whole tensor.
        build: Makes the whole tensor (float32 or float64) from a stream of random numbers.
        gain: The gain g in variance g²/fan, where the scheme has one.
        reason: Why this law, in a few words.
    """

    law: Law
    distribution: Distribution | None = None
    build: Callable[[Stream, torch.dtype], torch.Tensor] | None = None
    gain: float | None = None
    reason: str = ""


def iid(distribution: Distribution, *, gain: float | None = None, reason: str = "") -> Draw:
    """A draw of independent entries."""
    law = Law(
        mean=distribution.mean,
        variance=distribution.variance,
        kurtosis=distribution.kurtosis,
        structure="iid" if distribution.variance > 0.0 else "constant",
    )
    return Draw(law=law, distribution=distribution, gain=gain, reason=reason)
