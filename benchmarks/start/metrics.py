"""How well a score tells who starts: area under the curve with its interval, and calibration in bins."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Labels = NDArray[np.bool_]
Z95 = 1.959964


@dataclass(frozen=True)
class Area:
    """AUC with the limits of its 95 % interval.

    Attributes:
        value: Probability that a network that starts scores above one that does not; ties count half.
        low: Lower limit.
        high: Upper limit.
    """

    value: float
    low: float
    high: float


def area(score: Scores, starts: Labels) -> Area:
    """AUC with DeLong's interval, on the logit scale so that it stays inside (0, 1).

    Each network's share of won comparisons is a sample; Var AUC = Var(shares of the good)/m + Var(of the bad)/n
    (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988).
    """
    good, bad = score[starts], score[~starts]
    if not len(good) or not len(bad):
        return Area(math.nan, math.nan, math.nan)
    won = (good[:, None] > bad[None, :]) + 0.5 * (good[:, None] == bad[None, :])
    value = float(won.mean())
    if min(len(good), len(bad)) < 2:
        return Area(value, math.nan, math.nan)
    variance = won.mean(1).var(ddof=1) / len(good) + won.mean(0).var(ddof=1) / len(bad)
    inner = min(max(value, 0.5 / won.size), 1.0 - 0.5 / won.size)
    logit, sd = math.log(inner / (1.0 - inner)), math.sqrt(variance) / (inner * (1.0 - inner))
    return Area(value, _expit(logit - Z95 * sd), _expit(logit + Z95 * sd))


def _expit(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x > -700.0 else 0.0


@dataclass(frozen=True)
class Bin:
    """Networks whose P(start) lies between two limits.

    Attributes:
        low: Lower limit.
        high: Upper limit.
        count: Networks.
        said: Their mean P(start).
        started: Share of them that start.
        below: Lower end of Wilson's 95 % interval of that share.
        above: Upper end.
    """

    low: float
    high: float
    count: int
    said: float
    started: float
    below: float
    above: float


EDGES = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)


def bins(p: Scores, starts: Labels, edges: tuple[float, ...] = EDGES) -> list[Bin]:
    """The calibration curve; bins without networks are left out."""
    out: list[Bin] = []
    for low, high in itertools.pairwise(edges):
        inside = (p >= low) & ((p < high) | (high == edges[-1]))
        n = int(inside.sum())
        if n:
            k = int(starts[inside].sum())
            middle, half = wilson(k, n)
            out.append(Bin(low, high, n, float(p[inside].mean()), k / n, middle - half, middle + half))
    return out


def wilson(k: int, n: int) -> tuple[float, float]:
    """Middle and half width of Wilson's 95 % interval of a share k/n."""
    share, z2 = k / n, Z95 * Z95
    half = Z95 * math.sqrt(share * (1.0 - share) / n + z2 / (4.0 * n * n)) / (1.0 + z2 / n)
    return (share + z2 / (2.0 * n)) / (1.0 + z2 / n), half


def brier(p: Scores, starts: Labels) -> float:
    """Mean (P - outcome)²; always saying the share s of starts gives s(1 - s)."""
    return float(((p - starts) ** 2).mean())


def calibration_error(p: Scores, starts: Labels) -> float:
    """Mean distance of said and started over the bins, weighted by their networks."""
    found = bins(p, starts)
    return sum(b.count * abs(b.said - b.started) for b in found) / max(1, len(p))
