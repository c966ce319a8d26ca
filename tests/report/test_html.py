"""The HTML report: complete, escaped, small, and asking nothing of the network or of JavaScript."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from records import chain, prediction, report, stats

from firstlight.graph.results import Finding, Measurement, NodeStats, Report
from firstlight.report.html import render_html, walk_of
from firstlight.report.view import build_view

HOSTILE = "</style><script>alert('x')</script><img src=http://evil.example/x onerror=alert(1)>&amp;\"'`\u202e\x00"
VERDICTS = ("starts", "at risk", "mis-scaled", "will not start")


class Page(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def safe(page: Page) -> None:
    """Nothing that runs, and nothing that leads out of the page."""
    assert not page.named("script")
    assert not page.named("img")
    assert not page.named("link")
    assert not page.named("iframe")
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert not {"src", "srcset"} & set(attributes)
        link = attributes.get("href") or attributes.get("xlink:href")
        assert link is None or re.fullmatch(r"#o\d+", link)


def test_all_that_was_promised_is_there() -> None:
    page = Page(render_html(report()))
    for text in (
        "Will not start",
        "<1 %",
        "The whole network at a glance",
        "Forward: the signal",
        "Backward: the gradient",
        "FWD001",
        'firstlight.initialize(model, "he")',
        "the factor per layer becomes 1.00",
        "199 operations",
        "layers.37:relu",
        "layers.99.weight",
    ):
        assert text in page.text, text
    safe(page)
    assert page.text.index("Will not start") < page.text.index("Worst first") < page.text.index("In detail")
    strip = next(svg for svg in page.named("svg") if svg.get("class") == "strip")
    assert (strip.get("viewbox") or "").split()[2] == "199"
    linked = {attributes["href"] for attributes in page.named("a")}
    rows = {f"#{attributes['id']}" for attributes in page.named("tr") if attributes.get("id")}
    assert linked == rows


def test_a_report_on_100_layers_is_small() -> None:
    for path in ("layers.{}", "classifier.body.stages.3.blocks.{}.projection"):
        size = len(render_html(report(chain(100, path=path))).encode())
        assert size <= 150_000, size


def test_a_huge_network_keeps_the_page_small_and_says_what_is_left_out() -> None:
    text = render_html(report(chain(3000)))
    assert len(text.encode()) <= 400_000
    page = Page(text)
    assert "unremarkable operations are left out here" in page.text
    assert "layers.2999:linear" in page.text  # it has a finding


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_has_words_and_a_sign(verdict: str) -> None:
    page = Page(render_html(report(verdict=verdict)))
    assert verdict.capitalize() in page.text
    assert {"starts": "✓", "at risk": "!", "mis-scaled": "≠", "will not start": "✕"}[verdict] in page.text


def test_hostile_names_and_texts_are_only_text() -> None:
    measured = chain(4, path=HOSTILE + "{}")
    hostile = Finding(HOSTILE, "error", measured.nodes[1].name, *([HOSTILE] * 5))
    made = report(
        Measurement(
            HOSTILE, measured.nodes, measured.parameters, 1.0, HOSTILE, True, 2, HOSTILE, (HOSTILE,), 1, "", ()
        ),
        findings=(hostile,),
        headline=HOSTILE,
    )
    text = render_html(made)
    safe(Page(text))
    assert "<script" not in text
    assert "evil.example" in Page(text).text
    assert text.count("</style>") == 1


def test_edges_of_what_can_be_measured() -> None:
    nan = stats(math.nan, nan_count=5)
    zero = stats(0.0, zero_fraction=1.0, dead_units=64)
    whole = stats(4.0, dtype="int64")
    scalar = stats(1.0, shape=(), units=1, cosine=None, sample_variance=None)
    nodes = (
        NodeStats("ids:input", "input", "", "", "", whole, None),
        NodeStats("a:linear", "linear", "a", "Linear", "", zero, None, ("ids:input",)),
        NodeStats("b:linear", "linear", "b", "Linear", "", nan, nan, ("a:linear",)),
        NodeStats("c:sum", "sum", "c", "", "", scalar, scalar, ("b:linear",)),
    )
    page = Page(render_html(report(Measurement("M", nodes, (), math.nan, "sum", False, 1), findings=())))
    assert "is exactly zero" in page.text
    assert "not finite" in page.text
    assert "No findings" in page.text
    safe(page)
    assert (
        "No signal was measured"
        in Page(render_html(Report("starts", 1.0, (), Measurement("", (), (), 0.0, "", True, 0)))).text
    )


def test_a_zero_that_is_joined_by_a_living_path_is_not_the_end() -> None:
    def walk(*qs: float) -> str:
        nodes = [NodeStats("x:input", "input", "", "", "", stats(1.0), None)]
        nodes += [NodeStats(f"{i}:linear", "linear", str(i), "Linear", "", stats(q), None) for i, q in enumerate(qs)]
        return build_view(report(Measurement("M", tuple(nodes), (), 0.0, "", True, 8), findings=())).forward_text

    assert "keeps its size" in walk(1.0, 0.0, 1.0, 1.0)
    assert walk(1.0, 1.0, 0.0, 0.0).startswith(
        "From step 3 of 4 on, counted from the input, the signal is exactly zero"
    )
    assert "no longer a finite number" in walk(1.0, math.nan, math.nan)


def test_the_band_is_drawn_where_it_was_predicted() -> None:
    page = Page(render_html(report(), prediction()))
    assert "predicted median and ±2σ: law of the live weights" in page.text
    bands = [path["d"] or "" for path in page.named("path") if path.get("class") in ("bf", "bb")]
    assert len([band for band in bands if band.count("L") > 100]) == 2
    drawn = build_view(report(), prediction()).forward_band
    assert drawn is not None
    assert drawn.rows == tuple(range(1, 200, 2))
    # ln of the mean square falls by ln 6 a layer, log10 of the typical entry by half of log10 6
    np.testing.assert_allclose(np.diff(drawn.median), -math.log10(6) / 2)
    np.testing.assert_allclose(drawn.sd, 0.2 / (2 * math.log(10)))


def test_a_band_that_blows_up_does_not_flatten_the_curves() -> None:
    view = build_view(report(), prediction(log_sd=1e12))
    high = re.findall(r'class="ty"[^>]*>10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)<', walk_of(view, "forward"))
    exponents = [int(text.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))) for text in high]
    assert max(abs(exponent) for exponent in exponents) <= 100


def test_nothing_is_said_of_a_prediction_that_was_not_made() -> None:
    assert "predicted" not in Page(render_html(report())).text.replace("Predicted effect", "")


def test_walks_say_what_they_show() -> None:
    view = build_view(report())
    # √(1/6) per layer, the input counted as the start
    assert view.forward_text.startswith("The signal shrinks to 10⁻³⁹")
    assert "×0.41 per step" in view.forward_text
    assert view.backward_text.startswith("The gradient shrinks to 10⁻³⁸")
    kept = build_view(report(chain(50, factor=1.0)))
    assert kept.forward_text.startswith("The signal keeps its size")
    grown = build_view(report(chain(50, factor=4.0)))
    assert "grows to 10¹⁵" in grown.forward_text
    assert "×2" in grown.forward_text


def test_differences_lost_in_rounding_are_said() -> None:
    nodes = [NodeStats("x:input", "input", "", "", "", stats(1.0), None)]
    for layer in range(5):
        spread = 10.0 ** (-4 * layer)
        nodes.append(
            NodeStats(f"{layer}:linear", "linear", str(layer), "Linear", "", stats(1.0, sample_variance=spread), None)
        )
    view = build_view(report(Measurement("M", tuple(nodes), (), 0.0, "", True, 8), findings=()))
    # 8 units of roundoff are 4.8e-7: reached by 1e-8 (step 5), not yet by 1e-6 (step 4)
    assert view.contrast_text.startswith("From step 5 of 5 on")
    single = build_view(report(Measurement("M", (nodes[0],), (), 0.0, "", True, 8), findings=()))
    assert single.contrast_text == ""


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio of two colours #rrggbb."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_enough_contrast(theme: str) -> None:
    style = re.search(r"<style>(.*?)</style>", render_html(report()), re.S)
    assert style is not None
    blocks = re.findall(r":root\{(.*?)\}", style[1], re.S)
    names = dict(re.findall(r"--([\w-]+):(#[0-9a-f]{3,6})\b(?![0-9a-f])", blocks[theme == "dark"]))
    colours = {
        name: value if len(value) == 7 else "#" + "".join(2 * c for c in value[1:]) for name, value in names.items()
    }
    for text in ("ink", "soft", "f", "b", "ok", "warn", "bad", "note"):
        for ground in ("bg", "card"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for text, ground in (("ok", "okb"), ("warn", "warnb"), ("bad", "badb"), ("note", "noteb"), ("ink", "code")):
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for line in ("c0", "c1", "c2", "c3", "c4", "c5"):  # graphics: 3 : 1
        assert contrast(colours[line], colours["card"]) >= 3.0, line


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark"), (2200, "light")])
def test_in_a_browser(tmp_path: Path, width: int, scheme: str) -> None:
    browsers = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = Path("/usr/bin/chromium")
    if not chromium.exists():
        pytest.skip("no Chromium at /usr/bin/chromium")
    path = tmp_path / "report.html"
    path.write_text(render_html(report(chain(100, path="a.very.long.module.path.with.many.parts.{}"))))
    with browsers.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(chromium), args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=False
        )
        asked: list[str] = []
        said: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto(path.as_uri())
        assert asked == [path.as_uri()]
        assert said == []
        assert page.locator("h1").inner_text() == "Will not start"
        box = page.locator("main").bounding_box()
        assert box is not None
        assert box["width"] <= width
        # nothing pushes the page wider than the window
        content = page.locator("html").bounding_box()
        assert content is not None
        assert content["width"] <= width
        for part in (".verdict", ".strip", ".chart >> nth=0", ".finding >> nth=0"):
            place = page.locator(part).first.bounding_box()
            assert place is not None
            assert place["x"] >= 0
            assert place["x"] + place["width"] <= width
        page.locator("summary").first.click()
        assert page.locator("tr#o3").is_visible()
        browser.close()


def test_reports_may_be_empty_of_findings(tmp_path: Path) -> None:
    made = Report("starts", 1.0, (), chain(3, factor=1.0))
    page = Page(render_html(made))
    assert "Every check passed" in page.text
    assert "100 %" in page.text
