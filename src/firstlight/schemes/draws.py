"""Streams of random numbers, and the laws of independent entries.

A parameter's numbers come from Philox (a counter-based generator) keyed by (seed, parameter name), in chunks
of `CHUNK` entries that each start at a counter of their own. So the values depend on seed, name and shape
alone: not on the order in which parameters are drawn, on other parameters, on the device, on the element type
(all draw in single precision and cast) or on the number of threads; and any chunk can be drawn without the
others.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from firstlight.errors import InputError

Floats = npt.NDArray[np.float32]
Kind = Literal["normal", "uniform", "truncated", "constant"]

CHUNK = 1 << 16
LARGEST = 1e38  # standard deviations and means beyond are none of single precision
TRUNCATION = 2.0  # truncated normals are cut at ± this many standard deviations of the parent
_PARALLEL_FROM = 1 << 20  # below, starting threads costs more than it saves

# Names that wrappers put into a parameter's path; the same weights come with and without the wrapper.
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


def _truncated_moments(a: float) -> tuple[float, float]:
    """Variance and kurtosis of N(0,1) cut to [-a, a].

    With Z = P(|z| ≤ a) and b = 2aφ(a)/Z: E z² = 1 - b and E z⁴ = 3(1 - b) - a²b, by parts.
    """
    mass = math.erf(a / math.sqrt(2.0))
    b = 2.0 * a * math.exp(-0.5 * a * a) / math.sqrt(2.0 * math.pi) / mass
    variance = 1.0 - b
    return variance, (3.0 * variance - a * a * b) / variance**2


TRUNCATED_VARIANCE, TRUNCATED_KURTOSIS = _truncated_moments(TRUNCATION)


@dataclass(frozen=True, slots=True)
class Distribution:
    """A law of independent entries, given by mean and standard deviation of the entries *as drawn*.

    Attributes:
        kind: "normal", "uniform", "truncated" (cut at two sd of its parent; `std` is that of the entries
            after the cut, so the parent's is std/0.8796256610), or "constant".
        std: Standard deviation of the entries.
        mean: Mean of the entries.

    Raises:
        InputError: Entries that single precision, in which all are drawn, does not have.
    """

    kind: Kind
    std: float = 0.0
    mean: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        for name, value in (("standard deviation", self.std), ("mean", self.mean)):
            if not abs(value) <= LARGEST:
                raise InputError(
                    f"entries of a scheme, {name}",
                    got=repr(value),
                    expected=f"a finite number of at most {LARGEST:g}: weights are drawn in single precision",
                )

    @property
    def variance(self) -> float:
        """Variance of the entries."""
        return self.std**2

    @property
    def kurtosis(self) -> float:
        """E w⁴/(E w²)² of the centred entries; 3 by convention for constants, where it is not defined."""
        return {"uniform": 1.8, "truncated": TRUNCATED_KURTOSIS}.get(self.kind, 3.0)

    def fill(self, generator: np.random.Generator, out: Floats) -> None:
        """Fill a float32 array in place with independent entries."""
        if self.kind == "constant" or self.std == 0.0:
            out.fill(self.mean)
            return
        if self.kind == "normal":
            generator.standard_normal(out=out, dtype=np.float32)
            out *= np.float32(self.std)
        elif self.kind == "uniform":
            # Multiples of 2^-24 in [0, 1), moved to the middle of their cell: symmetric about zero.
            bound = math.sqrt(3.0) * self.std
            generator.random(out=out, dtype=np.float32)
            out -= np.float32(0.5 - 2.0**-25)
            out *= np.float32(2.0 * bound)
        else:
            _fill_truncated(generator, out)
            out *= np.float32(self.std / math.sqrt(TRUNCATED_VARIANCE))
        if self.mean != 0.0:
            out += np.float32(self.mean)


def _fill_truncated(generator: np.random.Generator, out: Floats) -> None:
    """N(0,1) cut to ±TRUNCATION: draw all, then redraw only those that fell outside (4.6 %, 0.2 %, ...)."""
    generator.standard_normal(out=out, dtype=np.float32)
    outside = np.flatnonzero(np.abs(out) > TRUNCATION)
    while outside.size:
        again = generator.standard_normal(outside.size, dtype=np.float32)
        out[outside] = again
        outside = outside[np.abs(again) > TRUNCATION]


@dataclass(frozen=True, slots=True)
class Stream:
    """The random numbers that belong to one parameter.

    Attributes:
        seed: The user's seed.
        name: The parameter's qualified name.
    """

    seed: int
    name: str

    def generator(self, chunk: int = 0) -> np.random.Generator:
        """A generator at the start of a chunk; chunks do not overlap (each has 2^192 counters)."""
        name = _WRAPPERS.sub("", self.name)
        digest = hashlib.blake2b(f"{self.seed}\0{name}".encode(), digest_size=16).digest()
        key = np.frombuffer(digest, dtype="<u8").astype(np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, chunk], np.uint64)))

    def fill(self, distribution: Distribution, out: Floats, *, start: int = 0) -> None:
        """Fill a flat float32 array in place; `start` (a multiple of CHUNK) is its first entry's position.

        Large arrays are filled by as many threads as torch may use; the values do not depend on their number.
        """
        spans = list(_spans(out.size, start))

        def one(span: tuple[int, int, int]) -> None:
            chunk, low, high = span
            distribution.fill(self.generator(chunk), out[low:high])

        workers = min(torch.get_num_threads(), len(spans))
        if out.size < _PARALLEL_FROM or workers < 2 or distribution.std == 0.0:
            for span in spans:
                one(span)
            return
        with ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(one, spans, chunksize=max(1, len(spans) // (8 * workers))):
                pass

    def normal(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Standard normal entries, float32, on the CPU."""
        out = torch.empty(shape)
        self.fill(Distribution("normal", 1.0), out.view(-1).numpy())
        return out


def _spans(size: int, start: int) -> Iterator[tuple[int, int, int]]:
    if start % CHUNK:
        raise ValueError(f"start must be a multiple of {CHUNK}, got {start}")
    for low in range(0, size, CHUNK):
        yield (start + low) // CHUNK, low, min(low + CHUNK, size)
