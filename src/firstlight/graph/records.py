"""JSON for frozen records: any dataclass built from numbers, strings, tuples, mappings and further records."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, Self, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from firstlight.errors import DataError

T = TypeVar("T")

# JSON has no words for these; strict parsers reject the bare tokens that Python would write.
_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class Written:
    """A record that is written as JSON and read back; what the verbs return."""

    __slots__ = ()

    def to_json(self, indent: int | None = None) -> str:
        """As JSON; non-finite numbers become the strings "nan", "inf", "-inf", so any parser can read it."""
        return to_json(self, indent)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            DataError: If the text is not JSON or not a record of this class.
        """
        return from_json(cls, text)


def to_json(record: Any, indent: int | None = None) -> str:
    """The record as JSON, with its class name under "record"; non-finite numbers as "nan", "inf", "-inf"."""
    data = {"record": type(record).__name__, **encode(record)}
    return json.dumps(data, indent=indent, allow_nan=False, ensure_ascii=False)


def from_json(cls: type[T], text: str) -> T:
    """Rebuild a record of class `cls` from what `to_json` wrote.

    Raises:
        DataError: If the text is not JSON, or not that record.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{cls.__name__}.from_json",
            got=f"text that is not JSON ({error})",
            expected="what to_json() wrote",
        ) from error
    if not isinstance(data, dict) or data.get("record") != cls.__name__:  # pyright: ignore[reportUnknownMemberType]
        kind: object = data.get("record", "an object") if isinstance(data, dict) else type(data).__name__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        raise DataError(f"{cls.__name__}.from_json", got=f"{kind}", expected=f"a {cls.__name__}")
    try:
        return decode(cls, data)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{cls.__name__}.from_json",
            got=f"fields that do not fit ({error})",
            expected=f"the fields of {cls.__name__}",
            action="Write the file again with this version of firstlight.",
        ) from error


def encode(value: object) -> Any:
    """A record, or any part of one, in terms of what JSON knows."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, np.ndarray):
        return encode(cast(object, value.tolist()))
    if isinstance(value, Mapping):
        return {str(k): encode(v) for k, v in cast(Mapping[object, object], value).items()}
    if isinstance(value, tuple | list):
        return [encode(v) for v in cast(Sequence[object], value)]
    if isinstance(value, np.generic):
        return encode(cast(object, value.item()))
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def decode(kind: Any, data: Any) -> Any:
    """The value of type `kind` (a record class or an annotation of one of its fields) that `data` encodes."""
    origin = get_origin(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        hints = _hints(kind)
        return kind(**{f.name: decode(hints[f.name], data[f.name]) for f in fields(kind) if f.name in data})
    if origin in (Union, types.UnionType):
        if data is None:
            return None
        choices = [c for c in get_args(kind) if c is not type(None)]
        return decode(choices[0], data)
    if origin is tuple:
        inner = get_args(kind)
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(decode(inner[0], item) for item in data)
        return tuple(decode(k, item) for k, item in zip(inner, data, strict=True))
    if origin is not None and issubclass(origin if isinstance(origin, type) else type(None), Mapping):
        return MappingProxyType({k: decode(get_args(kind)[1], v) for k, v in data.items()})
    if origin is Literal:
        if data not in get_args(kind):
            raise ValueError(f"{data!r} is not one of {get_args(kind)}")
        return data
    if kind is float:
        return _NON_FINITE[data] if isinstance(data, str) else float(data)
    if kind in (int, str, bool) and not isinstance(data, kind):
        raise TypeError(f"{data!r} is not of type {kind.__name__}")
    return data
