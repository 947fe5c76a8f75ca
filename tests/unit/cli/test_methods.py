import json

import typer
from typer.testing import CliRunner

from fedsim.cli.methods import methods
from fedsim.method.catalogue import method_names

app = typer.Typer()
app.command()(methods)


def test_every_method_has_a_line_and_a_source():
    shown = CliRunner().invoke(app, ["--json"])
    listed = json.loads(shown.stdout)
    assert [each["name"] for each in listed] == list(method_names())
    for each in listed:
        assert 20 < len(each["summary"]) < 130
        assert each["summary"].endswith(".")
        assert len(each["source"]) > 10
        assert not each["source"].endswith(":")


def test_the_lines_are_for_people():
    shown = CliRunner().invoke(app, [])
    assert shown.exit_code == 0
    assert "flexlora       clients train as many columns as they can" in shown.stdout
    assert "arXiv 2410.09432" in shown.stdout
