"""The playground's server: loopback only by default, one token a launch, foreign pages refused, sessions capped."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from firstlight.errors import FirstlightError
from firstlight.playground.protocol import MAX_MESSAGE_BYTES, dump, error_message, parse_command
from firstlight.playground.recording import page
from firstlight.playground.session import OwnModel, Session

MAX_SESSIONS = 8
MESSAGES_PER_SECOND = 100.0
MESSAGE_BURST = 300.0
# The page is one file: its own inline script and style, images that it draws itself, and the socket back to us.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors {ancestors}"
)


LESSONS = ("http://localhost:*", "http://127.0.0.1:*")


@dataclass(slots=True)
class RateLimit:
    """A token bucket: `rate` messages a second on average, `burst` at once."""

    rate: float = MESSAGES_PER_SECOND
    burst: float = MESSAGE_BURST
    tokens: float = MESSAGE_BURST
    last: float = field(default_factory=time.monotonic)

    def take(self) -> bool:
        """Whether one more message may pass now."""
        now = time.monotonic()
        self.tokens = min(self.burst, self.tokens + (now - self.last) * self.rate)
        self.last = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


@dataclass(slots=True)
class Gate:
    """Who may enter: pages from our own address that know this launch's token.

    Args:
        hosts: Names under which the server may be addressed, in lower case and without the port. The check is what
            stops DNS rebinding: a foreign name that resolves to this machine is refused.
        token: Secret of this launch.
        any_address: Whether numbers are let in as well, whichever they are: a server that listens on all addresses of
            the machine does not know under which one it is reached, and a number cannot be rebound.
    """

    hosts: frozenset[str] = frozenset({"127.0.0.1", "localhost", "::1"})
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    any_address: bool = False

    def refusal(self, headers: dict[str, str], token: str | None) -> str | None:
        """The reason for which a request is turned away; None where it may pass."""
        host = _hostname("//" + headers.get("host", ""))
        if host not in self.hosts and not (self.any_address and _is_address(host)):
            return f"The Host header names {host or 'nothing'!r}, not this server."
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != headers.get("host", "").lower():
            return "The page comes from another origin."
        if token is None or not hmac.compare_digest(token.encode(), self.token.encode()):
            return "The token is missing or wrong. Open the address that the command printed."
        return None


def _hostname(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def _netloc(url: str) -> str:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def build_app(gate: Gate, own: OwnModel | None = None, *, max_sessions: int = MAX_SESSIONS) -> Starlette:
    """The ASGI application.

    Args:
        gate: Who may enter.
        own: The user's model and batch, where the playground was opened on one.
        max_sessions: Pages served at once; one more is told so and closed.
    """
    live: set[Session] = set()

    async def index(request: Request) -> Response:
        reason = gate.refusal(dict(request.headers), request.query_params.get("token"))
        if reason is not None:
            return PlainTextResponse(reason + "\n", status_code=403)
        # a lesson page that this machine serves, from any port, may frame the embed mode; nothing else may
        lesson = request.query_params.get("embed") == "1"
        policy = CONTENT_SECURITY_POLICY.format(ancestors=" ".join(("'self'", *(LESSONS if lesson else ()))))
        headers = {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
        return HTMLResponse(page(), headers={**headers, "X-Content-Type-Options": "nosniff"})

    async def health(_: Request) -> Response:
        return PlainTextResponse(f"firstlight playground, {len(live)} open\n")

    async def socket(websocket: WebSocket) -> None:
        reason = gate.refusal(dict(websocket.headers), websocket.query_params.get("token"))
        if reason is not None:
            await websocket.close(code=1008, reason=reason[:120])
            return
        await websocket.accept()
        if len(live) >= max_sessions:
            text = f"{max_sessions} pages are open already. Close one of them and reload."
            await websocket.send_text(dump({"type": "error", "where": "server", "text": text, "fatal": True}))
            await websocket.close(code=1013, reason=text)
            return
        session = Session(own)
        live.add(session)
        try:
            await _serve(websocket, session)
        finally:
            live.discard(session)
            await asyncio.to_thread(session.close)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        for session in tuple(live):
            session.close()

    routes = [Route("/", index), Route("/health", health), WebSocketRoute("/ws", socket)]
    return Starlette(routes=routes, lifespan=lifespan)


async def _serve(websocket: WebSocket, session: Session) -> None:
    """Carry messages both ways until the page goes; the first side to end, ends the other."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()

    def notify() -> None:
        if not loop.is_closed():  # it may have ended while the last frame was drawn
            loop.call_soon_threadsafe(ready.set)

    session.start(notify)

    async def outward() -> None:
        while True:
            await ready.wait()
            ready.clear()
            for message in session.mailbox.take():
                if WebSocketState.DISCONNECTED in (websocket.client_state, websocket.application_state):
                    return  # what is left has nobody to go to
                if isinstance(message, bytes):
                    await websocket.send_bytes(message)
                else:
                    await websocket.send_text(message)

    async def inward() -> None:
        limit = RateLimit()
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if not limit.take():
                text = f"More than {MESSAGES_PER_SECOND:g} messages a second; this one was dropped."
                session.mailbox.put_text(dump({"type": "error", "where": "server", "text": text}))
                await asyncio.sleep(0.05)
                continue
            raw = message.get("text")
            try:
                session.submit(parse_command(raw if raw is not None else message.get("bytes") or b""))
            except FirstlightError as error:
                session.mailbox.put_text(error_message(error))

    await _first_to_end(outward, inward)


async def _first_to_end(*sides: Callable[[], Awaitable[None]]) -> None:
    tasks = [asyncio.ensure_future(side()) for side in sides]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            with contextlib.suppress(WebSocketDisconnect):
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


SOCKET_LIMITS = {
    "ws_max_size": MAX_MESSAGE_BYTES,
    "ws_max_queue": 32,
    "ws_ping_interval": 20.0,
    "ws_ping_timeout": 120.0,  # a machine full of other work may let a page wait; one that is gone closes its socket
}
