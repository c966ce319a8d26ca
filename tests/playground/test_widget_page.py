"""The notebook's widget in headless Chromium: its module, its frame and the kernel's channel, without a notebook."""

from __future__ import annotations

import base64
import json
import time

import pytest
import torch
from browser_tools import needs_browser

import firstlight
from firstlight.playground.widget import _MODULE

pytest.importorskip("anywidget")
pytestmark = needs_browser

# What a notebook gives a widget's module: the synced values, a channel both ways, and a place on the page.
NOTEBOOK = """async ([code, page]) => {
  const listeners = [];
  const model = {
    get: (name) => ({ page, height: 600 })[name],
    on: (_, call) => listeners.push(call),
    off: (_, call) => listeners.splice(listeners.indexOf(call), 1),
    send: (message) => window.toKernel(JSON.stringify(message)),
  };
  window.fromKernel = (content, packed) => {
    const bytes = packed === null ? null : Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    listeners.forEach((call) => call(content, bytes ? [new DataView(bytes.buffer)] : []));
  };
  const module = await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  window.leave = module.default.render({ model, el: document.body });
}"""


def test_the_page_lives_in_a_notebooks_cell_and_goes_with_it(browser, monkeypatch):
    made = firstlight.playground.notebook(torch.nn.Linear(3, 2), torch.randn(4, 3), height=600)
    down: list[tuple[dict, str | None]] = []
    up: list[dict] = []
    monkeypatch.setattr(
        made, "send", lambda c, buffers=(): down.append((c, base64.b64encode(buffers[0]).decode() if buffers else None))
    )
    tab = browser.new_page(viewport={"width": 1000, "height": 700})
    errors: list[str] = []
    tab.on("pageerror", lambda e: errors.append(str(e)))
    tab.expose_function("toKernel", lambda text: up.append(json.loads(text)))

    def until(condition: str) -> None:
        """Carry messages both ways, as a kernel does, until the page inside the cell says so."""
        deadline = time.monotonic() + 60
        while not tab.frames[1].evaluate(f"Boolean(window.firstlight && ({condition}))"):
            assert time.monotonic() < deadline, condition
            while up:
                made._receive(made, up.pop(0), [])
            while down:
                tab.evaluate("([content, packed]) => window.fromKernel(content, packed)", list(down.pop(0)))
            tab.wait_for_timeout(20)

    try:
        tab.evaluate(NOTEBOOK, [_MODULE, made.page])
        until("firstlight.store.views[0]?.full && firstlight.store.runs[0].config.data === 'own'")
        tab.frames[1].click(".play")
        until("firstlight.store.playing && firstlight.store.views[0].frame.header.step > 10")
        assert made._session is not None
        tab.evaluate("window.leave()")
        tab.wait_for_timeout(200)
        while up:
            made._receive(made, up.pop(0), [])
        assert made._session is None  # no thread trains for a cell that is gone
        assert errors == []
    finally:
        tab.close()
        made.close()
