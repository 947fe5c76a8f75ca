"""What is to be simulated? A scenario: one YAML file, validated and frozen.

`load_scenario` is the edge: files and words in, numbers in base units out, one clear line for what is wrong.
A scenario has no behaviour; `fedsim.experiment.build` makes objects of it.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from fedsim.errors import ScenarioError
from fedsim.experiment.executor_section import ExecutorSection, executor_misfits
from fedsim.experiment.explain import MisfitError, key_of, message_of
from fedsim.experiment.learning_sections import (
    EvaluationSection,
    ModelSection,
    TaskSection,
    learning_misfits,
)
from fedsim.experiment.sections import (
    CostSection,
    FleetSection,
    JournalSection,
    MeasureSection,
    MethodSection,
    RecordSection,
    Section,
    StopSection,
    Trackers,
    TrainingSection,
    Word,
)
from fedsim.experiment.server_section import PAUSE_NEEDS, ServerSection, ends_by_itself, pacing_misfits
from fedsim.experiment.trust_sections import FaultsSection, PrivacySection, privacy_misfits, trust_misfits
from fedsim.experiment.yaml_source import Source, merge, override, read_source

PATH_KEYS = (
    "model.base",
    "model.init_adapter",
    "task.train",
    "task.held_out",
    "fleet.devices",
    "fleet.bandwidth",
    "fleet.availability",
    "fleet.state",
    "fleet.energy",
    "fleet.recipe",
    "cost.calibration",
)
NAME_OR_PATH = ("model.base", "fleet.recipe")

OFF_THE_RECORD = ("executor", "journal", "track")
"""Sections on which the record does not depend, but for the stub and what `on_record` keeps."""


def on_record(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the record depends on, of the plain values of a scenario.

    Who is trained with whom shows in the last digits, so `executor.batch_clients` stays, unless it is 1.
    """
    kept = {key: value for key, value in values.items() if key not in OFF_THE_RECORD}
    batch_clients = (values.get("executor") or {}).get("batch_clients", 1)
    return kept if batch_clients == 1 else {**kept, "executor": {"batch_clients": batch_clients}}


class Scenario(Section):
    """Everything that one run depends on.

    Args:
        name: For people; the file's name by default.
        description: A sentence for the report.
        seed: Root of every random stream.
        model: Base model and adapter targets.
        task: Data and how it is spread.
        fleet: Devices and traces.
        method: Who gets which ranks, and how updates combine.
        server: Pacing, selection, budgets.
        training: Local steps.
        stop: When the run ends.
        evaluation: How the global adapter is measured.
        measure: What else is measured.
        executor: Where training happens.
        cost: What work costs.
        record: Which lines are written.
        journal: What is kept for a resume.
        privacy: What no version may show of a single client; nothing is hidden where None.
        faults: Clients that send something else than what they trained; there are none where None.
        track: Who else is told figures while the run goes on.
    """

    name: Word
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    model: ModelSection = ModelSection()
    task: TaskSection = TaskSection(examples_per_client=120)
    fleet: FleetSection
    method: MethodSection = MethodSection()
    server: ServerSection = ServerSection()
    training: TrainingSection = TrainingSection()
    stop: StopSection
    evaluation: EvaluationSection = EvaluationSection()
    measure: MeasureSection = MeasureSection()
    executor: ExecutorSection = ExecutorSection()
    cost: CostSection = CostSection()
    record: RecordSection = RecordSection()
    journal: JournalSection = JournalSection()
    privacy: PrivacySection | None = None
    faults: FaultsSection | None = None
    track: Trackers = ()

    _directory: Path = PrivateAttr(default=Path())
    _source: Source = PrivateAttr(default=Source({}, {(): "scenario"}))

    @model_validator(mode="after")
    def _fits_together(self) -> "Scenario":
        for key, message in _misfits(self):
            raise MisfitError(key, message)
        return self

    @property
    def directory(self) -> Path:
        """Folder of the file it came from; relative paths start there."""
        return self._directory.absolute()

    @property
    def scenario_hash(self) -> str:
        """Sha256 of everything that may change the record; see `on_record`."""
        return hashlib.sha256(_canonical(on_record(self._plain())).encode()).hexdigest()

    def canonical_json(self) -> str:
        """Return the resolved scenario as JSON with sorted keys, base units and relative paths."""
        return _canonical(self._plain())

    def describe(self) -> str:
        """Return the resolved scenario as YAML; plain numbers are seconds, bytes and FLOP/s."""
        return "\n".join(_yaml_lines(self._plain(), "")) + "\n"

    def error(self, key: str, message: str) -> ScenarioError:
        """Return the error that names the place of a value, for whoever finds out late that it is wrong.

        Args:
            key: Dotted key, for instance ``method.options.rank``.
            message: What was expected there.
        """
        return ScenarioError(f"{self._source.place(tuple(key.split('.')))}: {key}: {message}")

    def _plain(self) -> dict[str, Any]:
        """Return plain values under their YAML keys; paths relative to the file, so no machine shows."""
        values = self.model_dump(mode="json", by_alias=True)
        for section, key in (dotted.split(".") for dotted in PATH_KEYS):
            found = values[section][key]
            if found is not None and Path(found).is_absolute():
                values[section][key] = Path(os.path.relpath(found, self._directory.absolute())).as_posix()
        return values


