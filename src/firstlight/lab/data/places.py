"""Where data files lie, whether they are the right ones, and how they get there."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from firstlight.errors import DataError

ENVIRONMENT = "FIRSTLIGHT_DATA"
_TIMEOUT_S = 10.0
_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a public set.

    Attributes:
        name: File name as published.
        md5: Checksum of the published (compressed) file.
        md5_plain: Checksum of the same file unpacked.
        size: Bytes of the published file.
    """

    name: str
    md5: str
    md5_plain: str
    size: int


def cache_dir() -> Path:
    """The platform's folder for files that can be fetched again, ending in firstlight/data."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "firstlight" / "data"


def roots(data: str | Path | None = None) -> tuple[Path, ...]:
    """The folders to search, first hit wins: the one asked for alone, or $FIRSTLIGHT_DATA and then the cache.

    Raises:
        DataError: If `data` or $FIRSTLIGHT_DATA names a folder that does not exist.
    """
    if data is not None:
        return (_existing(Path(data), "--data"),)
    named = os.environ.get(ENVIRONMENT, "")
    found = (_existing(Path(named), f"${ENVIRONMENT}"),) if named else ()
    return (*found, cache_dir())


def _existing(path: Path, where: str) -> Path:
    if not path.is_dir():
        raise DataError(
            where,
            got=f"{str(path)!r}, which is {'a file' if path.exists() else 'not there'}",
            expected="a folder that holds mnist/, fashion-mnist/ or fsdd/",
            action="Correct the path.",
        )
    return path


def find_folder(searched: Iterable[Path], names: tuple[str, ...], holds: str) -> Path | None:
    """The first folder that is, or has under one of `names`, a file that matches the pattern `holds`."""
    for root in searched:
        for folder in (*(root / name for name in names), root):
            if folder.is_dir() and next(folder.glob(holds), None) is not None:
                return folder
    return None


def md5(path: Path) -> str:
    """Checksum of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def check_md5(path: Path, expected: str) -> Path:
    """Give the path back if the file's checksum is the published one.

    Raises:
        DataError: If it is not.
    """
    got = md5(path)
    if got != expected:
        raise DataError(
            str(path),
            got=f"a file of {path.stat().st_size:,} bytes with MD5 {got}",
            expected=f"MD5 {expected}",
            action="The file is damaged or another version; delete it and fetch it again.",
        )
    return path


def download(
    file: RemoteFile, folder: Path, mirrors: tuple[str, ...], advance: Callable[[int], object] | None = None
) -> Path:
    """Fetch one file into `folder`; it appears there whole and with the right checksum, or not at all.

    Args:
        file: What to fetch.
        folder: Where to; made if needed.
        mirrors: Addresses that hold it, tried in order; each ends in a slash.
        advance: Called with the number of bytes that arrived, for a progress bar.

    Raises:
        DataError: If no mirror gave the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    for mirror in mirrors:
        handle, temporary = tempfile.mkstemp(prefix=f".{file.name}.", suffix=".part", dir=folder)
        part = Path(temporary)
        try:
            with os.fdopen(handle, "wb") as target:
                _copy(mirror + file.name, target.write, advance)
            check_md5(part, file.md5)
            part.replace(folder / file.name)
        except (URLError, OSError, DataError) as error:
            failures.append(f"{mirror}: {error}")
        else:
            return folder / file.name
        finally:
            part.unlink(missing_ok=True)
    raise DataError(
        file.name,
        got="no usable answer (" + "; ".join(failures) + ")",
        expected=f"the file of {file.size:,} bytes with MD5 {file.md5}",
        action=_advice(folder),
    )


def _advice(folder: Path) -> str:
    named = os.environ.get(ENVIRONMENT, "")
    asked = f"${ENVIRONMENT} is {named!r} and does not hold it. " if named else ""
    return f"{asked}Check the network, put the file into {folder} by hand, or name its folder by ${ENVIRONMENT}."


def _copy(url: str, write: Callable[[bytes], object], advance: Callable[[int], object] | None) -> None:
    request = Request(url, headers={"User-Agent": "firstlight"})
    with urlopen(request, timeout=_TIMEOUT_S) as answer:
        while chunk := answer.read(_CHUNK):
            write(chunk)
            if advance is not None:
                advance(len(chunk))
