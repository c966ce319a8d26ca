"""The page in headless Chromium: the tour, scenes, addresses, a visitor's own points."""

from __future__ import annotations

import torch
from browser_tools import config, needs_browser, opened, sync, wait_config
from torch import nn

from firstlight.playground import launch, presets
from firstlight.playground.own import own_model

pytestmark = needs_browser


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


def test_an_own_model_trains_on_the_page(browser):
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 24), nn.GELU(), nn.LayerNorm(24), nn.Linear(24, 3))
    with launch.start(own_model(model, torch.randn(16, 3, 4))) as running, opened(browser, running.url) as page:
        assert config(page)["data"] == "own"
        sync.expect(page.locator("#panel-boundary")).to_be_hidden()
        page.click('[data-speed="10"]')
        page.click(".play")
        page.wait_for_function("/healthy|learned/.test(document.querySelector('.verdict strong').textContent)")
    torch.set_num_threads(threads)
