"""Does a long session leak? ``python -m benchmarks.playground.memory [--minutes 120] [--out FILE.csv]``.

A real server and a real browser. Every minute one page opens the next scene, plays it, moves controls, asks for
long pictures, shares and exports the run, now and then loses its socket; a second page comes and goes. Each minute
ends in the same state (four runs of the article, paused, garbage collected), in which memory is read. The process
keeps what its largest network needed, so memory is compared after every scene was open once. A browser fills spare
memory with caches of its own (compiled code, decoded pictures, drawn tiles): it is read as it stands, and again after
it was told that memory is short, which leaves what the page really holds.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.playground import machine

WARM_UP = 35  # minutes: every scene was open once, the deepest networks too
PATIENCE_MS = 1_200_000  # at a load of 13 on two cores, 25 seeds of three networks of 100 layers took more than 300 s
FIELDS: tuple[str, ...] = (
    "minute",
    "server_rss_mib",
    "browser_pss_mib",
    "browser_held_mib",
    "renderer_mib",
    "renderers",
    "drawing_mib",
    "js_heap_mib",
    "dom_nodes",
    "listeners",
    "updates",
)
WATCHED = ("server_rss_mib", "browser_pss_mib", "browser_held_mib", "js_heap_mib")
REFERENCE = "article-side-by-side"
# A spare process that the browser keeps for the next tab comes and goes, with 50 to 120 MiB.
NO_SPARE = "--disable-features=SpareRendererForSitePerProcess"
KEEP_SOCKET = """
const Real = WebSocket;
window.WebSocket = class extends Real { constructor(...a) { super(...a); window.lastSocket = this; } };
"""


def measure(minutes: float, seed: int = 0, seconds: float = 60.0) -> Iterator[dict[str, float]]:
    """Play for that long; one row of `FIELDS` for each cycle of `seconds`."""
    rng = random.Random(seed)
    with machine.server() as (pid, url), machine.chromium(NO_SPARE) as browser:
        page = machine.open_page(browser, url)
        page.set_default_timeout(PATIENCE_MS)
        page.add_init_script(KEEP_SOCKET)
        page.reload()
        page.wait_for_function("window.firstlight?.store.views[0]?.full")
        probe = page.context.new_cdp_session(page)
        probe.send("Performance.enable")
        scenes = page.evaluate("firstlight.store.hello.scenes.map(s => s.key)")
        began = time.monotonic()
        for number, scene in enumerate(itertools.cycle(scenes)):
            end = began + (number + 1) * seconds
            cycle(browser, page, url, scene, rng, number)
            show(page, REFERENCE)
            page.wait_for_timeout(max(2.0, 0.75 * (end - time.monotonic())) * 1000)
            send(page, "pause")
            page.wait_for_function("!firstlight.store.playing")
            probe.send("HeapProfiler.collectGarbage")
            found = {m["name"]: m["value"] for m in probe.send("Performance.getMetrics")["metrics"]}
            filled = machine.proportional_mib(machine.browser_processes())
            probe.send("Memory.simulatePressureNotification", {"level": "critical"})
            page.wait_for_timeout(1_500)
            yield {
                "minute": round((time.monotonic() - began) / 60, 2),
                "server_rss_mib": machine.resident_mib(pid),
                "browser_pss_mib": filled,
                "browser_held_mib": machine.proportional_mib(machine.browser_processes()),
                "renderers": float(len(machine.browser_processes("renderer"))),
                "renderer_mib": machine.proportional_mib(machine.browser_processes("renderer")),
                "drawing_mib": machine.proportional_mib(machine.browser_processes("gpu-process")),
                "js_heap_mib": found["JSHeapUsedSize"] / 2**20,
                "dom_nodes": found["Nodes"],
                "listeners": found["JSEventListeners"],
                "updates": page.evaluate("firstlight.store.updates"),
            }
            if time.monotonic() - began >= 60 * minutes:
                return
            page.wait_for_timeout(max(0.0, end - time.monotonic()) * 1000)


def cycle(browser: Any, page: Any, url: str, scene: str, rng: random.Random, number: int) -> None:
    """What a person does in a minute."""
    show(page, scene)
    page.wait_for_timeout(6_000)
    send(page, "pause")
    show(page, "article-appropriate-circle")
    for name, value in (
        ("depth", rng.randint(1, 12)),
        ("width", rng.randint(2, 24)),
        ("activation", rng.choice(("tanh", "relu", "gelu", "sigmoid"))),
        ("scheme", rng.choice(("he", "zero", "random-walk", "auto", "orthogonal"))),
        ("seed", rng.randint(0, 999)),
    ):
        set_control(page, name, value)
        page.wait_for_timeout(300)
    page.get_by_role("button", name="Table").nth(number % 3).click()
    with page.expect_download() as waiting:
        page.click("summary:has-text('Share')")
        page.click("text=Save as one HTML file")
    waiting.value.delete()
    page.click("summary:has-text('Share')")
    page.click(".share .items button:has-text('PyTorch')")
    page.wait_for_selector("dialog[open] pre")
    page.keyboard.press("Escape")
    picture, frame = (("100 walks", "walks"), ("Run 25 seeds", "seeds"), ("Find it", "critical"))[number % 3]
    page.click(f"text={picture}")
    try:
        page.wait_for_function(f"firstlight.store.{frame}?.header.end")
    except Exception:
        seen = page.evaluate(
            "[document.body.className, document.getElementById('status').textContent,"
            f" firstlight.store.{frame}?.header, firstlight.store.runs.map(r => r.config)]"
        )
        print(f"no end of {picture!r} in cycle {number}: {seen}", flush=True)
        raise
    if number % 5 == 4:
        page.evaluate("window.lastSocket.close()")
        page.wait_for_function("!document.body.classList.contains('offline') && firstlight.store.views[0]?.full")
    other = machine.open_page(browser, url + f"#scene={scene}&play=1")
    other.wait_for_timeout(3_000)
    other.close()  # while it plays


def show(page: Any, scene: str) -> None:
    """Open a scene and play it; the page follows its address."""
    page.evaluate(f"location.hash = '#scene={scene}&play=1&n=' + Math.random()")
    page.wait_for_function("firstlight.store.playing")


def send(page: Any, command: str) -> None:
    """One of the page's commands, by its key or button."""
    if command == "pause" and page.evaluate("firstlight.store.playing"):
        page.click(".play")


