"""What is trained in a real run? The server tells its scenario; a client makes its model and shard of it.

A client opens no path and asks no hub that a server has named. It trains the embedded model on the embedded
task, which every installation has; anything else must be in a scenario of its own that says the same.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from fedsim.deploy.messages import Welcome
from fedsim.errors import PeerError, ScenarioError
from fedsim.experiment.build import model_options, training_settings
from fedsim.experiment.scenario import Scenario, restore_scenario
from fedsim.experiment.tasks import build_task
from fedsim.experiment.yaml_source import Source
from fedsim.learn.model import load_model, model_shape
from fedsim.learn.peft_bridge import AdapterSlot
from fedsim.learn.trainer import ClientTrainer
from fedsim.wire import WireDtype
from fedsim.world.shape import LayerShape

EMBEDDED = "embedded"
MAX_CLIENTS = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class Workbench:
    """What a client trains with.

    Args:
        trainer: Trains its shard.
        client: Its index.
        num_examples: Size of its shard.
        layers: In the order of the plans.
        wire_dtype: Number format of columns.
    """

    trainer: ClientTrainer
    client: int
    num_examples: int
    layers: tuple[LayerShape, ...]
    wire_dtype: WireDtype


def deployable(scenario: Scenario) -> None:
    """Refuse a scenario that cannot be carried out for real.

    Raises:
        ScenarioError: With the key to change.
    """
    if scenario.executor.kind == "stub":
        raise scenario.error("executor.kind", "expected inline: a real run trains, the stub does not")
    if scenario.model.stands_for is not None:
        raise scenario.error(
            "model.stands_for", "expected null: a real run sends and trains the model itself; use --set"
        )
    if scenario.cost.model == "paper":
        raise scenario.error("cost.model", "expected roofline: published constants price no real bytes")
    for key, value, expected in (
        ("measure.drift", scenario.measure.drift, "null: its oracles need the clients' data"),
        ("faults", scenario.faults, "null: faults are injected in simulations only"),
        ("privacy", scenario.privacy, "null: nobody counts here what is released"),
        ("track", scenario.track, "no trackers: a real run does not feed them"),
    ):
        if value:
            raise scenario.error(key, f"expected {expected}")
    for key, way in (("delivery", scenario.server.delivery), ("upload", scenario.server.upload)):
        if way == "progressive":
            raise scenario.error(f"server.{key}", "expected planned and whole: parcels travel in one piece")


def scenario_told(welcome: Welcome, own: Scenario | None) -> Scenario:
    """Return the scenario to train by: the client's own, or the server's where that names no file.

    Raises:
        PeerError: If the server's is no scenario, or needs a file, or differs from the client's own.
    """
    if own is not None:
        if own.scenario_hash != welcome.scenario_sha256:
            raise PeerError(
                f"--scenario: the server runs another one (sha256 {welcome.scenario_sha256[:12]}..., this is "
                f"{own.scenario_hash[:12]}...); take a copy of the server's"
            )
        return own
    try:
        scenario = restore_scenario(Source(dict(welcome.scenario), {(): "the server's scenario"}), Path())
    except ScenarioError as error:
        raise PeerError(f"the server's scenario is none of this version: {error}") from error
    for key, name in (("model.base", scenario.model.base), ("task.name", scenario.task.name)):
        if name != EMBEDDED:
            raise PeerError(
                f"the server's {key} is {name!r}; a client opens nothing that a server names: give the "
                "scenario yourself with --scenario FILE"
            )
    return scenario


def workbench(welcome: Welcome, own: Scenario | None) -> Workbench:
    """Load model and shard.

    Raises:
        PeerError: If the server asks for something that this client does not open.
        InputError: If the client's own files are wrong.
    """
    if not welcome.client < welcome.num_clients <= MAX_CLIENTS:
        raise PeerError(f"expected a client below {welcome.num_clients} of at most {MAX_CLIENTS}")
    scenario = scenario_told(welcome, own)
    torch.set_num_threads(1)  # the same sums as in every other process
    loaded = load_model(scenario.model.base, scenario.model.device, model_options(scenario))
    shape = model_shape(loaded, scenario.model.targets)
    slot = AdapterSlot(loaded.model, tuple(layer.name for layer in shape.layers))
    task = build_task(scenario, welcome.num_clients, welcome.sets)
    settings = training_settings(scenario)
    return Workbench(
        trainer=ClientTrainer(loaded, slot, task, settings),
        client=welcome.client,
        num_examples=task.num_examples(welcome.client),
        layers=shape.layers,
        wire_dtype=settings.wire_dtype,
    )
