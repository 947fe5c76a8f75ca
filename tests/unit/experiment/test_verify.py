"""A sound run is sound; whatever is changed in it is found."""

import json
import random
import shutil

import pytest
from typer.testing import CliRunner

import fedsim
from fedsim.cli.main import app
from fedsim.errors import InputError
from fedsim.experiment.verify import Audit, verify
from tests import kills

STUB = {"executor.kind": "stub", "stop.rounds": "4", "evaluation.every": "1"}
BUFFERED = {
    "server.pacing": "buffered",
    "server.cohort": "null",
    "server.over_selection": "null",
    "server.surplus": "null",
    "server.concurrency": "6",
    "server.buffer": "3",
}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    directory = tmp_path_factory.mktemp("real") / "run"
    fedsim.run(fedsim.load_scenario(kills.SCENARIO, kills.SHORT), directory, report=False)
    return directory


@pytest.fixture(scope="module")
def stub(tmp_path_factory):
    directory = tmp_path_factory.mktemp("stub") / "run"
    fedsim.run(fedsim.load_scenario(kills.SCENARIO, STUB), directory, report=False)
    return directory


@pytest.fixture
def copy(real, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(real, directory)
    return directory


def test_a_sound_run_is_sound(real):
    verdict = verify(real)
    assert verdict.findings == []
    assert verdict.notes == []
    assert verdict.counts["assignments"] > 0
    assert verdict.counts["budgets"] >= 2 * verdict.counts["assignments"]
    assert verdict.counts["journal files"] > 0


@pytest.mark.parametrize("changes", [{}, BUFFERED, {"fleet.on_interrupt": "pause"}, {"method.name": "flora"}])
def test_long_records_of_all_kinds_are_sound(tmp_path, changes):
    scenario = fedsim.load_scenario(kills.SCENARIO, {**STUB, "stop.rounds": "12", **changes})
    fedsim.run(scenario, tmp_path / "run", report=False)
    verdict = verify(tmp_path / "run")
    assert verdict.findings == []
    assert verdict.counts["budgets"] > 0


def files(directory):
    return sorted(path for path in directory.rglob("*") if path.is_file())


def test_every_kind_of_file_is_guarded(real):
    names = {path.relative_to(real).parts[0] for path in files(real)}
    assert names == {
        "adapter", "events.jsonl", "journal", "manifest.json", "metrics.csv", "summary.json",
    }  # fmt: skip


def test_a_single_flipped_bit_is_found_wherever_it_is(copy):
    rng = random.Random(0)
    for path in files(copy):
        whole = path.read_bytes()
        for position in {0, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(12))}:
            damaged = bytearray(whole)
            damaged[position] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            assert is_found(copy), f"{path.name}: byte {position}"
        path.write_bytes(whole)
    assert verify(copy).findings == []


def is_found(directory):
    try:
        return bool(verify(directory).findings)
    except InputError:
        return True


def test_a_file_that_is_gone_or_came_by_itself_is_found(copy):
    for path in files(copy):
        if path.name == "summary.json":
            continue
        whole = path.read_bytes()
        path.unlink()
        assert is_found(copy), path.name
        path.write_bytes(whole)
    (copy / "adapter" / "extra.bin").write_bytes(b"1")
    assert verify(copy).findings == ["adapter/extra.bin: was not there when the run ended"]


def test_an_unfinished_run_is_checked_as_far_as_it_goes(copy):
    (copy / "summary.json").unlink()
    events = copy / "events.jsonl"
    events.write_bytes(events.read_bytes()[:-300])
    verdict = verify(copy)
    assert verdict.findings == []
    assert verdict.notes == ["the run is not finished: its files are not sealed yet"]


def lines_of(directory):
    return [json.loads(line) for line in (directory / "events.jsonl").read_text().splitlines()]


def audited(directory, lines):
    """What the laws say of other lines, whatever their hash."""
    from fedsim.experiment.load import load_run

    audit = Audit(load_run(directory).prices)
    found = []
    for line in lines:
        fields = {key: value for key, value in line.items() if key not in {"time_s", "event"}}
        found += audit.observe(line["time_s"], line["event"], fields)
    return found + list(audit.conclude())


def first(lines, event, **fields):
    return next(
        index
        for index, line in enumerate(lines)
        if line["event"] == event and all(line[key] == value for key, value in fields.items())
    )


def test_a_verdict_as_json(stub):
    shown = CliRunner().invoke(app, ["verify", str(stub), "--json"], catch_exceptions=False)
    told = json.loads(shown.stdout)
    assert told["findings"] == []
    assert told["counts"]["assignments"] > 0


def test_the_laws_hold_for_what_was_written(stub):
    assert audited(stub, lines_of(stub)) == []


