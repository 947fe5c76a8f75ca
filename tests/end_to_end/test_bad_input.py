"""Every broken scenario and trace, through `fedsim run`: one line, exit code 2, and no run directory."""

from pathlib import Path

import pytest

from fedsim.cli import main
from fedsim.world.formats.availability import read_availability
from fedsim.world.formats.bandwidth import read_bandwidth
from fedsim.world.formats.devices import read_devices
from fedsim.world.formats.state import read_state
from tests.unit.experiment.test_scenario_errors import BROKEN as SCENARIOS
from tests.unit.experiment.test_scenario_errors import GOOD as SCENARIO
from tests.unit.world.test_bad_input import BROKEN as TRACES

FILES = {
    "devices": "device_id,compute_gflops,mem_available_mib,bandwidth_id\na,50,9000,t\nb,50,9000,t\n",
    "bandwidth": "trace_id,time_s,down_mbps,up_mbps\nt,0,5,1\nt,1,6,2\n",
    "availability": "device_id,start_s,end_s\na,0,500\nb,10,900\n",
    "state": "device_id,time_s,key,value\na,5,mem_available_mib,9000\n",
}
READ_BY = {
    read_availability: "availability",
    read_bandwidth: "bandwidth",
    read_devices: "devices",
    read_state: "state",
}
# Files of a kind that is found out by their content have no place of their own in a scenario.
PLACED = [case for case in TRACES if case[1] in READ_BY]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(f"{name}.csv").write_text(text)
    return tmp_path


def refused(capsys):
    """Run the scenario and return the one line that it ends with."""
    before = sorted(Path().rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main(["run", "x.yaml", "--out", "out", "--executor", "stub"])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
    return err


def test_there_are_enough_cases():
    assert len(SCENARIOS) >= 40
    assert len(PLACED) >= 40


@pytest.mark.parametrize("case", SCENARIOS)
def test_broken_scenarios(case, capsys):
    old, new, _ = SCENARIOS[case]
    Path("x.yaml").write_text(SCENARIO.replace(old, new))
    assert "Traceback" not in refused(capsys)


@pytest.mark.parametrize(("read", "content", "message"), [c[1:] for c in PLACED], ids=[c[0] for c in PLACED])
def test_broken_traces(read, content, message, capsys):
    kind = READ_BY[read]
    Path("x.yaml").write_text(SCENARIO.replace("fleet:\n", "fleet:\n  state: state.csv\n"))
    path = Path(f"{kind}.csv")
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content)
    assert f"{kind}.csv" in refused(capsys)
