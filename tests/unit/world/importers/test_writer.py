import hashlib
import tomllib

import pytest

from fedsim.errors import TraceError
from fedsim.world.importers.rows import Count, DeviceRow, OnlineRow, RateRow, StateRow
from fedsim.world.importers.writer import About, write_import


@pytest.fixture
def about(written_file):
    return About('a "source", é', "MIT", (written_file("some input", 'in put".txt'),))


def good():
    yield Count("rows dropped", 2)
    yield OnlineRow("a", 0.0, 1 / 3)
    yield DeviceRow("a", "phone-mid", availability_period_s=86_400.0)
    yield RateRow("t", 0.0, 1.5, None)
    yield StateRow("a", 0.0, "charging", 1)
    yield Count("rows dropped", 3)
    yield Count("nothing", 0)


def broken():
    yield from good()
    raise TraceError("x:5: line: expected this, found that; do so")


def test_each_kind_of_row_gets_its_file_and_sidecar(tmp_path, about):
    written = write_import(good(), tmp_path / "new" / "deep" / "out", about)
    kinds = ("availability", "bandwidth", "devices", "state")
    assert sorted(path.name for path in written.folder.iterdir()) == sorted(
        f"{kind}.csv{end}" for kind in kinds for end in ("", ".toml")
    )
    assert (written.folder / "availability.csv").read_text() == "device_id,start_s,end_s\na,0,0.3333333333\n"
    assert written.counts == {"rows dropped": 5}
    digest = hashlib.sha256(b"some input").hexdigest()
    for kind in kinds:
        text = (written.folder / f"{kind}.csv.toml").read_text()
        assert f"sha256:{digest} in put" in text
        sidecar = tomllib.loads(text)
        assert (sidecar["kind"], sidecar["source"], sidecar["licence"]) == (kind, 'a "source", é', "MIT")
    assert tomllib.loads((written.folder / "availability.csv.toml").read_text())["period_s"] == 86_400
    assert tomllib.loads((written.folder / "bandwidth.csv.toml").read_text())["gap_policy"] == "hold"


@pytest.mark.parametrize("force", [False, True])
def test_a_failure_leaves_no_trace(tmp_path, about, force):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(TraceError, match="x:5: line"):
        write_import(broken(), tmp_path / "new" / "out", about, force=force)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failure_leaves_an_earlier_import_alone(tmp_path, about):
    out = tmp_path / "out"
    write_import(good(), out, about)
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(TraceError):
        write_import(broken(), out, about, force=True)
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_rows_that_do_not_read_back_are_refused_under_the_final_name(tmp_path, about):
    with pytest.raises(TraceError) as caught:
        write_import([RateRow("t", 0.0, 0.0)], tmp_path / "out", about)
    assert str(tmp_path / "out" / "bandwidth.csv") in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_interrupt_leaves_no_trace(tmp_path, about):
    def interrupted():
        yield from good()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_import(interrupted(), tmp_path / "out", about)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_only_an_earlier_import_is_replaced_and_only_by_force(tmp_path, about):
    out = tmp_path / "out"
    write_import(good(), out, about)
    with pytest.raises(TraceError, match="replace it with --force"):
        write_import(good(), out, about)
    write_import([RateRow("t", 0.0, 1.0)], out, about, force=True)
    assert sorted(path.name for path in out.iterdir()) == ["bandwidth.csv", "bandwidth.csv.toml"]
    (out / "notes.md").write_text("mine")
    with pytest.raises(TraceError, match=r'found "notes\.md" in it'):
        write_import(good(), out, about, force=True)
    assert (out / "notes.md").read_text() == "mine"


def test_an_empty_folder_is_filled_and_a_file_is_not_replaced(tmp_path, about):
    (tmp_path / "out").mkdir()
    assert write_import(good(), tmp_path / "out", about).rows["state.csv"] == 1
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TraceError, match="found a file"):
        write_import(good(), tmp_path / "file", about, force=True)
    with pytest.raises(TraceError, match="expected a place to write"):
        write_import(good(), tmp_path / "file" / "out", about)
    assert (tmp_path / "file").read_text() == "mine"


def test_nothing_to_write_is_an_error(tmp_path, about):
    with pytest.raises(TraceError, match="found: 4 pieces dropped"):
        write_import([Count("pieces dropped", 4)], tmp_path / "out", about)
    assert not (tmp_path / "out").exists()


def test_odd_rates_are_doubted(tmp_path, about):
    written = write_import([RateRow("t", 0.0, 1e-5)], tmp_path / "out", about)
    assert any("unit?" in doubt and str(tmp_path / "out") in doubt for doubt in written.doubts)
