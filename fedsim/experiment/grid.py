"""Which runs does a comparison need, and how are they carried out? Cells in processes of their own.

A cell is one method under one seed and one setting of what is varied. Its folder is named after what it holds
and after the hash of its scenario, so a finished cell is found again and a changed scenario gets a new one. A
cell that fails, or is killed, takes no other with it.
"""

import fcntl
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedsim.errors import InputError, ScenarioError, not_one_of
from fedsim.experiment.record import MANIFEST, SUMMARY
from fedsim.experiment.scenario import Scenario, load_scenario
from fedsim.method.catalogue import method_names

CELLS = "cells"
LOCK = ".lock"
LOG_SUFFIX = ".log"
MAX_SEEDS = 10_000
REFUSED = 2  # exit code of a run that does not begin, or cannot go on
POLL_S = 0.1

Sweep = tuple[tuple[str, str], ...]
Status = Literal["kept", "finished", "failed"]


@dataclass(frozen=True, slots=True)
class Variant:
    """A method with options of its own.

    Args:
        label: As the user wrote it: ``fedhera`` or ``fedhera:coupled=true:beta=0.5``.
        name: Of the method.
        options: Option -> YAML text.
    """

    label: str
    name: str
    options: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a comparison.

    Args:
        variant: The method.
        seed: Of the run.
        sweep: Varied key -> YAML text.
        overrides: All that differs from the scenario file: dotted key -> YAML text.
        scenario: Resolved.
        directory: Where its record lies, or will lie.
    """

    variant: Variant
    seed: int
    sweep: Sweep
    overrides: Mapping[str, str]
    scenario: Scenario
    directory: Path

    @property
    def label(self) -> str:
        """For people."""
        varied = "".join(f", {key}={value}" for key, value in self.sweep)
        return f"{self.variant.label}, seed {self.seed}{varied}"


@dataclass(frozen=True, slots=True)
class CellEnd:
    """How a cell ended.

    Args:
        cell: Which.
        status: ``kept``: it was there already.
        reason: Of a failure; of a finished cell, what an earlier attempt had to do with it. One line.
        wall_s: Seconds that it took now.
    """

    cell: Cell
    status: Status
    reason: str = ""
    wall_s: float = 0.0


def parse_methods(text: str) -> tuple[Variant, ...]:
    """Read ``a,b:option=value:option=value``.

    Raises:
        ScenarioError: If a name or an option is missing, or a variant is there twice.
    """
    variants = tuple(_variant(word.strip()) for word in text.split(","))
    twice = _repeated([variant.label for variant in variants])
    if twice is not None:
        raise ScenarioError(f"--methods {text}: {twice} is there twice")
    return variants


def _variant(word: str) -> Variant:
    name, *options = word.split(":")
    pairs = [option.partition("=") for option in options]
    if not name or not all(key and equals and value for key, equals, value in pairs):
        raise ScenarioError(
            f'--methods: expected names such as fedhera or fedhera:coupled=true, got "{word}"'
        )
    if name not in method_names():
        raise ScenarioError(f"--methods {word}: {not_one_of(name, method_names())}")
    return Variant(word, name, tuple((key.strip(), value) for key, _, value in pairs))


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read ``0-4`` or ``0,3,7-9``.

    Raises:
        ScenarioError: If it is no list of whole numbers and ranges, or a seed is there twice.
    """
    seeds: list[int] = []
    for word in text.split(","):
        first, dash, last = word.strip().partition("-")
        if not _is_seed(first) or (dash and not _is_seed(last)):
            raise ScenarioError(f'--seeds {text}: expected seeds such as 0-4 or 0,3,7-9, got "{word}"')
        low, high = int(first), int(last or first)
        if not low <= high < low + MAX_SEEDS:
            raise ScenarioError(f"--seeds {text}: expected at most {MAX_SEEDS} rising seeds, got {word}")
        seeds.extend(range(low, high + 1))
    twice = _repeated(seeds)
    if twice is not None:
        raise ScenarioError(f"--seeds {text}: {twice} is there twice")
    return tuple(seeds)


def _is_seed(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) < 20  # as long as 2**63


def parse_vary(words: Sequence[str]) -> tuple[Sweep, ...]:
    """Read ``key=a,b,c`` words, and return every combination.

    Raises:
        ScenarioError: If a word has no key or no values, or a key or value is there twice.
    """
    axes: dict[str, list[tuple[str, str]]] = {}
    for word in words:
        key, _, text = word.partition("=")
        key, values = key.strip(), [value.strip() for value in text.split(",")]
        if not key or not all(values):
            raise ScenarioError(f"--vary {word}: expected key=a,b,c, for instance server.cohort=4,8")
        if key in axes or _repeated(values) is not None:
            raise ScenarioError(f"--vary {word}: a key, and a value of it, can be given once only")
        if key in {"seed", "method", "method.name"} or key.startswith("executor"):
            raise ScenarioError(f"--vary {word}: has an option of its own, or no effect on a record")
        axes[key] = [(key, value) for value in values]
    return tuple(itertools.product(*axes.values()))


def _repeated(values: Sequence[str | int]) -> str | int | None:
    return next((value for index, value in enumerate(values) if value in values[:index]), None)


