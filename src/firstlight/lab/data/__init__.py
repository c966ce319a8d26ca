"""Data sets of the lab, every one in one form: two `Dataset` records, ``train, test = load(name)``.

NumPy arrays, ``x`` float32 of shape (n, *sample) and ``y`` int64 of shape (n,). Nothing here imports torch.
"""

from __future__ import annotations

from firstlight.lab.data.catalogue import NAMES, load
from firstlight.lab.data.dataset import Dataset, Splits

__all__ = ["NAMES", "Dataset", "Splits", "load"]
