"""How is a scenario carried out for real? Listen, wait for clients, serve, and write the record of a run.

Every reader of records works on it: the lines are those of a simulation, the instants are wall seconds.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fedsim.deploy.desk import Desk
from fedsim.deploy.job import deployable
from fedsim.deploy.limits import Limits
from fedsim.deploy.runtime import Runtime
from fedsim.deploy.secret import Token
from fedsim.errors import ScenarioError
from fedsim.experiment.build import Engine, Experiment, build
from fedsim.experiment.fairness import Fairness
from fedsim.experiment.manifest import manifest
from fedsim.experiment.record import (
    ADAPTER,
    MANIFEST,
    SUMMARY,
    Recorder,
    claim_directory,
    locked,
    storing,
    write_json,
)
from fedsim.experiment.report.write import attempt_report
from fedsim.experiment.run import Result, summary
from fedsim.experiment.scenario import Scenario
from fedsim.experiment.seal import sealed
from fedsim.experiment.utilisation import Utilisation
from fedsim.sim.instrument import Instrument
from fedsim.sim.recording import Scribe

RUNTIME = "deployed"
CAVEAT = (
    "DEPLOYED: nothing was simulated; clients trained in processes of their own, and times are wall seconds "
    "of this run. Another run gives other times."
)


@dataclass(frozen=True, slots=True)
class Service:
    """Where and for whom to serve.

    Args:
        token: What clients must know.
        host: Address to listen on.
        port: Port to listen on; 0 for any free one.
        clients: How many must be ready before the run begins.
        limits: What is put up with.
    """

    token: Token
    host: str = "127.0.0.1"
    port: int = 0
    clients: int = 1
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class _Site:
    service: Service
    directory: Path
    listening: Callable[[str, int, Path], None]


async def serve(
    scenario: Scenario,
    service: Service,
    out: Path | None = None,
    *,
    instruments: Sequence[Instrument] = (),
    report: bool = True,
    listening: Callable[[str, int, Path], None] = lambda *_: None,
) -> Result:
    """Carry out a scenario with real clients.

    Args:
        scenario: As loaded.
        service: Where and for whom.
        out: New or empty directory of the record; by default the next free one below ``runs/``.
        instruments: Who watches besides the recorder.
        report: Whether `report.html` and `timeline.json` are written at the end.
        listening: Told the address and the directory as soon as clients can join.

    Raises:
        InputError: If the scenario cannot be deployed, or a file, the address or the directory is wrong.
    """
    deployable(scenario)
    began_s = time.monotonic()
    experiment = await asyncio.to_thread(build, _in_process(scenario))
    try:
        engine = _checked(experiment, service)
        experiment = replace(experiment, caveats=(*experiment.caveats, CAVEAT))
        directory = claim_directory(out, scenario.name, scenario.seed)
        with locked(directory):
            write_json(directory / MANIFEST, {**manifest(experiment), "runtime": RUNTIME})
            site = _Site(service, directory, listening)
            result = await _carry_out(experiment, engine, site, instruments)
            result = replace(result, wall_s=time.monotonic() - began_s)
            write_json(directory / SUMMARY, sealed(summary(result), directory))
    finally:
        await experiment.close()
    return replace(result, report=attempt_report(directory)) if report else result


def _in_process(scenario: Scenario) -> Scenario:
    """Clients train, so the server starts no workers."""
    changed = scenario.executor.model_copy(update={"kind": "inline"})
    return scenario.model_copy(update={"executor": changed})


def _checked(experiment: Experiment, service: Service) -> Engine:
    wanted, there = service.clients, experiment.population.num_devices
    if wanted > there:
        raise ScenarioError(f"--clients {wanted}: the scenario has {there} devices; ask for no more")
    if experiment.engine is None:
        raise ScenarioError("executor.kind: a real run trains, the stub does not")
    return experiment.engine


async def _carry_out(
    experiment: Experiment,
    engine: Engine,
    site: "_Site",
    instruments: Sequence[Instrument],
) -> Result:
    """Serve to the end, record, export."""
    service, directory = site.service, site.directory
    utilisation = Utilisation(experiment.prices)
    fairness = Fairness(experiment.population.class_names, experiment.population.class_index)
    recorder = Recorder(directory, experiment.figures)
    scribe = Scribe([recorder, utilisation, fairness, *instruments])
    runtime = Runtime(experiment, engine.store, scribe, service.clients)
    desk = Desk(runtime, service.token, service.limits)
    reason = "the server has failed"
    try:
        site.listening(*await desk.open(service.host, service.port), directory)
        reason = await runtime.run()
        virtual_s = runtime.now_s
    finally:
        await desk.close(reason)
        recorder.close()
    with storing(directory / ADAPTER):
        experiment.export(directory / ADAPTER)
    return Result(
        directory=directory,
        reason=reason,
        record_hash=recorder.record_hash,
        evaluations=tuple(recorder.evaluations),
        tally=recorder.tally,
        virtual_s=virtual_s,
        wall_s=0.0,
        utilisation=utilisation.summary(),
        fairness=fairness.summary(),
    )