def set_control(page: Any, name: str, value: Any) -> None:
    """Turn one control as a person would."""
    if name == "scheme":
        page.click(f'input[name="scheme"][value="{value}"]')
    elif name == "activation":
        page.select_option("#f-activation", str(value))
    elif name == "seed":
        page.fill("#seed", str(value))
        page.press("#seed", "Enter")
    else:
        page.fill(f"#f-{name}", str(value))


def verdict(rows: list[dict[str, float]]) -> dict[str, tuple[float, float, float]]:
    """Field -> median MiB over the first quarter after the warm-up, over the last quarter, and their ratio."""
    kept = [r for r in rows if r["minute"] >= WARM_UP] or rows
    quarter = max(1, len(kept) // 4)
    found = {}
    for name in WATCHED:
        first, last = (statistics.median(r[name] for r in part) for part in (kept[:quarter], kept[-quarter:]))
        found[name] = (first, last, last / first)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--out", type=Path, default=Path("playground-memory.csv"))
    arguments = parser.parse_args()
    rows: list[dict[str, float]] = []
    with arguments.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        try:
            for row in measure(arguments.minutes):
                rows.append(row)
                writer.writerow(row)
                file.flush()
        finally:  # a run that was cut off has something to say too
            report(rows)


def report(rows: list[dict[str, float]]) -> None:
    """Print what the rows so far say, and over how many minutes."""
    if not rows:
        return
    print(f"{rows[-1]['minute']:.0f} minutes, {len(rows)} cycles")
    for name, (first, last, ratio) in verdict(rows).items():
        print(f"{name}: {first:.1f} -> {last:.1f} MiB, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
