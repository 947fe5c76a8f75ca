"""A first scenario, from flags or from answers."""

from pathlib import Path

import pytest

from fedsim.cli import main
from fedsim.experiment.new_scenario import PACING, Answers, scenario_text
from fedsim.experiment.scenario import load_scenario

TRACES = Path(__file__).parents[3] / "traces" / "skewed_edge"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def test_flags_end_up_in_the_file_and_every_line_says_what_it_is_for(capsys):
    words = "--devices 30 --method flexlora --rounds 3 --stands-for llama-3.2-3b --seed 5"
    assert call("new", "mine", *words.split()) in {0, None}
    said = capsys.readouterr()
    assert said.out == "wrote mine.yaml\n"
    assert "fedsim check mine.yaml --preview" in said.err
    scenario = load_scenario("mine.yaml")
    assert (scenario.name, scenario.seed, scenario.stop.rounds) == ("mine", 5, 3)
    assert (scenario.fleet.recipe, scenario.fleet.population) == ("skewed_edge", 30)
    assert (scenario.method.name, scenario.model.stands_for) == ("flexlora", "llama-3.2-3b")
    lines = Path("mine.yaml").read_text().splitlines()
    values = [line for line in lines if ": " in line and not line.startswith(("#", "name:"))]
    assert len(values) > 25
    assert all("#" in line for line in values)


@pytest.mark.parametrize("pacing", PACING)
def test_every_pacing_makes_a_scenario_that_loads(pacing):
    assert call("new", "x", "--pacing", pacing, "--stands-for", "none", "-q") in {0, None}
    scenario = load_scenario("x.yaml")
    assert scenario.server.pacing == pacing
    assert scenario.model.stands_for is None


def test_traces_are_named_relative_to_the_file(folder):
    (folder / "deep").mkdir()
    words = ["new", "own", "--traces", str(TRACES), "--devices", "40", "--out", "deep/own.yaml"]
    assert call(*words) in {0, None}
    scenario = load_scenario("deep/own.yaml")
    assert scenario.fleet.devices == TRACES / "devices.csv"
    assert scenario.fleet.limit == 40
    assert "'../" in Path("deep/own.yaml").read_text()


def test_questions_are_asked_where_there_is_somebody_to_ask(monkeypatch, capsys):
    answers = iter(["phones", "12", "flora", "async", "7", "none"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    asked = []

    def prompt(question, **_):
        asked.append(question)
        return next(answers)

    monkeypatch.setattr("typer.prompt", prompt)
    assert call("new", "talk") in {0, None}
    scenario = load_scenario("talk.yaml")
    assert (scenario.fleet.recipe, scenario.fleet.population) == ("phones", 12)
    assert (scenario.method.name, scenario.server.pacing, scenario.stop.rounds) == ("flora", "async", 7)
    assert len(asked) == 6
    asked.clear()
    assert call("new", "quiet", "--yes") in {0, None}
    assert asked == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--method", "magic"], "--method: expected one of"),
        (["--pacing", "slow"], "--pacing: expected one of sync"),
        (["--stands-for", "gpt"], "--stands-for: expected one of none"),
        (["--recipe", "mars"], "mars"),
        (["--recipe", "phones", "--traces", "x"], "choose one"),
        (["--traces", "nowhere"], "devices.csv"),
        (["--out", "no/where.yaml"], "expected a folder"),
    ],
)
def test_a_wrong_answer_is_one_line_and_leaves_nothing(folder, capsys, words, expected):
    assert call("new", "x", *words) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1
    assert list(folder.iterdir()) == []


def test_a_file_is_replaced_on_request_only(capsys):
    Path("x.yaml").write_text("mine")
    assert call("new", "x") == 2
    assert "--force" in capsys.readouterr().err
    assert Path("x.yaml").read_text() == "mine"
    assert call("new", "x", "--force") in {0, None}
    assert load_scenario("x.yaml").name == "x"


def test_a_strange_name_stays_a_name(folder):
    text = scenario_text(Answers("it's: #odd"), folder)
    (folder / "odd.yaml").write_text(text)
    assert load_scenario("odd.yaml").name == "it's: #odd"
    assert call("new", "a/b") == 2
