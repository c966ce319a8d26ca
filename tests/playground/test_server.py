"""The server among strangers: wrong tokens, foreign pages, floods, random frames, sudden ends."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import numpy as np
import pytest
from playground_tools import Page
from test_protocol import random_message
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from firstlight.errors import InputError
from firstlight.playground import launch, server
from firstlight.playground.protocol import MAX_MESSAGE_BYTES


def fetch(url: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers)


def open_sessions(served) -> int:
    parts = urlsplit(served.url)
    return int(fetch(f"http://{parts.netloc}/health")[1].split()[-2])


def wait_for_no_sessions(served) -> None:
    deadline = time.monotonic() + 30
    while open_sessions(served):
        assert time.monotonic() < deadline, "a session outlives its page"
        time.sleep(0.05)


def test_the_page_is_one_file_that_may_load_nothing(served):
    status, text, headers = fetch(served.url)
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    assert 'src="http' not in text
    assert headers["referrer-policy"] == "no-referrer"  # the token is in the address


@pytest.mark.parametrize("token", ["", "wrong", "ä" * 10])
def test_a_wrong_token_is_turned_away(served, token):
    parts = urlsplit(served.url)
    status, text, _ = fetch(f"http://{parts.netloc}/?token={urllib.request.quote(token)}")
    assert (status, "token" in text) == (403, True)
    with pytest.raises(InvalidStatus):
        connect(f"ws://{parts.netloc}/ws?token={urllib.request.quote(token)}", origin=f"http://{parts.netloc}")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://127.0.0.1:1", "null", "https://localhost", "http://[nonsense"]
)
def test_a_foreign_origin_is_turned_away(served, origin):
    with pytest.raises(InvalidStatus):
        Page(served.url, origin=origin)


def test_a_foreign_host_is_turned_away(served):
    """A name that resolves to this machine (DNS rebinding) does not help."""
    status, text, _ = fetch(served.url, Host="evil.example")
    assert (status, "Host" in text) == (403, True)


def test_a_server_on_all_addresses_is_reached_by_any_number_and_by_no_foreign_name():
    with launch.start(host="0.0.0.0") as running:
        parts = urlsplit(running.url)
        here = f"http://127.0.0.1:{parts.port}/?{parts.query}"
        assert fetch(here, Host=f"192.168.7.7:{parts.port}")[0] == 200
        assert fetch(here, Host="evil.example")[0] == 403
        assert fetch(here.replace("token=", "token=x"), Host="192.168.7.7")[0] == 403


def test_only_lessons_of_this_machine_may_frame_the_page_and_only_embedded(served):
    def policy(url: str) -> str:
        return fetch(url)[2]["content-security-policy"].rpartition("frame-ancestors ")[2]

    assert policy(served.url) == "'self'"
    assert policy(served.url + "&embed=1") == "'self' http://localhost:* http://127.0.0.1:*"


def test_two_launches_have_two_tokens(served):
    gates = {server.Gate().token for _ in range(20)}
    assert len(gates) == 20
    assert min(map(len, gates)) >= 32


def test_settings_come_back_and_training_moves(served):
    with Page(served.url) as page:
        hello, _ = page.until("hello")
        assert hello["tour"]
        assert len(hello["scenes"]) >= 25
        page.send("configure", runs=[{"scheme": "he"}, {"scheme": "zero"}])
        state, _ = page.until("state", where=lambda m: len(m["runs"]) == 2)
        assert [r["config"]["scheme"] for r in state["runs"]] == ["he", "zero"]
        assert page.until("report", where=lambda m: m["run"] == 1)[0]["verdict"] == "will not start"
        page.send("play")
        _, arrays = page.until("frame", where=lambda m: m["run"] == 1 and m["step"] >= 5)
        np.testing.assert_allclose(arrays["cost"], np.log(2), rtol=1e-6)  # zero weights: ln 2 for ever


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_random_messages_leave_server_and_neighbours_alone(served, monkeypatch, count):
    monkeypatch.setattr(server, "RateLimit", lambda: server_limit(1e9, 1e9, 1e9))
    rng = random.Random(1)
    with Page(served.url) as neighbour, Page(served.url) as page:
        neighbour.send("configure", runs=[{"seed": 77, "data": "gaussian"}])
        neighbour.until("state", where=lambda m: m["runs"][0]["config"]["seed"] == 77)
        sent = 0
        while sent < count:
            for _ in range(200):
                message = random_message(rng)
                # a valid order to draw 400 walks is no attack, only slow
                if isinstance(message, str) and any(w in message for w in ("walks", "strip", "critical")):
                    message = "{}"
                page.socket.send(message)
                sent += 1
            page.send("ping", sent=-float(sent))
            assert page.until("pong", where=lambda m, n=sent: m["sent"] == -float(n))
        assert page.alive()
        assert neighbour.alive()
        neighbour.send("step", count=3)
        _header, _ = neighbour.until("frame", where=lambda m: m["step"] == 3)
        neighbour.send("speed", value=1)
        state, _ = neighbour.until("state")
        assert state["runs"][0]["config"]["seed"] == 77
        assert state["runs"][0]["config"]["data"] == "gaussian"


server_limit = server.RateLimit


def test_refused_settings_are_answered_with_those_that_hold(served):
    with Page(served.url) as page:
        page.until("state")
        page.send("configure", runs=[{"depth": 100_000}], stamp=3)
        state, _ = page.until("state", where=lambda m: m["stamp"] == 3)
        assert state["runs"][0]["config"]["depth"] == 2
        assert "depth" in page.until("error")[0]["where"]


def test_a_rate_goes_on_and_a_scene_begins_anew(served):
    with Page(served.url) as page:
        page.send("step", count=7)
        page.until("frame", where=lambda m: m["step"] == 7)
        page.send("configure", runs=[{"learning_rate": 0.2}], stamp=1)
        page.until("state", where=lambda m: m["stamp"] == 1)
        page.send("step", count=1)
        page.until("frame", where=lambda m: m["step"] == 8)
        page.send("configure", runs=[{"learning_rate": 0.3}], stamp=2, fresh=True)
        page.until("frame", where=lambda m: m["step"] == 0)


def test_a_flood_is_slowed_and_told(served):
    with Page(served.url) as page:
        page.until("hello")
        for _ in range(400):
            page.socket.send('{"type": "ping"}')
        error, _ = page.until("error")
        assert "messages a second" in error["text"]


def test_an_oversized_message_ends_only_its_own_page(served):
    with Page(served.url) as neighbour, Page(served.url) as page:
        page.until("hello")
        with contextlib.suppress(ConnectionClosed):
            page.socket.send('{"type": "csv", "text": "' + "1," * MAX_MESSAGE_BYTES + '"}')
        with pytest.raises(ConnectionClosed):
            page.until("never", seconds=20)
        assert neighbour.alive()


def test_an_oversized_table_and_a_million_points_are_refused_in_words(served):
    with Page(served.url) as page:
        page.until("hello")
        page.send("csv", text="1,2,a\n" * 100_000)
        assert "at most" in page.until("error")[0]["expected"]
        page.send("csv", text="1,2,a\n3,4,b\n" * 10_000)
        assert "10,000" in page.until("error")[0]["expected"]
        page.send("points", x=[[1, 2]] * 50_000, y=[0] * 50_000)
        assert "10,000" in page.until("error")[0]["expected"]
        assert page.alive()


def test_own_points_are_trained_on(served):
    with Page(served.url) as page:
        page.send("points", x=[[-1, -1], [-1.1, -1], [1, 1], [1, 1.2]], y=[0, 0, 1, 1])
        state, _ = page.until("state", where=lambda m: m["runs"][0]["config"]["data"] == "custom")
        assert state["runs"][0]["facts"]["samples"] == 4
        page.send("step", count=200)
        header, _ = page.until("frame", where=lambda m: m["step"] == 200)
        assert header["scores"]["accuracy"] == 1.0


def test_more_pages_than_allowed_are_told_so(served):
    pages = [Page(served.url) for _ in range(server.MAX_SESSIONS)]
    try:
        with Page(served.url) as late:
            message = json.loads(late.socket.recv(timeout=20))
            assert f"{server.MAX_SESSIONS} pages" in message["text"]
            with pytest.raises(ConnectionClosed):
                late.socket.recv(timeout=20)
        assert pages[0].alive()
    finally:
        for page in pages:
            page.close()
    wait_for_no_sessions(served)


MOMENTS = [
    (),
    (("play", {}),),
    (("configure", {"runs": [{"depth": 100, "width": 64}]}),),
    (("walks", {"run": 0, "draws": 400}),),
    (("strip", {"run": 0}), ("speed", {"value": "max"}), ("play", {})),
    (("share", {}),),
]


@pytest.mark.parametrize("wait", [0.0, 0.2])
@pytest.mark.parametrize("orders", MOMENTS, ids=lambda o: "+".join(k for k, _ in o) or "silent")
def test_a_page_may_vanish_at_any_moment(served, orders, wait):
    page = Page(served.url)
    for kind, fields in orders:
        page.send(kind, **fields)
    time.sleep(wait)
    page.socket.socket.shutdown(socket.SHUT_RDWR)  # no closing handshake
    wait_for_no_sessions(served)


def test_a_hidden_tab_rests(served):
    with Page(served.url) as page:
        page.send("speed", value="max")
        page.send("play")
        page.until("frame", where=lambda m: m["step"] > 10)
        page.send("visible", value=False)
        page.send("ping", sent=1.0)
        page.until("pong")
        page.send("ping", sent=2.0)
        page.until("pong", where=lambda m: m["sent"] == 2.0)
        deadline = time.monotonic() + 0.6
        frames = 0
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                frames += isinstance(page.socket.recv(timeout=0.1), bytes)
        assert frames <= 1  # one may have been on its way
        page.send("visible", value=True)
        page.until("frame", where=lambda m: m["step"] > 10)


def test_a_taken_port_is_named(served):
    with pytest.raises(InputError, match="--port"):
        launch.start(port=urlsplit(served.url).port)


def test_an_impossible_port_is_refused():
    with pytest.raises(InputError):
        launch.start(port=70_000)
