"""IDX files, the format of MNIST and its successors, plain or packed with gzip.

Layout, big-endian: two zero bytes, one byte for the element type, one byte for the number of axes, a 32-bit
size per axis, then the entries in C order.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from firstlight.errors import DataError

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: Path, axes: int | None = None) -> npt.NDArray[Any]:
    """Read one IDX file.

    Args:
        path: The file; gzip is recognised by its first bytes, whatever the name.
        axes: Number of axes that the array must have, if that is known: 3 for images, 1 for labels.

    Returns:
        The entries, in the machine's byte order.

    Raises:
        DataError: If the file is missing, damaged, truncated, too long or not an IDX file.
    """
    content = _content(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES or content[3] == 0:
        raise DataError(
            str(path),
            got=f"a file that begins with {content[:4].hex(' ') or 'nothing'}",
            expected="an IDX file: 00 00, an element type (08, 09, 0b, 0c, 0d, 0e), a number of axes",
            action="Check that this is the right file.",
        )
    dtype, n_axes = np.dtype(_TYPES[content[2]]), content[3]
    header = 4 + 4 * n_axes
    if len(content) < header:
        raise DataError(str(path), got=f"{len(content)} bytes", expected=f"a header of {header} bytes", action=_AGAIN)
    shape = struct.unpack(f">{n_axes}I", content[4:header])
    needed = header + math.prod(shape) * dtype.itemsize
    if len(content) != needed:
        kind = "truncated" if len(content) < needed else "too long"
        raise DataError(
            str(path),
            got=f"{len(content):,} bytes: {kind}",
            expected=f"{needed:,} bytes for the shape {shape} that its header declares",
            action=_AGAIN,
        )
    if axes is not None and n_axes != axes:
        raise DataError(
            str(path),
            got=f"an array of shape {shape}",
            expected=f"{axes} {'axis' if axes == 1 else 'axes'}",
            action="Check that images and labels are not exchanged.",
        )
    return np.frombuffer(content, dtype, offset=header).reshape(shape).astype(dtype.newbyteorder("="))


_AGAIN = "Fetch the file again."


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except FileNotFoundError:
        raise DataError(str(path), got="no such file", expected="an IDX file", action="Correct the path.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(str(path), got=f"damaged gzip data ({error})", expected="a whole file", action=_AGAIN) from None
    except OSError as error:
        raise DataError(str(path), got=f"{error.strerror or error}", expected="a readable file") from None
