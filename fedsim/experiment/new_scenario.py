"""What does a first scenario look like? A commented file made of a few answers, checked before it stays."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedsim.errors import ScenarioError
from fedsim.experiment.scenario import load_scenario

ENDINGS = (".csv", ".csv.gz", ".parquet")
TRACES: Mapping[str, str] = {
    "devices": "one row per device: class, memory, speed; a new row is a new device",
    "bandwidth": "a library of links that devices share",
    "availability": "when each is online",
    "state": "free memory, charging, throttling as they change",
}
REQUIRED = ("devices", "bandwidth")
COMMENT_COLUMN = 40

# Pacing -> lines of the server section: key, value, comment.
PACING: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "sync": (
        ("cohort", "8", "updates that close a round"),
        ("over_selection", "1.25", "ask 10 to get 8: some will leave"),
        ("surplus", "finish", "who is still at work then arrives late; `recall` tells them to stop"),
        ("deadline", "40 min", "a round closes here at the latest"),
        ("min_updates", "2", "fewer than this, and the round leaves the model as it is"),
    ),
    "semi_sync": (
        ("cohort", "8", "clients asked per round"),
        ("deadline", "20 min", "a round closes here; later updates count in a later one"),
        ("max_staleness", "4", "versions after which an update does not count any more"),
    ),
    "buffered": (
        ("concurrency", "16", "clients kept at work"),
        ("buffer", "4", "updates that make a version"),
        ("deadline", "40 min", "an assignment ends here at the latest"),
        ("max_staleness", "10", "versions after which an update does not count any more"),
    ),
    "async": (
        ("concurrency", "16", "clients kept at work; each update makes a version"),
        ("deadline", "40 min", "an assignment ends here at the latest"),
        ("max_staleness", "20", "versions after which an update does not count any more"),
    ),
}


@dataclass(frozen=True, slots=True)
class Answers:
    """What a new scenario is made of.

    Args:
        name: Of the scenario.
        recipe: Recipe that makes the fleet; unused where there are traces.
        devices: Size of the fleet; all rows of the device file where None.
        traces: Folder of trace files, or None.
        method: Who gets which ranks.
        pacing: When the server aggregates.
        rounds: After so many the run ends.
        stands_for: Catalogue model whose bytes, memory and seconds are charged; its own where None.
        seed: Root of all draws.
    """

    name: str
    recipe: str = "skewed_edge"
    devices: int | None = None
    traces: Path | None = None
    method: str = "fedhera"
    pacing: str = "sync"
    rounds: int = 12
    stands_for: str | None = "llama-3.2-1b"
    seed: int = 0


def write_scenario(path: Path, answers: Answers, *, force: bool = False) -> Path:
    """Write a commented scenario that loads; a wrong answer leaves nothing behind.

    Args:
        path: Of the new file.
        answers: What it says.
        force: Replace a file that is there.

    Returns:
        The path.

    Raises:
        ScenarioError: If the file is there already, or an answer is wrong.
    """
    if path.exists() and not force:
        raise ScenarioError(f"{path}: expected no such file yet, found one; add --force to replace it")
    if not path.absolute().parent.is_dir():
        raise ScenarioError(f"{path}: expected a folder that is there; make it or choose another path")
    trial = path.with_name(f".{path.name}.new")
    try:
        trial.write_text(scenario_text(answers, path.absolute().parent), encoding="utf-8")
        load_scenario(trial)
        trial.replace(path)
    except ScenarioError as error:
        raise ScenarioError(str(error).replace(str(trial), str(path))) from None
    finally:
        trial.unlink(missing_ok=True)
    return path


def scenario_text(answers: Answers, folder: Path) -> str:
    """Return the file.

    Args:
        answers: What it says.
        folder: Where it will lie; paths in it start there.

    Raises:
        ScenarioError: If an answer cannot be put into a file.
    """
    if answers.pacing not in PACING:
        raise ScenarioError(f'--pacing: expected one of {", ".join(PACING)}, got "{answers.pacing}"')
    blocks = [
        _head(answers),
        _section("model", _model(answers), "# What is trained."),
        _section("task", _task(), "# What is learned, and who holds which examples."),
        _section("fleet", _fleet(answers, folder), "# Who takes part, and when."),
        _section(
            "method", (("name", answers.method, "`fedsim methods` lists them"),), "# Who gets which ranks."
        ),
        _section("server", _server(answers), "# Whom the server asks, what it grants, how long it waits."),
        _section("training", _training(), "# What a client does."),
        _section("stop", _stop(answers), "# At the first of these the run ends."),
        _section("evaluation", _evaluation(), "# How the global adapter is measured."),
        _section("executor", _executor(), "# Where training happens; docs/executors.md."),
    ]
    return "\n".join(blocks)


Line = tuple[str, str, str]


def _head(answers: Answers) -> str:
    name = answers.name
    return (
        f"# Written by `fedsim new`. Every value may be changed; docs/scenario-reference.md tells them all.\n"
        f"#\n"
        f"#   fedsim check {name}.yaml --preview   # what the fleet will do, and how long a run takes\n"
        f"#   fedsim run   {name}.yaml\n"
        f"#\n"
        f"# Quantities carry units: 90 s, 15 min, 2 GiB, 2 Mbit/s. Paths start from this folder.\n\n"
        f"name: {_quoted(name)}\n"
        + _line("", "seed", str(answers.seed), "same seed, same record, bit for bit")
        + "\n"
    )


def _quoted(text: str) -> str:
    """Write any text as a YAML string."""
    return "'" + text.replace("'", "''") + "'"


def _line(indent: str, key: str, value: str, comment: str) -> str:
    return f"{f'{indent}{key}: {value}':<{COMMENT_COLUMN}} # {comment}"


def _section(name: str, lines: tuple[Line, ...], comment: str) -> str:
    told = "\n".join(_line("  ", *line) for line in lines)
    return f"{comment}\n{name}:\n{told}\n"


def _model(answers: Answers) -> tuple[Line, ...]:
    lines: tuple[Line, ...] = (
        ("base", "embedded", "a tiny model in the package; or ./a-folder, ./a-file.gguf, a hub id"),
        ("targets", "all-linear", "where adapters sit: attention, all-linear, or names of modules"),
    )
    if answers.stands_for is None:
        return lines
    words = "whose bytes, memory and seconds are charged; the losses are the tiny model's"
    return (*lines, ("stands_for", answers.stands_for, words))


def _task() -> tuple[Line, ...]:
    return (
        ("name", "embedded", "restaurant descriptions, generated; docs/models-and-tasks.md has others"),
        ("examples_per_client", "120", "median; sizes are skewed too"),
        ("shards", "{kind: dirichlet, alpha: 0.1}", "small alpha: every device knows a few houses only"),
    )


def _fleet(answers: Answers, folder: Path) -> tuple[Line, ...]:
    common: tuple[Line, ...] = (
        ("start", "20 h", "virtual time 0 lies here in the traces: evening"),
        ("bandwidth_scale", "0.05", "background transfers may use a twentieth of what a link carries"),
        ("on_interrupt", "drop", "who leaves mid-work is lost; `pause` goes on when back"),
    )
    if answers.traces is None:
        size = 100 if answers.devices is None else answers.devices
        return (
            ("recipe", answers.recipe, "makes devices and traces with the seed; `fedsim traces list`"),
            ("population", str(size), "devices"),
            *common,
        )
    limit: tuple[Line, ...] = ()
    if answers.devices is not None:
        limit = (("limit", str(answers.devices), "only the first devices of the file"),)
    return (*_files(answers.traces, folder), *limit, *common)


def _files(traces: Path, folder: Path) -> tuple[Line, ...]:
    """Name the trace files of a folder.

    Raises:
        ScenarioError: If one is missing that no fleet can be without.
    """
    lines: list[Line] = []
    for name, words in TRACES.items():
        found = next((path for end in ENDINGS if (path := traces / f"{name}{end}").is_file()), None)
        if found is not None:
            relative = Path(os.path.relpath(found.absolute(), folder)).as_posix()
            lines.append((name, _quoted(relative), words))
        elif name in REQUIRED:
            raise ScenarioError(f"--traces {traces}: expected a file {name}.csv in this folder, found none")
        elif name == "availability":
            lines.append(("availability_policy", "always", "no file says when a device is online"))
    return tuple(lines)


def _server(answers: Answers) -> tuple[Line, ...]:
    return (
        ("pacing", answers.pacing, f"one of {', '.join(PACING)}; docs/pacing.md"),
        *PACING[answers.pacing],
        ("download_window", "4 min", "bytes a device may get: what its link carries in this time"),
    )


def _training() -> tuple[Line, ...]:
    return (
        ("local_steps", "20", "optimizer steps per assignment"),
        ("batch_size", "8", "sequences per step"),
        ("learning_rate", "1e-2", "of the first round"),
        ("wire_dtype", "bfloat16", "what a column costs on the link: float32, float16, bfloat16, int8, int4"),
    )


def _stop(answers: Answers) -> tuple[Line, ...]:
    return (("rounds", str(answers.rounds), "or versions made"), ("hours", "24", "of virtual time"))


def _evaluation() -> tuple[Line, ...]:
    return (
        ("every", "4", "versions; the base model and the last version are always measured"),
        ("held_out_examples", "128", "for loss and accuracy"),
        ("generate", "32", "prompts answered by greedy generation, for ROUGE-L; 0: none"),
    )


def _executor() -> tuple[Line, ...]:
    return (
        ("kind", "workers", "processes of this machine; or inline, ray; the record is the same"),
        ("workers", "2", "how many; no more than there are cores"),
    )
