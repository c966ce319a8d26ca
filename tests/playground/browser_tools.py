"""A browser on the playground: opening a tab, waiting for what the server answers, telling a busy machine."""

from __future__ import annotations

import os
import shutil

import pytest

CHROMIUM = os.environ.get("FIRSTLIGHT_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
# the page is drawn after its store changes: what stands on the screen is waited for, never read at once
sync.expect.set_options(timeout=60_000)
needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]


class opened:  # noqa: N801 - used as a context manager, like a function
    """A tab with the playground; an error on its console fails the test."""

    def __init__(self, browser, url, **options) -> None:
        # the page's own policy forbids eval, which Playwright's waiting needs
        self.tab = browser.new_page(**{"viewport": {"width": 1300, "height": 1000}, "bypass_csp": True, **options})
        self.tab.set_default_timeout(60_000)
        self.errors: list[str] = []
        self.tab.on("pageerror", lambda e: self.errors.append(str(e)))
        self.tab.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.url = url

    def __enter__(self):
        self.tab.goto(self.url)
        self.tab.wait_for_selector(".scheme", state="attached")
        self.tab.wait_for_function("firstlight.store.views[0]?.full")
        return self.tab

    def __exit__(self, kind, *_) -> None:
        self.tab.close()
        if kind is None:
            assert not self.errors


def config(page, run: int = 0) -> dict:
    return page.evaluate(f"firstlight.store.runs[{run}].config")


def wait_config(page, name: str, value, run: int = 0) -> None:
    page.wait_for_function(
        # the page counts a setting as set when it asks for it; what counts here is the server's answer
        "([run, name, value]) => firstlight.store.answered === firstlight.store.stamp &&"
        " JSON.stringify(firstlight.store.runs[run]?.config[name]) === JSON.stringify(value)",
        arg=[run, name, value],
    )


def step_of(page) -> int:
    return page.evaluate("firstlight.store.views[0].frame.header.step")
