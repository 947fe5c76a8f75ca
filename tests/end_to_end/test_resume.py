"""A run that is killed, crashes or is interrupted goes on to the record and adapter of one that was not."""

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fedsim
from fedsim.errors import InputError, StorageError, TrainingError
from fedsim.experiment.verify import verify
from tests import kills

VARIANTS = {
    "rounds": {},
    "eager": {"executor.prefetch": "speculative"},
    "buffered": {
        "server.pacing": "buffered",
        "server.cohort": "null",
        "server.over_selection": "null",
        "server.surplus": "null",
        "server.concurrency": "4",
        "server.buffer": "2",
    },
    "factor pairs": {"method.name": "ffa_lora"},
    "drift": {"measure.drift.clients": "1"},
    "workers": {"executor.kind": "workers", "executor.workers": "2"},
}
NAMES = [pytest.param(n, marks=[] if n == "buffered" else [pytest.mark.slow]) for n in VARIANTS]


class BombError(Exception):
    """Goes off in an observer."""


class Bomb:
    """Ends a run at a line of its record, as a bug would."""

    def __init__(self, lines):
        self.left = lines

    def observe(self, time_s, event, fields):
        self.left -= 1
        if self.left < 0:
            raise BombError


def scenario(**changes):
    return fedsim.load_scenario(kills.SCENARIO, {**kills.SHORT, **changes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs that nothing happened to, made once per variant."""
    made = {}

    def of(name):
        if name not in made:
            directory = tmp_path_factory.mktemp("whole") / "run"
            fedsim.run(scenario(**VARIANTS[name]), directory, report=False)
            made[name] = directory
        return made[name]

    return of


def crashed(directory, lines, **changes):
    with pytest.raises(BombError):
        fedsim.run(scenario(**changes), directory, instruments=[Bomb(lines)])
    return directory


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_crashes_twice_ends_as_if_it_had_not(whole, tmp_path, name):
    reference = whole(name)
    lines = len((reference / "events.jsonl").read_bytes().splitlines())
    directory = crashed(tmp_path / "run", lines // 3, **VARIANTS[name])
    with pytest.raises(BombError):
        fedsim.resume(directory, instruments=[Bomb(4 * lines // 5)])
    result = fedsim.resume(directory, report=False)
    assert kills.fingerprint(directory) == kills.fingerprint(reference)
    assert result.record_hash == json.loads((reference / "summary.json").read_text())["record_sha256"]
    assert verify(directory).findings == []


def test_a_run_that_is_over_may_be_resumed_and_stays_as_it_is(whole, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(whole("rounds"), directory)
    fedsim.resume(directory, report=False)
    assert kills.fingerprint(directory) == kills.fingerprint(whole("rounds"))


def test_nothing_that_is_kept_is_trained_again(whole, tmp_path, monkeypatch):
    from fedsim.learn.executors.inline import InlineExecutor

    trained = []
    original = InlineExecutor._train_group

    def counted(self, requests):
        trained.extend(request.assignment.id for request in requests)
        return original(self, requests)

    monkeypatch.setattr(InlineExecutor, "_train_group", counted)
    crashed(tmp_path / "run", 60)
    before = list(trained)
    fedsim.resume(tmp_path / "run", report=False)
    assert before
    assert len(trained) > len(before)
    assert len(set(trained)) == len(trained)


def test_updates_of_a_batch_are_kept_one_by_one(tmp_path, monkeypatch):
    from fedsim.learn.executors.inline import InlineExecutor

    original = InlineExecutor._train_group
    asked = []

    def mortal(self, requests):
        asked.extend(request.assignment.id for request in requests)
        if len(asked) == 3:
            raise BombError
        return original(self, requests)

    monkeypatch.setattr(InlineExecutor, "_train_group", mortal)
    with pytest.raises(BombError):
        fedsim.run(scenario(), tmp_path / "run", report=False)
    fedsim.resume(tmp_path / "run", report=False)
    assert asked.count(asked[0]) == asked.count(asked[1]) == 1
    assert asked.count(asked[2]) == 2


def test_a_torn_last_line_is_written_again(whole, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(whole("rounds"), directory)
    events = directory / "events.jsonl"
    events.write_bytes(events.read_bytes()[:-17])
    (directory / "summary.json").unlink()
    fedsim.resume(directory, report=False)
    assert kills.fingerprint(directory) == kills.fingerprint(whole("rounds"))


def test_another_line_in_the_record_is_refused(whole, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(whole("rounds"), directory)
    events = directory / "events.jsonl"
    lines = events.read_bytes().splitlines(keepends=True)
    lines[9] = lines[9].replace(b"0", b"1", 1)
    events.write_bytes(b"".join(lines))
    with pytest.raises(InputError, match=r"events\.jsonl:10: .*expected .*, found "):
        fedsim.resume(directory, report=False)
    events.write_bytes(b"".join([*lines[:9], *whole_lines(whole("rounds"))[9:], b"{}\n"]))
    with pytest.raises(InputError, match="expected the end of the record"):
        fedsim.resume(directory, report=False)


def whole_lines(directory):
    return (directory / "events.jsonl").read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("name", ["rounds", pytest.param("workers", marks=pytest.mark.slow)])
def test_a_deleted_update_is_trained_again_to_the_same_end(whole, tmp_path, name):
    lines = whole_lines(whole("rounds"))
    aggregating = next(k for k, line in enumerate(lines) if b'"aggregated", "version"' in line)
    directory = crashed(tmp_path / "run", aggregating - 1, **VARIANTS[name])
    for path in (directory / "journal" / "objects").iterdir():
        path.unlink()
    fedsim.resume(directory, report=False)
    assert kills.fingerprint(directory) == kills.fingerprint(whole("rounds"))


def test_a_damaged_version_is_refused(tmp_path):
    directory = crashed(tmp_path / "run", 80)
    kept = {path: path.read_bytes() for path in (directory / "journal" / "objects").iterdir()}
    for path, content in kept.items():
        if len(content) == max(map(len, kept.values())):
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match="damaged, its content is not what its name says"):
        fedsim.resume(directory, report=False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 7}, r"scenario\.seed: began as 7, is 0 now"),
        ({"cpu_capability": "ABACUS"}, "cpu_capability: began as ABACUS"),
        ({"versions": {"torch": "0.1"}}, r"versions\.torch: began as 0\.1"),
        ({"traces": {"gone.csv": "00"}}, r"traces\.gone\.csv: began as 00, is None now"),
    ],
)
def test_other_conditions_are_refused_by_name(tmp_path, change, said):
    directory = crashed(tmp_path / "run", 5, **{"executor.kind": "stub"})
    manifest = json.loads((directory / "manifest.json").read_text())
    for key, value in change.items():
        if isinstance(value, dict):
            manifest[key].update(value)
        else:
            (manifest["scenario"] if key == "seed" else manifest)[key] = value
    (directory / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=said):
        fedsim.resume(directory, scenario(**{"executor.kind": "stub"}))


def test_a_stub_does_not_become_a_real_run(tmp_path):
    directory = crashed(tmp_path / "run", 5, **{"executor.kind": "stub"})
    with pytest.raises(InputError, match=r"executor\.kind: began as stub, is inline now"):
        fedsim.resume(directory, scenario())


def test_the_number_of_workers_may_change(whole, tmp_path):
    directory = crashed(tmp_path / "run", 50)
    fedsim.resume(directory, scenario(**VARIANTS["workers"]), report=False)
    assert kills.fingerprint(directory) == kills.fingerprint(whole("rounds"))


@pytest.mark.slow
def test_a_run_may_be_resumed_from_another_place(whole, tmp_path):
    crashed(tmp_path / "run", 50)
    (tmp_path / "run").rename(tmp_path / "moved")
    fedsim.resume(tmp_path / "moved")
    assert kills.fingerprint(tmp_path / "moved") == kills.fingerprint(whole("rounds"))


def test_two_cannot_resume_at_once(tmp_path):
    directory = crashed(tmp_path / "run", 5, **{"executor.kind": "stub"})
    from fedsim.experiment.record import locked

    with locked(directory), pytest.raises(InputError, match="another process is at work"):
        fedsim.resume(directory, report=False)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected the folder of a run"):
        fedsim.resume(tmp_path)
    (tmp_path / "manifest.json").write_text('{"scenario": 3}')
    with pytest.raises(InputError, match=r"manifest\.json"):
        fedsim.resume(tmp_path)


def test_a_full_disk_ends_a_run_that_can_go_on(whole, tmp_path, monkeypatch):
    synced = []
    original = os.fsync

    def full(descriptor):
        synced.append(descriptor)
        if len(synced) >= 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device; make room, then resume"):
        fedsim.run(scenario(), tmp_path / "run", report=False)
    assert len(synced) >= 12
    monkeypatch.undo()
    fedsim.resume(tmp_path / "run", report=False)
    assert kills.fingerprint(tmp_path / "run") == kills.fingerprint(whole("rounds"))


def test_a_directory_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    directory = crashed(tmp_path / "run", 30)
    original = Path.open

    def guarded(self, mode="r", *args, **kwargs):
        if self.is_relative_to(directory) and set(mode) & set("wax+"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return original(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", guarded)
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    with pytest.raises((InputError, StorageError), match="cannot be written: Permission denied"):
        fedsim.resume(directory, report=False)
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


def failing(monkeypatch, number, times):
    """Let the training of one assignment fail that often."""
    from fedsim.learn.trainer import ClientTrainer

    original, seen = ClientTrainer.train, []

    def train(self, client, payload, run):
        seen.append(client)
        if seen.index(client) == number and seen.count(client) <= times:
            raise TrainingError("the client's data are gone")
        return original(self, client, payload, run)

    monkeypatch.setattr(ClientTrainer, "train", train)


@pytest.mark.slow
def test_a_client_error_may_be_dropped_retried_or_end_the_run(whole, tmp_path, monkeypatch):
    failing(monkeypatch, 1, 1)
    dropped = fedsim.run(scenario(), tmp_path / "drop")
    assert dropped.tally.outcomes["failed"] == 1
    assert "the client's data are gone" in (tmp_path / "drop" / "events.jsonl").read_text()
    monkeypatch.undo()
    failing(monkeypatch, 1, 1)
    fedsim.run(scenario(**{"training.on_client_error": "retry"}), tmp_path / "retry")
    assert kills.fingerprint(tmp_path / "retry") == kills.fingerprint(whole("rounds"))
    monkeypatch.undo()
    failing(monkeypatch, 1, 1)
    with pytest.raises(TrainingError, match="can be resumed"):
        fedsim.run(scenario(**{"training.on_client_error": "fail"}), tmp_path / "fail")
    fedsim.resume(tmp_path / "fail")
    assert kills.fingerprint(tmp_path / "fail") == kills.fingerprint(whole("rounds"))


@pytest.mark.slow
def test_a_failure_that_was_dropped_stays_dropped(tmp_path, monkeypatch):
    failing(monkeypatch, 1, 1)
    whole_run = fedsim.run(scenario(), tmp_path / "whole")
    monkeypatch.undo()
    failing(monkeypatch, 1, 1)
    directory = crashed(tmp_path / "run", 60)
    monkeypatch.undo()
    assert fedsim.resume(directory, report=False).record_hash == whole_run.record_hash


@pytest.mark.slow
def test_an_interrupt_says_how_to_go_on(tmp_path):
    """Ctrl-C in a process of its own: exit code 130, a command that works, and not a word more."""
    directory = tmp_path / "run"
    arguments = [f"{key}={value}" for key, value in {**kills.SHORT, "stop.rounds": "40"}.items()]
    sets = [word for argument in arguments for word in ("--set", argument)]
    command = [
        sys.executable,
        "-m",
        "fedsim",
        "run",
        str(kills.SCENARIO),
        "-q",
        "--out",
        str(directory),
        *sets,
    ]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        cwd=kills.SCENARIO.parents[1],
        preexec_fn=kills.heed_interrupts,  # noqa: PLW1509 - one call, no threads
    )
    give_up_at_s = time.monotonic() + 600  # a busy machine takes minutes to import PyTorch
    index = directory / "journal" / "index.jsonl"
    while not (index.exists() and index.stat().st_size) and time.monotonic() < give_up_at_s:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    assert index.exists()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    assert errors == f"to go on: fedsim run --resume {directory}\n"
    with pytest.raises(BombError):
        fedsim.resume(directory, instruments=[Bomb(100)])


def killed_runs(tmp_path, reference, count, seed, **changes):
    """Kill that many runs at random moments after they began; each must come to the same end."""
    rng = random.Random(seed)
    log = tmp_path / "log"
    values = {**kills.SHORT, **changes}
    whole_s = kills.finish(tmp_path / "warm", values, log)
    killed = 0
    while killed < count:
        directory = tmp_path / f"run{killed}"
        killed += kills.kill_after(rng.uniform(0.0, whole_s), directory, values, log)
        kills.finish(directory, values, log)
        assert kills.fingerprint(directory) == kills.fingerprint(reference), f"kill {killed}"
        shutil.rmtree(directory)


@pytest.mark.slow
def test_three_kills(whole, tmp_path):
    killed_runs(tmp_path, whole("rounds"), 3, seed=3)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_hundred_kills(whole, tmp_path):
    killed_runs(tmp_path, whole("rounds"), 100, seed=100)


@pytest.mark.slow
def test_a_kill_while_resuming(whole, tmp_path):
    directory, log = tmp_path / "run", tmp_path / "log"
    crashed(directory, 40)
    kills.kill_after(1.0, directory, kills.SHORT, log)
    kills.kill_after(1.5, directory, kills.SHORT, log)
    kills.finish(directory, kills.SHORT, log)
    assert kills.fingerprint(directory) == kills.fingerprint(whole("rounds"))
    assert re.search(r'"stopped"', (directory / "events.jsonl").read_text())
