"""Help, examples, completion, JSON, quiet and colours: what holds for every command alike."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from fedsim.cli import main
from fedsim.cli.examples import EXAMPLES, EXIT_CODES
from fedsim.cli.main import app
from fedsim.cli.speech import aligned, tinted
from tests.records import write_record

ROOT = Path(__file__).parents[3]
LISTINGS = ("runs", "methods", "models", "shards", "doctor", "verify", "check", "compare")
TRACE_LISTINGS = ("traces list", "traces stats", "traces check")


def commands(group=None, before=""):
    """Every command by the words after ``fedsim``."""
    for name, command in (group or get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


COMMANDS = dict(commands())


def call(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def test_every_command_has_examples_and_the_table_has_no_others():
    assert set(COMMANDS) == set(EXAMPLES)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_shows_every_example_whole(name, capsys):
    assert call(*name.split(), "--help") in {0, None}
    said = capsys.readouterr().out
    for words, purpose in EXAMPLES[name]:
        assert f"    {words}\n" in said
        assert purpose in said


@pytest.mark.parametrize("words", [words for examples in EXAMPLES.values() for words, _ in examples])
def test_examples_parse(words, monkeypatch):
    program, *rest = shlex.split(words)
    assert program == "fedsim"
    name = next(
        name
        for name in sorted(COMMANDS, key=len, reverse=True)
        if rest[: name.count(" ") + 1] == name.split()
    )
    monkeypatch.chdir(ROOT)
    COMMANDS[name].make_context(name, rest[name.count(" ") + 1 :])


@pytest.mark.parametrize("name", [*LISTINGS, *TRACE_LISTINGS])
def test_every_listing_speaks_json(name):
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert "--json" in options


def test_listings_that_need_nothing_print_json(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write_record(tmp_path / "runs" / "one")
    for words in ("methods", "models", "runs", "traces list"):
        assert call(*words.split(), "--json") in {0, None}
        assert json.loads(capsys.readouterr().out)


def test_the_exit_codes_are_in_the_help(capsys):
    call("--help")
    said = capsys.readouterr().out
    assert all(f"{code:<4} {words}" in said for code, words in EXIT_CODES.items())


@pytest.mark.parametrize(
    ("words", "number", "expected"), [("fedsim tr", "1", "trace"), ("fedsim run --res", "2", "--resume")]
)
def test_a_shell_can_complete(words, number, expected):
    told = subprocess.run(
        [sys.executable, "-c", "from fedsim.cli import main; main()"],
        env={**os.environ, "_FEDSIM_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": number},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert expected in told.stdout


def test_quiet_says_nothing_about_what_went_well(capsys, tmp_path):
    directory = write_record(tmp_path / "run")
    assert call("report", str(directory), "--quiet") in {0, None}
    assert call("check", str(ROOT / "scenarios" / "skewed_edge.yaml"), "-q") in {0, None}
    assert capsys.readouterr() == ("", "")
    assert (directory / "report.html").is_file()


def test_colours_go_to_terminals_only(capsys, monkeypatch):
    call("run", "nowhere.yaml")
    assert "\x1b" not in capsys.readouterr().err
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert tinted("error:", "red").startswith("\x1b[31m")
    monkeypatch.setenv("NO_COLOR", "1")
    assert tinted("error:", "red") == "error:"


def test_a_terminal_gets_a_red_error(tmp_path):
    """The same command through a pseudo terminal."""
    reader, writer = os.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    command = [sys.executable, "-m", "fedsim", "check", "nowhere.yaml"]
    done = subprocess.run(command, cwd=ROOT, env=environment, stderr=writer, timeout=60, check=False)
    os.close(writer)
    said = os.read(reader, 4096).decode()
    os.close(reader)
    assert done.returncode == 2
    assert said.startswith("\x1b[31merror:\x1b[0m nowhere.yaml")


def test_columns_are_aligned():
    assert aligned([("a", "n"), ("long", "12")]) == ["a      n", "long  12"]
