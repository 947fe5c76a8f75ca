"""Reports of real records in a real browser: every figure is drawn, the controls work, nothing complains."""

import base64
import json
import os
from pathlib import Path

import pytest

import fedsim
from fedsim.experiment.report.comparison import write_comparison
from fedsim.experiment.report.write import write_report
from tests.browser import Browser, find_chromium
from tests.records import NASTY, write_record

SCENARIO = Path(__file__).parents[2] / "scenarios" / "skewed_edge.yaml"
LAPTOP, PHONE = (1280, 800), (390, 844)
CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed; apt-get install chromium"),
    pytest.mark.timeout(280),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The shipped fleet with the stub: every outcome is there, and it takes two seconds."""
    scenario = fedsim.load_scenario(SCENARIO, {"executor.kind": "stub"})
    return fedsim.run(scenario, tmp_path_factory.mktemp("runs") / "stub").directory


@pytest.fixture
def browser(tmp_path):
    opened = Browser(CHROMIUM, tmp_path / "profile")
    yield opened
    opened.close()


def look(browser, page, size):
    """Open a page; everything on it must be drawn without a word on the console or on the network."""
    browser.resize(*size, mobile=size == PHONE)
    browser.open(page)
    assert browser.evaluate("document.body.dataset.failed || ''") == ""
    assert browser.complaints == []
    assert [
        url for url in browser.requests if not url.startswith(("file:", "data:", "blob:", "about:"))
    ] == []
    places = browser.evaluate("document.querySelectorAll('.plot').length")
    drawn = browser.evaluate("document.querySelectorAll('.plot[data-drawn] .main-svg').length > 0")
    assert browser.evaluate("document.querySelectorAll('.plot[data-drawn]').length") == places > 0
    assert drawn
    assert browser.evaluate("document.documentElement.scrollWidth") <= size[0]


@pytest.mark.parametrize("size", [LAPTOP, PHONE])
def test_the_report_of_a_run_is_drawn(browser, run, size, tmp_path):
    look(browser, run / "report.html", size)
    banner = browser.evaluate("document.querySelector('.stub').getBoundingClientRect().top")
    assert 0 < banner < size[1]  # a stub is told without scrolling
    assert browser.screenshot(tmp_path / "page.png").stat().st_size > 10_000


def test_classes_can_be_filtered_and_time_can_be_zoomed(browser, run):
    look(browser, run / "report.html", LAPTOP)
    plot = "document.getElementById('plot-strip')"
    box = "document.getElementById('box-strip')"
    shown = f"{plot}.data.filter((trace) => trace.visible !== false).map((trace) => trace.meta)"
    everyone = set(browser.evaluate(shown))
    tall = browser.evaluate(f"{plot}.clientHeight")
    browser.evaluate(
        f"{box}.querySelector('select').value = 'pi-5';"
        f"{box}.querySelector('select').dispatchEvent(new Event('change'))"
    )
    browser.wait_for(f"{plot}._fullLayout.height < {tall}")
    assert len(everyone) > 3
    assert set(browser.evaluate(shown)) == {"pi-5"}

    before = browser.evaluate(f"{plot}.layout.xaxis.range")
    browser.evaluate(f"{box}.querySelector('[data-zoom=in]').click()")
    browser.wait_for(f"{plot}.layout.xaxis.range[0] > {before[0]}")
    inner = browser.evaluate(f"{plot}.layout.xaxis.range")
    assert inner[1] - inner[0] == pytest.approx((before[1] - before[0]) / 2)
    browser.evaluate(f"{box}.querySelector('[data-zoom=all]').click()")
    browser.wait_for(f"{plot}.layout.xaxis.range[0] < {inner[0]}")
    assert browser.complaints == []


def test_controls_are_reached_and_used_with_the_keyboard_alone(browser, run):
    look(browser, run / "report.html", LAPTOP)
    seen = []
    for _ in range(60):
        browser.press("Tab")
        seen.append(
            browser.evaluate("document.activeElement.dataset.zoom || document.activeElement.className")
        )
        if seen[-1] == "in":
            break
    assert seen[0] == "skip"
    assert seen[-1] == "in"
    before = browser.evaluate(
        "document.activeElement.closest('.figure').querySelector('.plot').layout.xaxis.range"
    )
    browser.press("Enter")
    browser.wait_for(
        "document.activeElement.closest('.figure').querySelector('.plot').layout.xaxis.range[0]"
        f" > {before[0]}"
    )


def test_the_loss_can_be_shown_against_bytes_and_names_stay_text(browser, tmp_path):
    page = write_report(write_record(tmp_path / "run"))
    look(browser, page, LAPTOP)
    box = "document.getElementById('box-metric-loss')"
    browser.evaluate(
        f"{box}.querySelector('select').value = '1';"
        f"{box}.querySelector('select').dispatchEvent(new Event('change'))"
    )
    browser.wait_for(f"{box}.querySelector('.plot').layout.xaxis.title.text.startsWith('GB')")
    assert browser.evaluate(f"{box}.querySelector('.plot').data[0].x[1]") == pytest.approx(220e-9)
    assert browser.evaluate("document.querySelectorAll('script').length") <= 4
    assert NASTY in browser.evaluate("document.body.innerText")
    rows = browser.evaluate("document.querySelector('#plot-strip .yaxislayer-above').textContent")
    assert NASTY in rows


@pytest.mark.parametrize("size", [LAPTOP, PHONE])
def test_the_page_of_a_comparison_is_drawn(browser, tmp_path, size):
    runs = {}
    for name in ("one", "other"):
        runs[name] = []
        for seed in range(2):
            directory = write_record(tmp_path / f"{name}-{seed}")
            manifest = json.loads((directory / "manifest.json").read_text())
            (directory / "manifest.json").write_text(json.dumps({**manifest, "seed": seed}))
            runs[name].append(directory)
    look(browser, write_comparison(tmp_path / "out", runs), size)
    if size == LAPTOP:
        zoom_by_dragging(browser, "document.querySelector('.plot')")


def zoom_by_dragging(browser, plot):
    """Drag over the middle of a figure: its axis must show less than before."""
    browser.evaluate(f"{plot}.scrollIntoView({{block: 'center'}})")
    before = browser.evaluate(f"{plot}._fullLayout.xaxis.range")
    box = browser.evaluate(
        f"(({{x, y, width, height}}) => [x, y, width, height])({plot}.getBoundingClientRect())"
    )
    row = box[1] + box[3] / 2
    browser.drag((box[0] + 0.4 * box[2], row), (box[0] + 0.7 * box[2], row))
    browser.wait_for(f"{plot}._fullLayout.xaxis.range[0] > {before[0]}")
    after = browser.evaluate(f"{plot}._fullLayout.xaxis.range")
    assert after[1] - after[0] < 0.6 * (before[1] - before[0])
    assert browser.complaints == []


def test_a_parser_that_is_not_ours_reads_the_timeline(browser, run, tmp_path):
    """Speedscope has its own reader of trace events, which complains of spans that overlap."""
    viewer = os.environ.get("FEDSIM_SPEEDSCOPE")
    if not viewer:
        pytest.skip("npm install speedscope, and let FEDSIM_SPEEDSCOPE name its dist/release/index.html")
    content = (run / "timeline.json").read_bytes()
    told = json.dumps(base64.b64encode(content).decode())
    (tmp_path / "profile.js").write_text(f"speedscope.loadFileFromBase64('timeline.json', {told})")
    address = f"{Path(viewer).resolve().as_uri()}#localProfilePath={tmp_path / 'profile.js'}"
    browser.call("Page.navigate", url=address)
    browser.wait_for("document.body && document.body.innerText.includes('versions (tid 1)')")
    events = json.loads(content)["traceEvents"]
    tracks = {(event["pid"], event["tid"]) for event in events if event["ph"] == "X"}
    assert f"(1/{len(tracks)})" in browser.evaluate("document.body.innerText")
    assert [said for said in browser.complaints if "webgl" not in said.lower()] == []
