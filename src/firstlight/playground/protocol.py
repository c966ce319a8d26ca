"""The wire: JSON text in, JSON text and binary frames out. Nothing here computes; everything is checked.

A binary frame is ``b"FL01"``, the header's length as a little-endian uint32, the header as UTF-8 JSON padded with
spaces to a multiple of four, then the arrays, each padded to a multiple of four. The header's ``arrays`` lists
``[name, dtype, shape, offset]`` with the offset counted from the end of the header. Floats travel as float32 and
keep NaN and infinity, which JSON could not.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from firstlight.errors import FirstlightError, InputError

MAGIC = b"FL01"
MAX_MESSAGE_BYTES = 1 << 20
MAX_CSV_BYTES = 512 * 1024
MAX_RUNS = 4
SPEEDS: tuple[int | str, ...] = (1, 10, 100, "max")
_DTYPES = {"float32": np.float32, "uint8": np.uint8, "int32": np.int32}

# command -> the fields it takes, with the types that are accepted
COMMANDS: dict[str, dict[str, tuple[type, ...]]] = {
    "configure": {"runs": (list,), "stamp": (int,), "fresh": (bool,)},
    "play": {},
    "pause": {},
    "step": {"count": (int,)},
    "reset": {},
    "new_seed": {},
    "speed": {"value": (int, str)},
    "visible": {"value": (bool,)},
    "panels": {"names": (list,)},
    "points": {"x": (list,), "y": (list,)},
    "csv": {"text": (str,)},
    "fix": {"run": (int,), "code": (str,)},
    "walks": {"run": (int,), "draws": (int,)},
    "strip": {"run": (int,), "seeds": (int,), "steps": (int,)},
    "critical": {"run": (int,)},
    "diagnose": {"run": (int,)},
    "export": {"run": (int,)},
    "share": {},
    "ping": {"sent": (int, float)},
}
_OPTIONAL = {
    ("configure", "stamp"),
    ("configure", "fresh"),
    ("step", "count"),
    ("walks", "draws"),
    ("strip", "seeds"),
    ("strip", "steps"),
    ("ping", "sent"),
}


@dataclass(frozen=True, slots=True)
class Command:
    """One checked request of the page."""

    type: str
    fields: Mapping[str, Any]


def parse_command(text: str | bytes) -> Command:
    """Check one message of the page.

    Raises:
        InputError: Not JSON, not an object, an unknown type, a missing, superfluous or ill-typed field.
    """
    if isinstance(text, bytes):
        raise InputError("message", got="a binary frame", expected="JSON text")
    if len(text) > MAX_MESSAGE_BYTES:
        raise InputError("message", got=f"{len(text):,} characters", expected=f"at most {MAX_MESSAGE_BYTES:,}")
    try:
        raw = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError("message", got="text that is not JSON", expected="one JSON object") from error
    if not isinstance(raw, dict):
        raise InputError("message", got=type(raw).__name__, expected="a JSON object with a type")
    kind = raw.pop("type", None)
    if not isinstance(kind, str) or kind not in COMMANDS:
        raise InputError("message.type", got=repr(kind)[:40], expected="one of " + ", ".join(COMMANDS))
    allowed = COMMANDS[kind]
    for name, value in raw.items():
        if name not in allowed:
            raise InputError(f"{kind}", got=f"the field {name[:40]!r}", expected=f"{list(allowed) or 'no fields'}")
        if not isinstance(value, allowed[name]) or (isinstance(value, bool) and bool not in allowed[name]):
            wanted = " or ".join(t.__name__ for t in allowed[name])
            raise InputError(f"{kind}.{name}", got=type(value).__name__, expected=wanted)
    missing = [name for name in allowed if name not in raw and (kind, name) not in _OPTIONAL]
    if missing:
        raise InputError(kind, got="a message without " + ", ".join(missing), expected="all of its fields")
    return Command(kind, raw)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def pack(header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Write one binary frame; see the module's docstring for its layout."""
    table: list[list[Any]] = []
    chunks: list[bytes] = []
    offset = 0
    for name, array in arrays.items():
        kind = str(array.dtype) if str(array.dtype) in _DTYPES else "float32"
        # values beyond float32 become infinite on purpose: the page shows them as overflow
        with np.errstate(over="ignore"):
            data = np.ascontiguousarray(array, dtype=_DTYPES[kind]).tobytes()
        data += b"\0" * (-len(data) % 4)
        table.append([name, kind, list(array.shape), offset])
        chunks.append(data)
        offset += len(data)
    head = dump({**header, "arrays": table}).encode()
    head += b" " * (-len(head) % 4)
    return b"".join([MAGIC, struct.pack("<I", len(head)), head, *chunks])


def unpack(frame: bytes) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Read a frame that `pack` wrote.

    Raises:
        InputError: The bytes are no such frame.
    """
    if frame[:4] != MAGIC or len(frame) < 8:
        raise InputError("frame", got=f"{len(frame)} bytes without the mark FL01", expected="a frame")
    (length,) = struct.unpack_from("<I", frame, 4)
    header = json.loads(frame[8 : 8 + length])
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, kind, shape, offset in header.pop("arrays"):
        count = math.prod(shape)
        flat = np.frombuffer(frame, dtype=_DTYPES[kind], count=count, offset=8 + length + offset)
        arrays[name] = flat.reshape(shape)
    return header, arrays


def dump(message: Mapping[str, Any]) -> str:
    """JSON text in which NaN and infinities are null, as browsers require."""
    return json.dumps(_clean(message), separators=(",", ":"), allow_nan=False)


def _clean(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, np.generic):
        return _clean(value.item())
    return value


def error_message(error: FirstlightError) -> str:
    """An error in the four parts that the page shows."""
    return dump(
        {
            "type": "error",
            "where": error.where,
            "got": error.got,
            "expected": error.expected,
            "action": error.action,
            "text": str(error),
        }
    )
