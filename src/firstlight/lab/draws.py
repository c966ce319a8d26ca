"""The members of an ensemble and the weights they start from: the library's own schemes on bare tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from firstlight.errors import InputError
from firstlight.lab.models import StackConfig
from firstlight.lab.networks import Network
from firstlight.schemes.context import Builtin, Context, Draw, Target
from firstlight.schemes.draws import Stream
from firstlight.schemes.registry import resolve
from firstlight.theory import activations


@dataclass(frozen=True)
class Member:
    """One network of an ensemble.

    Attributes:
        seed: Of the weights.
        gain: g in place of the configuration's; None keeps it.
        rate: Learning rate in place of the schedule's; None keeps it.
    """

    seed: int = 0
    gain: float | None = None
    rate: float | None = None


def layer_draw(config: StackConfig, layer: int) -> tuple[Target, Draw]:
    """The law of one layer's weight under the configuration's scheme; layer `depth` is the readout.

    The layer is described to the scheme as the graph of the same network would: layers above the first read
    the activation; the first is followed by it, which matters for the gain where φ is homogeneous.

    Raises:
        RegistryError: Unknown scheme.
        InputError: A scheme that leaves weights alone.
    """
    act = activations.get(config.activation)
    n_in, n_out = config.widths[layer], config.widths[layer + 1]
    taps = config.kernel**2 if config.kind == "conv" and layer < config.depth else 1
    readout, residual = layer == config.depth, config.kind == "residual"
    shape = (n_out, n_in, config.kernel, config.kernel) if taps > 1 else (n_out, n_in)
    target = Target(
        name=f"layers.{layer}.weight",
        shape=shape,
        role="readout" if readout else "weight",
        module_type="Conv2d" if taps > 1 else "Linear",
        fan_in=float(n_in * taps),
        fan_out=float(n_out * taps),
        in_axes=(1, 2, 3) if taps > 1 else (1,),
        kernel_axes=(2, 3) if taps > 1 else (),
        channels=(n_in, n_out),
        builtin=Builtin("uniform", (n_in * taps) ** -0.5),  # what torch's own reset_parameters draws
    )
    reads = layer > 0
    context = Context(
        activation=act if reads or act.degree == 1.0 else None,
        activation_side="before" if reads else "after",
        feeds_activation=not readout,
        width=n_in if reads else n_out,
        depth=config.depth + 1,
        branches=config.depth - 1 if residual else 0,
        branch_layers=1 if residual and 0 < layer < config.depth else 0,
        traced=True,
    )
    law = resolve(config.scheme).function(target, context)
    if isinstance(law, str):
        raise InputError(f"scheme {config.scheme!r}", got=law, expected="a law for every weight")
    return target, law


def check_stack(config: StackConfig) -> None:
    """Raise what would keep a stack's weights from being drawn (see `layer_draw`)."""
    for layer in {0, min(1, config.depth), config.depth}:
        layer_draw(config, layer)


def draw(target: Target, law: Draw, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """One weight tensor from its law; the numbers depend on seed, name and shape alone."""
    stream = Stream(seed, target.name)
    if law.distribution is not None:
        out = torch.empty(target.shape)
        stream.fill(law.distribution, out.view(-1).numpy())
        return out.to(dtype)
    assert law.build is not None
    return law.build(stream, dtype)


def layer_weight(config: StackConfig, layer: int, member: Member, dtype: torch.dtype = torch.float32) -> Tensor:
    """A member's weight of one layer: the scheme's draw, rescaled where a gain is given.

    The member's gain, else the configuration's, replaces g in σ_w² = g²/fan_in of the hidden layers;
    `readout_gain` that of the readout. Draws without a gain of their own (zeros) stay as they are.
    """
    target, law = layer_draw(config, layer)
    weight = draw(target, law, member.seed, dtype)
    gain = member.gain if member.gain is not None else config.gain
    if layer == config.depth:
        gain = config.readout_gain
    return weight * (gain / law.gain) if gain is not None and law.gain else weight


def layer_bias(config: StackConfig, layer: int, member: Member, size: int) -> Tensor | None:
    """A member's biases of one layer (size,) where the scheme draws them; None for zeros."""
    std = resolve(config.scheme).bias_std
    if not std:
        return None
    target, _ = layer_draw(config, layer)
    return std * Stream(member.seed, target.name.replace("weight", "bias")).normal((size,))


def draw_stack(stack: Network, members: Sequence[Member]) -> None:
    """Fill the weights of all members; biases are zero, or N(0, σ_b²) where the scheme has a `bias_std`.

    See `layer_weight` for the gains.
    """
    config = stack.config
    first = [next(i for i, m in enumerate(members) if (m.seed, m.gain) == (own.seed, own.gain)) for own in members]
    for run in stack.weights:
        run.zero_()
    for layer in range(config.depth + 1):
        into, bias = stack.weight(layer), stack.bias(layer)
        for index, member in enumerate(members):
            if first[index] < index:  # members that differ by their rate alone start from the same weights
                into[index].copy_(into[first[index]])
                if bias is not None:
                    bias[index].copy_(bias[first[index]])
                continue
            into[index].copy_(layer_weight(config, layer, member, stack.dtype).reshape(into[index].shape))
            if bias is not None and (drawn := layer_bias(config, layer, member, bias.shape[1])) is not None:
                bias[index].copy_(drawn)
