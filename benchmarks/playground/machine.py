"""A playground's server in a process of its own, a headless browser on it, and what the kernel says that they use."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")
CHROMIUM = os.environ.get("FIRSTLIGHT_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@contextlib.contextmanager
def server(*arguments: str) -> Iterator[tuple[int, str]]:
    """Start ``firstlight playground`` and give its process number and its address.

    Raises:
        RuntimeError: It ended before it named its address.
    """
    launch = "from firstlight.cli import main; main()"
    command = [sys.executable, "-u", "-c", launch, "playground", "--no-browser", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    try:
        for line in process.stdout:
            found = re.search(r"http://\S+", line)
            if found:
                yield process.pid, found[0]
                return
        raise RuntimeError("the server ended before it named its address")
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextlib.contextmanager
def chromium(*arguments: str) -> Iterator[Any]:
    """A headless browser, as Playwright's object.

    Raises:
        RuntimeError: No chromium on this machine.
    """
    if CHROMIUM is None:
        raise RuntimeError("no chromium on this machine; name one in FIRSTLIGHT_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *arguments])
        try:
            yield browser
        finally:
            browser.close()


def open_page(browser: Any, url: str, **options: Any) -> Any:
    """A tab on the playground, once the first picture of the layers is there."""
    # the page's own policy forbids eval, which Playwright's waiting needs
    tab = browser.new_page(**{"viewport": {"width": 1300, "height": 1000}, "bypass_csp": True, **options})
    tab.set_default_timeout(300_000)
    tab.goto(url)
    tab.wait_for_function("window.firstlight?.store.views[0]?.full")
    return tab


def browser_processes(kind: str | None = None) -> list[int]:
    """Process numbers of the browser that this process started: its own, its renderers', its drawing process.

    Args:
        kind: Only processes of this ``--type``: "renderer", "gpu-process", …
    """
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found, waiting = [], [os.getpid()]
    while waiting:
        children = parents.get(waiting.pop(), [])
        waiting += children
        for child in children:
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                if "chrom" in command.split(" ")[0] and (kind is None or f"--type={kind} " in command + " "):
                    found.append(child)
    return found


def cpu_seconds(pids: list[int]) -> float:
    """CPU seconds, user and system, that living processes have used so far."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = _stat(pid)
            total += int(fields[11]) + int(fields[12])
    return total / TICKS


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    return _field(Path(f"/proc/{pid}/status"), "VmRSS")


def proportional_mib(pids: list[int]) -> float:
    """Resident memory of several processes, pages that they share counted once."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += _field(Path(f"/proc/{pid}/smaps_rollup"), "Pss")
    return total


def _field(path: Path, name: str) -> float:
    for line in path.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent, …"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
