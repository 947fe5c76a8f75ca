"""How does a scenario become objects? The only place that knows concrete classes of every package."""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fedsim.errors import ScenarioError
from fedsim.experiment.calibrate import read_calibration
from fedsim.experiment.fleet import bound_to_fleet, build_population
from fedsim.experiment.guard import GuardedEvaluator, GuardedExecutor
from fedsim.experiment.late import LateBase, LateEvaluator, LateTrainer
from fedsim.experiment.methods import method_of
from fedsim.experiment.scenario import Scenario
from fedsim.experiment.serving import server_config
from fedsim.experiment.shared import shared_capacity
from fedsim.experiment.tasks import build_task, device_sets, evaluation_settings, measured_clients
from fedsim.experiment.tracking import check_trackers
from fedsim.experiment.trust import FaultyFleet, faulty_clients, trust_caveats, version_guard
from fedsim.learn.batching import batch_clients
from fedsim.learn.data import Task
from fedsim.learn.evaluate import GlobalEvaluator
from fedsim.learn.executors.inline import InlineExecutor
from fedsim.learn.executors.ray_actor import ActorSetup
from fedsim.learn.executors.ray_pool import Cluster, RayExecutor, need_ray
from fedsim.learn.executors.worker import WorkerSetup
from fedsim.learn.executors.workers import WorkerExecutor
from fedsim.learn.measure import DriftGauge, DriftSettings
from fedsim.learn.model import (
    LoadedModel,
    ModelOptions,
    check_length,
    device_of,
    load_model,
    share_weights,
)
from fedsim.learn.oracle import OracleStore
from fedsim.learn.peft_bridge import export_adapter, import_adapter
from fedsim.learn.train import TrainingSettings
from fedsim.learn.trainer import ClientTrainer, shared_tokens
from fedsim.learn.versions import VersionGuard, VersionStore
from fedsim.method.bundle import Method
from fedsim.method.server import Server
from fedsim.seeds import Seeds
from fedsim.sim.fleet import OracleWindow, Reporter
from fedsim.sim.server import DriverConfig, RealWork
from fedsim.sim.sharing import Direction, SharedCapacity
from fedsim.sim.stub import StubAggregator, StubEvaluator, StubExecutor
from fedsim.world.catalogue import stands_for
from fedsim.world.cost import Prices, Workload, roofline
from fedsim.world.cost_calibrated import calibrated
from fedsim.world.cost_paper import paper_prices
from fedsim.world.population import Population
from fedsim.world.shape import ModelShape


@dataclass(frozen=True, slots=True)
class Engine:
    """Who does the real work, beneath whatever measures or keeps it.

    Args:
        trainer: Trains clients.
        store: Holds the versions.
        batch_clients: How many clients are trained together, at most.
    """

    trainer: InlineExecutor | WorkerExecutor | RayExecutor
    store: VersionStore
    batch_clients: int = 1


@dataclass(frozen=True, slots=True)
class Experiment:
    """Everything that one run needs, made but not begun.

    Args:
        scenario: What was asked for.
        population: The fleet.
        task: What is learned, dealt to the devices.
        shape: Of the model that is really trained.
        priced: The shape that bytes, memory and seconds are charged for.
        prices: Of one assignment.
        server: The state machine.
        reporter: Turns devices into reports.
        work: Executor, aggregator and evaluator.
        driver_config: How the world treats clients.
        shared: What devices share in each direction.
        export: Writes the newest global adapter to a directory.
        close: Ends worker processes.
        engine: What trains and what holds the versions; None where nothing is trained.
        figures: Names of what is measured beyond loss and accuracy.
        faulty: Clients that send something else than what they trained.
        caveats: What every reader of the figures must know.
    """

    scenario: Scenario
    population: Population
    task: Task
    shape: ModelShape
    priced: ModelShape
    prices: Prices
    server: Server
    reporter: Reporter
    work: RealWork
    driver_config: DriverConfig
    shared: Mapping[Direction, SharedCapacity]
    export: Callable[[Path], None]
    close: Callable[[], Awaitable[None]]
    engine: Engine | None
    figures: tuple[str, ...]
    faulty: tuple[int, ...]
    caveats: tuple[str, ...]

    @property
    def cpu_capability(self) -> str:
        """Instruction set that PyTorch uses: float results depend on it."""
        return torch.backends.cpu.get_cpu_capability()

    @property
    def trace_hashes(self) -> Mapping[str, str]:
        """Trace file -> SHA-256."""
        return self.population.file_hashes

    @property
    def trace_notes(self) -> Sequence[str]:
        """What was merged, dropped or assumed while reading the traces."""
        return self.population.notes


