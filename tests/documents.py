"""Blocks of the documentation, and a place where its commands can be run.

The convention, for whoever writes documentation:

* ``bash``: every line is a ``fedsim`` command, and the tests run it. There ``run``, ``compare`` and
  ``check --preview`` get the stub executor, runs that state no number of rounds get two, and comparisons
  one seed.
* ``python``: is run too, in one namespace per page. Fragments are ``py``.
* ``yaml``: is a scenario, or sections of one, and must load. A first line ``# some/file.yaml`` names the file
  that it is written to.
* ``sh``, ``text``, ``toml``: not run. Above ``sh`` stands why: ``<!-- not run: it installs -->``.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<kind>[a-z]*)\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: [^>]+ -->\n *$")
PROGRAMS = (["fedsim"], ["python", "-m", "fedsim"], [".venv/bin/python", "-m", "fedsim"])


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    kind: str
    body: str
    excused: bool


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        body = re.sub(f"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
        found.append(Block(match["kind"], body, bool(NOT_RUN.search(text[: match.start()]))))
    return found


def commands(body: str) -> list[list[str]]:
    """Words after ``fedsim`` of every line."""
    found = []
    for line in body.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        program = next((begin for begin in PROGRAMS if words[: len(begin)] == begin), None)
        assert program, f"only fedsim commands stand in bash blocks, found: {line}"
        found.append(words[len(program) :])
    return found


def shortened(words: list[str]) -> list[str]:
    """The same command without training."""
    more = []
    if words[0] in ("run", "compare") and "--resume" not in words:
        more += [] if "--executor" in words else ["--executor", "stub"]
        more += [] if any(word.startswith("stop.rounds=") for word in words) else ["--set", "stop.rounds=2"]
    if words[0] == "check" and "--preview" in words:
        more += ["--set", "executor.kind=stub"]
    if "--workers" in words and words[0] == "run":
        place = words.index("--workers")
        words = words[:place] + words[place + 2 :]
    if "--seeds" in words:
        place = words.index("--seeds")
        words = [*words[:place], "--seeds", "0", *words[place + 2 :]]
    return ["stub" if word == "workers" else word for word in words] + more
