"""A plan of faults: each has the outcome and the exit code that docs/resume.md states, and loses nothing."""

import errno
import itertools
import json
import math
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from fedsim.cli.main import main
from fedsim.experiment import build
from fedsim.experiment.verify import verify
from fedsim.learn.executors.inline import InlineExecutor
from tests import kills

TINY = {**kills.SHORT, "stop.rounds": "2", "server.cohort": "2", "training.local_steps": "1"}
FAULTY = kills.SCENARIO.with_name("faulty_clients.yaml")


def fedsim(*words):
    """Run a command in this process; returns its exit code, 0 where it just ends."""
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        return end.code or 0
    return 0


def run(directory, path=kills.SCENARIO, **changes):
    sets = [word for key, value in {**TINY, **changes}.items() for word in ("--set", f"{key}={value}")]
    return fedsim("run", path, "-q", "--no-report", "--out", directory, *sets)


def resume(directory):
    return fedsim("run", "--resume", directory, "-q", "--no-report")


def outcomes(directory):
    lines = [json.loads(line) for line in (directory / "events.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "settled"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing happened to."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    assert run(directory) == 0
    return directory


class FaultyExecutor(InlineExecutor):
    """Trains as a plan says: number of the request -> what happens when it is trained, each once."""

    plan: ClassVar = {}
    count: ClassVar = itertools.count()

    def _train_group(self, requests):
        (request,) = requests
        fault = self.plan.pop(next(self.count), None)
        return super()._train_group(requests) if fault is None else [fault(self._train_one, request)]

    def _train_one(self, request):
        (answer,) = super()._train_group([request])
        return answer


@pytest.fixture
def faults(monkeypatch):
    """Let real training fail; the returned function takes the plan."""

    def prepare(plan):
        faulty = type("Faulty", (FaultyExecutor,), {"plan": dict(plan), "count": itertools.count()})
        monkeypatch.setattr(build, "InlineExecutor", faulty)

    return prepare


def raising(error):
    def fault(train, request):
        raise error

    return fault


def failing(train, request):
    from fedsim.learn.executors.exchange import failure

    return failure(request, "the client's data are gone")


def nan_loss(train, request):
    return replace(train(request), loss=math.nan)


def no_numbers(train, request):
    answer = train(request)
    change = {
        name: replace(pair, lora_a=torch.full_like(pair.lora_a, math.inf))
        for name, pair in answer.change.items()
    }
    return replace(answer, change=change)


def slow(train, request):
    time.sleep(0.4)
    return train(request)


CLIENT_FAULTS = {
    "training fails": (failing, "the client's data are gone"),
    "loss is no number": (nan_loss, "non-finite loss"),
    "update is no number": (no_numbers, "non-finite update"),
    "out of memory": (raising(torch.OutOfMemoryError()), "out of memory: OutOfMemoryError"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CLIENT_FAULTS)
@pytest.mark.parametrize("policy", ["drop", "retry", "fail"])
def test_a_fault_of_one_client(whole, tmp_path, faults, capsys, name, policy):
    """drop: exit 0, named in the record. retry: as if nothing had been. fail: exit 1, and resumed to that."""
    fault, reason = CLIENT_FAULTS[name]
    if name == "out of memory":  # a batch is first tried again one by one, which the retry of `drop` is not
        faults({1: fault, 2: fault, 3: fault} if policy != "retry" else {1: fault})
    else:
        faults({1: fault})
    code = run(tmp_path / "run", **{"training.on_client_error": policy})
    said = capsys.readouterr().err
    if policy == "fail":
        assert code == 1
        assert reason in said
        assert "to go on: fedsim run --resume" in said
        assert resume(tmp_path / "run") == 0
    else:
        assert code == 0
    if policy == "drop":
        failed = [line for line in outcomes(tmp_path / "run") if line["outcome"] == "failed"]
        assert {line["reason"] for line in failed} == {reason}
    else:
        assert kills.fingerprint(tmp_path / "run") == kills.fingerprint(whole)
    assert verify(tmp_path / "run").findings == []


@pytest.mark.slow
def test_a_slow_worker_and_a_clock_that_jumps_change_nothing(whole, tmp_path, faults, monkeypatch):
    faults({0: slow, 2: slow})
    jumps = itertools.cycle((0.0, 7200.0, -86400.0))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    assert run(tmp_path / "run") == 0
    assert kills.fingerprint(tmp_path / "run") == kills.fingerprint(whole)


def test_a_bug_ends_the_run_with_its_traceback_and_loses_nothing(whole, tmp_path, faults, capsys):
    faults({1: raising(ZeroDivisionError())})
    with pytest.raises(BaseException) as found:
        run(tmp_path / "run")
    assert "ZeroDivisionError" in repr(found.value)
    assert "to go on: fedsim run --resume" in capsys.readouterr().err
    assert resume(tmp_path / "run") == 0
    assert kills.fingerprint(tmp_path / "run") == kills.fingerprint(whole)


WORKER = {"executor.kind": "workers", "executor.workers": "1"}


@pytest.fixture
def killed(monkeypatch):
    """Kill a worker when it is sent these requests, counted from 0; each time it has loaded its model."""
    from fedsim.learn.executors import workers

    def prepare(*numbers):
        original, count = workers._Worker.ask, itertools.count()

        def ask(self, frames):
            if next(count) in numbers:
                if not self.is_ready:
                    assert self._connection.recv_bytes() == workers.READY
                    self.is_ready = True
                os.kill(self.pid, signal.SIGKILL)
            return original(self, frames)

        monkeypatch.setattr(workers._Worker, "ask", ask)

    return prepare


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(whole, tmp_path, killed):
    killed(0, 2)
    assert run(tmp_path / "run", **WORKER) == 0
    assert kills.fingerprint(tmp_path / "run") == kills.fingerprint(whole)


@pytest.mark.slow
def test_a_request_that_kills_two_workers_has_failed(tmp_path, killed):
    killed(1, 2)
    assert run(tmp_path / "run", **WORKER) == 0
    failed = [line for line in outcomes(tmp_path / "run") if line["outcome"] == "failed"]
    assert [line["reason"] for line in failed] == ["the worker process died 2 times on this request"]
    assert verify(tmp_path / "run").findings == []


@pytest.mark.slow
def test_a_worker_that_dies_while_it_loads_ends_the_run(whole, tmp_path, monkeypatch, capsys):
    from fedsim.learn.executors.workers import _Worker

    original = _Worker.__init__

    def stillborn(self, context, setup):
        original(self, context, setup)
        os.kill(self.pid, signal.SIGKILL)

    monkeypatch.setattr(_Worker, "__init__", stillborn)
    assert run(tmp_path / "run", **WORKER) == 2
    assert "died while it loaded 'embedded'" in capsys.readouterr().err
    monkeypatch.undo()
    assert resume(tmp_path / "run") == 0
    assert kills.fingerprint(tmp_path / "run") == kills.fingerprint(whole)


def test_a_model_that_diverges_is_one_line(tmp_path, capsys):
    changes = {
        "faults.sends": "scaled",
        "faults.factor": "1e24",
        "faults.share": "1",
        "server.robust": "null",
    }
    assert run(tmp_path / "run", FAULTY, **changes) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "expected a finite loss on held-out data, got " in errors[0]
    assert "the model has diverged" in errors[0]
    assert verify(tmp_path / "run").findings == []


STUB = {"executor.kind": "stub"}


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A finished run without training."""
    directory = tmp_path_factory.mktemp("untrained") / "run"
    assert run(directory, **STUB) == 0
    return directory


@pytest.fixture
def stub(untrained, tmp_path):
    """A copy of it, and its record."""
    directory = tmp_path / "run"
    shutil.copytree(untrained, directory)
    return directory, (directory / "events.jsonl").read_bytes()


def test_a_torn_last_line_is_written_again(stub):
    directory, record = stub
    (directory / "events.jsonl").write_bytes(record[:-9])
    assert resume(directory) == 0
    assert (directory / "events.jsonl").read_bytes() == record


def test_a_corrupt_journal_is_refused_by_name(whole, tmp_path, capsys):
    directory = tmp_path / "run"
    shutil.copytree(whole, directory)
    index = directory / "journal" / "index.jsonl"
    content = bytearray(index.read_bytes())
    content[len(content) // 2] ^= 4
    index.write_bytes(content)
    assert resume(directory) == 2
    assert "index.jsonl:" in capsys.readouterr().err
    assert fedsim("verify", directory) == 1


def test_a_corrupt_version_is_refused_by_name(whole, tmp_path, capsys):
    directory = tmp_path / "run"
    shutil.copytree(whole, directory)
    index = [json.loads(line) for line in (directory / "journal" / "index.jsonl").read_text().splitlines()]
    newest = next(line["content"] for line in reversed(index) if line.get("kind") == "state")
    (path,) = (directory / "journal" / "objects").glob(f"{newest}*")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert resume(directory) == 2
    assert f"{path}: damaged" in capsys.readouterr().err
    assert fedsim("verify", directory) == 1


def refusing(monkeypatch, directory, error):
    """Refuse everything that would be written below a directory."""
    original = Path.open

    def guarded(self, mode="r", *args, **kwargs):
        if self.is_relative_to(directory) and set(mode) & set("wax+"):
            raise OSError(error, os.strerror(error))
        return original(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", guarded)


@pytest.mark.parametrize(("error", "code"), [(errno.ENOSPC, 1), (errno.EROFS, 1), (errno.EACCES, 1)])
def test_what_cannot_be_written_is_one_line_and_can_go_on(stub, monkeypatch, capsys, error, code):
    directory, record = stub
    (directory / "events.jsonl").write_bytes(record[: len(record) // 2])
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    refusing(monkeypatch, directory, error)
    assert resume(directory) == code
    said = capsys.readouterr().err
    assert f"cannot be written: {os.strerror(error)}" in said
    assert "Traceback" not in said
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before
    monkeypatch.undo()
    assert resume(directory) == 0
    assert (directory / "events.jsonl").read_bytes() == record


def test_a_directory_that_cannot_be_made_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file" / "run", **STUB) == 2
    assert "cannot be made" in capsys.readouterr().err
