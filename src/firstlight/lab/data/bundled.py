"""scikit-learn's bundled sets: small, and there on every machine without a network."""

from __future__ import annotations

import numpy as np

from firstlight.errors import DataError, InputError
from firstlight.lab.data.dataset import Dataset, Splits

_TEST_SHARE = 0.2
_LOADERS = {
    "digits": "load_digits",
    "iris": "load_iris",
    "wine": "load_wine",
    "breast-cancer": "load_breast_cancer",
}
BUNDLED = tuple(_LOADERS)


def load_bundled(name: str, seed: int = 0) -> Splits:
    """Read one of scikit-learn's sets; every class is split 80 : 20 by `seed`.

    Digits come as images (n, 8, 8) with entries in [0, 1]; the tables come as columns standardized by the
    training part.

    Raises:
        DataError: If scikit-learn is not installed.
    """
    if name not in _LOADERS:
        raise InputError("data set", got=repr(name), expected="one of " + ", ".join(BUNDLED))
    try:
        from sklearn import datasets
    except ImportError:
        raise DataError(
            f"scikit-learn's {name}",
            got="no scikit-learn",
            expected="scikit-learn, which holds this set",
            action="Install it: pip install 'firstlight[lab]'.",
        ) from None
    bunch = getattr(datasets, _LOADERS[name])()
    y = np.asarray(bunch.target, dtype=np.int64)
    test = _stratified(y, np.random.default_rng(seed))
    x = np.asarray(bunch.data, dtype=np.float64)
    if name == "digits":
        x, source = x.reshape(-1, 8, 8) / 16.0, "scikit-learn's bundled digits (1,797 images of 8 × 8)"
    else:
        mean, sd = x[~test].mean(axis=0), x[~test].std(axis=0)
        x, source = (x - mean) / sd, f"scikit-learn's bundled {name} ({len(y):,} rows)"
    classes = tuple(str(label) for label in bunch.target_names)
    return Splits(
        *(
            Dataset(name, split, x[rows].astype(np.float32), y[rows], classes, source)
            for split, rows in (("train", ~test), ("test", test))
        )
    )


def _stratified(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mark a share of every class as test rows."""
    test = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        test[rng.permutation(members)[: round(_TEST_SHARE * len(members))]] = True
    return test
