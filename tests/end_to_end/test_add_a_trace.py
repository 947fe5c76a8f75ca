"""The tables and the scenario of `docs/add-a-trace.md`, cut out of the page, are clean and make a run."""

import json
import re
import textwrap
from pathlib import Path

from fedsim.experiment.run import run
from fedsim.experiment.scenario import load_scenario
from fedsim.world.formats.read import read_trace

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add-a-trace.md").read_text()
TABLE = re.compile(r"^   `(\w+\.csv)`[^\n]*\n\n((?:       [^\n]+\n)+)", re.MULTILINE)
SCENARIO = re.compile(r"^   ```yaml\n(.*?)^   ```", re.MULTILINE | re.DOTALL)


def test_five_steps_lead_to_a_run(tmp_path):
    tables = dict(TABLE.findall(PAGE))
    assert set(tables) == {"devices.csv", "availability.csv", "bandwidth.csv"}
    (tmp_path / "my_fleet").mkdir()
    for name, text in tables.items():
        path = tmp_path / "my_fleet" / name
        path.write_text(textwrap.dedent(text))
        assert read_trace(path).origin.notes == ()
    text = textwrap.dedent(SCENARIO.search(PAGE)[1])
    (tmp_path / "mine.yaml").write_text(
        text.replace("skewed_edge.yaml", str(ROOT / "scenarios" / "skewed_edge.yaml"))
    )
    changes = {"executor.kind": "stub", "stop.rounds": "2", "evaluation.every": "2"}
    result = run(load_scenario(tmp_path / "mine.yaml", changes), tmp_path / "out")
    assert result.reason == "2 rounds are over"
    assert result.tally.outcomes["aggregated"] >= 4
    lines = [json.loads(line) for line in (result.directory / "events.jsonl").read_text().splitlines()]
    assert {line["device"] for line in lines if line["event"] == "dispatched"} <= {"anna", "ben", "cleo"}
