"""Start the playground: from the command line, from Python, in a notebook."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from firstlight.errors import FirstlightError, InputError


@dataclass(slots=True)
class Playground:
    """A running playground.

    Attributes:
        url: The address with this launch's token; whoever has it can use the page.
    """

    url: str
    _server: Any
    _thread: threading.Thread

    def close(self) -> None:
        """Stop serving; pages that are open are told so."""
        self._server.should_exit = True
        self._thread.join(timeout=10.0)

    def __enter__(self) -> Playground:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _repr_html_(self) -> str:
        """A link; other pages, a notebook's too, may not frame this one (`firstlight.playground.notebook` does)."""
        return f'<a href="{self.url}" target="_blank" rel="noopener">Open the firstlight playground</a>'


def start(
    own: Any = None, *, port: int = 0, host: str = "127.0.0.1", token: str | None = None, browser: bool = False
) -> Playground:
    """Serve in a background thread and return once the page can be opened.

    Args:
        own: The user's model and batch (`problems.OwnModel`), or None for the built-in data and networks.
        port: Port to listen on; 0 takes a free one.
        host: Address to listen on. Anything but a loopback address lets other machines in: they need the token.
        token: Secret to use instead of a fresh one.
        browser: Open the page in the default browser.

    Raises:
        InputError: The port is taken or not allowed.
        FirstlightError: The extra `playground` is not installed, or the server did not come up.
    """
    try:
        import uvicorn

        from firstlight.playground import server
    except ImportError as error:
        raise FirstlightError(
            "playground",
            got=f"no module {error.name!r}",
            expected="the extra `playground`",
            action="Install it: pip install 'firstlight[playground]'.",
        ) from error
    everywhere = host in ("0.0.0.0", "::")
    gate = server.Gate(hosts=frozenset({"127.0.0.1", "localhost", "::1", host.lower(), socket.gethostname().lower()}))
    gate.any_address = everywhere
    if token is not None:
        gate.token = token
    listener = _listen(host, port)
    config = uvicorn.Config(
        server.build_app(gate, own),
        log_level="warning",
        access_log=False,
        ws="websockets-sansio",
        **server.SOCKET_LIMITS,
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(
        target=running.run, kwargs={"sockets": [listener]}, name="firstlight-playground-server", daemon=True
    )
    thread.start()
    _wait(lambda: running.started, thread)
    url = f"http://{_shown(host, everywhere)}:{listener.getsockname()[1]}/?token={gate.token}"
    if browser:
        webbrowser.open(url)
    return Playground(url, running, thread)


def _shown(host: str, everywhere: bool) -> str:
    """The host as it stands in the address: a server on all of a machine's is reached by the machine's name."""
    if everywhere:
        with contextlib.suppress(OSError):
            socket.gethostbyname(socket.gethostname())
            return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise InputError("port", got=str(port), expected="0 (any free one) to 65535")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise InputError(
            "port",
            got=f"{host}:{port}, which cannot be opened ({error.strerror})",
            expected="a free port",
            action="Name another one with --port, or leave it out.",
        ) from error
    return listener


def _wait(ready: Callable[[], bool], thread: threading.Thread, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if not thread.is_alive() or time.monotonic() > deadline:
            raise FirstlightError("playground", got="a server that did not start", expected="one that listens")
        time.sleep(0.01)
