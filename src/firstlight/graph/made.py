"""How a tensor was made, where the same may be done to another one: shared weights (`rules.state.twins`)."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from firstlight.graph.signal import Signal


class Way(Enum):
    """What is known of the map from a tensor's inputs to the tensor."""

    AFFINE = "affine in each input"
    JOINT = "affine in all inputs together"
    LENGTH = "affine in its input, but for the length that it divides by"
    EACH = "affine in each input or their exponential, so that what two have in common makes what the outputs have"
    PRODUCT = "the product of its two inputs"
    TERMS = "what its terms say"
    KEPT = "its input times independent numbers of mean one"
    AROUND = "its input, and something independent of mean zero"
    DATA = "given"
    ANY = "any"


class Made(NamedTuple):
    """How a tensor was made of others.

    Attributes:
        way: What is known of the map.
        key: Operation, options and weights: two tensors with one key are values of one map.
        inputs: What the map was applied to.
        again: The map, without what it adds to its inputs.
        data: Entries of an input of the network.
        gain: n·E w² of a dense layer of n independent weights of mean 0 on each unit of the last axis, else None.
    """

    way: Way
    key: Hashable = None
    inputs: tuple[Signal, ...] = ()
    again: Callable[[tuple[Signal, ...]], Signal] | None = None
    data: npt.NDArray[np.float64] | None = None
    gain: float | None = None
