"""Records with a dictionary, which are made and copied by the ten thousand: filled at once, and what is kept in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")
V = TypeVar("V")


def filled_at_once(record: type[T]) -> type[T]:
    """A record whose constructor fills its dictionary at once: field by field, as frozen ones do, takes 7 µs for 2."""
    every = fields(cast(Any, record))
    names = [f.name for f in every]
    known = {f.name: f.default for f in every if f.default is not MISSING}
    made = {f.name: f.default_factory for f in every if f.default_factory is not MISSING}

    def init(self: T, *args: Any, **given: Any) -> None:
        values = known.copy()
        values.update(zip(names, args, strict=False))
        values.update(given)
        for name, make in made.items():
            if name not in values:
                values[name] = make()
        if len(values) != len(names):
            raise TypeError(f"{record.__name__} is made of {', '.join(names)}; given are {', '.join(values)}")
        object.__setattr__(self, "__dict__", values)

    record.__init__ = init
    return record


class Kept(Generic[T, V]):
    """A property that is worked out when it is first asked for, and taken along by copies of the record.

    That of `functools` takes a lock, and does not help copies.
    """

    def __init__(self, make: Callable[[T], V]) -> None:
        self._make, self.__doc__ = make, make.__doc__

    def __set_name__(self, owner: type[T], name: str) -> None:
        self._name = name

    def __get__(self, record: T, owner: type[T]) -> V:
        found = record.__dict__[self._name] = self._make(record)
        return found
