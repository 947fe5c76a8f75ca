"""``fedsim run``: carry out one scenario."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.scenarios import SetOption, overrides
from fedsim.errors import ScenarioError
from fedsim.units import format_bytes, format_joules, format_seconds

if TYPE_CHECKING:
    from fedsim.cli.progress import Progress
    from fedsim.experiment.run import Result
    from fedsim.experiment.scenario import Scenario
    from fedsim.sim.instrument import Instrument


def run(
    scenario: Annotated[
        Path | None,
        typer.Argument(help="A scenario file; with --resume only if files have moved.", show_default=False),
    ] = None,
    *,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the record; must be new or empty.", show_default="runs/...")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Go on with the run in this folder.", show_default=False),
    ] = None,
    from_manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Run anew what this manifest.json says: same record.", show_default=False
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same as --set seed=...")] = None,
    method: Annotated[str | None, typer.Option(help="Same as --set method.name=...")] = None,
    executor: Annotated[str | None, typer.Option(help="inline, workers, ray or stub.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; implies --executor workers.")] = None,
    assignments: SetOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")] = False,
    report: Annotated[bool, typer.Option(help="Write report.html and timeline.json at the end.")] = True,
) -> None:
    """Run one scenario and write its record: events, metrics, adapter. Or go on with one that was killed."""
    if workers is not None and executor is None:
        executor = "workers"
    if workers is not None and executor not in ("workers", "ray"):
        raise ScenarioError(
            f"--workers {workers}: has no effect on --executor {executor}; leave one of them out"
        )
    short = {"seed": seed, "method.name": method, "executor.kind": executor, "executor.workers": workers}
    chosen = {key: str(value) for key, value in short.items() if value is not None}
    changes = overrides(assignments or []) | chosen
    if from_manifest is None:
        asked = _scenario(scenario, resume, out, changes)
    else:
        asked = _told_by(from_manifest, (scenario, resume), changes)

    from fedsim.cli.progress import open_progress  # noqa: PLC0415 - keeps help fast
    from fedsim.experiment.run import resume as go_on  # noqa: PLC0415 - imports torch
    from fedsim.experiment.run import run as run_scenario  # noqa: PLC0415 - imports torch

    progress = None if quiet else open_progress()
    watching: list[Instrument] = [] if progress is None else [progress]
    begun: list[Path] = []
    try:
        if resume is not None:
            result = go_on(resume, asked, instruments=watching, report=report, started=begun.append)
        else:
            result = run_scenario(
                asked, out, instruments=watching, report=report, started=begun.append, same_as=from_manifest
            )
    except BaseException:
        _close(progress)
        if begun:
            typer.echo(f"to go on: fedsim run --resume {shlex.quote(str(begun[0]))}", err=True)
        raise
    _close(progress)
    typer.echo("\n".join(closing_lines(result)))


def _close(progress: "Progress | None") -> None:
    if progress is not None:
        progress.close()


def _scenario(
    path: Path | None, resume: Path | None, out: Path | None, changes: Mapping[str, str]
) -> "Scenario":
    """Load what is to run: a file, or what the manifest of a run says.

    Raises:
        InputError: If it is not clear what is meant.
    """
    from fedsim.experiment.scenario import load_scenario  # noqa: PLC0415 - keeps help fast

    if resume is not None and out is not None:
        raise ScenarioError("--out: a resumed run goes on in its own folder; leave it out")
    if path is not None:
        return load_scenario(path, changes)
    if resume is None:
        raise ScenarioError("expected a scenario file, or --resume with the folder of a run")
    from fedsim.experiment.resume import scenario_of  # noqa: PLC0415 - keeps help fast

    return scenario_of(resume, changes)


def energy_in_words(spent: Mapping[str, float]) -> str:
    """Say what the devices spent, by phase, and how much of it led to nothing."""
    parts = ", ".join(f"{format_joules(spent[phase])} {phase}" for phase in ("download", "train", "upload"))
    return f"{parts}; {format_joules(spent['lost'])} of it lost"


def steps_in_words(steps: Mapping[str, int]) -> str:
    """Say how many local steps were trained, and how many of them for nothing."""
    return f"{steps['asked']:,}" + (f", {steps['wasted']:,} of them wasted" if steps["wasted"] else "")


def _told_by(path: Path, others: Sequence[Path | None], changes: Mapping[str, str]) -> "Scenario":
    """Load what a manifest says was run.

    Raises:
        InputError: If something else is named too, or it is no manifest.
    """
    from fedsim.experiment.resume import scenario_in  # noqa: PLC0415 - keeps help fast

    if any(other is not None for other in others):
        raise ScenarioError("--from-manifest: names what to run by itself; leave scenario and --resume out")
    return scenario_in(path, changes)


def closing_lines(result: "Result", clock: str = "virtual time", took: str = "wall time") -> list[str]:
    """Say what came of a run: what ended it, what it cost, what it brought, where the record lies.

    Args:
        result: Of the run.
        clock: What the time of its record is called.
        took: What the time that it took here is called.
    """
    tally = result.tally
    losses = [f"{row['loss']:.4f}" for row in result.evaluations if isinstance(row.get("loss"), float)]
    rounds = f"{tally.rounds} round{'' if tally.rounds == 1 else 's'}"
    rows = {
        "ended": result.reason,
        clock: f"{format_seconds(result.virtual_s)}, {rounds}",
        "loss": f"{losses[0]} -> {losses[-1]}" if losses else "not measured: nothing was trained",
        "assignments": ", ".join(f"{count} {outcome}" for outcome, count in sorted(tally.outcomes.items())),
        "updates from": ", ".join(f"{name} {count}" for name, count in sorted(tally.by_class.items())),
        "bytes": f"{format_bytes(tally.bytes_down)} down, {format_bytes(tally.bytes_up)} up",
        **({} if tally.energy is None else {"energy": energy_in_words(tally.energy)}),
        **({} if result.steps is None else {"local steps": steps_in_words(result.steps)}),
        took: f"{result.wall_s:.0f} s",
        "events sha256": result.record_hash,
        "record": str(result.directory),
    }
    if result.privacy is not None:
        rows["privacy"] = (
            f"epsilon {result.privacy['epsilon']:.2f} at delta {result.privacy['delta']:g}, "
            f"{result.privacy['releases']} releases; the record itself is not private"
        )
    if result.report is not None:
        rows["report"] = str(result.report)
    return [f"{name:>13}  {text}" for name, text in rows.items()]
