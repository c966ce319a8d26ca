"""The page in headless Chromium: its policy, embedded, offline, in every width and theme, for everyone."""

from __future__ import annotations

import http.server
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from browser_tools import needs_browser, opened, sync, wait_config
from playground_tools import Page

from benchmarks.playground.memory import KEEP_SOCKET
from firstlight.playground import launch
from firstlight.playground.server import MAX_SESSIONS

AXE = Path(__file__).parents[2] / "frontend" / "node_modules" / "axe-core" / "axe.min.js"

pytestmark = needs_browser


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


def test_the_page_obeys_its_own_policy(browser, served):
    """No evaluation of text, nothing loaded: under the policy that the server sends it opens without an error."""
    page = browser.new_page()
    problems: list[str] = []
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: problems.append(str(e)))
    page.goto(served.url)
    page.locator(".verdict strong", has_text="starting").wait_for(timeout=60_000)
    assert problems == []
    page.close()


def test_embed_mode_hides_the_controls(browser, served):
    with opened(browser, served.url + '&embed=1#runs=[{},{"scheme":"he"}]') as page:
        page.wait_for_function("firstlight.store.runs.length === 2")
        sync.expect(page.locator(".rail-box")).to_be_hidden()
        for lasting in (".run-tab .close", ".runs .add", ".more .live-only"):  # nothing that cannot be undone
            assert not page.locator(f"{lasting} >> visible=true").count(), lasting
        sync.expect(page.locator(".play")).to_be_visible()


def test_a_shared_run_plays_offline_without_a_request(browser, page, tmp_path):
    page.click('[data-speed="10"]')
    page.click(".play")
    page.wait_for_function("firstlight.store.views[0]?.frame?.header.step > 60")
    page.click(".play")
    page.wait_for_function("!firstlight.store.playing")
    page.click("summary:has-text('Share')")
    with page.expect_download() as waiting:
        page.click("text=Save as one HTML file")
    file = tmp_path / "run.html"
    waiting.value.save_as(file)
    assert file.stat().st_size < 1_000_000
    requests: list[str] = []
    context = browser.new_context(offline=True)
    tab = context.new_page()
    problems: list[str] = []
    tab.on("request", lambda r: requests.append(r.url))
    tab.on("pageerror", lambda e: problems.append(str(e)))
    tab.goto(file.as_uri())
    tab.wait_for_selector("#scrub")
    last = int(tab.evaluate("firstlight.store.views[0].frame.header.step"))
    assert last > 60
    tab.fill("#scrub", "0")
    tab.wait_for_function("firstlight.store.views[0]?.frame?.header.step === 0")
    assert tab.evaluate("firstlight.store.views[0].band.arrays.band_forward.shape[1]") == 3
    assert [r for r in requests if not r.startswith(("file:", "data:", "blob:"))] == []
    assert len([r for r in requests if r.startswith("file:")]) == 1
    assert problems == []
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1300])
def test_axe_finds_nothing(browser, served, scheme, width):
    if not AXE.exists():
        pytest.skip("axe-core is not installed: npm ci in frontend/")
    options = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    with opened(browser, served.url + "#scene=article-side-by-side", **options) as page:
        page.wait_for_function("firstlight.store.views.length === 4 && firstlight.store.views.every(v => v.report)")
        page.wait_for_timeout(500)
        page.add_script_tag(path=AXE)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        assert [(v["id"], [n["html"][:120] for n in v["nodes"][:3]]) for v in found] == []
        # nothing sticks out sideways
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_headings_language_and_live_regions(page):
    assert page.get_attribute("html", "lang") == "en"
    levels = page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4')].filter(e => e.offsetParent).map(e => +e.tagName[1])"
    )
    assert levels.count(1) == 1
    assert page.locator('#status[aria-live="polite"]').count() == 1


def test_settings_survive_a_lost_connection(browser, served):
    with opened(browser, served.url) as page:
        page.add_init_script(KEEP_SOCKET)
        page.reload()
        page.wait_for_function("window.firstlight?.store.views[0]?.full")
        page.click('[data-value="moon"]')
        page.click('[data-speed="10"]')
        page.click("text=+ Compare")
        page.wait_for_function("firstlight.store.runs.length === 2 && firstlight.store.speed === 10")
        page.evaluate("window.lastSocket.close()")
        page.wait_for_function("document.body.classList.contains('offline')")
        page.wait_for_function("!document.body.classList.contains('offline') && firstlight.store.runs.length === 2")
        wait_config(page, "data", "moon", run=1)
        page.wait_for_function("firstlight.store.speed === 10")
        page.wait_for_function("firstlight.store.views.length === 2 && firstlight.store.views.every(v => v.full)")