def load_scenario(path: Path | str, overrides: Mapping[str, str] | None = None) -> Scenario:
    """Read, merge and check a scenario.

    Args:
        path: The YAML file; relative paths in it start from its folder.
        overrides: Dotted key -> YAML text, as ``--set`` gives them; relative paths in them start from the
            current folder.

    Raises:
        ScenarioError: With one line that names file and line, the key, what was expected and what was found.
    """
    path = Path(path)
    source = _read_with_parent(path)
    for dotted, text in (overrides or {}).items():
        if dotted == "extends":
            raise ScenarioError(f"--set {dotted}={text}: only a file may extend another")
        source = override(source, dotted, _anchored_text(dotted, text), shown=text)
    source.values.setdefault("name", path.stem)
    return _validated(source, path.parent.absolute())


def restore_scenario(source: Source, directory: Path) -> Scenario:
    """Make the scenario again that a manifest holds.

    Args:
        source: As `Scenario.model_dump` gave it, aliases and all.
        directory: Folder of the file it came from.

    Raises:
        ScenarioError: With one line, as for a file.
    """
    return _validated(source, directory)


def _validated(source: Source, directory: Path) -> Scenario:
    try:
        scenario = Scenario.model_validate(source.values)
    except ValidationError as error:
        raise ScenarioError(_first_line(error, source)) from None
    scenario._directory, scenario._source = directory, source  # noqa: SLF001 - our own class
    return scenario


