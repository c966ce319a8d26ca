"""Every set by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from firstlight.errors import DataError, InputError
from firstlight.lab.data.bundled import BUNDLED, load_bundled
from firstlight.lab.data.dataset import Splits
from firstlight.lab.data.images import FASHION, MNIST, load_images
from firstlight.lab.data.planar import PLANAR, planar
from firstlight.lab.data.spoken_digits import load_spoken_digits
from firstlight.lab.data.timit import load_timit

_FROM_FILES: dict[str, Callable[..., Splits]] = {
    "mnist": partial(load_images, MNIST),
    "fashion-mnist": partial(load_images, FASHION),
    "spoken-digits": load_spoken_digits,
    "timit": load_timit,
}
NAMES = (*_FROM_FILES, *BUNDLED, *PLANAR)


def load(name: str, data: str | Path | None = None, **options: object) -> Splits:
    """Load a set by its name.

    Write ``train, test = load("mnist")``.

    Args:
        name: One of `NAMES`.
        data: The only folder to look in, for sets that are files.
        **options: For the set's own loader: ``fetch=False``, ``unit="utterance"``, ``phones=61``, ``n=200``.

    Raises:
        InputError: If there is no such set; the nearest name is offered.
        DataError: If its files are missing or damaged.
    """
    if name in _FROM_FILES:
        return _FROM_FILES[name](data, **options)
    if name in BUNDLED:
        return load_bundled(name, **options)  # type: ignore[arg-type]
    if name in PLANAR:
        return planar(name, **options)  # type: ignore[arg-type]
    near = get_close_matches(name, NAMES, n=1)
    raise InputError(
        "data set",
        got=repr(name),
        expected="one of " + ", ".join(NAMES),
        action=f"Did you mean {near[0]!r}?" if near else "",
    )


def load_or_digits(name: str, data: str | Path | None = None) -> Splits:
    """Load an image set, or scikit-learn's digits where it is on no disk and cannot be fetched.

    A folder that was asked for by `data` and does not hold the set, and a file that is damaged, stay errors:
    they are mistakes to mend, no reason to train on something else. The digits' `source` says what they stand
    for.
    """
    if name in BUNDLED:
        return load(name)
    try:
        return load(name, data, fetch=False)
    except DataError as missing:
        if data is not None or missing.where not in (MNIST.title, FASHION.title):
            raise
    try:
        return load(name)
    except DataError as error:
        source = f"scikit-learn's bundled digits (8 × 8), because {name} is on no disk and cannot be fetched"
        if error.where.startswith(("train-", "t10k-")):
            return Splits(*(replace(part, source=source) for part in load_bundled("digits")))
        raise