def build(scenario: Scenario, known: ModelShape | None = None) -> Experiment:
    """Make everything that a run needs.

    Args:
        scenario: As loaded.
        known: Shape of the base model, where the run began earlier: the model is loaded when it is needed.

    Raises:
        InputError: If a trace, a model, a data set or an option is wrong.
    """
    torch.set_num_threads(1)  # results must not depend on how many cores there are
    check_trackers(scenario.track)
    if scenario.executor.kind == "ray":
        need_ray()
    seeds = Seeds(scenario.seed)
    method = method_of(scenario)
    population = build_population(scenario)
    base = LateBase(lambda: _base_model(scenario), scenario.model.targets, known)
    shape = base.shape
    priced = shape if scenario.model.stands_for is None else stands_for(shape, scenario.model.stands_for)
    prices = method.charge(_prices(scenario, priced))
    task = build_task(scenario, population.num_devices, device_sets(scenario, population))
    reporter = Reporter(population, task.num_examples, _oracle(scenario))
    config = bound_to_fleet(server_config(scenario, seeds, method, prices), reporter)
    method = config.method
    drift = _drift_settings(scenario, seeds)
    guard = version_guard(scenario, seeds, method)
    work, export, close, engine = _real_work(scenario, seeds, method, base, task, drift, guard)
    faulty = faulty_clients(scenario, population.num_devices)
    if scenario.faults is not None:
        work.aggregator = FaultyFleet(work.aggregator, scenario.faults, frozenset(faulty))
    return Experiment(
        scenario=scenario,
        population=population,
        task=task,
        shape=shape,
        priced=priced,
        prices=prices,
        server=Server(config),
        reporter=reporter,
        work=work,
        driver_config=_driver_config(scenario),
        shared=shared_capacity(scenario, population),
        export=export,
        close=close,
        engine=engine,
        figures=() if drift is None or scenario.executor.kind == "stub" else drift.figures,
        faulty=faulty,
        caveats=_caveats(scenario, shape, priced),
    )


def _base_model(scenario: Scenario) -> LoadedModel:
    loaded = load_model(scenario.model.base, scenario.model.device, model_options(scenario))
    check_length(loaded, scenario.task.max_length)
    return loaded


def model_options(scenario: Scenario) -> ModelOptions:
    """Return how the base model is held."""
    model = scenario.model
    return ModelOptions(model.dtype, model.quantize, model.gradient_checkpointing, model.attention)


def training_settings(scenario: Scenario) -> TrainingSettings:
    """Return what is the same for every assignment."""
    return TrainingSettings(
        batch_size=scenario.training.batch_size,
        max_length=scenario.task.max_length,
        wire_dtype=scenario.training.wire_dtype,
    )


def _batched(scenario: Scenario, shape: ModelShape) -> TrainingSettings:
    """Return what is the same for every assignment, and how many of them are trained together."""
    settings, asked = training_settings(scenario), scenario.executor.batch_clients
    if asked == "auto":
        device = device_of(scenario.model.device)
        asked = batch_clients(shape.num_params, settings.batch_size * settings.max_length, device.type)
    return replace(settings, batch_clients=asked)


def _prices(scenario: Scenario, priced: ModelShape) -> Prices:
    """What plain dual-rank training costs under the cost model of the scenario."""
    if scenario.cost.model == "paper":
        return paper_prices(priced)
    if scenario.cost.calibration is not None:
        return calibrated(priced, _workload(scenario), read_calibration(scenario.cost.calibration))
    return roofline(priced, _workload(scenario))


def _workload(scenario: Scenario) -> Workload:
    cost, training = scenario.cost, scenario.training
    return Workload(
        batch_size=training.batch_size,
        max_length=scenario.task.max_length,
        local_steps=training.local_steps,
        wire_dtype=training.wire_dtype,
        base_bytes=cost.base_bytes,
        factor_bytes=cost.factor_bytes,
        grad_bytes=cost.grad_bytes,
        optimizer_bytes=cost.optimizer_bytes,
        activation_bytes=cost.activation_bytes,
    )


def _oracle(scenario: Scenario) -> OracleWindow | None:
    server = scenario.server
    if server.estimator != "oracle":
        return None
    return OracleWindow(server.download_window_s, server.deadline_s or server.download_window_s)


def _driver_config(scenario: Scenario) -> DriverConfig:
    return DriverConfig(
        on_interrupt=scenario.fleet.on_interrupt,
        # Reports on the way serve re-planning alone.
        report_every_s=scenario.server.progress_every_s if scenario.server.replan else math.inf,
        horizon_s=None if scenario.stop.hours is None else scenario.stop.hours * 3600.0,
        prefetch=scenario.executor.prefetch,
        on_memory_drop=scenario.fleet.on_memory_drop,
        partial_upload=scenario.server.upload == "progressive",
        watches_presence=scenario.record.lines == "all",
        # Workers train in processes of their own; a target is the one decision that needs a loss.
        measures_aside=scenario.executor.kind in {"workers", "ray"} and scenario.stop.target_loss is None,
    )


def _drift_settings(scenario: Scenario, seeds: Seeds) -> DriftSettings | None:
    """What is measured of drift; None where nothing is."""
    section = scenario.measure.drift
    if section is None:
        return None
    return DriftSettings(
        clients=section.clients,
        every=section.every,
        oracle_rank=section.oracle_rank or _rank_cap(scenario),
        definitions=section.definition,
        seed=seeds.seed("measure"),
        wire_dtype=scenario.training.wire_dtype,
    )


