"""What the documentation shows works as it stands: see tests/documents.py for what is run, and how."""

import re
import shutil
import subprocess
import sys

import pytest
from typer.main import get_command

import fedsim
from fedsim.cli import main
from fedsim.cli.main import app
from fedsim.experiment.scenario import load_scenario
from tests.documents import PAGES, ROOT, blocks, commands, shortened

NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
WITH_COMMANDS = [page for page in PAGES if any(block.kind in ("bash", "python") for block in blocks(page))]
QUICK = [page for page in WITH_COMMANDS if page.name == "analyse-a-run.md"]


@pytest.fixture(scope="module")
def stub_run(tmp_path_factory):
    scenario = fedsim.load_scenario(ROOT / "scenarios" / "skewed_edge.yaml", {"executor.kind": "stub"})
    return fedsim.run(scenario, tmp_path_factory.mktemp("docs") / "run", report=False).directory


@pytest.fixture
def place(stub_run, tmp_path, monkeypatch):
    """A folder like a fresh clone in which one run has been done."""
    shutil.copytree(ROOT / "scenarios", tmp_path / "scenarios")
    (tmp_path / "traces").mkdir()
    for folder in (ROOT / "traces").iterdir():
        (tmp_path / "traces" / folder.name).symlink_to(folder)
    shutil.copytree(stub_run, tmp_path / "runs" / "skewed-edge-s0-001")
    # A mahimahi recording: one packet may leave at each of these milliseconds.
    (tmp_path / "my-uplink.mahi").write_text("".join(f"{k * 12}\n" for k in range(1, 2000)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(words):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code in {0, None}, " ".join(words)


def carry_out(page, place, kinds):
    """Run the blocks of a page in order."""
    namespace = {}
    for block in blocks(page):
        if block.excused:
            continue
        if block.kind == "yaml" and (named := re.match(r"# (\S+\.yaml)\n", block.body)):
            (place / named[1]).write_text(block.body)
        elif block.kind == "python":
            exec(compile(block.body, str(page), "exec"), namespace)
        elif block.kind == "bash":
            for words in commands(block.body):
                if words[0] in kinds:
                    call(shortened(words))


EVERYTHING = set(get_command(app).commands)


@pytest.mark.parametrize("page", QUICK, ids=lambda page: page.name)
def test_the_example_in_python_runs(page, place, capsys):
    carry_out(page, place, EVERYTHING - {"compare"})
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.name)
def test_every_command_of_a_page_runs(page, place, capsys):
    carry_out(page, place, EVERYTHING)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_parses_and_what_is_not_run_says_why(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    known = get_command(app)
    for block in blocks(page):
        assert block.kind, f"{page.name}: a block without a kind:\n{block.body}"
        assert block.kind != "sh" or block.excused, f"{page.name}: say why this is not run:\n{block.body}"
        for words in commands(block.body) if block.kind == "bash" else ():
            found, rest = known.commands[words[0]], words[1:]
            if hasattr(found, "commands"):
                found, rest = found.commands[rest[0]], rest[1:]
            found.make_context(words[0], rest)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_yaml_block_is_a_scenario_or_a_part_of_one(page, tmp_path):
    shutil.copytree(ROOT / "scenarios", tmp_path / "scenarios")
    plain = "fleet: {recipe: phones, population: 10}\nstop: {rounds: 1}\n"
    (tmp_path / "scenarios" / "plain.yaml").write_text(plain)
    for block in blocks(page):
        if block.kind == "yaml" and not block.excused:
            extends = "" if "extends:" in block.body else "extends: plain.yaml\n"
            path = tmp_path / "scenarios" / "shown.yaml"
            path.write_text(extends + block.body)
            load_scenario(path)


def test_generated_pages_are_current():
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "make_reference.py"), "--check"],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason='pip install -e ".[docs]"')
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "scenario-reference" / "index.html").read_text()
    assert "download_window" in page
    assert not list((tmp_path / "site").rglob("*.py"))
