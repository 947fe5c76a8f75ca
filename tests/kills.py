"""Run a scenario in a process of its own, kill it at any moment, and go on with what it left."""

import hashlib
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

SCENARIO = Path(__file__).parents[1] / "scenarios" / "skewed_edge.yaml"
ADAPTER = ("adapter_model.safetensors", "adapter_config.json")
SHORT = {
    "executor.kind": "inline",
    "stop.rounds": "3",
    "training.local_steps": "2",
    "training.batch_size": "4",
    "server.cohort": "3",
    "evaluation.every": "1",
    "evaluation.held_out_examples": "8",
    "evaluation.generate": "0",
}


def carry_out(directory, changes, log):
    """Run, or resume what is there; in a fresh process, with its output in a file."""
    with Path(log).open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import fedsim

    if (Path(directory) / "manifest.json").exists():
        fedsim.resume(directory, report=False)
    else:
        fedsim.run(fedsim.load_scenario(SCENARIO, changes), directory, report=False)


def context():
    """Fresh processes that have imported everything once, so that a kill costs seconds, not ten."""
    from fedsim.learn.model import IMPORTED_LATE

    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["fedsim.experiment.run", *IMPORTED_LATE])
    return found


def start(directory, changes, log):
    process = context().Process(target=carry_out, args=(str(directory), changes, str(log)), daemon=False)
    process.start()
    return process


def finish(directory, changes, log):
    """Let it come to its end; returns the seconds that took once the run had begun."""
    process = start(directory, changes, log)
    wait_for_manifest(process, directory)
    began_s = time.monotonic()
    process.join()
    if process.exitcode:
        raise AssertionError(f"ended with {process.exitcode}: {Path(log).read_text()[-2000:]}")
    return time.monotonic() - began_s


def wait_for_manifest(process, directory):
    while process.exitcode is None and not (Path(directory) / "manifest.json").exists():
        process.join(0.02)


def kill_after(seconds, directory, changes, log):
    """Kill it that long after the run has begun, if it is not through by then; whether it was killed."""
    process = start(directory, changes, log)
    wait_for_manifest(process, directory)
    process.join(max(seconds, 0.0))
    if process.exitcode is not None:
        return False
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return True


def fingerprint(directory):
    """What must be the same after any kill."""
    directory = Path(directory)
    summary = json.loads((directory / "summary.json").read_text())
    files = [
        "events.jsonl",
        "metrics.csv",
        "adapter/adapter_model.safetensors",
        "adapter/adapter_config.json",
    ]
    hashes = {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in files}
    assert summary["record_sha256"] == hashes["events.jsonl"]
    return hashes


def heed_interrupts():
    """A shell that starts the tests in the background has its children ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