def _real_work(
    scenario: Scenario,
    seeds: Seeds,
    method: Method,
    base: LateBase,
    task: Task,
    drift: DriftSettings | None,
    guard: VersionGuard,
) -> tuple[RealWork, Callable[[Path], None], Callable[[], Awaitable[None]], Engine | None]:
    """Make the three who work, how the adapter is written, and how workers end."""
    if scenario.executor.kind == "stub":
        return _stub_work(scenario, seeds, base.shape)
    adapter = None
    if scenario.model.init_adapter is not None:
        adapter = import_adapter(scenario.model.init_adapter)
    store = OracleStore(method, base.shape.layers, seeds.seed("versions"), adapter, guard)
    settings, kind = _batched(scenario, base.shape), scenario.executor.kind
    # Before adapters are attached: what is shared is the base.
    weights = share_weights(base.model) if kind == "workers" and not base.is_late else None
    evaluator = GuardedEvaluator(_evaluator(scenario, base, store, task))
    executor: InlineExecutor | WorkerExecutor | RayExecutor
    if kind in {"workers", "ray"}:
        if not base.is_late:
            shared_tokens(base.model.tokenizer, task, settings.max_length)  # once here, not once per process
        layers = tuple(layer.name for layer in base.shape.layers)
        setup = WorkerSetup(
            scenario.model.base,
            scenario.model.device,
            layers,
            task,
            settings,
            model_options(scenario),
            weights,
        )
        executor = _spread(scenario, seeds, store, setup, base.shape)
    else:
        executor = InlineExecutor(store, _trainer(base, task, settings), task, settings)

    def export(directory: Path) -> None:
        export_adapter(store.export(store.versions[-1]), directory, scenario.model.base)

    engine = Engine(executor, store, settings.batch_clients)
    policy = scenario.training.on_client_error
    guarded = GuardedExecutor(executor, policy, settings.batch_clients)
    if drift is None:
        return RealWork(guarded, store, evaluator), export, executor.close, engine
    gauge = DriftGauge(executor, store, drift)
    work = RealWork(GuardedExecutor(gauge, policy, settings.batch_clients), gauge, evaluator)
    return work, export, executor.close, engine


def _trainer(base: LateBase, task: Task, settings: TrainingSettings) -> LateTrainer:
    return LateTrainer(lambda: ClientTrainer(base.model, base.slot, task, settings), late=base.is_late)


def _evaluator(scenario: Scenario, base: LateBase, store: VersionStore, task: Task) -> LateEvaluator:
    def make() -> GlobalEvaluator:
        clients, settings = measured_clients(scenario, task), evaluation_settings(scenario)
        return GlobalEvaluator(base.model, base.slot, store, task.held_out, settings, clients)

    return LateEvaluator(make, late=base.is_late)


def _spread(
    scenario: Scenario, seeds: Seeds, store: VersionStore, setup: WorkerSetup, shape: ModelShape
) -> WorkerExecutor | RayExecutor:
    """Make an executor that trains elsewhere."""
    section, method = scenario.executor, scenario.method
    if section.kind == "workers":
        return WorkerExecutor(store, setup, section.workers)
    told = ActorSetup(setup, method.name, method.options, shape.layers, seeds.seed("versions"))
    cluster = Cluster(section.address, section.num_cpus or 1.0, section.num_gpus or 0.0)
    return RayExecutor(store, told, cluster, section.workers)


def _rank_cap(scenario: Scenario) -> int:
    """Most columns of a layer that the method keeps, where it says so."""
    rank_cap = scenario.method.options.get("rank_cap", 64)
    if not isinstance(rank_cap, int):
        raise ScenarioError(f"method.options.rank_cap: expected a whole number, got {rank_cap!r}")
    return rank_cap


def _stub_work(
    scenario: Scenario, seeds: Seeds, shape: ModelShape
) -> tuple[RealWork, Callable[[Path], None], Callable[[], Awaitable[None]], Engine | None]:
    aggregator = StubAggregator(shape, seeds, scenario.executor.stub.exponent, _rank_cap(scenario))

    async def close() -> None:
        """Nothing runs."""

    return RealWork(StubExecutor(), aggregator, StubEvaluator()), _export_nothing, close, None


def _export_nothing(directory: Path) -> None:
    """Nothing was trained, so there is no adapter to write."""
    del directory


def _caveats(scenario: Scenario, shape: ModelShape, priced: ModelShape) -> tuple[str, ...]:
    caveats = []
    if scenario.executor.kind == "stub":
        caveats.append(
            "STUB: nothing was trained; ranks, times and bytes are simulated, losses do not exist."
        )
    caveats += trust_caveats(scenario)
    if scenario.model.stands_for is not None:
        caveats.append(
            f"Bytes, memory and seconds are those of {priced.name} ({priced.num_params:,} parameters); "
            f"gradients and losses are those of {shape.name} ({shape.num_params:,} parameters)."
        )
    if scenario.cost.calibration is not None:
        caveats.append(read_calibration(scenario.cost.calibration).caveat())
    if scenario.cost.model == "paper":
        caveats.append(
            "Bytes, memory and seconds follow the published constants: a column costs the same time on every "
            "model, and the frozen base, activations and the tail cost nothing."
        )
    return tuple(caveats)
