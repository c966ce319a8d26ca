"""A run kept for later: the frames that the page saw, thinned, inside one HTML file that needs no server."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from firstlight.errors import FirstlightError, InputError
from firstlight.playground.protocol import pack

MAX_FRAMES = 96
MAX_FILE_BYTES = 1_000_000
# The page looks for this element; a live page carries it empty.
SLOT = '<script id="recording" type="application/octet-stream"></script>'


def page() -> str:
    """The prebuilt page, one file.

    Raises:
        FirstlightError: The package was built without it.
    """
    path = resources.files("firstlight.playground").joinpath("static/playground.html")
    try:
        return path.read_text("utf-8")
    except FileNotFoundError as error:
        raise FirstlightError(
            "playground page",
            got="no static/playground.html in the package",
            expected="the prebuilt page",
            action="Build it with `make playground` (needs Node) or install a released wheel.",
        ) from error


@dataclass(slots=True)
class Recording:
    """The frames of the runs on the page; every second one goes when there are `MAX_FRAMES` of a slot."""

    hello: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    frames: dict[str, list[bytes]] = field(default_factory=dict)
    _skip: dict[str, int] = field(default_factory=dict)
    _seen: dict[str, int] = field(default_factory=dict)

    def greet(self, hello: Mapping[str, Any]) -> None:
        """Keep the choices that the page was opened with; scenes and tour need a server and stay out."""
        self.hello = {**hello, "scenes": [], "tour": []}

    def restart(self, state: Mapping[str, Any]) -> None:
        """Forget everything: other runs begin."""
        self.state = state
        self.frames.clear()
        self._skip.clear()
        self._seen.clear()

    def keep(self, slot: str, header: Mapping[str, Any], frame: bytes) -> None:
        """Note one published frame; pictures that lack the layers are left out."""
        if not header.get("full", True):
            return
        count = self._seen.get(slot, 0)
        self._seen[slot] = count + 1
        if count % self._skip.get(slot, 1):
            return
        kept = self.frames.setdefault(slot, [])
        kept.append(frame)
        if len(kept) >= MAX_FRAMES:
            del kept[1:-1:2]
            self._skip[slot] = self._skip.get(slot, 1) * 2

    def to_html(self) -> str:
        """One HTML file below a megabyte that shows the run with a scrubber, offline.

        Raises:
            InputError: Nothing was recorded, or even a thinned recording does not fit.
        """
        if not self.frames:
            raise InputError("share", got="no recorded frames", expected="a run", action="Press play first.")
        html = page()
        frames = {slot: list(kept) for slot, kept in self.frames.items()}
        while True:
            packed = base64.b64encode(zlib.compress(self._bundle(frames), 9)).decode()
            if len(html.encode()) + len(packed) <= MAX_FILE_BYTES:
                return html.replace(SLOT, SLOT.replace("></", f">{packed}</"), 1)
            if max(len(kept) for kept in frames.values()) <= 2:
                raise InputError(
                    "share",
                    got=f"a recording of {len(packed):,} bytes at its shortest",
                    expected=f"at most {MAX_FILE_BYTES:,} with the page",
                    action="Use a smaller network or fewer runs side by side.",
                )
            frames = {slot: kept[:1] + kept[1:-1:2] + kept[-1:] for slot, kept in frames.items()}

    def _bundle(self, frames: Mapping[str, Sequence[bytes]]) -> bytes:
        """All frames behind one header: ``{"hello": …, "state": …, "index": [[slot, length], …]}``."""
        index = [[slot, len(frame)] for slot, kept in frames.items() for frame in kept]
        header = {"type": "recording", "hello": self.hello, "state": self.state, "index": index}
        head = pack(header, {})
        return head + b"".join(frame for kept in frames.values() for frame in kept)
