"""A server and clients in processes of their own, from the command line; and a real run over shaped links."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import fedsim
from benchmarks import fidelity
from fedsim.cli import main
from tests.deploy_world import DEVICES, scenario_of, write_world

ROOT = Path(__file__).parents[2]


def start(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "fedsim", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_processes_over_loopback_give_the_simulated_adapter(tmp_path):
    path, token = write_world(tmp_path), tmp_path / "token"
    fewer = ("--set", "server.cohort=3", "--set", "fleet.limit=3", "--out", tmp_path / "real")
    server = start("serve", path, "--token-file", token, "--port", 0, "--clients", 3, *fewer)
    clients = []
    try:
        line = next(line for line in server.stderr if "listening" in line)
        address = line.split("listening on ")[1].split(" ")[0]
        clients = [start("join", address, "--device", name, "--token-file", token) for name in DEVICES[:3]]
        said, errors = server.communicate(timeout=300)
        assert server.returncode == 0, errors
        assert "2 rounds are over" in said
        for client in clients:
            told, errors = client.communicate(timeout=60)
            assert client.returncode == 0, errors
            assert "2 updates sent" in told
    finally:
        for process in (server, *clients):
            process.kill()
    simulated = fedsim.run(
        scenario_of(tmp_path, server__cohort="3", fleet__limit="3"), tmp_path / "simulated", report=False
    )
    ours, theirs = (
        load_file(folder / "adapter" / "adapter_model.safetensors")
        for folder in (tmp_path / "real", simulated.directory)
    )
    for name, tensor in theirs.items():
        np.testing.assert_allclose(ours[name], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_clock_is_true_over_shaped_links(tmp_path):
    reason = fidelity.missing()
    if reason is not None:
        pytest.skip(reason)
    found = fidelity.measure(2, tmp_path)
    assert found["same_order"]
    assert found["adapter_difference"] < 1e-5
    assert (
        found["errors"]["transfer"]["median"] < 0.1
    )  # a busy machine is slower; docs/fidelity.md has figures
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert f"fsim{os.getpid()}" not in left


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["join", "nowhere", "--device", "d0", "--token-file", "TOKEN"], "expected HOST:PORT"),
        (["join", "127.0.0.1:1", "--device", "d0", "--token-file", "missing"], "cannot be read"),
        (["join", "127.0.0.1:1", "--device", "d0", "--token-file", "TOKEN", "--pin", "x"], "--pin"),
        (["serve", "SCENARIO", "--token-file", "TOKEN", "--clients", "9"], "the scenario has 4 devices"),
        (["serve", "SCENARIO", "--token-file", "TOKEN", "--host", "203.0.113.1"], "cannot listen"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, words, message):
    token = tmp_path / "token"
    token.write_text("0123456789abcdef")
    token.chmod(0o600)
    places = {"TOKEN": str(token), "SCENARIO": str(write_world(tmp_path))}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([places.get(word, word) for word in words])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert message in told
