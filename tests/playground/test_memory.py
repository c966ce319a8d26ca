"""A long session leaks nothing: resident memory stays flat while frames, jobs and rebuilds go on."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import pytest
from playground_tools import Direct


def resident() -> float:
    """MiB of this process in memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return float("nan")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_is_flat_over_a_long_session():
    """Ninety seconds at full speed with a reader, rebuilt every three: as many frames as an hour of looking on."""
    with Direct() as page:
        page.send("speed", value="max")

        def work(seconds: float) -> None:
            end = time.monotonic() + seconds
            seed = 0
            while time.monotonic() < end:
                seed += 1
                page.send("configure", runs=[{"seed": seed, "widths": [16] * 6}, {"scheme": "zero"}])
                page.send("play")
                page.send("walks", run=0, draws=20)
                until = time.monotonic() + 3
                while time.monotonic() < until:
                    page.session.mailbox.take()
                    time.sleep(0.02)

        work(30)
        gc.collect()
        before = resident()
        work(60)
        gc.collect()
        assert resident() <= 1.1 * before
