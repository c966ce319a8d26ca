"""The record of a nonlinearity and its registry; the list itself stands in `theory.activations`."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.errors import InputError, RegistryError

Array = NDArray[np.float64]
Parameter = float | str
_INF = float("inf")


@dataclass(frozen=True)
class Activation:
    """A pointwise nonlinearity φ and what is known of it.

    Attributes:
        name: Registered name.
        f: φ, vectorised over NumPy arrays of any shape.
        df: φ′, vectorised; at a kink the value that torch uses for the gradient where that is settled.
        kinks: Inputs at which φ or one of its derivatives jumps; quadratures are split there.
        parameters: Constructor parameters with the values of this record, named as in torch.
        bounds: Infimum and supremum of φ.
        saturation: Inputs below and above which |φ′| is under 1 % of its largest value, for functions that
            saturate on both sides; infinite otherwise.
        dead_below: Largest input at and below which φ and φ′ are exactly 0 (a dead unit), or None.
        degree: p if φ(a·u) = a^p φ(u) for all a > 0, else None.
        period: Period of φ, or None; quadratures end a panel at each.
        scale: Size of the inputs over which φ bends; quadratures are graded by it.
        square: Closed form of E φ(u)² for u ~ N(0, q) as a function of q, or None.
        cross: Closed form of E φ(u)φ(v) for centred u, v as a function of (q_u, q_v, correlation), or None.
        reference: Key of `theory.bibliography`.
    """

    name: str
    f: Callable[[Array], Array]
    df: Callable[[Array], Array]
    kinks: tuple[float, ...] = ()
    parameters: tuple[tuple[str, Parameter], ...] = ()
    bounds: tuple[float, float] = (-_INF, _INF)
    saturation: tuple[float, float] = (-_INF, _INF)
    dead_below: float | None = None
    degree: float | None = None
    scale: float = 1.0
    period: float | None = None
    square: Callable[[Array], Array] | None = None
    cross: Callable[[Array, Array, Array], Array] | None = None
    reference: str = ""

    @property
    def bounded(self) -> bool:
        """Whether φ has a finite infimum and a finite supremum."""
        return all(np.isfinite(self.bounds))

    @property
    def slopes(self) -> tuple[float, float] | None:
        """Slopes (above, below) of a map that is linear on each side of zero (relu, abs, …), else None."""
        if self.degree != 1.0:
            return None
        right, left = self.f(np.array([1.0, -1.0]))
        return float(right), -float(left)

    def __reduce__(self) -> tuple[object, ...]:
        """Cross process borders by name, since functions written in place cannot be pickled."""
        return _rebuild, (self.name, self.parameters)

    def __call__(self, u: ArrayLike) -> Array:
        """φ(u)."""
        return self.f(np.asarray(u, dtype=np.float64))


_FACTORIES: dict[str, Callable[..., Activation]] = {}
_NAMES: dict[str, str] = {}  # simplified name or alias -> registered name
_DROPPED = str.maketrans("", "", "-_ ")


@functools.cache
def _simple(name: str) -> str:
    return name.lower().translate(_DROPPED).replace("²", "2")


def activation(name: str, *aliases: str) -> Callable[[Callable[..., Activation]], Callable[..., Activation]]:
    """Register the decorated factory under a name and aliases (case, '-' and '_' do not matter).

    Raises:
        RegistryError: The name or an alias is taken.
    """

    def register(factory: Callable[..., Activation]) -> Callable[..., Activation]:
        for key in dict.fromkeys(_simple(n) for n in (name, *aliases)):
            if key in _NAMES:
                raise RegistryError(
                    f"activation {name!r}",
                    got=f"a second entry for {key!r} (taken by {_NAMES[key]!r})",
                    expected="a name of its own",
                )
            _NAMES[key] = name
        _FACTORIES[name] = factory
        return factory

    return register


def names() -> tuple[str, ...]:
    """All registered names, in the order of this file."""
    return tuple(_FACTORIES)


def find(name: str) -> str | None:
    """Registered name for a name or alias, or None if there is none."""
    return _NAMES.get(_simple(name))


def aliases(name: str) -> tuple[str, ...]:
    """Simplified spellings (lower case, without '-' and '_') under which `get` finds a registered name."""
    return tuple(key for key, owner in _NAMES.items() if owner == name)


def get(name: str | Activation, **parameters: Parameter) -> Activation:
    """The record of a nonlinearity.

    Args:
        name: Registered name or alias ("relu", "LeakyReLU", "gelu-tanh", "swish"); a record passes through.
        **parameters: Constructor parameters as in torch, for example ``negative_slope=0.2``.

    Raises:
        RegistryError: Unknown name; near names are suggested.
        InputError: Unknown or unusable parameter.

    Example:
        >>> get("leaky_relu", negative_slope=0.2)([-1.0, 2.0]).tolist()
        [-0.2, 2.0]
    """
    if isinstance(name, Activation):
        if not parameters:
            return name
        name, parameters = name.name, dict(name.parameters) | parameters
    if not isinstance(cast("object", name), str):
        raise InputError(
            "activation",
            got=f"a {type(name).__name__}",
            expected="a name or a record",
            action="Write its name, and its parameters by name, as in 'leaky_relu', negative_slope=0.2.",
        )
    key = find(name)
    if key is None:
        near = [_NAMES[n] for n in difflib.get_close_matches(_simple(name), list(_NAMES), n=3, cutoff=0.6)]
        hint = f"Did you mean {' or '.join(repr(n) for n in dict.fromkeys(near))}?" if near else ""
        raise RegistryError("activation", got=repr(name), expected=f"one of {', '.join(names())}", action=hint)
    if not parameters:
        return _build(key, ())
    known = inspect.signature(_FACTORIES[key]).parameters
    for parameter, value in parameters.items():
        if parameter not in known:
            raise InputError(
                f"activation {key!r}",
                got=f"parameter {parameter!r}",
                expected=", ".join(known) or "no parameters",
            )
        default = known[parameter].default
        if isinstance(default, float):
            if isinstance(value, str) or not np.isfinite(value):
                raise InputError(f"activation {key!r}, {parameter}", got=repr(value), expected="a finite number")
            parameters[parameter] = float(value)
    return _build(key, tuple(sorted(parameters.items())))


def _rebuild(name: str, parameters: tuple[tuple[str, Parameter], ...]) -> Activation:
    return get(name, **dict(parameters))


@functools.lru_cache(maxsize=1024)
def _build(key: str, parameters: tuple[tuple[str, Parameter], ...]) -> Activation:
    return _FACTORIES[key](**dict(parameters))
