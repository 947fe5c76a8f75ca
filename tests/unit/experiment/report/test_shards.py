import json

import pytest

from fedsim.experiment.load import load_run
from fedsim.experiment.report.shards import shard_figure
from tests.records import MANIFEST, write_record


def figure(directory, told):
    write_record(directory)
    (directory / "manifest.json").write_text(json.dumps({**MANIFEST, "shards": told}))
    return shard_figure(load_run(directory))


def test_shares_of_groups_are_drawn_by_device(tmp_path):
    drawn = figure(tmp_path, MANIFEST["shards"])
    (trace,) = drawn.traces
    assert trace["y"][0] == "laptop-2"  # by class, then by name
    assert trace["z"] == [[100.0, 0.0], [20.0, 80.0]]
    assert trace["x"][0] == "no group"
    assert "2 of 6 devices: 10 to 30 examples" in drawn.note


@pytest.mark.parametrize("told", [{}, {"devices": 1, "sample": [{**MANIFEST["shards"]["sample"][1]}]}])
def test_where_there_is_nothing_to_see_words_say_so(tmp_path, told):
    drawn = figure(tmp_path, told)
    assert not drawn.traces
    assert drawn.empty