LIES = {
    "ends twice": (lambda lines, at: lines.insert(at, lines[at]), "settled", "is not under way"),
    "never ends": (lambda lines, at: lines.pop(at), "settled", "never ends"),
    "unknown end": (lambda lines, at: lines[at].update(outcome="lost"), "settled", "which is no outcome"),
    "bytes appear": (lambda lines, at: lines[at].update(bytes_down=3), "settled", "it moved"),
    "a cheaper download": (lambda lines, at: lines[at].update(bytes=5), "downloaded", "its plan costs"),
    "a cheaper upload": (lambda lines, at: lines[at].update(bytes=5), "uploaded", "its plan costs"),
    "time falls": (lambda lines, at: lines[at].update(time_s=-1.0), "uploaded", "time falls"),
    "no time": (lambda lines, at: lines[at].update(duration_s=0.0), "uploaded", "took 0.0 s"),
    "sent twice": (lambda lines, at: lines.insert(at, lines[at]), "dispatched", "is dispatched"),
    "memory": (lambda lines, at: lines[at]["budget"].update(memory_bytes=1.0), "dispatched", "memory_bytes"),
    "bytes": (lambda lines, at: lines[at]["budget"].update(download_bytes=1.0), "dispatched", "download_by"),
    "seconds": (lambda lines, at: lines[at]["budget"].update(seconds=1.0), "dispatched", "seconds"),
    "bytes to come": (
        lambda lines, at: lines[at]["ahead"].update(download_bytes=-1.0),
        "replanned",
        "download_by",
    ),
    "seconds to come": (lambda lines, at: lines[at]["ahead"].update(seconds=1.0), "replanned", "seconds"),
    "heavy": (lambda lines, at: lines[at]["weights"].append(1.0), "aggregating", "weights sum"),
    "absent": (lambda lines, at: lines[at]["assignments"].append(99), "aggregating", "has not arrived"),
    "skipped": (lambda lines, at: lines.pop(at), "trained", "out of order"),
    "no end": (lambda lines, at: lines.pop(at), "stopped", "has no end"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_breaks_a_law(stub, name):
    lie, event, said = LIES[name]
    lines = lines_of(stub)
    fields = {"outcome": "aggregated"} if event == "settled" else {}
    lie(lines, first(lines, event, **fields))
    assert any(said in finding for finding in audited(stub, lines))


def test_a_sample_of_updates_is_trained_again(real):
    shown = CliRunner().invoke(app, ["verify", str(real), "--retrain", "2"], catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    assert "2 retrained updates" in shown.output
    assert f"{len(lines_of(real))} replayed lines" in shown.output


def test_a_journal_that_lies_about_an_update_is_found(copy):
    """Hashes can be made to fit; training cannot."""
    from fedsim.experiment.journal_index import chain_hash, index_line

    index = copy / "journal" / "index.jsonl"
    lines, chain = [], "0" * 64
    for text in index.read_text().splitlines():
        body = {key: value for key, value in json.loads(text).items() if key != "chain"}
        if body.get("kind") == "update":
            body["content"] = "ab" * 32
        chain = chain_hash(chain, body)
        lines.append(index_line(body, chain))
    index.write_bytes(b"".join(lines))
    (copy / "summary.json").unlink()
    assert verify(copy).findings == []
    shown = CliRunner().invoke(app, ["verify", str(copy), "--retrain", "1"], catch_exceptions=False)
    assert shown.exit_code == 1
    assert "trained again, its tensors are others" in shown.output
    assert "DAMAGED" in shown.output


def test_a_record_that_another_run_wrote_is_found_by_a_replay(stub, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(stub, directory)
    (directory / "summary.json").unlink()
    events = directory / "events.jsonl"
    lines = lines_of(stub)
    at = first(lines, "downloaded")
    lines[at]["duration_s"] += 0.5
    events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert verify(directory).findings == []
    shown = CliRunner().invoke(app, ["verify", str(directory), "--replay"], catch_exceptions=False)
    assert shown.exit_code == 1
    assert f"events.jsonl:{at + 1}: the replay differs" in shown.output


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_record_of_ten_thousand_assignments_is_sound(tmp_path):
    changes = {
        **STUB,
        "stop.rounds": "260",
        "stop.hours": "null",
        "server.cohort": "40",
        "evaluation.every": "20",
    }
    fedsim.run(fedsim.load_scenario(kills.SCENARIO, changes), tmp_path / "run", report=False)
    verdict = verify(tmp_path / "run")
    assert verdict.findings == []
    assert verdict.counts["assignments"] >= 10_000
    record = tmp_path / "run" / "events.jsonl"
    content = bytearray(record.read_bytes())
    for _ in range(5):
        at = random.Random(_).randrange(len(content))
        record.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert verify(tmp_path / "run").findings, at