def _misfits(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Yield values that contradict each other: the key to change, and why."""
    yield from _fleet_misfits(scenario.fleet, scenario.server)
    yield from learning_misfits(scenario.task, scenario.evaluation)
    yield from _cost_misfits(scenario.cost)
    yield from pacing_misfits(scenario.server)
    yield from executor_misfits(scenario.executor, scenario.model.device)
    yield from trust_misfits(scenario.server.robust, scenario.privacy, scenario.faults)
    yield from privacy_misfits(scenario.privacy, scenario.server.pacing, scenario.server.select)
    training, stop = scenario.training, scenario.stop
    if stop.rounds is None and stop.hours is None:
        yield "stop", "expected rounds or hours, or the run would never end"
    if training.final_learning_rate_factor < 1 and stop.rounds is None:
        yield "training.final_learning_rate_factor", "a decay needs stop.rounds, which it is spread over"


def _fleet_misfits(fleet: FleetSection, server: ServerSection) -> Iterator[tuple[str, str]]:
    if fleet.on_interrupt == "pause" and not ends_by_itself(server):
        yield "fleet.on_interrupt", PAUSE_NEEDS[server.pacing]
    if fleet.recipe is None and fleet.availability is None and fleet.availability_policy != "always":
        yield "fleet.availability", "required, unless fleet.availability_policy is always"
    cells = fleet.cells
    if cells is not None and cells.down_mbps is None and cells.up_mbps is None:
        yield "fleet.cells", "has no effect without down_mbps or up_mbps; give one, or leave it out"
    yield from _recipe_misfits(fleet)
    yield from _population_misfits(fleet)


def _recipe_misfits(fleet: FleetSection) -> Iterator[tuple[str, str]]:
    """Without a recipe the files must be there, and what only a recipe reads must not."""
    if fleet.recipe is None:
        for key, path in (("fleet.devices", fleet.devices), ("fleet.bandwidth", fleet.bandwidth)):
            if path is None:
                yield key, "required, or fleet.recipe"
        for key, value in (("recipe_days", fleet.recipe_days), ("templates", fleet.templates)):
            if value is not None:
                yield f"fleet.{key}", "has no effect without fleet.recipe; leave it out"
    elif fleet.devices is None and fleet.population is None:
        yield "fleet.population", "required by fleet.recipe: how many devices shall there be?"


def _population_misfits(fleet: FleetSection) -> Iterator[tuple[str, str]]:
    """What only a drawn population obeys needs one."""
    defaults = FleetSection()
    for key in ("shares", "pairing", "time_zones", "bandwidth_spread"):
        if fleet.population is None and getattr(fleet, key) != getattr(defaults, key):
            yield f"fleet.{key}", "has no effect without fleet.population; give one or leave it out"
    pairing = fleet.pairing
    for key in ("availability_compute", "bandwidth_compute", "availability_bandwidth"):
        if pairing.kind != "correlated" and getattr(pairing, key):
            yield (
                f"fleet.pairing.{key}",
                "has no effect unless fleet.pairing.kind is correlated; leave it out",
            )
    if pairing.kind == "kept" and pairing.within == "fleet":
        yield "fleet.pairing.within", "has no effect on whole devices; leave it out or choose another kind"


def _cost_misfits(cost: CostSection) -> Iterator[tuple[str, str]]:
    if cost.model == "paper":
        for key, value in CostSection(model="paper"):
            if getattr(cost, key) != value:
                yield f"cost.{key}", "has no effect on the published constants; leave it out"


def _read_with_parent(path: Path) -> Source:
    """Read a file and the one it extends, if any."""
    child = read_source(path)
    _anchor_paths(child.values, path.parent)
    parent_name = child.values.pop("extends", None)
    if parent_name is None:
        return child
    where = child.places["extends",]
    if not isinstance(parent_name, str):
        raise ScenarioError(f"{where}: extends: expected the path of another scenario")
    parent_path = Path(os.path.normpath(path.parent / parent_name))
    if parent_path.absolute() == Path(os.path.normpath(path.absolute())):
        raise ScenarioError(f"{where}: extends: a scenario cannot extend itself")
    if not parent_path.is_file():
        raise ScenarioError(f"{where}: extends: no such file: {parent_path}")
    parent = read_source(parent_path)
    if "extends" in parent.values:
        raise ScenarioError(f"{where}: extends: {parent_path} extends another one; one level is allowed")
    _anchor_paths(parent.values, parent_path.parent)
    parent.values.pop("name", None)  # a name belongs to one file
    return merge(parent, child)


def _anchor_paths(values: dict[str, Any], directory: Path) -> None:
    """Make relative paths absolute, in place, so that merged files keep their own folders."""
    for section, key in (dotted.split(".") for dotted in PATH_KEYS):
        inner = values.get(section)
        if isinstance(inner, dict) and isinstance(inner.get(key), str):
            inner[key] = _anchored(f"{section}.{key}", inner[key], directory)


def _anchored(dotted: str, text: str, directory: Path) -> str:
    """Make one path absolute; a base model or a recipe that does not look like a path is a name."""
    if not text or (dotted in NAME_OR_PATH and not text.startswith((".", "/", "~"))):
        return text
    return os.path.normpath(directory.absolute() / Path(text).expanduser())


def _anchored_text(dotted: str, text: str) -> str:
    """Anchor the value of an override at the current folder."""
    if dotted not in PATH_KEYS or text.strip() in {"null", "~", ""}:
        return text
    return json.dumps(_anchored(dotted, text, Path.cwd()), ensure_ascii=False)


def _first_line(error: ValidationError, source: Source) -> str:
    """Word the first of all errors, in the order of the file, and count the rest."""
    errors = error.errors(include_url=False)
    unknown_first = sorted(errors, key=lambda found: found["type"] != "extra_forbidden")
    first = unknown_first[0]
    key = key_of(first)
    line = f"{source.place(key)}: {'.'.join(map(str, key))}: {message_of(first, Scenario)}"
    return line if len(errors) == 1 else f"{line} (and {len(errors) - 1} more)"


def _canonical(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _yaml_lines(values: Mapping[str, Any], indent: str) -> Iterator[str]:
    """Write nested plain values as YAML; scalars and lists in JSON form, which YAML includes."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:"
            yield from _yaml_lines(value, f"{indent}  ")
        else:
            yield f"{indent}{key}: {json.dumps(value, ensure_ascii=False)}"