def test_drawn_points_survive_a_lost_connection_and_travel_in_the_address(browser, served):
    with opened(browser, served.url) as page:
        page.add_init_script(KEEP_SOCKET)
        page.reload()
        page.wait_for_function("window.firstlight?.store.views[0]?.full")
        page.click('[data-value="custom"]')
        page.fill("dialog[open] textarea", "1,2,a\n3,4,b\n5,6,b\n7,8,a\n")
        page.click("text=Use this table")
        wait_config(page, "data", "custom")
        page.click('[data-speed="10"]')
        page.wait_for_function("firstlight.store.speed === 10")
        page.evaluate("window.lastSocket.close()")
        page.wait_for_function("document.body.classList.contains('offline')")
        page.wait_for_function("!document.body.classList.contains('offline') && firstlight.store.speed === 10")
        wait_config(page, "data", "custom")
        page.wait_for_function("firstlight.store.runs[0].facts.samples === 4")
        page.wait_for_function("location.hash.includes('points=') && location.hash.includes('speed=10')")
        with opened(browser, page.url) as other:
            wait_config(other, "data", "custom")
            other.wait_for_function("firstlight.store.runs[0].facts.samples === 4")


def test_the_address_follows_the_settings_and_a_reload_keeps_them(browser, served):
    with opened(browser, served.url + "#scene=article-zero-moon") as page:
        wait_config(page, "scheme", "zero")
        page.wait_for_timeout(600)
        assert page.evaluate("location.hash") == "#scene=article-zero-moon"  # until something is set
        page.select_option("#f-activation", "tanh")
        wait_config(page, "activation", "tanh")
        page.wait_for_function("location.hash.includes('tanh')")
        page.reload()
        page.wait_for_function("window.firstlight?.store.views[0]?.full")
        wait_config(page, "activation", "tanh")
        wait_config(page, "data", "moon")
        page.fill("#seed", "9223372036854775808")
        page.press("#seed", "Enter")
        sync.expect(page.locator("#status.shown[data-kind=error]")).to_contain_text("2,147,483,647")
        page.press("#seed", "Tab")
        sync.expect(page.locator("#seed")).to_have_value("0")  # not what was refused
        page.evaluate("location.hash = '#scene=no-such-scene'")
        sync.expect(page.locator("#status.shown[data-kind=error]")).to_contain_text("no-such-scene")


def test_no_order_but_points_is_taken_from_an_address(browser, served):
    with opened(browser, served.url + '#points={"type":"new_seed"}&runs=[{"depth":5}]') as page:
        wait_config(page, "depth", 5)
        wait_config(page, "seed", 0)


@pytest.mark.parametrize("embed", [True, False])
def test_a_lesson_of_this_machine_frames_the_embed_mode_alone(browser, served, tmp_path, embed):
    (tmp_path / "lesson.html").write_text(f'<iframe src="{served.url}{"&embed=1" if embed else ""}"></iframe>')
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as lessons:
        threading.Thread(target=lessons.serve_forever, daemon=True).start()
        tab = browser.new_page()
        tab.goto(f"http://127.0.0.1:{lessons.server_port}/lesson.html")
        play = tab.frame_locator("iframe").locator(".play")
        if embed:
            sync.expect(play).to_be_visible()
        else:
            tab.wait_for_timeout(1000)
            assert play.count() == 0
        tab.close()
        lessons.shutdown()


def test_a_page_too_many_says_so_as_long_as_it_is_open(browser):
    threads = torch.get_num_threads()
    with launch.start() as running:
        pages = [Page(running.url) for _ in range(MAX_SESSIONS)]
        tab = browser.new_page()
        tab.goto(running.url)
        told = tab.locator(".lost")
        sync.expect(told).to_contain_text("pages are open already")
        tab.wait_for_timeout(9_500)  # messages that come and go are gone by then
        sync.expect(told).to_be_visible()
        tab.close()
        for page in pages:
            page.close()
    torch.set_num_threads(threads)
