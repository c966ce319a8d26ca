"""Pictures of the layers take at most a quarter of the wall time, however dear they are."""

from __future__ import annotations

import time

from playground_tools import Direct

from firstlight.playground import views
from firstlight.playground.pace import DIAGNOSTIC_SHARE, Budget


def test_after_a_picture_three_times_as_long_goes_into_other_work():
    budget = Budget()
    assert budget.open(0.0)
    budget.spend(10.0, 11.0)
    assert not budget.open(13.9)
    assert budget.open(14.0)


def test_slow_pictures_take_a_quarter_of_a_sessions_time(monkeypatch):
    real, spent = views.layers, []

    def slow(*args):
        began = time.perf_counter()
        time.sleep(0.1)
        made = real(*args)
        spent.append(time.perf_counter() - began)
        return made

    with Direct() as page:
        page.until("report")
        monkeypatch.setattr(views, "layers", slow)
        page.send("play")
        page.until("frame", where=lambda m: m["step"] > 0)
        spent.clear()
        began = time.perf_counter()
        page.until("frame", where=lambda m: len(spent) >= 6)
        wall = time.perf_counter() - began
    # the window may begin just before a picture and end just after one: one of them is not paid for yet
    assert sum(spent) - max(spent) <= DIAGNOSTIC_SHARE * wall
