"""Spec strings: a name, then literal arguments in parentheses. Nothing in them is ever evaluated."""

from __future__ import annotations

import ast
import re

from firstlight.errors import InputError

_FORM = re.compile(r"\s*([A-Za-z][A-Za-z0-9]*(?:[-_][A-Za-z0-9]+)*)\s*(?:\((.*)\))?\s*", re.DOTALL)
_LONGEST = 200
Literal_ = bool | int | float | str


def parse(spec: str) -> tuple[str, list[Literal_], dict[str, Literal_]]:
    """Split a spec into name, positional and keyword arguments.

    Names are lower-cased and '_' becomes '-'. Arguments are Python literals: numbers, strings, True and
    False.

    Raises:
        InputError: Anything else.

    Example:
        >>> parse("random_walk(law='paper')")
        ('random-walk', [], {'law': 'paper'})
    """
    match = _FORM.fullmatch(spec) if len(spec) <= _LONGEST else None
    if match is None:
        raise _unreadable(spec)
    name = match[1].lower().replace("_", "-")
    if match[2] is None:
        return name, [], {}
    try:
        call = ast.parse(f"f({match[2]})", mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise _unreadable(spec) from error
    # A closing parenthesis inside the text could end the call early: "he(1)+f(2)" is a sum, not a call.
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise _unreadable(spec)
    keywords: dict[str, Literal_] = {}
    for item in call.keywords:
        if item.arg is None:
            raise _unreadable(spec)
        keywords[item.arg] = _literal(item.value, spec)
    return name, [_literal(a, spec) for a in call.args], keywords


def _literal(node: ast.expr, spec: str) -> Literal_:
    sign = 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        sign = -1 if isinstance(node.op, ast.USub) else 1
        node = node.operand
        if not (isinstance(node, ast.Constant) and type(node.value) in (int, float)):
            raise _unreadable(spec)
    if not isinstance(node, ast.Constant) or type(node.value) not in (bool, int, float, str):
        raise _unreadable(spec)
    value = node.value
    return value if sign == 1 else -value  # type: ignore[return-value, operator]


def _unreadable(spec: str) -> InputError:
    shown = spec if len(spec) <= 60 else spec[:57] + "..."
    return InputError(
        "scheme",
        got=repr(shown),
        expected="a name, or a name with literal arguments",
        action='Write for example "he", "normal(0.02)" or "random-walk(law=\'paper\')".',
    )
