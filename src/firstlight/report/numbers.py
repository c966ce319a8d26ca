"""Numbers as people write them."""

from __future__ import annotations

import math

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(x: float | None, digits: int = 3) -> str:
    """Three significant digits: "0.0123", "1.23×10⁻⁹", "0", "NaN", "∞"; "–" for None.

    >>> number(0.012345), number(1.2345e-9), number(60000.0), number(None)
    ('0.0123', '1.23×10⁻⁹', '60,000', '–')
    """
    if x is None:
        return "–"
    if math.isnan(x):
        return "NaN"
    if math.isinf(x):
        return "∞" if x > 0 else "-∞"
    if x == 0.0:
        return "0"
    mantissa, _, power = f"{x:.{digits - 1}e}".partition("e")
    exponent = int(power)  # after rounding: 9.999 is 1.00e1
    if not -3 <= exponent < 6:
        return f"{mantissa}×{power_of_ten(exponent)}"
    text = f"{x:,.{max(digits - 1 - exponent, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def power_of_ten(exponent: int) -> str:
    """10 to a whole power, in superscripts: "10⁻⁷"."""
    return "10" + str(exponent).translate(_SUPERSCRIPT)


def factor(decades: float | None) -> str:
    """A multiplier given by its decimal logarithm: "×1.2", "×10⁻⁷"; "–" for None.

    >>> factor(0.079), factor(-7.02), factor(None)
    ('×1.2', '×10⁻⁷', '–')
    """
    return "–" if decades is None or not math.isfinite(decades) else "×" + ratio(decades)


def ratio(decades: float) -> str:
    """A ratio given by its decimal logarithm, with two digits near 1 and as a power of ten far from it.

    >>> ratio(-0.301), ratio(38.6)
    ('0.5', '10³⁹')
    """
    return number(10.0**decades, 2) if abs(decades) < 2.5 else power_of_ten(round(decades))


def percent(share: float | None) -> str:
    """A share in percent, never rounded to 0 % or 100 % unless it is exactly that.

    >>> percent(0.5), percent(0.0001), percent(0.99999), percent(1.0)
    ('50 %', '<1 %', '>99 %', '100 %')
    """
    if share is None or math.isnan(share):
        return "–"
    if 0.0 < share < 0.01:
        return "<1 %"
    if 0.99 < share < 1.0:
        return ">99 %"
    return f"{100.0 * share:.0f} %"


def shape(sizes: tuple[int, ...]) -> str:
    """A tensor's sizes: "128×64"; "scalar" where there are none."""
    return "×".join(str(size) for size in sizes) if sizes else "scalar"


def count(n: int, one: str, many: str = "") -> str:
    """A number with its noun in the right form: "1 finding", "3 findings"."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
