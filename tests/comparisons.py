"""A world of one phone to compare methods in, runs that take no time, and outcomes out of nothing."""

import json
import sys

from fedsim.experiment import grid
from fedsim.experiment.grid import make_cells, parse_methods, parse_vary
from fedsim.experiment.outcome import Curve, RunOutcome

SCENARIO = """\
fleet: {devices: d.csv, bandwidth: b.csv, availability_policy: always}
method: {name: fedhera, options: {rank_cap: 32}}
stop: {rounds: 3}
"""


def write_world(tmp_path):
    """Write a scenario and its traces; returns the scenario."""
    (tmp_path / "x.yaml").write_text(SCENARIO)
    (tmp_path / "d.csv").write_text(
        "device_id,compute_gflops,device_class,mem_available_mib,bandwidth_id\nphone,50,phone,4000,wifi\n"
    )
    (tmp_path / "b.csv").write_text("trace_id,time_s,down_mbps,up_mbps\nwifi,0,100,100\nwifi,10,100,100\n")
    return tmp_path / "x.yaml"


def cells_of(path, methods="fedhera", seeds=(0,), vary=(), shared=None):
    out = path.parent / "out"
    return make_cells(path, out, parse_methods(methods), seeds, parse_vary(vary), shared or {})


FAKE = """#!{python}
import json, os, sys, time
words = sys.argv[1:]
resumes = "--resume" in words
out = words[words.index("--resume" if resumes else "--out") + 1]
told = json.load(open({told!r}))[out]
with open({log!r}, "a") as log:
    log.write(("resume:" if resumes else "") + out + chr(10))
if resumes and told["act"] == "refuse":
    print("error: it is damaged")
    sys.exit(2)
os.makedirs(out, exist_ok=resumes)
if told["act"] == "fail":
    sys.exit("first line" + chr(10) + "error: it broke")
if told["act"] == "hang":
    open({log!r} + ".hangs", "w").close()
    time.sleep(60)
json.dump({{"scenario_sha256": told["hash"]}}, open(out + "/manifest.json", "w"))
json.dump({{}}, open(out + "/summary.json", "w"))
"""


def fake_runs(tmp_path, monkeypatch):
    """Runs that take no time; the returned function says how each of them ends."""
    script, told, log = tmp_path / "fake", tmp_path / "told.json", tmp_path / "log"
    script.write_text(FAKE.format(python=sys.executable, told=str(told), log=str(log)))
    script.chmod(0o755)
    monkeypatch.setattr(grid.sys, "executable", str(script))

    def prepare(cells, acts):
        told.write_text(
            json.dumps(
                {
                    str(cell.directory): {"act": act, "hash": cell.scenario.scenario_hash}
                    for cell, act in zip(cells, acts, strict=True)
                }
            )
        )
        log.write_text("")
        return log

    return prepare


def outcome(times=(0.0, 2.0, 4.0), losses=(3.0, 2.0, 1.0), asked=(), **figures):
    manifest = {"caveats": [], "traces": {"d.csv": "1"}, "versions": {}, "cpu_capability": "X"}
    empty = (None,) * len(times)
    found = Curve(
        tuple(times),
        tuple(10 * t for t in times),
        {"loss": tuple(losses), "token_accuracy": empty, "rouge_l": empty},
    )
    return RunOutcome(manifest, found, frozenset(asked), figures)
