"""The errors that firstlight raises: each says where, what came, what was expected and what to do next."""

from __future__ import annotations


class FirstlightError(Exception):
    """Root of every error raised on purpose.

    Args:
        where: The place in the user's terms: an argument, a file, a module path.
        got: What came.
        expected: What was expected instead.
        action: What to do next, as one imperative sentence.
    """

    def __init__(self, where: str, *, got: str, expected: str, action: str = "") -> None:
        self.where = where
        self.got = got
        self.expected = expected
        self.action = action
        text = f"{where}: got {got}; expected {expected}."
        super().__init__(f"{text} {action}" if action else text)

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild from the parts, so that an error crosses process borders whole."""
        return _rebuild, (type(self), self.where, self.got, self.expected, self.action)


def _rebuild(cls: type[FirstlightError], where: str, got: str, expected: str, action: str) -> FirstlightError:
    return cls(where, got=got, expected=expected, action=action)


class InputError(FirstlightError, ValueError):
    """An argument, a batch or an option that cannot be used as given."""


class DataError(FirstlightError):
    """A data set or file that is missing, damaged or of the wrong form."""


class ModelError(FirstlightError):
    """The user's model raised, or cannot be treated as asked."""


class CaptureError(ModelError):
    """The model's graph cannot be captured."""


class MissingRuleError(FirstlightError):
    """The graph holds operations for which no rule is registered; all of them are named at once."""


def without_shape(names: list[str]) -> InputError:
    """What is said about lazy modules that have not been called yet.

    Args:
        names: Of their parameters and buffers.
    """
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return InputError(
        "model",
        got=f"lazy parameters without a shape: {', '.join(names[:5])}{more}",
        expected="parameters that exist",
        action="Call the model once on a batch, then try again.",
    )


class RegistryError(FirstlightError, LookupError):
    """An unknown or duplicate name in one of the registries (activations, schemes, rules, checks)."""
