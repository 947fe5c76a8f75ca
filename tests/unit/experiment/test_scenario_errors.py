"""Every broken scenario: one exact line, and through the command line exit code 2 and nothing left behind."""

from pathlib import Path

import pytest

from fedsim.cli import main
from fedsim.errors import ScenarioError
from fedsim.experiment.scenario import load_scenario
from fedsim.experiment.yaml_source import MAX_BYTES, parse

GOOD = """\
name: good
fleet:
  devices: devices.csv
  bandwidth: bandwidth.csv
  availability: availability.csv
server:
  cohort: 8
  deadline: 15 min
training:
  learning_rate: 1e-2
stop:
  rounds: 3
"""
ROOT_KEYS = (
    "name, description, seed, model, task, fleet, method, server, training, stop, evaluation, measure, "
    "executor, cost, record, journal, privacy, faults, track"
)
STOP_KEYS = "rounds, hours, target_loss"

# what is changed in GOOD, what it becomes, the line that must be printed
BROKEN = {
    "unit": (
        "deadline: 15 min",
        "deadline: 15 minits",
        'x.yaml:8: server.deadline: expected a duration such as "90 s" or "15 min", got "15 minits"',
    ),
    "near key": ("cohort: 8", "cohrt: 8", 'x.yaml:7: server.cohrt: unknown key; did you mean "cohort"?'),
    "far key": ("rounds: 3", "rounds: 3\n  zzz: 1", f"x.yaml:13: stop.zzz: unknown key; known: {STOP_KEYS}"),
    "near section": ("server:", "sever:", 'x.yaml:6: sever: unknown key; did you mean "server"?'),
    "far section": ("name: good", "qqq: 1", f"x.yaml:1: qqq: unknown key; known: {ROOT_KEYS}"),
    "not whole": ("cohort: 8", "cohort: 8.5", "x.yaml:7: server.cohort: expected a whole number, got 8.5"),
    "quoted number": (
        "cohort: 8",
        "cohort: '8'",
        'x.yaml:7: server.cohort: expected a whole number, got "8"',
    ),
    "truth for number": (
        "cohort: 8",
        "cohort: true",
        "x.yaml:7: server.cohort: expected a whole number, got true",
    ),
    "zero cohort": ("cohort: 8", "cohort: 0", "x.yaml:7: server.cohort: expected at least 1, got 0"),
    "empty value": ("cohort: 8", "cohort:", "x.yaml:7: server.cohort: expected a whole number, got nothing"),
    "text for rate": (
        "learning_rate: 1e-2",
        "learning_rate: fast",
        'x.yaml:10: training.learning_rate: expected a number, got "fast"',
    ),
    "negative rate": (
        "learning_rate: 1e-2",
        "learning_rate: -1",
        "x.yaml:10: training.learning_rate: expected at least 0, got -1",
    ),
    "not a number": (
        "learning_rate: 1e-2",
        "learning_rate: .nan",
        "x.yaml:10: training.learning_rate: expected a finite number, got nan",
    ),
    "infinite time": (
        "deadline: 15 min",
        "deadline: .inf",
        "x.yaml:8: server.deadline: expected a finite number, got inf",
    ),
    "zero time": (
        "deadline: 15 min",
        "deadline: 0",
        "x.yaml:8: server.deadline: expected more than 0, got 0",
    ),
    "price of no effect": (
        "stop:",
        "cost: {model: paper, grad_bytes: 2}\nstop:",
        "x.yaml:11: cost.grad_bytes: has no effect on the published constants; leave it out",
    ),
    "no drift client": (
        "stop:",
        "measure: {drift: {clients: 0}}\nstop:",
        "x.yaml:11: measure.drift.clients: expected at least 1, got 0",
    ),
    "never measured": (
        "stop:",
        "measure: {drift: {every: 0}}\nstop:",
        "x.yaml:11: measure.drift.every: expected at least 1, got 0",
    ),
    "oracle without rank": (
        "stop:",
        "measure: {drift: {oracle_rank: 0}}\nstop:",
        "x.yaml:11: measure.drift.oracle_rank: expected at least 1, got 0",
    ),
    "unknown drift": (
        "stop:",
        "measure: {drift: {definition: [paper, mine]}}\nstop:",
        'x.yaml:11: measure.drift.definition: expected a list of "fedsim" and "paper", each once, got a list',
    ),
    "drift without definition": (
        "stop:",
        "measure: {drift: {definition: []}}\nstop:",
        'x.yaml:11: measure.drift.definition: expected a list of "fedsim" and "paper", each once, got a list',
    ),
    "drift as a word": (
        "stop:",
        "measure: {drift: {definition: paper}}\nstop:",
        (
            "x.yaml:11: measure.drift.definition: "
            'expected a list of "fedsim" and "paper", each once, got "paper"'
        ),
    ),
    "drift is no switch": (
        "stop:",
        "measure: {drift: true}\nstop:",
        "x.yaml:11: measure.drift: expected a section with keys, got true",
    ),
    "minimum over cohort": (
        "cohort: 8",
        "cohort: 8\n  min_updates: 9",
        "x.yaml:8: server.min_updates: expected at most the cohort, 8, got 9",
    ),
    "over-selection below one": (
        "cohort: 8",
        "over_selection: 0.5",
        "x.yaml:7: server.over_selection: expected at least 1, got 0.5",
    ),
    "estimator": (
        "cohort: 8",
        "estimator: harmonics",
        (
            'x.yaml:7: server.estimator: expected "harmonic", "last", "ewma" or "oracle", got "harmonics"; '
            'did you mean "harmonic"?'
        ),
    ),
    "no end": (
        "  rounds: 3",
        "  target_loss: 1",
        "x.yaml:11: stop: expected rounds or hours, or the run would never end",
    ),
    "no stop": ("stop:\n  rounds: 3\n", "", "x.yaml:1: stop: required"),
    "section is text": (
        "stop:\n  rounds: 3",
        "stop: 3",
        "x.yaml:11: stop: expected a section with keys, got 3",
    ),
    "section is empty": (
        "  rounds: 3\n",
        "",
        "x.yaml:11: stop: expected a section with keys, got nothing",
    ),
    "no devices": ("  devices: devices.csv\n", "", "x.yaml:2: fleet.devices: required, or fleet.recipe"),
    "path is number": ("devices.csv", "5", "x.yaml:3: fleet.devices: expected a file path, got 5"),
    "no availability": (
        "  availability: availability.csv\n",
        "",
        "x.yaml:2: fleet.availability: required, unless fleet.availability_policy is always",
    ),
    "class memory": (
        "server:",
        "  classes:\n    phone:\n      memory: 2 GX\nserver:",
        'x.yaml:8: fleet.classes.phone.memory: expected a size such as "30 MB" or "2 GiB", got "2 GX"',
    ),
    "class key": (
        "server:",
        "  classes: {phone: {memmory: 2 GB}}\nserver:",
        'x.yaml:6: fleet.classes.phone.memmory: unknown key; did you mean "memory"?',
    ),
    "targets": (
        "server:",
        "model: {targets: attn}\nserver:",
        'x.yaml:6: model.targets: expected "attention", "all-linear" or a list of module names, got "attn"',
    ),
    "remote code": (
        "server:",
        "model: {trust_remote_code: true}\nserver:",
        (
            "x.yaml:6: model.trust_remote_code: unknown key; known: base, targets, stands_for, init_adapter, "
            "device, dtype, quantize, gradient_checkpointing, attention"
        ),
    ),
    "task without file": (
        "server:",
        "task:\n  name: e2e_nlg\nserver:",
        "x.yaml:6: task.train: required by the task e2e_nlg",
    ),
    "file without task": (
        "server:",
        "task: {train: a.csv}\nserver:",
        "x.yaml:6: task.train: the embedded task makes its own data; leave it out or name another task",
    ),
    "option without effect": (
        "server:",
        "task: {shards: {kind: iid, alpha: 0.1}}\nserver:",
        "x.yaml:6: task.shards.alpha: has no effect on iid shards; leave it out",
    ),
    "dirichlet without alpha": (
        "server:",
        "task:\n  shards:\n    alpha:\nserver:",
        "x.yaml:8: task.shards.alpha: required by dirichlet shards",
    ),
    "decay over unknown rounds": (
        "  learning_rate: 1e-2\nstop:\n  rounds: 3",
        "  final_learning_rate_factor: 0.1\nstop:\n  hours: 3",
        "x.yaml:10: training.final_learning_rate_factor: a decay needs stop.rounds, which it is spread over",
    ),
    "several": (
        "cohort: 8\n  deadline: 15 min",
        "cohort: 0\n  deadline: soon",
        "x.yaml:7: server.cohort: expected at least 1, got 0 (and 1 more)",
    ),
    "two lines": (
        "deadline: 15 min",
        'deadline: "a\\nb"',
        'x.yaml:8: server.deadline: expected a duration such as "90 s" or "15 min", got "a\\nb"',
    ),
    "surrogate": ("name: good", 'name: "\\ud800"', "x.yaml:1: expected text, got half of a surrogate pair"),
    "twice": ("cohort: 8", "cohort: 8\n  cohort: 9", "x.yaml:8: server.cohort: given twice"),
    "tag": (
        "cohort: 8",
        "cohort: !!python/object/apply:os.system [ls]",
        "x.yaml:7: python/object/apply:os.system is not plain data; quote text and leave tags out",
    ),
    "date": (
        "name: good",
        "name: 2026-01-01",
        "x.yaml:1: timestamp is not plain data; quote text and leave tags out",
    ),
    "number as name": (
        "name: good",
        "name: 7",
        "x.yaml:1: name: expected text (put quotes around it), got 7",
    ),
    "open bracket": (
        "  rounds: 3",
        "  rounds: {3",
        "x.yaml:13: not valid YAML: expected ',' or '}', but got '<stream end>'",
    ),
    "unknown anchor": (
        "cohort: 8",
        "cohort: *eight",
        "x.yaml:7: not valid YAML: found undefined alias 'eight'",
    ),
    "two documents": ("training:", "---\ntraining:", "x.yaml:9: not valid YAML: but found another document"),
    "merge key": (
        "cohort: 8",
        "<<: {cohort: 8}",
        "x.yaml:7: merge keys (<<) are not supported; use `extends:`",
    ),
    "deep": ("name: good", f"name: {'[' * 40}{']' * 40}", "x.yaml:1: nested deeper than 12 levels"),
    "endless": ("name: good", "name: &a [*a]", "x.yaml:1: nested deeper than 12 levels"),
    "itself": ("name: good", "extends: x.yaml", "x.yaml:1: extends: a scenario cannot extend itself"),
    "no parent": ("name: good", "extends: gone.yaml", "x.yaml:1: extends: no such file: gone.yaml"),
    "parent is a list": (
        "name: good",
        "extends: [a, b]",
        "x.yaml:1: extends: expected the path of another scenario",
    ),
    "grandparent": (
        "name: good",
        "extends: middle.yaml",
        "x.yaml:1: extends: middle.yaml extends another one; one level is allowed",
    ),
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("middle.yaml").write_text("extends: x.yaml\n")
    return tmp_path


def broken(case):
    old, new, line = BROKEN[case]
    assert GOOD.count(old) == 1
    Path("x.yaml").write_text(GOOD.replace(old, new))
    return line


@pytest.mark.parametrize("case", BROKEN)
def test_one_exact_line(case):
    line = broken(case)
    with pytest.raises(ScenarioError) as caught:
        load_scenario("x.yaml")
    assert str(caught.value) == line


@pytest.mark.parametrize("path", [f"'{'a' * 300}'", '"a\\0b"'], ids=["long", "nul"])
def test_paths_that_no_file_system_takes(path):
    Path("x.yaml").write_text(GOOD.replace("devices.csv", path))
    with pytest.raises(ScenarioError, match=r"^x\.yaml:3: fleet\.devices: expected a file path, got \"/"):
        load_scenario("x.yaml")


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "x.yaml:1: expected sections such as `fleet:`, the file is empty"),
        (b"# nothing but a comment\n", "x.yaml:1: expected sections such as `fleet:`, the file is empty"),
        (b"- a\n- b\n", "x.yaml:1: expected sections such as `fleet:`, got plain text or a list"),
        (b"name: a\nseed: \xff\n", "x.yaml:2: expected UTF-8 text, got byte 0xff"),
        (b"#" * (MAX_BYTES + 1), f"x.yaml: larger than {MAX_BYTES} bytes; a scenario is a page of text"),
    ],
)
def test_files_that_are_no_scenario(data, line):
    Path("x.yaml").write_bytes(data)
    with pytest.raises(ScenarioError) as caught:
        load_scenario("x.yaml")
    assert str(caught.value) == line


