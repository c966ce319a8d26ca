"""A page without a browser: a socket, what came over it, and waiting for what should come."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.sync.client import connect

from firstlight.playground.protocol import parse_command, unpack
from firstlight.playground.session import Session


class Page:
    """A client of a running playground."""

    def __init__(self, url: str, **headers: Any) -> None:
        parts = urlsplit(url)
        self.origin = f"http://{parts.netloc}"
        token = parse_qs(parts.query).get("token", [""])[0]
        self._opened = connect(
            f"ws://{parts.netloc}/ws?token={token}", max_size=None, **{"origin": self.origin, **headers}
        )
        self.socket = self._opened.__enter__()

    def send(self, kind: str, **fields: Any) -> None:
        self.socket.send(json.dumps({"type": kind, **fields}))

    def until(self, kind: str, seconds: float = 60.0, where: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """The next message of a type, for which `where` holds; all others before it are dropped."""
        deadline = time.monotonic() + seconds
        while True:
            message = self.socket.recv(timeout=max(0.01, deadline - time.monotonic()))
            header, arrays = unpack(message) if isinstance(message, bytes) else (json.loads(message), {})
            if header["type"] == kind and (where is None or where(header)):
                return header, arrays

    def alive(self) -> bool:
        """Whether the training thread still answers."""
        mark = time.monotonic()
        self.send("ping", sent=mark)
        return self.until("pong", where=lambda m: m["sent"] == mark)[0]["sent"] == mark

    def close(self) -> None:
        self._opened.__exit__(None, None, None)

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Direct:
    """A session without a server."""

    def __init__(self, own: Any = None) -> None:
        self.session = Session(own)
        self.messages: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.session.start(lambda: None)

    def send(self, kind: str, **fields: Any) -> None:
        self.session.submit(parse_command(json.dumps({"type": kind, **fields})))

    def until(self, kind: str, seconds: float = 60.0, where: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for message in self.session.mailbox.take():
                self.messages.append(unpack(message) if isinstance(message, bytes) else (json.loads(message), {}))
            while self.messages:
                header, arrays = self.messages.pop(0)
                if header["type"] == kind and (where is None or where(header)):
                    return header, arrays
            time.sleep(0.01)
        raise TimeoutError(f"no {kind} within {seconds} s")

    def __enter__(self) -> Direct:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()
