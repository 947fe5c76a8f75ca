import pytest
import typer
from typer.testing import CliRunner

from fedsim.cli.traces_import import import_traces
from fedsim.errors import TraceError
from fedsim.world.importers.catalogue import PUBLISHED

app = typer.Typer(pretty_exceptions_enable=False)
app.command("import")(import_traces)


@app.command("other")
def _other():
    """A second command keeps the first one's name."""


@pytest.fixture
def run(tmp_path):
    def call(*arguments):
        return CliRunner().invoke(app, ["import", *map(str, arguments), "--out", str(tmp_path / "out")])

    return call


@pytest.fixture
def week(tmp_path):
    path = tmp_path / "week.txt"
    path.write_text("u 1 1402358400000 0 3600000 30000 3570000 79200000\n")
    return path


def test_what_was_done_is_said(run, week, tmp_path):
    result = run("auto", week, "--merge-gap", "60 s")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [
        "taken for stunner",
        "read 1 file of stunner",
        f"wrote {tmp_path / 'out' / 'availability.csv'}: 1 rows",
        f"wrote {tmp_path / 'out' / 'devices.csv'}: 1 rows",
        "  1 short absences merged into a stay",
        "  1 devices get the class phone-mid, since the trace does not say what they are",
    ]
    assert (tmp_path / "out" / "availability.csv").read_text().splitlines()[1] == "stunner-00001,0,7200"


def test_an_earlier_import_is_replaced_by_force_only(run, week):
    assert run("stunner", week).exit_code == 0
    again = run("stunner", week)
    assert isinstance(again.exception, TraceError)
    assert "--force" in str(again.exception)
    assert run("stunner", week, "--force").exit_code == 0


@pytest.mark.parametrize(
    ("name", "option", "expected"),
    [
        ("stunner", ("--bin", "1 s"), "--bin: expected a format that heeds it (flash, mahimahi)"),
        ("stunner", ("--seed", "3"), "--seed: expected a format that heeds it (flash)"),
        ("stunner", ("--merge-gap", "a minute"), "--merge-gap: expected a duration"),
        ("stunner", ("--merge-gap", "2 d"), "--merge-gap: expected 0 s to one day"),
        ("mahimahi", ("--bin", "0 s"), "--bin: expected 0.001 s to one day"),
        (
            "mahimahi",
            ("--merge-gap", "1 s"),
            "--merge-gap: expected a format that heeds it (stunner, fedscale)",
        ),
        ("nothing", (), "format: expected one of stunner, fedscale, flash"),
    ],
)
def test_a_wrong_option_is_named(run, week, tmp_path, name, option, expected):
    result = run(name, week, *option)
    assert isinstance(result.exception, TraceError)
    assert str(result.exception).startswith(expected)
    assert not (tmp_path / "out").exists()


def test_doubts_go_to_the_error_stream(run, tmp_path):
    slow = tmp_path / "slow.csv"
    slow.write_text("5,bits/sec\n6,bits/sec\n")
    result = run("nyu_mets", slow)
    assert "unit? mean rate below 1 kbit/s" in result.stderr
    assert "unit?" not in result.stdout


def test_the_help_names_every_format(run):
    text = " ".join(CliRunner().invoke(app, ["import", "--help"], env={"COLUMNS": "200"}).output.split())
    assert all(name in text for name in (*PUBLISHED, "auto"))
