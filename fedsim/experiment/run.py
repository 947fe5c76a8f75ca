"""How is a scenario carried out? `run` and `arun`: build, simulate, record, and tell what came of it."""

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from fedsim.experiment.build import Experiment, build
from fedsim.experiment.fairness import Fairness
from fedsim.experiment.journaled import journaling
from fedsim.experiment.load import refuse_links
from fedsim.experiment.manifest import known_shape, manifest
from fedsim.experiment.model_card import write_card
from fedsim.experiment.privacy import PrivacyMeter
from fedsim.experiment.record import (
    ADAPTER,
    MANIFEST,
    SUMMARY,
    Recorder,
    Tally,
    claim_directory,
    locked,
    storing,
    write_json,
)
from fedsim.experiment.report.write import attempt_report
from fedsim.experiment.resume import check_same, scenario_of
from fedsim.experiment.scenario import Scenario, load_scenario
from fedsim.experiment.seal import sealed
from fedsim.experiment.steps import CountingExecutor
from fedsim.experiment.tracking import tracking
from fedsim.experiment.utilisation import Utilisation
from fedsim.sim.instrument import Instrument
from fedsim.sim.recording import Scribe
from fedsim.sim.server import Driver
from fedsim.sim.sharing import SharedLinks
from fedsim.sim.timeline import Timeline

YOUNG_OBJECTS = 50_000
"""Objects that a run makes between two collections."""

