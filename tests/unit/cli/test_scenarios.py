from pathlib import Path

import pytest

from fedsim.cli import main
from fedsim.experiment.scenario import load_scenario

FILES = {
    "x.yaml": """\
fleet:
  devices: devices.csv
  bandwidth: bandwidth.csv
  availability: availability.csv
stop:
  rounds: 3
""",
    "devices.csv": "device_id,device_class,mem_available_mib,compute_gflops,bandwidth_id\n"
    "a,phone,2048,60,lte\nb,phone,4096,100,lte\n",
    "availability.csv": "device_id,start_s,end_s\na,0,500\nb,100,86400\n",
    "bandwidth.csv": "trace_id,time_s,down_mbps,up_mbps\nlte,0,8,2\nlte,10,4,1\nlte,20,6,1\n",
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).write_text(text)
    return tmp_path


def check(*arguments):
    with pytest.raises(SystemExit) as caught:
        main(["check", "x.yaml", *arguments])
    return caught.value.code


def test_a_sound_scenario_is_printed_and_loads_again(capsys):
    assert check("--set", "server.deadline=15 min") in {0, None}
    Path("printed.yaml").write_text(capsys.readouterr().out)
    expected = load_scenario("x.yaml", {"server.deadline": "900"})
    assert load_scenario("printed.yaml").canonical_json() == expected.canonical_json()


@pytest.mark.parametrize("kind", ["devices", "bandwidth", "availability"])
def test_a_missing_trace_is_named_with_the_line_that_names_it(kind, capsys):
    Path(f"{kind}.csv").unlink()
    line = 2 + ["devices", "bandwidth", "availability"].index(kind)
    assert check() == 2
    assert capsys.readouterr().err == (
        f"error: x.yaml:{line}: fleet.{kind}: no such file: {Path.cwd() / kind}.csv\n"
    )


@pytest.mark.parametrize(
    ("name", "old", "new", "place"),
    [
        ("devices.csv", "2048", "lots", "devices.csv:2"),
        ("devices.csv", "b,phone", "a,phone", "devices.csv:3"),
        ("devices.csv", "100,lte", "100,5g", "devices.csv:3"),
        ("devices.csv", "device_id,", "device,", "devices.csv:1"),
        ("availability.csv", "100,86400", "100,50", "availability.csv:3"),
        ("availability.csv", "a,0,500\n", "", "devices.csv:2"),
        ("bandwidth.csv", "8,2", "-8,2", "bandwidth.csv:2"),
        ("bandwidth.csv", "lte,10,4,1", "lte,10,nan,1", "bandwidth.csv:3"),
    ],
)
def test_a_broken_trace_is_one_line_with_its_place(name, old, new, place, capsys):
    assert FILES[name].count(old) == 1
    Path(name).write_text(FILES[name].replace(old, new))
    assert check() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert place in err


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        ("method.name=fedhra", "method.name: expected one of "),
        ("model.stands_for=llama-3.2-1bb", "model.stands_for: expected one of "),
        ("model.init_adapter=gone", "model.init_adapter: no such file: "),
    ],
)
def test_names_that_lead_nowhere(assignment, line, capsys):
    assert check("--set", assignment) == 2
    assert capsys.readouterr().err.startswith(f"error: --set {assignment}: {line}")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["gone.yaml"], "error: gone.yaml: no such file\n"),
        (["x" * 300], f"error: {'x' * 300}: cannot be read: File name too long\n"),
        (["."], "error: .: cannot be read: Is a directory\n"),
        (["x.yaml", "--set", "seed"], "error: --set seed: expected key=value, for instance stop.rounds=4\n"),
        (["x.yaml", "--set", "seed=-1"], "error: --set seed=-1: seed: expected at least 0, got -1\n"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(arguments, line, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["check", *arguments])
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize(
    ("method", "line"),
    [
        ("fedhera, options: {betta: 1}", "method.options.betta: unknown option; did you mean 'beta'?"),
        ("fedhera, options: {beta: 7}", "method.options.beta: expected a number from 0 to 1, got 7"),
        (
            "fedhera, options: {rank_cap: 4, initial_rank: 8}",
            "method.options.initial_rank: expected at most rank_cap (4), got 8",
        ),
        (
            "hetlora, options: {weights: none}",
            "method.options.weights: expected one of norm, samples, got 'none'",
        ),
    ],
)
def test_a_wrong_option_of_the_method_is_named_with_its_line(method, line, capsys):
    Path("x.yaml").write_text(FILES["x.yaml"] + f"method: {{name: {method}}}\n")
    assert check() == 2
    assert capsys.readouterr() == ("", f"error: x.yaml:7: {line}\n")


def test_a_file_that_is_nearly_named_right_is_suggested(capsys):
    Path("evening.yaml").write_text(FILES["x.yaml"])
    with pytest.raises(SystemExit) as ended:
        main(["check", "evening"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == 'error: evening: no such file; did you mean "evening.yaml"?\n'