def make_cells(
    path: Path,
    out: Path,
    variants: Sequence[Variant],
    seeds: Sequence[int],
    sweeps: Sequence[Sweep],
    shared: Mapping[str, str],
) -> tuple[Cell, ...]:
    """Resolve and check the scenario of every cell; touches no file.

    Options in the scenario file belong to the method that it names; other methods take theirs from the
    variant alone.

    Args:
        path: Scenario file.
        out: Folder of the comparison.
        variants: Methods.
        seeds: Of the runs.
        sweeps: Settings of what is varied; one empty setting where nothing is.
        shared: Overrides of every cell.

    Raises:
        ScenarioError: If the scenario of any cell is wrong.
    """
    own = load_scenario(path, shared).method.name
    cells = []
    for sweep, variant, seed in itertools.product(sweeps, variants, seeds):
        overrides = {**shared, **dict(sweep), "seed": str(seed), "method.name": json.dumps(variant.name)}
        if variant.name != own:
            overrides["method.options"] = "null"
        overrides |= {f"method.options.{key}": value for key, value in variant.options}
        scenario = load_scenario(path, overrides)
        name = slug([variant.label, f"s{seed}", *(f"{key}={value}" for key, value in sweep)])
        stub = "-stub" if scenario.executor.kind == "stub" else ""
        directory = out / CELLS / f"{name}-{scenario.scenario_hash[:10]}{stub}"
        cells.append(Cell(variant, seed, sweep, overrides, scenario, directory))
    return tuple(cells)


def slug(words: Sequence[str]) -> str:
    """Make a short folder name of some words."""
    text = "-".join(words)
    return "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in text)[:80]


def is_finished(cell: Cell) -> bool:
    """Whether the record of this very cell is there, whole."""
    return (cell.directory / SUMMARY).is_file() and is_begun(cell)


def is_begun(cell: Cell) -> bool:
    """Whether there is a run of this very cell, whole or not, that could go on."""
    try:
        found = json.loads((cell.directory / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("scenario_sha256") == cell.scenario.scenario_hash


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Make the folder of a comparison and keep other processes out of it.

    Raises:
        InputError: If it holds something else, cannot be made, or another process is at work there.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / CELLS).is_dir())):
        raise InputError(
            f"--out {out}: expected a new folder or one of an earlier comparison, found something else"
        )
    try:
        (out / CELLS).mkdir(parents=True, exist_ok=True)
        lock = (out / LOCK).open("w")
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made: {error.strerror}; choose another folder") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"--out {out}: another comparison is at work there; wait for its end") from error
        yield


def run_cells(
    path: Path, cells: Sequence[Cell], workers: int, tell: Callable[[CellEnd], None]
) -> list[CellEnd]:
    """Run what is not finished yet, several cells at once; an interrupt leaves all that can go on.

    A cell that was begun is resumed. One that cannot be, because it is damaged or fedsim has changed, is run
    anew, and its end says so.

    Args:
        path: Scenario file.
        cells: All cells.
        workers: Processes.
        tell: Hears of each end as it comes.

    Returns:
        One end per cell, in the order of `cells`.
    """
    ends: dict[Path, CellEnd] = {}
    running: dict[Path, _Running] = {}
    waiting = []
    for cell in cells:
        if is_finished(cell):
            ends[cell.directory] = CellEnd(cell, "kept")
            tell(ends[cell.directory])
        else:
            waiting.append(cell)
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                cell = waiting.pop(0)
                running[cell.directory] = _Running.start(path, cell, resumes=is_begun(cell))
            for done in [one for one in running.values() if one.process.poll() is not None]:
                del running[done.cell.directory]
                if done.resumes and done.process.returncode == REFUSED:
                    again = _Running.start(path, done.cell, instead_of=done.said())
                    running[done.cell.directory] = again
                    continue
                ends[done.cell.directory] = done.end()
                tell(ends[done.cell.directory])
            time.sleep(POLL_S if running else 0.0)
    finally:
        for one in running.values():
            one.stop()
    return [ends[cell.directory] for cell in cells]


@dataclass(frozen=True, slots=True)
class _Running:
    """A cell at work in a process of its own."""

    cell: Cell
    process: subprocess.Popen[bytes]
    began_s: float
    resumes: bool = False
    instead_of: str = ""

    @classmethod
    def start(cls, path: Path, cell: Cell, *, resumes: bool = False, instead_of: str = "") -> "_Running":
        """Go on with what an earlier attempt left; or clear it, and begin.

        Args:
            path: Scenario file.
            cell: What to run.
            resumes: Whether to go on.
            instead_of: Why an attempt to go on was refused.
        """
        if not resumes:
            shutil.rmtree(cell.directory, ignore_errors=True)
        words = [sys.executable, "-m", "fedsim", "run", str(path), "--quiet", "--no-report"]
        words += ["--resume" if resumes else "--out", str(cell.directory)]
        for key, value in cell.overrides.items():
            words += ["--set", f"{key}={value}"]
        with _log(cell).open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own command line
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"OMP_NUM_THREADS": "1", **os.environ},
            )
        return cls(cell, process, time.monotonic(), resumes, instead_of)

    def end(self) -> CellEnd:
        """Say how it ended."""
        wall_s = time.monotonic() - self.began_s
        if self.process.returncode == 0 and is_finished(self.cell):
            _log(self.cell).unlink(missing_ok=True)
            reason = "resumed" if self.resumes else ""
            if self.instead_of:
                reason = f"run anew, since it could not go on ({self.instead_of})"
            return CellEnd(self.cell, "finished", reason=reason, wall_s=wall_s)
        return CellEnd(self.cell, "failed", reason=self.said(), wall_s=wall_s)

    def said(self) -> str:
        """Return the last line that it printed."""
        said = _log(self.cell).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return said[-1] if said else f"exit code {self.process.returncode}, and nothing said"

    def stop(self) -> None:
        """End it; what can go on stays for the next comparison."""
        self.process.terminate()
        self.process.wait()
        _log(self.cell).unlink(missing_ok=True)
        if not is_begun(self.cell):
            shutil.rmtree(self.cell.directory, ignore_errors=True)


def _log(cell: Cell) -> Path:
    """Where what a cell prints goes; kept only where it fails."""
    return cell.directory.with_name(cell.directory.name + LOG_SUFFIX)
