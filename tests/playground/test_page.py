"""The page itself in headless Chromium: what a person does, and what then stands on the screen."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

import pytest

from firstlight.playground import presets

CHROMIUM = os.environ.get("FIRSTLIGHT_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
AXE = Path(__file__).parents[2] / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
ATTEMPTS = 3  # a rate is the page's own in the best of them: other work of the machine only ever lowers it

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]
sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
# the page is drawn after its store changes: what stands on the screen is waited for, never read at once
sync.expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def browser():
    with sync.sync_playwright() as tool:
        running = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def page(browser, served):
    with opened(browser, served.url) as tab:
        yield tab


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


def machine_is_busy() -> bool:
    """Whether so much other work runs that a rate is no statement about the page (its own work included)."""
    return os.getloadavg()[0] > 0.75 * (os.cpu_count() or 1)


def step_of(page) -> int:
    return page.evaluate("firstlight.store.views[0].frame.header.step")


SELECTS = [
    ("activation", "tanh"),
    ("normalization", "layer"),
    ("optimizer", "adam"),
    ("loss", "mse"),
    ("learning_rate", 0.3),
    ("batch", 25),
]
SLIDERS = [("noise", 0.5), ("count", 100), ("split", 0.3), ("depth", 4), ("width", 12), ("residual", 0.5)]


def test_every_setting_changes_what_it_says(page):
    for name, value in SELECTS:
        page.select_option(f"#f-{name}", str(value))
        wait_config(page, name, value)
    for name, value in SLIDERS:
        page.fill(f"#f-{name}", str(value))  # the slider
        wait_config(page, name, value)
        exact = page.locator(f".field:has(#f-{name}) .exact")
        sync.expect(exact).to_have_value(str(value))
        exact.fill(str(value))
    page.uncheck("#f-bias")
    wait_config(page, "bias", False)
    page.fill("#f-widths", "6, 3")
    page.press("#f-widths", "Enter")
    wait_config(page, "widths", [6, 3])
    for name in ("moon", "square", "gaussian", "spiral", "digits", "circle"):
        page.click(f'[data-set="data"][data-value="{name}"]')
        wait_config(page, "data", name)
        sync.expect(page.locator(f'[data-value="{name}"]')).to_have_attribute("aria-pressed", "true")
    for scheme in page.evaluate("firstlight.store.hello.choices.scheme"):
        if scheme == "given":
            continue
        page.check(f'input[name="scheme"][value="{scheme}"]')
        wait_config(page, "scheme", scheme)
    page.check('input[name="scheme"][value="too-large"]')
    wait_config(page, "variance_scale", 100)
    page.fill("#f-variance_scale", "50")
    page.press("#f-variance_scale", "Enter")
    wait_config(page, "variance_scale", 50)
    page.wait_for_function("document.querySelector('.law').textContent.includes('√(50/n)')")


def test_play_pause_step_reset_and_seeds(page):
    page.click(".play")
    page.wait_for_function("firstlight.store.views[0]?.frame?.header.step > 5")
    page.click(".play")
    page.wait_for_function("!firstlight.store.playing")
    page.wait_for_timeout(300)
    before = step_of(page)
    page.wait_for_timeout(300)
    assert step_of(page) == before
    page.click("text=Step")
    page.wait_for_function(f"firstlight.store.views[0]?.frame?.header.step === {before + 1}")
    page.click("text=Reset")
    page.wait_for_function("firstlight.store.views[0]?.frame?.header.step === 0")
    assert config(page)["seed"] == 0  # reset keeps the seed
    page.click("text=New seed")
    wait_config(page, "seed", 1)
    page.fill("#seed", "42")
    page.press("#seed", "Enter")
    wait_config(page, "seed", 42)
    for speed in ("10", "100", "max", "1"):
        page.click(f'[data-speed="{speed}"]')
        page.wait_for_function(f"String(firstlight.store.speed) === '{speed}'")


def test_the_keyboard_reaches_everything(page):
    page.locator("main").click(position={"x": 5, "y": 5})
    page.keyboard.press(" ")
    page.wait_for_function("firstlight.store.playing")
    page.keyboard.press(" ")
    page.wait_for_function("!firstlight.store.playing")
    page.keyboard.press("n")
    wait_config(page, "seed", 1)
    page.keyboard.press(".")
    page.wait_for_function("firstlight.store.views[0]?.frame?.header.step === 1")
    seen, names = set(), []
    for _ in range(140):
        page.keyboard.press("Tab")
        name = page.evaluate(
            "(() => { const e = document.activeElement;"
            " if (e === document.body) return '';"
            " return (e.closest('section.panel')?.dataset.panel ?? '') + '|' + e.tagName + '|' +"
            " (e.id || e.textContent.slice(0, 20) || e.getAttribute('aria-label')); })()"
        )
        if name in seen and len(seen) > 40:
            break
        seen.add(name)
        names.append(name)
    text = " ".join(names)
    for wanted in ("f-depth", "f-learning_rate", "Play", "Tour", "cost|DIV", "walks|DIV", "Compare"):
        assert wanted in text, (wanted, names)


def test_arrow_keys_read_exact_values(page):
    page.click("text=Step")
    page.wait_for_function("firstlight.store.views[0]?.frame?.header.step === 1")
    page.focus("#panel-cost .plot")
    page.keyboard.press("Home")
    readout = page.locator("#panel-cost .readout")
    readout.wait_for()
    page.wait_for_function("document.querySelector('#panel-cost .readout').textContent.includes('step 0')")
    shown = float(re.search(r"cost ([\d.]+)", readout.text_content())[1])
    exact = page.evaluate("firstlight.store.views[0].frame.arrays.cost.data[0]")
    assert shown == pytest.approx(exact, rel=1e-5)


def test_every_panel_has_a_table_and_files(page):
    page.click(".play")
    page.wait_for_function("firstlight.store.views[0]?.frame?.header.step > 20")
    page.click(".play")
    panels = page.locator("section.panel:visible")
    assert panels.count() >= 9
    for index in range(panels.count()):
        panel = panels.nth(index)
        panel.scroll_into_view_if_needed()
        name = panel.get_attribute("data-panel")
        panel.get_by_role("button", name="Table").click()
        panel.locator("table th").first.wait_for()
        if name in ("cost", "walks", "boundary", "histograms", "strip", "network", "start", "accuracy"):
            page.wait_for_timeout(200)
            for kind, mark in (("CSV", b","), ("SVG", b"<svg"), ("PNG", b"\x89PNG")):
                panel.locator("summary", has_text="Save").click()
                with page.expect_download() as waiting:
                    panel.get_by_role("button", name=kind, exact=True).click()
                content = Path(waiting.value.path()).read_bytes()
                assert mark in content[:4000], (name, kind)
                assert kind != "SVG" or b"<image" not in content, name  # shapes, not pixels
                assert len(content) > 60, (name, kind)


def test_a_learning_rate_changes_while_the_run_goes_on(page):
    page.click(".play")
    page.wait_for_function("firstlight.store.views[0]?.frame?.header.step > 20")
    page.select_option("#f-learning_rate", "0.3")
    wait_config(page, "learning_rate", 0.3)
    assert step_of(page) > 20
    page.click(".play")
    page.wait_for_function("!firstlight.store.playing")
    page.select_option("#f-optimizer", "adam")  # everything else begins anew
    wait_config(page, "optimizer", "adam")
    page.wait_for_function("firstlight.store.views[0]?.frame?.header.step === 0")


def test_changes_faster_than_their_answers_add_up(page):
    """All in one moment, before the server can answer any of them."""
    page.evaluate(
        """() => {
          const turn = (id, value) => {
            const e = document.querySelector(id);
            e.value = value;
            e.dispatchEvent(new Event('change'));
          };
          turn('.field:has(#f-depth) .exact', '5');
          turn('#f-activation', 'tanh');
          turn('.field:has(#f-width) .exact', '7');
          document.querySelector('input[name=scheme][value=too-large]').click();
          turn('#seed', '9');
        }"""
    )
    for name, value in {"depth": 5, "width": 7, "activation": "tanh", "scheme": "too-large", "seed": 9}.items():
        wait_config(page, name, value)
    assert config(page)["widths"] == []
    assert config(page)["variance_scale"] == 100


def test_four_runs_side_by_side_share_data_and_seed(page):
    for count in (2, 3, 4):
        page.click("text=+ Compare")
        page.wait_for_function(f"firstlight.store.runs.length === {count}")
    sync.expect(page.locator("text=+ Compare")).to_have_count(0)
    page.check('input[name="scheme"][value="zero"]')
    wait_config(page, "scheme", "zero", run=3)
    assert config(page, 0)["scheme"] == "appropriate"
    page.click('[data-value="moon"]')
    wait_config(page, "data", "moon", run=0)
    page.click("text=New seed")
    wait_config(page, "seed", 1, run=2)
    page.click(".play")
    page.wait_for_function("firstlight.store.views.every(v => v.frame?.header.step > 3)")
    sync.expect(page.locator(".verdict")).to_have_count(4)
    page.click('[aria-label="Remove run D"]')
    page.wait_for_function("firstlight.store.runs.length === 3")


def test_the_verdict_offers_a_fix_that_works(browser, served):
    with opened(browser, served.url + "#scene=article-zero-circle") as page:
        wait_config(page, "scheme", "zero")
        page.click(".play")
        page.wait_for_selector("text=symmetric")
        page.click(".fix >> visible=true")
        wait_config(page, "scheme", "auto")
        page.wait_for_function("/healthy|learned/.test(document.querySelector('.verdict strong').textContent)")


def test_long_pictures_are_drawn(page):
    for button, frame in (("100 walks", "walks"), ("Run 25 seeds", "seeds"), ("Find it", "critical")):
        page.click(f"text={button}")
        page.wait_for_function(f"firstlight.store.{frame}?.header.end", timeout=120_000)


def test_the_tour_asks_before_it_lets_play(page):
    page.click("text=Tour")
    for number, step in enumerate(presets.TOUR):
        page.wait_for_selector(f"text={number + 1}. {step.title}")
        sync.expect(page.locator(".tour .go")).to_have_count(0)
        page.locator(".tour .option").nth(step.answer).click()
        sync.expect(page.locator(".tour .reveal")).to_contain_text(step.reveal[:40])
        wanted = presets.scene(step.scene).runs[0]
        for name, value in wanted.items():
            wait_config(page, name, value)
        if number == 0:
            page.click(".tour .go")
            page.wait_for_function("firstlight.store.playing")
        page.locator(".tour footer button").last.click()
    sync.expect(page.locator(".tour")).to_be_hidden()


def test_a_scene_opens_from_the_gallery_and_an_address_brings_settings_back(browser, served, page):
    page.click("text=Scenes")
    page.click("dialog[open] .card:has-text('Spiral')")
    wait_config(page, "data", "spiral")
    with opened(browser, served.url + '#runs=[{"scheme":"he","depth":5},{"scheme":"zero"}]&speed=10') as other:
        wait_config(other, "depth", 5)
        wait_config(other, "scheme", "zero", run=1)
        other.wait_for_function("firstlight.store.speed === 10")


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
    with opened(browser, served.url + "&embed=1") as page:
        sync.expect(page.locator(".rail-box")).to_be_hidden()
        sync.expect(page.locator(".play")).to_be_visible()


def test_points_can_be_drawn_and_pasted(page):
    page.click('[data-value="custom"]')
    pad = page.locator(".pad")
    box = pad.bounding_box()
    for x in (0.3, 0.35):
        page.mouse.click(box["x"] + x * box["width"], box["y"] + 0.5 * box["height"])
    page.click("text=Class 2: blue circles")
    pad.focus()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    page.keyboard.press(" ")
    page.click("text=Use these points")
    wait_config(page, "data", "custom")
    page.wait_for_function("firstlight.store.runs[0].facts.samples === 3")
    page.click('[data-value="custom"]')
    page.fill("dialog[open] textarea", "x,y,k\n1,2,a\n3,4,b\n5,6,b\n7,8,a\n")
    page.click("text=Use this table")
    page.wait_for_function("firstlight.store.runs[0].facts.samples === 4")
    page.click('[data-value="custom"]')
    page.fill("dialog[open] textarea", "1,2,a\n3,x,b\n")
    page.click("text=Use this table")
    page.wait_for_selector("#status.shown[data-kind=error]")


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
