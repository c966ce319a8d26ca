"""The playground in headless Chromium: updates a second, CPU per update, input to paint, first paint.

A real server in a process of its own and a real browser. Rates depend on who else uses the machine, so the load
stands beside them; CPU seconds per update (of the server, and of all of the browser's processes) do not. An update is
one redraw of the page with newer numbers. "Page busy" is the share of the wall time that the page's main thread spends
in tasks, by Chromium's own count (TaskDuration). ``python -m benchmarks.playground.memory`` watches memory for hours.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from rich.console import Group
from rich.table import Table

from benchmarks.playground import machine

SMALL = '#runs=[{"depth":6,"width":16,"scheme":"he"}]&play=1'
DEEP = '#runs=[{"depth":100,"width":64,"scheme":"he","learning_rate":0.001}]&play=1'
SECONDS = 10.0
# A click on a button of a chart, and the first moment after the paint that it leads to.
PAINT = """async () => {
  const out = [];
  for (let i = 0; i < 60; i++) {
    const began = performance.now();
    document.querySelector('#panel-cost .tool').click();
    await new Promise(r => requestAnimationFrame(() => setTimeout(r, 0)));
    out.push(performance.now() - began);
    await new Promise(r => setTimeout(r, 40 + 23 * (i % 7)));
  }
  return out;
}"""


def run() -> Group:
    """Measure every figure; a few minutes."""
    table = Table("case", "updates/s", "slowest tab", "with pictures/s", "page busy", "server ms", "browser ms")
    table.title = f"load before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores; CPU ms per update"
    delays: list[float] = []
    with machine.chromium() as browser:
        for name, address, tabs in (("6×16", SMALL, 1), ("6×16, four tabs", SMALL, 4), ("100×64", DEEP, 1)):
            with machine.server() as (pid, url):
                pages = [machine.open_page(browser, url + address) for _ in range(tabs)]
                found = rates(pages, [pid])
                table.add_row(
                    name,
                    f"{found.mean:.1f}",
                    f"{found.slowest:.1f}",
                    f"{found.pictured:.1f}",
                    f"{found.busy:.0%}",
                    f"{found.server_ms:.2f}",
                    f"{found.browser_ms:.2f}",
                )
                if address is DEEP:
                    delays = sorted(pages[0].evaluate(PAINT))
                for page in pages:
                    page.close()
        with machine.server() as (_, url):
            paints = [first_paint(browser, url) for _ in range(5)]
    p95 = delays[int(0.95 * len(delays))]
    words = Table("figure", "measured", "wanted")
    words.add_row("input to paint, 100×64", f"p50 {statistics.median(delays):.0f} ms, p95 {p95:.0f} ms", "p95 ≤ 100 ms")
    words.add_row("first contentful paint", ", ".join(f"{p:.0f}" for p in paints) + " ms", "≤ 1000 ms")
    words.add_row("load after", f"{os.getloadavg()[0]:.2f}", "")
    return Group(table, words)


@dataclass(frozen=True, slots=True)
class Rates:
    """What was seen of some tabs.

    Attributes:
        mean: Updates a second, mean over the tabs.
        slowest: The same of the slowest tab.
        pictured: Updates a second that brought new pictures of the layers too, mean over the tabs.
        busy: Largest share of a page's main thread.
        server_ms: CPU milliseconds of the server for each update.
        browser_ms: The same of all the browser's processes.
    """

    mean: float
    slowest: float
    pictured: float
    busy: float
    server_ms: float
    browser_ms: float


def rates(pages: list[Any], server: list[int], seconds: float = SECONDS) -> Rates:
    """Watch tabs that train for some seconds."""
    for page in pages:
        page.wait_for_function("firstlight.store.views[0].frame?.header.step > 30", timeout=300_000)
    time.sleep(3.0)  # the prediction and the checks of the last page are done
    probes = [page.context.new_cdp_session(page) for page in pages]
    for probe in probes:
        probe.send("Performance.enable")

    def read() -> tuple[list[tuple[float, ...]], float, float]:
        tabs: list[tuple[float, ...]] = []
        for page, probe in zip(pages, probes, strict=True):
            metrics = {m["name"]: m["value"] for m in probe.send("Performance.getMetrics")["metrics"]}
            seen = page.evaluate("[firstlight.store.drawn, firstlight.store.pictured, performance.now() / 1000]")
            tabs.append((*seen, metrics["TaskDuration"]))
        return tabs, machine.cpu_seconds(server), machine.cpu_seconds(machine.browser_processes())

    before, served, drawn = read()
    time.sleep(seconds)
    after, served_after, drawn_after = read()
    passed = [[b - a for a, b in zip(x, y, strict=True)] for x, y in zip(before, after, strict=True)]
    updates = sum(tab[0] for tab in passed)
    return Rates(
        mean=statistics.mean(tab[0] / tab[2] for tab in passed),
        slowest=min(tab[0] / tab[2] for tab in passed),
        pictured=statistics.mean(tab[1] / tab[2] for tab in passed),
        busy=max(tab[3] / tab[2] for tab in passed),
        server_ms=1000 * (served_after - served) / updates,
        browser_ms=1000 * (drawn_after - drawn) / updates,
    )


def first_paint(browser: Any, url: str) -> float:
    """Milliseconds from opening the address to the first content on the screen."""
    page = machine.open_page(browser, url + "#" + quote("-"))
    paint = page.wait_for_function(
        "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    ).json_value()  # the entry may come after the page's own script
    page.close()
    return float(paint)