T = TypeVar("T")
Started = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run.

    Args:
        directory: Where its record lies.
        reason: Why it stopped.
        record_hash: SHA-256 of `events.jsonl`.
        evaluations: The rows of `metrics.csv`, first the base model.
        tally: Counts over the record.
        virtual_s: Virtual time of the last line.
        wall_s: Seconds that the run took on this machine; not part of the record.
        utilisation: How much of their budgets the assignments used.
        fairness: How updates spread over the fleet.
        privacy: What the mechanism promises about one client; None without one.
        steps: Local steps that were asked for and those that led to nothing; None where nothing was trained.
        report: The page to look at, if one was written.
    """

    directory: Path
    reason: str
    record_hash: str
    evaluations: tuple[dict[str, object], ...]
    tally: Tally
    virtual_s: float
    wall_s: float
    utilisation: Mapping[str, object]
    fairness: Mapping[str, object]
    privacy: Mapping[str, object] | None = None
    steps: Mapping[str, int] | None = None
    report: Path | None = None


def run(
    scenario: Scenario | str | Path,
    out: Path | str | None = None,
    *,
    instruments: Sequence[Instrument] = (),
    report: bool = True,
    started: Started | None = None,
    same_as: Path | None = None,
) -> Result:
    """Carry out a scenario and wait for it; also works inside a running event loop, as in a notebook.

    Args:
        scenario: A scenario, or the path of its file.
        out: New or empty directory of the record; by default the next free one below ``runs/``.
        instruments: Who watches besides the recorder.
        report: Whether `report.html` and `timeline.json` are written at the end.
        started: Told the directory as soon as there is a run in it that could be resumed.
        same_as: Manifest of a run that this one repeats; other conditions than it tells are refused.

    Raises:
        InputError: If the scenario, a trace, a model or the directory is wrong; nothing is left behind.
        StorageError: If the disk is full; the run can be resumed.
    """
    return _wait_for(
        arun(scenario, out, instruments=instruments, report=report, started=started, same_as=same_as)
    )


async def arun(
    scenario: Scenario | str | Path,
    out: Path | str | None = None,
    *,
    instruments: Sequence[Instrument] = (),
    report: bool = True,
    started: Started | None = None,
    same_as: Path | None = None,
) -> Result:
    """Carry out a scenario. See `run`."""
    if not isinstance(scenario, Scenario):
        scenario = load_scenario(scenario)
    began_s = time.monotonic()
    experiment = await asyncio.to_thread(build, scenario)
    try:
        if same_as is not None:
            check_same(same_as, manifest(experiment), "be repeated")
        directory = claim_directory(None if out is None else Path(out), scenario.name, scenario.seed)
        with locked(directory):
            write_json(directory / MANIFEST, manifest(experiment))
            return await _carry_out(experiment, Site(directory, began_s, report), instruments, started)
    finally:
        await experiment.close()


def resume(
    directory: Path | str,
    scenario: Scenario | str | Path | None = None,
    *,
    instruments: Sequence[Instrument] = (),
    report: bool = True,
    started: Started | None = None,
) -> Result:
    """Go on with a run that was killed, and wait for it. The end is that of a run that was never killed.

    Args:
        directory: Of the run.
        scenario: Its scenario, where files have moved since; by default as its manifest has it.
        instruments: Who watches besides the recorder; they see the whole run again.
        report: Whether `report.html` and `timeline.json` are written at the end.
        started: Told the directory when the run goes on.

    Raises:
        InputError: If this is no run, or it cannot go on here, or what is kept of it is damaged.
        StorageError: If the disk is full; the run can be resumed again.
    """
    return _wait_for(aresume(directory, scenario, instruments=instruments, report=report, started=started))


async def aresume(
    directory: Path | str,
    scenario: Scenario | str | Path | None = None,
    *,
    instruments: Sequence[Instrument] = (),
    report: bool = True,
    started: Started | None = None,
) -> Result:
    """Go on with a run that was killed. See `resume`."""
    began_s, directory = time.monotonic(), Path(directory)
    refuse_links(directory)
    if scenario is None:
        scenario = scenario_of(directory)
    elif not isinstance(scenario, Scenario):
        scenario = load_scenario(scenario)
    experiment = await asyncio.to_thread(build, scenario, known_shape(directory))
    try:
        check_same(directory / MANIFEST, manifest(experiment))
        with locked(directory):
            site = Site(directory, began_s, report, resumed=True)
            return await _carry_out(experiment, site, instruments, started)
    finally:
        await experiment.close()


@dataclass(frozen=True, slots=True)
class Site:
    """Where a run is written.

    Args:
        directory: Holds a manifest.
        began_s: When work on it began, on the machine's own clock.
        report: Whether the report is written at the end.
        resumed: Whether a part of the run may be there already.
    """

    directory: Path
    began_s: float
    report: bool
    resumed: bool = False


async def _carry_out(
    experiment: Experiment, site: Site, instruments: Sequence[Instrument], started: Started | None
) -> Result:
    """Simulate, record, export and sum up."""
    directory = site.directory
    utilisation = Utilisation(experiment.prices)
    fairness = Fairness(experiment.population.class_names, experiment.population.class_index)
    meter = _privacy_meter(experiment)
    watching: list[Instrument] = [utilisation, fairness, *([] if meter is None else [meter]), *instruments]
    with journaling(experiment, directory) as kept, tracking(experiment.scenario, directory) as trackers:
        lines = experiment.scenario.record.lines
        recorder = Recorder(directory, experiment.figures, resume=site.resumed, lines=lines)
        counting = kept.work.executor = CountingExecutor(kept.work.executor)
        if started is not None:
            started(directory)
        try:
            reason, virtual_s = await simulate(kept, [recorder, *watching, *trackers])
        finally:
            recorder.close()
        with storing(directory / ADAPTER):
            kept.export(directory / ADAPTER)
            write_card(directory, recorder.evaluations, recorder.record_hash)
    result = Result(
        directory=directory,
        reason=reason,
        record_hash=recorder.record_hash,
        evaluations=tuple(recorder.evaluations),
        tally=recorder.tally,
        virtual_s=virtual_s,
        wall_s=time.monotonic() - site.began_s,
        utilisation=utilisation.summary(),
        fairness=fairness.summary(),
        privacy=None if meter is None else meter.summary(),
        steps=None
        if experiment.engine is None
        else counting.summary(_aggregated_steps(experiment, recorder)),
    )
    write_json(directory / SUMMARY, sealed(summary(result), directory))
    can_report = site.report and experiment.scenario.record.lines == "all"
    return replace(result, report=attempt_report(directory)) if can_report else result


def _aggregated_steps(experiment: Experiment, recorder: Recorder) -> int:
    return recorder.tally.outcomes["aggregated"] * experiment.scenario.training.local_steps


def _privacy_meter(experiment: Experiment) -> PrivacyMeter | None:
    """Make what counts releases; a stub releases nothing."""
    scenario = experiment.scenario
    if scenario.privacy is None or experiment.engine is None:
        return None
    return PrivacyMeter(scenario.privacy, scenario.server.cohort or 1, experiment.population.num_devices)


async def simulate(experiment: Experiment, instruments: Sequence[Instrument]) -> tuple[str, float]:
    """Run the clock of an experiment to its end.

    Args:
        experiment: Fresh; an experiment runs once.
        instruments: Who watches.

    Returns:
        Why the run stopped, and the virtual time of its last event.
    """
    with collecting_rarely():
        return await _simulate(experiment, instruments)


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """Spare the garbage collector what was built, and whatever an assignment makes and frees by itself.

    It would go through millions of live objects again and again to find next to nothing.
    """
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


async def _simulate(experiment: Experiment, instruments: Sequence[Instrument]) -> tuple[str, float]:
    timeline = Timeline()
    driver = Driver(
        timeline=timeline,
        server=experiment.server,
        reporter=experiment.reporter,
        prices=experiment.prices,
        work=experiment.work,
        scribe=Scribe(instruments),
        config=experiment.driver_config,
        links=SharedLinks(timeline.clock, experiment.shared, experiment.population.cell)
        if experiment.shared
        else None,
    )
    reason = await driver.run()
    return reason, timeline.now_s


def summary(result: Result) -> dict[str, object]:
    """What `summary.json` says."""
    return {
        "reason": result.reason,
        "record_sha256": result.record_hash,
        "virtual_s": result.virtual_s,
        "wall_s": result.wall_s,
        "rounds": result.tally.rounds,
        "outcomes": dict(result.tally.outcomes),
        "aggregated_by_class": dict(result.tally.by_class),
        "bytes_down": result.tally.bytes_down,
        "bytes_up": result.tally.bytes_up,
        "energy_j": result.tally.energy,
        "utilisation": dict(result.utilisation),
        "fairness": dict(result.fairness),
        **({} if result.privacy is None else {"privacy": dict(result.privacy)}),
        **({} if result.steps is None else {"steps": dict(result.steps)}),
        "first": result.evaluations[0] if result.evaluations else None,
        "last": result.evaluations[-1] if result.evaluations else None,
    }


def _wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, in a thread of its own where a loop is running already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    outcome: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            outcome.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            failure.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