def test_a_later_anchor_takes_over_a_name_without_a_word(recwarn):
    values, _ = parse("a: &x 1\nb: &x 2\nc: *x\n", str)
    assert values == {"a": 1, "b": 2, "c": 2}
    assert not recwarn.list


def test_anchors_that_multiply_are_refused():
    levels = "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 9))
    Path("x.yaml").write_text(f"l0: &l0 [a, b]\n{levels}\n")
    with pytest.raises(ScenarioError, match=r"^x\.yaml:\d+: more than 20000 values"):
        load_scenario("x.yaml")


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("server.cohrt", "3", '--set server.cohrt=3: server.cohrt: unknown key; did you mean "cohort"?'),
        ("server.cohort", "0", "--set server.cohort=0: server.cohort: expected at least 1, got 0"),
        (
            "server..cohort",
            "3",
            "--set server..cohort=3: expected a key such as server.deadline before the equals sign",
        ),
        ("name.x", "3", "--set name.x=3: name is a plain value and has no keys"),
        (
            "stop.rounds",
            "[1",
            "--set stop.rounds=[1: not valid YAML: expected ',' or ']', but got '<stream end>'",
        ),
        ("extends", "a.yaml", "--set extends=a.yaml: only a file may extend another"),
        (
            "fleet.on_interrupt",
            "pausing",
            (
                '--set fleet.on_interrupt=pausing: fleet.on_interrupt: expected "drop" or "pause", '
                'got "pausing"; did you mean "pause"?'
            ),
        ),
    ],
)
def test_overrides_name_themselves(key, value, line):
    Path("x.yaml").write_text(GOOD)
    with pytest.raises(ScenarioError) as caught:
        load_scenario("x.yaml", {key: value})
    assert str(caught.value) == line


def test_pause_needs_a_deadline():
    Path("x.yaml").write_text(GOOD)
    with pytest.raises(
        ScenarioError, match=r"^--set fleet\.on_interrupt=pause: .*pause needs server\.deadline"
    ):
        load_scenario("x.yaml", {"server.deadline": "null", "fleet.on_interrupt": "pause"})


def test_what_a_file_says_cannot_steer_the_terminal(capsys):
    Path("x.yaml").write_text(GOOD + '"\\e[2J\\na": 1\n')
    with pytest.raises(SystemExit):
        main(["check", "x.yaml"])
    err = capsys.readouterr().err
    assert err.startswith("error: x.yaml:13: \\x1b[2J\\na: unknown key")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize("case", ["unit", "near key", "twice", "no end", "tag"])
def test_the_command_line_prints_the_line_and_exits_with_two(case, command, capsys):
    line = broken(case)
    before = sorted(Path().iterdir())
    with pytest.raises(SystemExit) as ended:
        main([command, "x.yaml"])
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", f"error: {line}\n")
    assert sorted(Path().iterdir()) == before
