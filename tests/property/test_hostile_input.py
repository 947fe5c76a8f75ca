"""Thousands of broken scenarios and runs: one clear line each, no code run, nothing written elsewhere."""

# ruff: noqa: PT017  either answer is right

import os
import random
import shutil
from pathlib import Path

import pytest

from fedsim.cli.main import one_line
from fedsim.errors import FedsimError, InputError, ScenarioError
from fedsim.experiment.journal import Journal
from fedsim.experiment.load import load_run, read_events, reading
from fedsim.experiment.manifest import known_shape
from fedsim.experiment.overview import as_json, find_runs
from fedsim.experiment.report.telling import Teller, biography
from fedsim.experiment.report.write import write_report
from fedsim.experiment.resume import scenario_of
from fedsim.experiment.scenario import load_scenario
from fedsim.experiment.verify import shown, verify
from tests import kills
from tests.hostile import mutated_run, mutated_yaml, watched
from tests.records import write_record

SCENARIOS = sorted(kills.SCENARIO.parent.glob("*.yaml"))
# A broken file may extend another one, which is at fault then: "extends: ../../../../etc/passwd".
NAMED = ("broken.yaml", "/etc/passwd:1: expected sections such as", *(path.name for path in SCENARIOS))


def fuzz_scenarios(folder, count, seed):
    """Load that many broken scenarios; how many were refused."""
    rng = random.Random(seed)
    for shipped in SCENARIOS:
        shutil.copy(shipped, folder / shipped.name)
    texts = [path.read_text() for path in SCENARIOS]
    refused = 0
    for _ in range(count):
        path = folder / "broken.yaml"
        data = mutated_yaml(rng.choice(texts), rng)
        path.write_bytes(data)
        try:
            with watched(folder):
                scenario = load_scenario(path)
                scenario.describe()
                assert len(scenario.scenario_hash) == 64
        except ScenarioError as error:
            refused += 1
            assert any(name in str(error) for name in NAMED), data
            assert one_line(str(error)).isprintable()
        except Exception as error:
            raise AssertionError(f"{error!r} on {data!r}") from error
    return refused


def test_broken_scenarios(tmp_path):
    assert fuzz_scenarios(tmp_path, 120, seed=1) > 40


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_five_thousand_broken_scenarios(tmp_path):
    assert fuzz_scenarios(tmp_path, 5000, seed=2) > 2000


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A record written by hand, and a real run with journal and adapter."""
    import fedsim

    folder = tmp_path_factory.mktemp("originals")
    tiny = {**kills.SHORT, "stop.rounds": "1", "server.cohort": "2", "training.local_steps": "1"}
    fedsim.run(fedsim.load_scenario(kills.SCENARIO, tiny), folder / "real", report=False)
    return write_record(folder / "written"), folder / "real"


def all_readers(directory, with_page):
    """Everything that reads a run, one after the other."""
    yield lambda: shown(verify(directory))
    yield lambda: load_run(directory)
    yield lambda: as_json(find_runs(directory.parent))
    yield lambda: scenario_of(directory)
    yield lambda: known_shape(directory)
    yield lambda: _told(directory)
    yield lambda: _journal(directory)
    if with_page:
        yield lambda: write_report(directory)


def _told(directory):
    """What `fedsim trace-client` and `fedsim tail` say."""
    record = directory / "events.jsonl"
    with reading(record):
        teller = Teller()
        for line in read_events(record):
            teller.tell(line)
        list(biography(read_events(record), "0"))


def _journal(directory):
    journal = Journal(directory, read_only=True)
    for kind in ("update", "state", "combined", "evaluation"):
        for number in journal.numbers(kind):
            entry = journal.get(kind, number)
            if entry.content is not None and not journal.is_dropped(entry):
                journal.load(entry)


def fuzz_runs(originals, folder, count, seed):
    """Read that many damaged runs in every way; how many errors there were."""
    rng = random.Random(seed)
    errors = 0
    for number in range(count):
        directory = folder / "run"
        shutil.copytree(originals[number % 2], directory)
        mutated_run(directory, rng)
        for reader in all_readers(directory, with_page=number % 10 == 0):
            try:
                with watched(folder):
                    reader()
            except FedsimError as error:
                errors += 1
                assert isinstance(error, InputError)
                assert len(one_line(str(error))) < 3000
            except Exception as error:
                kept = folder / "kept"
                shutil.copytree(directory, kept, symlinks=True, dirs_exist_ok=True)
                raise AssertionError(f"run {number}, seed {seed}: {error!r}; kept in {kept}") from error
        shutil.rmtree(directory)
    return errors


def test_damaged_runs(originals, tmp_path):
    assert fuzz_runs(originals, tmp_path, 40, seed=1) > 20


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_two_thousand_damaged_runs(originals, tmp_path):
    assert fuzz_runs(originals, tmp_path, 2000, seed=2) > 1000


def test_the_watch_sees_what_it_is_there_for(tmp_path):
    (tmp_path / "in").mkdir()
    with watched(tmp_path / "in"):
        (tmp_path / "in" / "file").write_text("")
    with pytest.raises(AssertionError, match="open"), watched(tmp_path / "in"):
        (tmp_path / "out").write_text("")
    with pytest.raises(AssertionError, match=r"os\.system"), watched(tmp_path):
        os.system("true")


def test_a_run_that_is_linked_elsewhere_is_not_written_to(originals, tmp_path):
    import fedsim

    directory = tmp_path / "run"
    shutil.copytree(originals[0], directory)
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (directory / "report.html.tmp").symlink_to(outside)
    with pytest.raises(InputError, match=r"report\.html\.tmp: a link"):
        write_report(directory)
    with pytest.raises(InputError, match="a link; a run keeps its files in its own folder"):
        fedsim.resume(directory)
    assert outside.read_text() == "precious"
    assert not Path(directory / "report.html").exists()
