"""Networks drawn weight by weight, and the tables that the theory has to reproduce."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

REFERENCE = Path(__file__).parents[1] / "reference"


def table(name: str) -> dict[str, Any]:
    return tomllib.loads((REFERENCE / f"{name}.toml").read_text(encoding="utf-8"))


def half_digit(text: str) -> float:
    """Half a unit of the last printed digit (and a hair for the decimal's own rounding)."""
    exponent = Decimal(text).as_tuple().exponent
    assert isinstance(exponent, int)
    return 0.5 * 10.0**exponent * (1 + 1e-9)


def printed(value: float, text: str) -> bool:
    """Whether a value rounds to the printed number."""
    return abs(value - float(text)) <= half_digit(text)


def stack(widths, draws, rng, *, fan_in=None, gain=2**0.5, f=lambda z: np.maximum(z, 0), law="normal"):
    """M_l of layers 1 … d for independently drawn networks on one fixed input; shape (d, draws)."""
    n_in = fan_in or widths[0]
    h = np.ones((draws, n_in))
    out = []
    for n in widths:
        shape = (draws, n, h.shape[1])
        if law == "normal":
            w = rng.standard_normal(shape)
        elif law == "uniform":
            w = rng.uniform(-(3**0.5), 3**0.5, shape)
        else:
            w = rng.choice([-1.0, 1.0], shape)
        z = gain / h.shape[1] ** 0.5 * np.matmul(w, h[:, :, None])[:, :, 0]
        h = f(z)
        out.append(np.mean(h * h, axis=1))
    return np.array(out)


def standard_error(sample) -> float:
    return float(np.std(sample, ddof=1) / len(sample) ** 0.5)
