"""The page in headless Chromium: how soon it paints, how often it shows a run, how fast it answers."""

from __future__ import annotations

import os
import time

import pytest
from browser_tools import needs_browser, opened, wait_config

pytestmark = needs_browser


ATTEMPTS = 3  # a rate is the page's own in the best of them: other work of the machine only ever lowers it


def machine_is_busy() -> bool:
    """Whether so much other work runs that a rate is no statement about the page (its own work included)."""
    return os.getloadavg()[0] > 0.75 * (os.cpu_count() or 1)


def reached(measure, goal: float, *, more: bool) -> None:
    """The best of a few attempts reaches the goal; on a machine full of other work a miss says nothing."""
    best = None
    for _ in range(ATTEMPTS):
        seen = measure()
        best = seen if best is None else (max if more else min)(best, seen)
        if (best >= goal) if more else (best <= goal):
            return
    missed = f"{best:.1f}, wanted at {'least' if more else 'most'} {goal}"
    if machine_is_busy():
        pytest.skip(f"{missed}, on a machine that is busy with other work")
    pytest.fail(missed)


def test_first_paint_comes_quickly(browser, served):
    def paint() -> float:
        with opened(browser, served.url) as page:
            return page.wait_for_function(
                "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
            ).json_value()

    reached(paint, 1000, more=False)


def rates(tabs, seconds: float = 5.0) -> list[tuple[float, float]]:
    """Updates a second, and the share of the time that goes into drawing, of every tab."""
    read = "[firstlight.store.updates, firstlight.store.busy, performance.now()]"
    before = [tab.evaluate(read) for tab in tabs]
    time.sleep(seconds)
    after = [tab.evaluate(read) for tab in tabs]
    return [
        ((b[0] - a[0]) * 1000 / (b[2] - a[2]), (b[1] - a[1]) / (b[2] - a[2]))
        for a, b in zip(before, after, strict=True)
    ]


def test_a_small_network_is_seen_twenty_times_a_second(browser, served):
    with opened(browser, served.url + '#runs=[{"depth":6,"width":16,"scheme":"he"}]&play=1') as page:
        wait_config(page, "width", 16)
        page.wait_for_function("firstlight.store.views[0]?.frame?.header.step > 30")
        reached(lambda: rates([page])[0][0], 18, more=True)
        reached(lambda: rates([page], 2.0)[0][1], 0.3, more=False)


@pytest.mark.slow
def test_four_tabs_are_seen_fifteen_times_a_second(browser, served):
    pages = [opened(browser, served.url + '#runs=[{"depth":6,"width":16,"scheme":"he"}]&play=1') for _ in range(4)]
    tabs = [p.__enter__() for p in pages]
    try:
        for tab in tabs:
            tab.wait_for_function("firstlight.store.views[0]?.frame?.header.step > 30")
        reached(lambda: min(updates for updates, _ in rates(tabs)), 15, more=True)
    finally:
        for tab in tabs:
            tab.close()


def test_a_deep_network_leaves_the_page_responsive(browser, served):
    """From a key press to the paint after it, p95, while a network of 100 layers of 64 trains."""
    with opened(browser, served.url + '#runs=[{"depth":100,"width":64,"scheme":"he"}]&play=1') as page:
        wait_config(page, "depth", 100)
        page.wait_for_function("firstlight.store.views[0]?.frame?.header.step > 2", timeout=120_000)
        clicks = """async () => {
              const out = [];
              for (let i = 0; i < 40; i++) {
                const began = performance.now();
                document.querySelector('#panel-cost .tool').click();
                await new Promise(r => requestAnimationFrame(() => setTimeout(r, 0)));
                out.push(performance.now() - began);
                await new Promise(r => setTimeout(r, 60));
              }
              return out.sort((a, b) => a - b)[Math.floor(0.95 * out.length)];
            }"""
        reached(lambda: page.evaluate(clicks), 100, more=False)
