"""Points that a person draws, pastes or uploads, checked before anything is computed from them."""

from __future__ import annotations

import csv
import io
import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from firstlight.errors import InputError
from firstlight.playground.protocol import MAX_CSV_BYTES

MAX_POINTS = 10_000
MAX_FEATURES = 64
MAX_CLASSES = 20


@dataclass(frozen=True, slots=True)
class Points:
    """A labelled point set.

    Attributes:
        x: (count, features) float32.
        y: (count,) class numbers from 0.
        labels: The classes' names, by number.
    """

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    labels: tuple[str, ...]

    @classmethod
    def from_lists(cls, x: list[Any], y: list[Any]) -> Points:
        """Points drawn on the page: [[x0, x1], …] and class numbers.

        Raises:
            InputError: Too few or too many, ragged, not finite, or fewer than two classes.
        """
        if len(x) != len(y):
            raise InputError("points", got=f"{len(x)} positions and {len(y)} classes", expected="as many of both")
        _check_count(len(x))
        rows = []
        for row in x:
            if not isinstance(row, list) or len(row) != 2 or not all(_is_number(v) for v in row):
                raise InputError("points.x", got=repr(row)[:60], expected="pairs of finite numbers")
            rows.append(row)
        if not all(isinstance(v, int) and not isinstance(v, bool) for v in y):
            raise InputError("points.y", got="something that is no whole number", expected="class numbers")
        return _points(rows, [str(v) for v in y])

    @classmethod
    def from_csv(cls, text: str) -> Points:
        """A table whose last column is the class; a first line of names is skipped.

        Raises:
            InputError: Too large, ragged, a feature that is not a finite number, fewer than two classes.
        """
        size = len(text.encode(errors="replace"))  # JSON may hold halves of characters
        if size > MAX_CSV_BYTES:
            raise InputError(
                "csv",
                got=f"{size:,} bytes",
                expected=f"at most {MAX_CSV_BYTES:,}",
                action="Upload a sample of the rows.",
            )
        text = text.removeprefix("\ufeff")  # spreadsheets begin their files with it
        try:
            dialect = csv.Sniffer().sniff(text[:4096], delimiters=",;\t ")
        except csv.Error:
            dialect = csv.excel
        try:
            rows = [row for row in csv.reader(io.StringIO(text), dialect) if any(cell.strip() for cell in row)]
        except csv.Error as error:
            raise InputError("csv", got=f"text that is no table ({error})"[:120], expected="a CSV table") from error
        if dialect.delimiter != ",":  # then it is the decimal mark, if anything
            rows = [[*(cell.replace(",", ".") for cell in row[:-1]), row[-1]] for row in rows]
        if rows and not all(_number(cell) is not None for cell in rows[0][:-1]):
            rows = rows[1:]
        _check_count(len(rows))
        width = len(rows[0])
        if not 2 <= width <= MAX_FEATURES + 1:
            raise InputError("csv", got=f"{width} columns", expected=f"1 to {MAX_FEATURES} features and a class")
        values = []
        for number, row in enumerate(rows, start=1):
            numbers = [_number(cell) for cell in row[:-1]]
            if len(row) != width or any(v is None for v in numbers):
                got = f"row {number}: {dialect.delimiter.join(row)[:60]!r}"
                raise InputError("csv", got=got, expected=f"{width - 1} finite numbers and a class in every row")
            values.append(numbers)
        return _points(values, [row[-1].strip() for row in rows])


def _points(rows: list[Any], names: list[str]) -> Points:
    labels = tuple(sorted(set(names), key=lambda s: (_number(s) is None, _number(s) or 0.0, s)))
    if not 2 <= len(labels) <= MAX_CLASSES:
        raise InputError("points", got=f"{len(labels)} classes", expected=f"2 to {MAX_CLASSES}")
    with np.errstate(over="ignore"):
        x = np.asarray(rows, dtype=np.float32)
    if not np.isfinite(x).all():
        raise InputError("points", got="a number beyond the range of float32", expected="numbers below 3e38")
    number = {label: index for index, label in enumerate(labels)}
    return Points(x, np.asarray([number[n] for n in names], dtype=np.int64), labels)


def _check_count(count: int) -> None:
    if not 2 <= count <= MAX_POINTS:
        action = "Use a sample of them." if count > MAX_POINTS else "Add some, of two classes."
        got = "1 point" if count == 1 else f"{count:,} points"
        raise InputError("points", got=got, expected=f"2 to {MAX_POINTS:,}", action=action)


def _is_number(value: object) -> bool:
    # compared, not converted: JSON may hold whole numbers beyond all floats
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
