"""The page in a notebook: messages both ways over the widget's channel, and an end that ends the thread."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pytest
import torch

import firstlight
from firstlight.playground.protocol import unpack

pytest.importorskip("anywidget")


def test_the_notebook_is_reached_before_and_after_the_package_is_imported():
    told = subprocess.run(
        [sys.executable, "-c", "import firstlight as f; print(f.playground.notebook is f.playground.notebook)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "True"


def test_a_widget_speaks_through_the_kernel(monkeypatch):
    made = firstlight.playground.notebook(torch.nn.Linear(3, 2), torch.randn(4, 3), height=500)
    sent: list[tuple[dict, list]] = []
    monkeypatch.setattr(made, "send", lambda content, buffers=(): sent.append((content, list(buffers))))
    try:
        assert made.height == 500
        assert "<title>firstlight playground</title>" in made.page
        made._receive(made, {"ready": True}, [])
        made._receive(made, {"text": json.dumps({"type": "step", "count": 3})}, [])
        made._receive(made, {"text": "nonsense"}, [])
        deadline = time.monotonic() + 60

        def frames():
            return [unpack(b[0])[0] for _, b in list(sent) if b]

        while not any(f["type"] == "frame" and f["step"] == 3 for f in frames()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        texts = [json.loads(c["text"])["type"] for c, b in list(sent) if not b]
        assert {"hello", "state", "error"} <= set(texts)
    finally:
        made.close()
    assert not [t for t in threading.enumerate() if t.name == "firstlight-playground" and t is made._session]
    assert made._session is None
