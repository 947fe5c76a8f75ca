"""What was killed or moved is made again: a comparison from its half-done cell, a run from its manifest."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import fedsim
from tests import kills


@pytest.mark.slow
def test_a_comparison_that_is_killed_resumes_its_half_done_cell(tmp_path):
    """Kill the whole comparison, then ask for it again: same records, and nothing trained twice."""
    sets = [word for key, value in kills.SHORT.items() for word in ("--set", f"{key}={value}")]
    words = [sys.executable, "-m", "fedsim", "compare", str(kills.SCENARIO), "--methods", "fedhera"]
    words += ["--seeds", "0", "--workers", "1", *sets]
    root = kills.SCENARIO.parents[1]
    subprocess.run([*words, "--out", str(tmp_path / "whole")], check=True, cwd=root, capture_output=True)
    process = subprocess.Popen([*words, "--out", str(tmp_path / "cut")], cwd=root, start_new_session=True)
    cells = tmp_path / "cut" / "cells"
    give_up_at_s = time.monotonic() + 120
    while time.monotonic() < give_up_at_s:
        index = next(cells.glob("*/journal/index.jsonl"), None) if cells.exists() else None
        if index is not None and index.read_bytes().count(b"\n") >= 4:
            break
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    begun = index.read_bytes()
    again = subprocess.run(
        [*words, "--out", str(tmp_path / "cut")], check=True, cwd=root, capture_output=True, text=True
    )
    assert ": resumed" in again.stderr
    assert index.read_bytes().startswith(begun[: begun.rfind(b"\n") + 1])
    for cell in (tmp_path / "whole" / "cells").iterdir():
        assert kills.fingerprint(cells / cell.name) == kills.fingerprint(cell)


def test_a_manifest_suffices_to_run_again(tmp_path, capsys):
    """The same record from manifest.json alone; where a trace or a package differs, that is said."""
    from fedsim.cli.main import main

    stub = fedsim.load_scenario(kills.SCENARIO, {**kills.SHORT, "executor.kind": "stub"})
    first = fedsim.run(stub, tmp_path / "first", report=False)
    manifest = tmp_path / "elsewhere.json"
    manifest.write_text((tmp_path / "first" / "manifest.json").read_text())
    words = ["run", "--from-manifest", str(manifest), "-q", "--no-report", "--out"]
    main_code(main, [*words, str(tmp_path / "again")])
    again = (tmp_path / "again" / "summary.json").read_text()
    assert json.loads(again)["record_sha256"] == first.record_hash
    told = json.loads(manifest.read_text())
    told["versions"]["torch"] = "0.1"
    manifest.write_text(json.dumps(told))
    assert main_code(main, [*words, str(tmp_path / "third")]) == 2
    assert "this run cannot be repeated here: versions.torch: began as 0.1" in capsys.readouterr().err
    assert not (tmp_path / "third").exists()
    assert main_code(main, [*words, str(tmp_path / "third"), "--set", "stop.rounds=9"]) == 2
    assert main_code(main, [*words, str(tmp_path / "third"), "--resume", str(tmp_path / "first")]) == 2


def main_code(main, words):
    """Exit code of a command in this process."""
    try:
        main(words)
    except SystemExit as end:
        return end.code
    return 0
