"""check, stats, plot and list answer for files that are right; for others they say one clear line."""

import builtins
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedsim.cli.traces import traces_app
from fedsim.errors import MissingExtraError, TraceError

SHIPPED = Path(__file__).parents[3] / "traces" / "skewed_edge"
DEVICES = "device_id,device_class,compute_gflops,bandwidth_id\n"


def call(*words):
    return CliRunner().invoke(traces_app, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture
def fleet(tmp_path):
    (tmp_path / "availability.csv").write_text("device_id,start_s,end_s\na,0,7200\nb,3600,9000\n")
    (tmp_path / "availability.csv.toml").write_text("period_s = 86400\nlicence = 'mine'\n")
    rows = "".join(f"home,{t},{5 + t % 3},{1 + t % 2},30\n" for t in range(200))
    (tmp_path / "bandwidth.csv").write_text("trace_id,time_s,down_mbps,up_mbps,rtt_ms\n" + rows)
    (tmp_path / "devices.csv").write_text(DEVICES + "a,phone-mid,50,home\nb,pi-5,40,home\n")
    return tmp_path


def test_import_is_there(tmp_path):
    (tmp_path / "log").write_text("0 1.5\n5 2.5\n10 2.0\n15 2.0\n")
    assert call("import", "pensieve", tmp_path / "log", "--out", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "bandwidth.csv").exists()


def test_check_takes_a_folder_and_prints_json(fleet):
    told = json.loads(call("check", fleet, "--json").stdout)
    assert [file["kind"] for file in told["files"]] == ["availability", "bandwidth", "devices"]
    assert told["files"][0]["licence"] == "mine"
    assert told["errors"] == []
    (fleet / "empty").mkdir()
    with pytest.raises(TraceError, match="found none"):
        call("check", fleet / "empty")


def test_check_resolves_references_between_files(fleet):
    (fleet / "devices.csv").write_text(DEVICES + "a,phone-mid,50,dsl\nb,pi-5,40,home\n")
    with pytest.raises(TraceError, match=r'bandwidth_id: expected a trace of .*, got "dsl"'):
        call("check", fleet)
    assert call("check", fleet / "devices.csv").exit_code == 0
    (fleet / "devices.csv").write_text(DEVICES + "a,phone-mid,50,home\nz,pi-5,40,home\n")
    with pytest.raises(TraceError, match="availability"):
        call("check", fleet)


def test_check_goes_on_after_a_wrong_file(fleet, capfd):
    (fleet / "availability.csv").write_text("device_id,start_s,end_s\na,9,1\n")
    (fleet / "bandwidth.csv").write_text("trace_id,time_s,down_mbps\nt,0,-1\n")
    from fedsim.cli.main import main

    with pytest.raises(SystemExit) as ended:
        main(["traces", "check", str(fleet)])
    out, err = capfd.readouterr()
    assert ended.value.code == 2
    assert "2 devices of 2 classes" in out
    assert [line.split(":")[0] for line in err.splitlines()] == ["error", "error"]


def test_stats_of_availability(fleet):
    told = json.loads(call("stats", fleet / "availability.csv", "--json").stdout)
    assert told["online_share"] == pytest.approx((7200 + 5400) / 2 / 86_400)
    assert told["cut_from_start"]["60"] == 0
    assert told["hourly_share"][1] == 1
    text = call("stats", fleet / "availability.csv").output
    assert "chance that a job is cut" in text
    assert "60 min" in text


def test_stats_take_periods_from_the_device_file(fleet):
    (fleet / "devices.csv").write_text(
        "device_id,compute_gflops,availability_period_s\na,1,10000\nb,1,10000\n"
    )
    told = json.loads(call("stats", fleet / "availability.csv", "--json").stdout)
    assert told["online_share"] == pytest.approx(12_600 / 20_000)


def test_stats_options_change_the_answer(fleet):
    path = fleet / "flaps.csv"
    path.write_text("device_id,start_s,end_s\na,0,100\na,150,151\na,9000,9900\n")

    def sessions(*words):
        return json.loads(call("stats", path, "--json", *words).stdout)["session_s"]["0.5"]

    assert sessions("--merge-gap", 0) == 100
    assert sessions() == pytest.approx((151 + 900) / 2)  # a measured trace: absences up to a minute are flaps
    assert sessions("--merge-gap", 0, "--min-session", 10) == 500
    share = json.loads(call("stats", fleet / "bandwidth.csv", "--outage-below", 5.5, "--json").stdout)
    assert share["down"]["outage_share"] == pytest.approx(1 / 3, abs=0.01)
    assert share["rtt_ms"] == 30


def test_stats_of_bandwidth_for_people(fleet):
    text = call("stats", fleet / "bandwidth.csv").output
    assert "autocorrelation" in text
    assert "down over up: median 4.00" in text


def test_stats_of_devices_are_refused(fleet):
    with pytest.raises(TraceError, match="expected availability or bandwidth"):
        call("stats", fleet / "devices.csv")


@pytest.mark.parametrize("kind", ["availability", "bandwidth"])
def test_plots_are_pictures(fleet, kind):
    pytest.importorskip("matplotlib")
    pytest.importorskip("plotly")
    png, page = fleet / "x.png", fleet / "x.html"
    call("plot", fleet / f"{kind}.csv", "--out", png)
    assert png.read_bytes().startswith(b"\x89PNG")
    call("plot", fleet / f"{kind}.csv", "--out", page, "--against", SHIPPED / f"{kind}.csv")
    text = page.read_text()
    assert "skewed_edge" in text
    assert "<script src=" not in text  # opens without a network
    with pytest.raises(TraceError, match="--force"):
        call("plot", fleet / f"{kind}.csv", "--out", png)


def test_impossible_plots_are_refused(fleet):
    with pytest.raises(TraceError, match=r"\.png or \.html"):
        call("plot", fleet / "availability.csv", "--out", fleet / "x.svg")
    with pytest.raises(TraceError, match="a folder that is there"):
        call("plot", fleet / "availability.csv", "--out", fleet / "no" / "x.png")
    with pytest.raises(TraceError, match="expected the kind of"):
        call(
            "plot", fleet / "availability.csv", "--out", fleet / "x.png", "--against", fleet / "bandwidth.csv"
        )
    with pytest.raises(TraceError, match="another kind"):
        call("plot", fleet / "devices.csv", "--out", fleet / "x.png")


@pytest.mark.parametrize(("package", "name"), [("matplotlib", "x.png"), ("plotly", "x.html")])
def test_a_missing_package_is_named_with_the_way_to_get_it(fleet, monkeypatch, package, name):
    real = builtins.__import__

    def absent(module, *rest, **named):
        if module.split(".")[0] == package:
            raise ModuleNotFoundError(module)
        return real(module, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtraError, match=r"pip install .fedsim-lora\[plot\]"):
        call("plot", fleet / "availability.csv", "--out", fleet / name)
    assert not (fleet / name).exists()


def test_list_names_recipes_and_files(fleet):
    text = call("list", fleet).output
    assert "phones" in text
    line = next(line for line in text.splitlines() if "availability.csv" in line)
    assert line.split()[1:] == ["availability", "2", "devices", "1", "mine"]
    (fleet / "broken.csv").write_text("what,is,this\n1,2,3\n")
    assert "unreadable" in call("list", fleet).output
    with pytest.raises(TraceError, match="expected a folder"):
        call("list", fleet / "no")


@pytest.mark.parametrize("ending", ["csv.gz", "parquet"])
def test_other_forms_hold_the_same_fleet(tmp_path, ending):
    from fedsim.world.load import load_population

    def fleet(form):
        out = tmp_path / form
        call("synth", "--out", out, "--devices", 8, "--days", 1, "--seed", 4, "--format", form)
        kinds = ("devices", "bandwidth", "availability", "state")
        return load_population(*(out / f"{kind}.{form}" for kind in kinds))

    one, other = fleet("csv"), fleet(ending)
    assert one.device_ids == other.device_ids
    assert (one.memory_bytes == other.memory_bytes).all()
    assert (one.intervals.starts_s == other.intervals.starts_s).all()
    assert (one.intervals.period_s == other.intervals.period_s).all()
    times = range(0, 86_400, 3600)
    for k in range(8):
        mine, theirs = one.device(k), other.device(k)
        assert [mine.downlink.rate_bps(t) for t in times] == [theirs.downlink.rate_bps(t) for t in times]
        assert [mine.memory.value(t) for t in times] == [theirs.memory.value(t) for t in times]
    with pytest.raises(TraceError, match="--format"):
        call("synth", "--out", tmp_path / "x", "--format", "xlsx")


def test_parquet_that_is_none_is_refused(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(TraceError, match="expected a Parquet file"):
        call("check", tmp_path / "a.parquet")


def test_parquet_cells_obey_the_same_rules(tmp_path):
    import pandas as pd

    def refused(match, **columns):
        pd.DataFrame(columns).to_parquet(tmp_path / "a.parquet")
        with pytest.raises(TraceError, match=match):
            call("check", tmp_path / "a.parquet")

    refused("start_s: expected a number", device_id=["a"], start_s=[float("nan")], end_s=[1.0])
    refused("end_s: expected a number", device_id=["a"], start_s=[0.0], end_s=[float("inf")])
    refused("start_s: expected a number", device_id=["a"], start_s=[True], end_s=[5])
    refused("end_s: expected a time not before", device_id=["a"], start_s=[9], end_s=[5])
    refused("device_id: expected an identifier", device_id=["=a"], start_s=[0], end_s=[5])
    refused("expected rows", device_id=[], start_s=[], end_s=[])


def test_a_recipe_file_is_kept_beside_what_it_made(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "zones: {1: 1.0}\nlibrary: {wifi: 2}\nclasses:\n"
        "  phone-mid: {share: 1.0, memory_mib: [4000], gflops: 60, presence: phone, networks: {wifi: 1.0}}\n"
    )
    call("synth", "--recipe", recipe, "--out", tmp_path / "out", "--devices", 3, "--days", 1)
    assert (tmp_path / "out" / "mine.yaml").read_bytes() == recipe.read_bytes()
    assert "state.csv" not in [path.name for path in (tmp_path / "out").iterdir()]
    assert call("check", tmp_path / "out").exit_code == 0
