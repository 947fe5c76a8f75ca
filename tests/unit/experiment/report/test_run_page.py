import json
import re
from html.parser import HTMLParser

import pytest

from fedsim.experiment.load import load_run
from fedsim.experiment.report.run_page import run_page
from fedsim.experiment.report.write import write_report
from tests.records import NASTY, write_record

VOID = {"meta", "link", "br", "img", "input"}


class Outline(HTMLParser):
    """Elements in order; fails where they are not closed in turn."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.tags, self.words = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" not in self.open and "style" not in self.open:
            self.words.append(data)


def outline(page):
    parser = Outline()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def figures(page):
    return json.loads(re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)[1])


@pytest.fixture
def page(tmp_path):
    return run_page(load_run(write_record(tmp_path / "run")))


def test_the_page_is_whole_and_refers_to_nothing_outside(page):
    read = outline(page)
    assert len(read.ids) == len(set(read.ids))
    told = re.sub(r'<script type="text/plain" id="library">.*?</script>', "", page, flags=re.DOTALL)
    assert "http://" not in told
    assert "https://" not in told
    assert "default-src 'none'" in page
    assert len(page.encode()) < 6_000_000


def test_what_files_say_is_escaped_everywhere(page):
    assert NASTY in "".join(outline(page).words)  # told as text,
    assert page.count("<script") == 4 - 1  # and never as an element: figures, library, program
    for figure in figures(page):
        assert "<script" not in json.dumps(figure)


def test_every_figure_has_a_place_and_every_place_a_figure_or_words(page):
    drawn = {figure["id"] for figure in figures(page)}
    places = set(re.findall(r'id="plot-([a-z0-9_-]+)"', page))
    boxes = set(re.findall(r'id="box-([a-z0-9_-]+)"', page))
    assert drawn == places
    assert places < boxes
    assert len(re.findall(r'<p class="none">[^<]+</p>', page)) == len(boxes - places)


def test_the_summary_tells_who_took_part_and_who_did_not(page):
    words = " ".join(outline(page).words)
    assert "2.0000 → 1.5000" in words
    assert "Updates came from: phone 1." in words
    assert "No update was aggregated from: laptop." in words
    assert "1 phone (cannot hold the base model)" in words
    assert "3 of 6 devices were never given work" in words
    assert "Bytes are those of big." in words


def test_a_stub_says_so_loudly_and_draws_no_loss(tmp_path):
    page = run_page(load_run(write_record(tmp_path / "run", stub=True)))
    assert '<div class="stub" role="alert"><strong>STUB</strong>' in page
    assert "metric-loss" not in {figure["id"] for figure in figures(page)}
    assert "Nothing was trained (stub), so there is nothing to measure." in page


def test_a_run_that_has_not_ended_says_so(tmp_path):
    directory = write_record(tmp_path / "run")
    events = directory / "events.jsonl"
    lines = events.read_text().splitlines(keepends=True)
    events.write_text("".join(lines[:9]))
    assert "This run has not ended" in run_page(load_run(directory))


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_a_record_of_next_to_nothing_has_a_page_of_words(tmp_path, kept):
    directory = write_record(tmp_path / "run")
    events = directory / "events.jsonl"
    events.write_text("".join(events.read_text().splitlines(keepends=True)[:kept]))
    (directory / "metrics.csv").unlink()
    (directory / "summary.json").unlink()
    page = write_report(directory).read_text()
    outline(page)
    assert "No device was ever given work in this run." in page


def test_the_loss_can_be_read_against_bytes(page):
    loss = next(figure for figure in figures(page) if figure["id"] == "metric-loss")
    axes = dict(loss["axes"])
    assert axes["GB over the links, both ways"][0] == [0.0, pytest.approx(220e-9)]
    assert [len(values) for values in axes.values()] == [len(loss["data"])] * len(axes)


def test_the_same_record_gives_the_same_page(tmp_path):
    directory = write_record(tmp_path / "run")
    assert write_report(directory).read_bytes() == write_report(directory).read_bytes()
    assert not list(directory.glob("*.tmp"))


def test_faults_rules_and_epsilon_are_told_where_there_are_some(tmp_path):
    directory = write_record(tmp_path / "run")
    assert 'id="trust"' not in run_page(load_run(directory))
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["scenario"] |= {"privacy": {"clip": 1.0}, "faults": {"share": 0.5, "sends": NASTY}}
    manifest["faulty_clients"] = [0]
    (directory / "manifest.json").write_text(json.dumps(manifest))
    summary = json.loads((directory / "summary.json").read_text())
    summary["privacy"] = {"epsilon": 12.5, "delta": 1e-5, "releases": 1}
    (directory / "summary.json").write_text(json.dumps(summary))
    text = (directory / "events.jsonl").read_text()
    defence = '"failed": {}, "defence": {"norms": {"0": 3.0}, "counted": {"0": 0.25}}'
    (directory / "events.jsonl").write_text(text.replace('"failed": {}', defence))
    run = load_run(directory)
    assert run.defences.iloc[0].to_dict() == {
        "time_s": 40.0,
        "version": 1,
        "assignment": 0,
        "client": 0,
        "norm": 3.0,
        "counted": 0.25,
    }
    page = run_page(run)
    words = " ".join(outline(page).words)
    for expected in ("12.5", "faulty", "0.25", "epsilon of a client that is in every release"):
        assert expected in words
    assert NASTY not in page.split('<script type="application/json"')[0]


def test_names_of_classes_layers_and_reasons_cannot_break_the_page(tmp_path):
    """Whatever a hostile record calls things: no element of its making, nothing that ends a script."""
    directory = write_record(tmp_path / "run")
    nasty = "</script><img src=x onerror=alert(1)>'\"&"
    for name in ("events.jsonl", "manifest.json"):
        text = (directory / name).read_text()
        for word in ("laptop", "model.layers.0.q_proj", "the device left", "uploads", "is over"):
            text = text.replace(word, json.dumps(nasty)[1:-1])
        (directory / name).write_text(text)
    page = run_page(load_run(directory))
    assert "<img src=x" not in page
    assert nasty not in page
    assert "img" not in outline(page).tags
