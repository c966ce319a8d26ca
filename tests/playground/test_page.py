"""The page in headless Chromium: settings, keys, runs, panels and their files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browser_tools import config, needs_browser, opened, step_of, sync, wait_config

pytestmark = needs_browser


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


def test_one_step_is_seen_as_a_point(page):
    page.click("text=Step")
    page.wait_for_function("firstlight.store.views[0]?.frame?.header.step === 1")
    page.wait_for_function(
        """() => {
          const c = document.querySelector('#panel-cost canvas');
          const p = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
          let of = 0; // pixels of the run's own colour, #0068a8
          for (let i = 0; i < p.length; i += 4) of += p[i] < 8 && p[i + 1] === 104 && p[i + 2] === 168;
          return of >= 4;
        }"""
    )


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
                if (name, kind) == ("boundary", "CSV"):  # the points, and what the network says around them
                    assert (content.count(b"\npoint,"), content.count(b"\nrun A says,")) == (300, 48 * 48)


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
    for name, mark in (("seeds", b"median"), ("critical", b"predicted 1.")):
        panel = page.locator(f"#panel-{name}")
        for kind, wanted in (("CSV", b","), ("SVG", mark), ("PNG", b"\x89PNG")):
            panel.locator("summary", has_text="Save").click()
            with page.expect_download() as waiting:
                panel.get_by_role("button", name=kind, exact=True).click()
            assert wanted in Path(waiting.value.path()).read_bytes(), (name, kind)
