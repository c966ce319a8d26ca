"""A run in one file: small, whole, and the same frames as were seen."""

from __future__ import annotations

import base64
import re
import zlib

import pytest
from playground_tools import Direct

from firstlight.playground import recording
from firstlight.playground.protocol import unpack
from firstlight.playground.recording import MAX_FILE_BYTES, MAX_FRAMES, Recording


def bundle(html: str) -> bytes:
    found = re.search(r'<script id="recording" type="application/octet-stream">([^<]+)</script>', html)
    assert found, "the file carries no recording"
    return zlib.decompress(base64.b64decode(found[1]))


@pytest.mark.parametrize(
    "runs", [[{}], [{"scheme": "he", "widths": [64] * 50, "data": "digits", "count": 200}, {"widths": [16] * 6}]]
)
def test_a_shared_run_is_one_small_file(runs):
    with Direct() as page:
        page.send("configure", runs=runs)
        page.until(
            "state", where=lambda m: len(m["runs"]) == len(runs) and m["runs"][0]["config"].items() >= runs[0].items()
        )
        page.until("report", where=lambda m: m["run"] == len(runs) - 1)
        for steps in (1, 2, 4):
            page.send("step", count=steps)
            page.until("frame", where=lambda m, n=steps: m["run"] == len(runs) - 1 and m["step"] >= n)
        page.send("share")
        html = page.until("share")[0]["html"]
    assert len(html.encode()) < MAX_FILE_BYTES
    assert "http://" not in html.replace("http://www.w3.org", "")
    data = bundle(html)
    header, _ = unpack(data)
    assert len(header["state"]["runs"]) == len(runs)
    slots = [slot for slot, _ in header["index"]]
    for index in range(len(runs)):
        assert {f"open{index}", f"band{index}", f"report{index}", f"run{index}"} <= set(slots)
    assert slots.count("run0") >= 4
    at = 8 + int.from_bytes(data[4:8], "little")
    for slot, size in header["index"]:
        frame, _ = unpack(data[at : at + size])
        assert frame["type"] in ("open", "frame", "band", "report"), slot
        at += size
    assert at == len(data)


def test_a_long_recording_is_thinned_and_keeps_its_ends():
    kept = Recording()
    for number in range(10_000):
        kept.keep("run0", {"full": True}, b"%d" % number)
        kept.keep("run0", {"full": False}, b"light")
    frames = [int(f) for f in kept.frames["run0"]]
    assert len(frames) < MAX_FRAMES
    assert frames[0] == 0
    assert frames == sorted(frames)
    assert frames[-1] > 9_000


def test_nothing_to_share_is_said():
    with pytest.raises(Exception, match="Press play"):
        Recording().to_html()


def test_the_page_in_the_package_has_room_for_a_recording():
    page = recording.page()
    assert page.count(recording.SLOT) == 1
    assert len(zlib.compress(page.encode(), 9)) < 120 * 1024
