"""The list of schemes: `@scheme` enters one, `resolve` finds it by a spec such as ``"he(mode='fan_out')"``.

To add a scheme, write one pure function in a file of this folder and import the file in
``schemes/__init__.py``:

    @scheme("half-he", refs=("he2015",), note="half of He's variance")
    def half_he(target: Target, context: Context, *, gain: float = 1.0) -> Draw: ...

Its keyword arguments are the options of the spec string; their annotations (float, bool, str or Literal) say
what is accepted. Parameters whose role is not in `roles` get the common law of `schemes.others`.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from firstlight.errors import InputError, RegistryError
from firstlight.schemes.context import WEIGHTS, Context, Draw, Role, Target
from firstlight.schemes.spec import parse

Option = bool | float | str


# (target, context, **options) -> the law, or the reason to leave the parameter alone
SchemeFunction = Callable[..., Draw | str]
F = TypeVar("F", bound=SchemeFunction)


@dataclass(frozen=True)
class Scheme:
    """A registered scheme.

    Attributes:
        name: Registered name.
        function: The law.
        roles: Roles of the parameters that `function` is asked about.
        options: Option names with default values.
        hints: Option names with the types that they accept.
        variants: Further names with the options that they stand for.
        refs: Keys of `theory.bibliography`.
        note: What it keeps or gives, in one line.
        keeps: "mean", "median" or "" (which average of the length the scheme keeps, if any).
    """

    name: str
    function: SchemeFunction
    roles: frozenset[Role]
    options: Mapping[str, Option]
    hints: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Option]] = field(default_factory=lambda: MappingProxyType({}))
    refs: tuple[str, ...] = ()
    note: str = ""
    keeps: str = ""


@dataclass(frozen=True)
class Chosen:
    """A scheme with its options filled in.

    Attributes:
        spec: The canonical spec: `resolve(chosen.spec)` gives the same again.
        function: The law, options bound.
        roles: Roles of the parameters that `function` is asked about; the others get the common law.
        bias_std: Standard deviation of biases under the common law.
    """

    spec: str
    function: Callable[[Target, Context], Draw | str]
    roles: frozenset[Role] = WEIGHTS
    bias_std: float = 0.0


_SCHEMES: dict[str, Scheme] = {}
_NAMES: dict[str, tuple[str, Mapping[str, Option]]] = {}


def scheme(
    name: str,
    *,
    roles: frozenset[Role] = WEIGHTS,
    variants: Mapping[str, Mapping[str, Option]] | None = None,
    refs: tuple[str, ...] = (),
    note: str = "",
    keeps: str = "",
) -> Callable[[F], F]:
    """Enter the decorated function into the list.

    Args:
        name: Lower case, words joined by hyphens.
        roles: Roles of the parameters that the function is asked about.
        variants: Further names, each with the options that it stands for.
        refs: Keys of `theory.bibliography`.
        note: One line for tables.
        keeps: Which average of the length it keeps: "mean", "median" or "".

    Raises:
        RegistryError: The name or a variant is taken.
    """

    def register(function: F) -> F:
        hints = get_type_hints(function)
        options = {
            key: p.default
            for key, p in inspect.signature(function).parameters.items()
            if key not in ("target", "context")
        }
        record = Scheme(
            name=name,
            function=function,
            roles=roles,
            options=MappingProxyType(options),
            hints=MappingProxyType({key: hints[key] for key in options}),
            variants=MappingProxyType(dict(variants or {})),
            refs=refs,
            note=note,
            keeps=keeps,
        )
        entries = {name: {}, **record.variants}
        for key in entries:
            if key in _NAMES:
                raise RegistryError(f"scheme {name!r}", got=f"a second entry for {key!r}", expected="a name of its own")
        _NAMES.update({key: (name, preset) for key, preset in entries.items()})
        _SCHEMES[name] = record
        return function

    return register


def schemes() -> tuple[Scheme, ...]:
    """All registered schemes, in the order of registration."""
    return tuple(_SCHEMES.values())


def names() -> tuple[str, ...]:
    """All names that a spec may begin with, variants included."""
    return tuple(_NAMES)


def resolve(spec: str | Chosen | Callable[[Target, Context], Draw | str]) -> Chosen:
    """The scheme that a spec names; a function ``(Target, Context) -> Draw`` is taken as it is.

    Args:
        spec: "he", "he(mode='fan_out')", "normal(0.02)", "random-walk(law='paper', bias_std=0.1)", ... Every
            scheme also takes ``bias_std``, the standard deviation of biases (default 0).

    Raises:
        RegistryError: Unknown name; near names are suggested.
        InputError: A spec that cannot be read, or an unusable option.

    Example:
        >>> resolve("kaiming(mode='fan_out')").spec
        "he(mode='fan_out')"
    """
    if isinstance(spec, Chosen):
        return spec
    if callable(spec):
        return Chosen(spec=getattr(spec, "__name__", type(spec).__name__), function=spec)
    if not isinstance(spec, str):
        raise InputError(
            "scheme",
            got=f"{spec!r}, of type {type(spec).__name__}",
            expected="a spec string or a function",
            action="Write for example scheme='he'.",
        )
    name, positional, given = parse(spec)
    if name not in _NAMES:
        plain = name.lower().replace("_", "-")
        alike = [known for known in _NAMES if known[0] == plain[:1]]  # what begins otherwise was not meant
        near = difflib.get_close_matches(plain, alike, n=2, cutoff=0.7)
        hint = f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
        raise RegistryError("scheme", got=repr(name), expected=f"one of {', '.join(_NAMES)}", action=hint)
    key, preset = _NAMES[name]
    record = _SCHEMES[key]
    free = [o for o in record.options if o not in preset]
    if len(positional) > len(free):
        raise InputError(
            f"scheme {name!r}",
            got=f"{len(positional)} values",
            expected=f"at most {len(free)} ({', '.join(free)})",
        )
    options: dict[str, Any] = dict(preset)
    for option, value in [*zip(free, positional, strict=False), *given.items()]:
        if option in options:
            raise InputError(f"scheme {name!r}", got=f"{option} twice", expected="each option once")
        options[option] = value
    bias_std = _check(name, "bias_std", options.pop("bias_std", 0.0), float)
    if bias_std < 0.0:
        raise InputError(f"scheme {name!r}, bias_std", got=repr(bias_std), expected="a number ≥ 0")
    for option, value in options.items():
        if option not in record.options:
            raise InputError(
                f"scheme {name!r}",
                got=f"option {option!r}",
                expected=", ".join([*record.options, "bias_std"]),
            )
        options[option] = _check(name, option, value, record.hints[option])
    missing = [o for o, default in record.options.items() if default is inspect.Parameter.empty and o not in options]
    if missing:
        raise InputError(
            f"scheme {name!r}",
            got="no value for " + ", ".join(missing),
            expected="one",
            action=f"Write for example '{name}(0.02)'.",
        )
    return _bind(record, options, bias_std)


def _bind(record: Scheme, options: dict[str, Option], bias_std: float) -> Chosen:
    shown = {k: v for k, v in options.items() if v != record.options[k]}
    if bias_std:
        shown["bias_std"] = bias_std
    text = ", ".join(f"{k}={v!r}" for k, v in shown.items())

    def law(target: Target, context: Context) -> Draw | str:
        return record.function(target, context, **options)

    return Chosen(f"{record.name}({text})" if text else record.name, law, record.roles, bias_std)


def _check(name: str, option: str, value: Any, hint: Any) -> Any:
    where = f"scheme {name!r}, {option}"
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            near = difflib.get_close_matches(str(value), [str(a) for a in get_args(hint)], n=1)
            action = f"Did you mean {near[0]!r}?" if near else ""
            raise InputError(
                where, got=repr(value), expected=" or ".join(repr(a) for a in get_args(hint)), action=action
            )
        return value
    kinds = get_args(hint) or (hint,)
    if float in kinds and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise InputError(where, got=repr(value), expected="a finite number")
        return float(value)
    if type(value) in kinds:
        return value
    expected = " or ".join({float: "a number", bool: "True or False", str: "a name"}.get(k, str(k)) for k in kinds)
    raise InputError(where, got=repr(value), expected=expected)
