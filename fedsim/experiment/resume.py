"""May this run go on here? Its manifest says with what it began; what differs now is refused by name."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from fedsim.errors import InputError, ScenarioError
from fedsim.experiment.load import read_json, reading
from fedsim.experiment.record import MANIFEST
from fedsim.experiment.scenario import OFF_THE_RECORD, Scenario, on_record, restore_scenario
from fedsim.experiment.yaml_source import Source, override

SAME = (
    "seed",
    "method",
    "model",
    "num_params",
    "priced_as",
    "versions",
    "python",
    "cpu_capability",
    "runtime",
    "batch_clients",
)
"""Keys of a manifest that must be the same, besides scenario, traces and whether anything is trained."""

ON_THE_RECORD = ("executor", "executor.batch_clients")
"""Keys of sections off the record that it does depend on, and sections that hold such a key."""


def scenario_of(directory: Path, changes: Mapping[str, str] | None = None) -> Scenario:
    """Return the scenario of a run as its manifest has it.

    Args:
        directory: Of the run.
        changes: Dotted key -> YAML text, for what never shows in the record, as ``executor.workers``.

    Raises:
        InputError: If it is not the directory of a run, or its scenario is no scenario of this fedsim, or a
            change is not one of these.
    """
    return scenario_in(directory / MANIFEST, changes)


def scenario_in(path: Path, changes: Mapping[str, str] | None = None) -> Scenario:
    """Return the scenario that a manifest holds. See `scenario_of`."""
    manifest = read_json(path)
    try:
        source = Source(dict(manifest["scenario"]), {(): str(path)})
        folder = Path(str(manifest["scenario_directory"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: expected the manifest of a run, found no scenario in it ({error})"
        ) from error
    for dotted, text in (changes or {}).items():
        if dotted.split(".")[0] not in OFF_THE_RECORD or dotted in ON_THE_RECORD:
            raise ScenarioError(f"{dotted}: cannot change when a run goes on; leave it out, or run anew")
        source = override(source, dotted, text)
    with reading(path):
        return restore_scenario(source, folder)


def check_same(path: Path, now: Mapping[str, Any], deed: str = "go on") -> None:
    """Refuse to go on with a run, or to repeat it, under other conditions: its record could not be the same.

    Args:
        path: Manifest of the run.
        now: The manifest that the run would have if it began now.
        deed: What is asked for.

    Raises:
        InputError: With what was recorded and what is found now.
    """
    with reading(path):
        then = read_json(path)
        found = list(differences(then, now))
    if then.get("runtime") and not now.get("runtime"):
        raise InputError(
            f"{path}: this run cannot {deed} here: runtime: began as {then['runtime']}, and clients of "
            "a real run train elsewhere"
        )
    if found:
        shown = "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")
        raise InputError(
            f"{path}: this run cannot {deed} here: {shown}; make them the same, or run the scenario anew"
        )


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield what differs between two manifests and would show in the record."""
    yield from _differences("scenario", _on_record(then), _on_record(now))
    yield from _differences("traces", _by_name(then), _by_name(now))
    for key in SAME:
        yield from _differences(key, then.get(key), now.get(key))
    trained = [manifest.get("executor") != "stub" for manifest in (then, now)]
    if trained[0] != trained[1]:
        yield f"executor.kind: began as {then.get('executor')}, is {now.get('executor')} now"


def _differences(key: str, then: Any, now: Any) -> Iterator[str]:
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for inner in sorted({*then, *now}):
            yield from _differences(f"{key}.{inner}", then.get(inner), now.get(inner))
    elif then != now:
        yield f"{key}: began as {_shown(then)}, is {_shown(now)} now"


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _on_record(manifest: Mapping[str, Any]) -> Any:
    """The scenario without what never shows in the record."""
    scenario = manifest.get("scenario")
    if not isinstance(scenario, Mapping):
        return scenario
    return {key: _without_folders(value) for key, value in on_record(scenario).items()}


def _without_folders(section: Any) -> Any:
    """Files by their names: that they are the same files is told by their hashes."""
    if not isinstance(section, Mapping):
        return section
    return {
        key: PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value
        for key, value in section.items()
    }


def _by_name(manifest: Mapping[str, Any]) -> Any:
    traces = manifest.get("traces")
    return (
        {PurePath(path).name: found for path, found in traces.items()} if isinstance(traces, dict) else None
    )
