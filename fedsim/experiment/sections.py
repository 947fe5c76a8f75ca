"""What may a scenario say? One frozen model per section of the YAML file, with its defaults and bounds.

A field whose name carries a unit is written without it in YAML: ``deadline: 15 min`` is ``deadline_s``.
Nothing here acts; `fedsim.experiment.build` turns sections into objects.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from fedsim.experiment.explain import show
from fedsim.experiment.record import RecordLines
from fedsim.units import EXPECTED, Quantity, parse_quantity
from fedsim.wire import WireDtype

MAX_NAME_BYTES = 255


def _read(quantity: Quantity) -> Callable[[object], object]:
    def read(value: object) -> object:
        if not isinstance(value, str | int | float):
            raise ValueError(f"expected {EXPECTED[quantity]}, got {show(value)}")  # noqa: TRY004 - pydantic's way
        try:
            return parse_quantity(value, quantity)
        except ValueError as error:
            raise ValueError(f"expected {EXPECTED[quantity]}, got {show(value)}") from error

    return read


def _usable_path(path: Path) -> Path:
    """Refuse what no file system takes, so that asking whether a file exists cannot fail."""
    if "\0" in str(path) or any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in path.parts):
        raise ValueError(f"expected a file path, got {show(str(path))}")
    return path


def _read_options(value: object) -> object:
    """Keep options to plain numbers, words and lists of them; nothing at all means none."""
    if value is None:
        return {}
    for name, option in value.items() if isinstance(value, dict) else ():
        for item in option if isinstance(option, list) else [option]:
            if item is not None and not isinstance(item, str | int | float | bool):
                raise ValueError(f"expected plain values, got {show(option)} for {name}")
    return value


Duration = Annotated[float, BeforeValidator(_read("seconds")), Field(ge=0)]
PositiveDuration = Annotated[float, BeforeValidator(_read("seconds")), Field(gt=0)]
Size = Annotated[float, BeforeValidator(_read("bytes")), Field(gt=0)]
FlopRate = Annotated[float, BeforeValidator(_read("FLOP/s")), Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
FilePath = Annotated[Path, Field(strict=False), AfterValidator(_usable_path)]
Word = Annotated[str, Field(min_length=1, max_length=200)]


class Section(BaseModel):
    """A part of a scenario: frozen, strict about types, closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
        protected_namespaces=(),
    )


class DeviceClassSection(Section):
    """What a device of a class has where its row in the device file says nothing.

    Args:
        memory_bytes: Free memory, YAML ``memory``.
        compute_flops: Effective training rate, YAML ``compute``.
        initial_down_mbps: First guess of the server about downloads.
        initial_up_mbps: First guess of the server about uploads.
    """

    memory_bytes: Size | None = Field(default=None, alias="memory")
    compute_flops: FlopRate | None = Field(default=None, alias="compute")
    initial_down_mbps: Positive | None = None
    initial_up_mbps: Positive | None = None


Correlation = Annotated[float, Field(ge=-1, le=1)]


class PairingSection(Section):
    """How presence, bandwidth and speed of a device go together; no public trace joins them.

    Args:
        kind: ``kept`` copies whole devices, ``independent`` draws the three apart, ``correlated`` with the
            rank correlations below.
        within: Whether the three come from devices of one class or of the whole fleet.
        availability_compute: Between online share and speed.
        bandwidth_compute: Between mean downlink rate and speed.
        availability_bandwidth: Between online share and mean downlink rate.
    """

    kind: Literal["kept", "independent", "correlated"] = "kept"
    within: Literal["class", "fleet"] = "class"
    availability_compute: Correlation = 0.0
    bandwidth_compute: Correlation = 0.0
    availability_bandwidth: Correlation = 0.0


class CellsSection(Section):
    """Cells that several devices share; within one, rates are max-min fair.

    Args:
        count: How many there are, each device in one of them by a draw; where None, devices are in those that
            the column ``cell_id`` of the device file names.
        down_mbps: What each carries to its devices; not shared where None.
        up_mbps: What each carries from its devices; not shared where None.
    """

    count: Count | None = None
    down_mbps: Positive | None = None
    up_mbps: Positive | None = None


class EligibilitySection(Section):
    """When a device that is there may take part: all rules that are set must hold.

    What a device does is read from the columns of the availability file, else from the events of the state
    file. A device without battery is on the charger and full unless events say otherwise.

    Args:
        charging: Only on the charger.
        unmetered: Only on Wi-Fi.
        min_battery: Only with at least so many percent.
    """

    charging: bool = False
    unmetered: bool = False
    min_battery: Annotated[float, Field(gt=0, le=100)] | None = None


class PerturbSection(Section):
    """The same fleet with one thing changed; `fedsim sensitivity` sets these.

    Args:
        compute: Factor on every device's speed.
        availability_shift_s: Presence is read this much later, YAML ``availability_shift``.
        resample: Number under which links are dealt anew; they stay where None.
    """

    compute: Positive = 1.0
    availability_shift_s: Duration = Field(default=0.0, alias="availability_shift")
    resample: Annotated[int, Field(ge=0)] | None = None


class FleetSection(Section):
    """The devices and the traces they follow: files, a recipe that makes what no file gives, or both.

    Args:
        devices: Device file; required without a recipe.
        bandwidth: Library of bandwidth traces; required without a recipe.
        availability: Online intervals; without it `availability_policy` must be ``always``.
        state: Events such as free memory or throttling.
        start_s: Where in the traces virtual time 0 lies, YAML ``start``.
        availability_policy: What a device without intervals does.
        merge_gap_s: Offline gaps up to this long are bridged, YAML ``merge_gap``. Where None: one minute in
            measured traces, whose short gaps are flaps, and none in generated ones.
        loop: Whether availability repeats after its period; where None, as its sidecar says, else yes.
        limit: Only the first devices of the file; all where None.
        bandwidth_scale: Factor on every rate.
        latency_s: One-way delay of each transfer, YAML ``latency``.
        on_interrupt: What leaving mid-work means.
        on_memory_drop: What too little memory for a plan under training means: the work is lost, or its steps
            begin again with fewer trained columns.
        classes: Defaults per device class.
        recipe: Name of a recipe, or a YAML file (written with a leading ``.``, ``/`` or ``~``).
        recipe_days: Length of its availability and state, 7 by default.
        population: Number of devices, drawn from those of the files or of the recipe; as many as there are
            where None.
        templates: Most devices that the recipe makes, to draw the population from; 1000 by default.
        shares: Class -> share of the population; as in the files or the recipe where empty.
        pairing: What goes with what in the population.
        time_zones: Hours from UTC -> share of the population; each device stays in its own where empty.
        perturb: What is changed in the fleet after it has been read.
        bandwidth_spread: Spread of the log of a factor that each device of the population gets on its rates.
        cells: Cells that devices share; each has its link to itself where None.
        energy: Coefficients of energy per class and network; the record then tells joules per assignment. A
            recipe that makes both devices and links gives its own.
        eligibility: Who may take part at all.
    """

    devices: FilePath | None = None
    bandwidth: FilePath | None = None
    availability: FilePath | None = None
    state: FilePath | None = None
    energy: FilePath | None = None
    eligibility: EligibilitySection = EligibilitySection()
    start_s: Duration = Field(default=0.0, alias="start")
    availability_policy: Literal["error", "always", "never"] = "error"
    merge_gap_s: Duration | None = Field(default=None, alias="merge_gap")
    loop: bool | None = None
    limit: Count | None = None
    bandwidth_scale: Positive = 1.0
    latency_s: Duration = Field(default=0.05, alias="latency")
    on_interrupt: Literal["drop", "pause"] = "drop"
    on_memory_drop: Literal["drop", "shrink"] = "drop"
    classes: dict[Word, DeviceClassSection] = {}
    recipe: Word | None = None
    recipe_days: Annotated[int, Field(ge=1, le=366)] | None = None
    population: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    templates: Count | None = None
    shares: dict[Word, Annotated[float, Field(ge=0, le=1)]] = {}
    pairing: PairingSection = PairingSection()
    time_zones: dict[Word, Annotated[float, Field(ge=0, le=1)]] = {}
    bandwidth_spread: Annotated[float, Field(ge=0, le=5)] = 0.0
    perturb: PerturbSection = PerturbSection()
    cells: CellsSection | None = None


class MethodSection(Section):
    """Which method decides.

    Args:
        name: One of those that `fedsim methods` lists.
        options: The method's own, which it checks itself.
    """

    name: Word = "fedhera"
    options: Annotated[dict[str, Any], BeforeValidator(_read_options)] = {}


class TrainingSection(Section):
    """Local training on a client.

    Args:
        local_steps: Optimizer steps per assignment.
        batch_size: Sequences per step.
        learning_rate: Of the first round.
        final_learning_rate_factor: Of the last planned round, relative to the first; linear in between.
        wire_dtype: Number format of adapter columns on the links.
        optimizer: Local optimizer.
        on_client_error: What a failure in training means: the update is left out (``drop``), the run ends and
            can be resumed (``fail``), or it is tried twice more before it is left out (``retry``).
    """

    local_steps: Count = 10
    batch_size: Count = 8
    learning_rate: Annotated[float, Field(ge=0)] = 3e-3
    final_learning_rate_factor: Annotated[float, Field(ge=0, le=1)] = 1.0
    wire_dtype: WireDtype = "bfloat16"
    optimizer: Literal["adamw"] = "adamw"
    on_client_error: Literal["fail", "drop", "retry"] = "drop"


class StopSection(Section):
    """When a run ends: at the first of these.

    Args:
        rounds: Rounds closed.
        hours: Virtual hours.
        target_loss: Held-out loss reached.
    """

    rounds: Count | None = None
    hours: Positive | None = None
    target_loss: Positive | None = None


class CostSection(Section):
    """What work costs a device; see `fedsim.world.cost.Workload`.

    Args:
        model: ``roofline`` counts operations and bytes; ``paper`` takes the constants of the published
            FedHera code, under which the other values have no effect.
        base_bytes: Bytes per weight of the frozen base.
        factor_bytes: Bytes per number of an adapter on the device.
        grad_bytes: Bytes of gradient per trained number.
        optimizer_bytes: Bytes of optimizer state per trained number.
        activation_bytes: Bytes per number of an activation that is kept for the backward pass.
        calibration: File of `fedsim calibrate`, whose coefficients weigh the parts of the roofline.
    """

    model: Literal["roofline", "paper"] = "roofline"
    base_bytes: Positive = 2.0
    factor_bytes: Positive = 4.0
    grad_bytes: Positive = 4.0
    optimizer_bytes: Positive = 8.0
    activation_bytes: Positive = 2.0
    calibration: FilePath | None = None


def _read_definitions(value: object) -> object:
    """Accept a list of known words, each once; YAML has no tuples."""
    names = list(value) if isinstance(value, list | tuple) else []
    known = [name for name in ("fedsim", "paper") if name in names]
    if not names or sorted(map(str, names)) != known:
        raise ValueError(f'expected a list of "fedsim" and "paper", each once, got {show(value)}')
    return tuple(known)


class DriftSection(Section):
    """How far local updates are from those of clients without budgets; costs extra training, no virtual time.

    Args:
        clients: Aggregated clients per measured version for which an oracle is trained.
        every: Versions between two measured ones.
        oracle_rank: Columns of a layer that an oracle trains; the method's ``rank_cap``, or 64, by default.
        definition: ``fedsim`` compares updates; ``paper`` compares as the published FedHera code does.
    """

    clients: Count = 2
    every: Count = 1
    oracle_rank: Count | None = None
    definition: Annotated[tuple[Literal["fedsim", "paper"], ...], BeforeValidator(_read_definitions)] = (
        "fedsim",
    )


class MeasureSection(Section):
    """What is measured beyond loss and accuracy; steers nothing.

    Args:
        drift: Off where None.
    """

    drift: DriftSection | None = None


class RecordSection(Section):
    """What `events.jsonl` holds.

    Args:
        lines: ``all``, or ``versions``: what concerns whole versions, without a line for each assignment or
            for devices that come and go. Summary and metrics count everything either way; there is no report
            then, and `fedsim verify` refuses.
    """

    lines: RecordLines = "all"


class JournalSection(Section):
    """What a run keeps so that it can be resumed; the record does not depend on it.

    Args:
        keep: Newest versions whose tensors stay although nobody refers to them any more; those in use always
            stay. `fedsim verify --retrain` can re-train the updates that started from a version that stays.
    """

    keep: Count = 2


def _read_trackers(value: object) -> object:
    """Accept a list of known trackers, each once; YAML has no tuples."""
    names = list(value) if isinstance(value, list | tuple) else []
    known = get_args(TrackerName)
    is_once = isinstance(value, list | tuple) and len(set(map(str, names))) == len(names)
    if not is_once or any(name not in known for name in names):
        found = ", ".join(map(show, names)) or show(value)
        raise ValueError(f"expected a list of {', '.join(known)}, each once, got {found}")
    return tuple(names)


TrackerName = Literal["tensorboard", "mlflow", "wandb"]
Trackers = Annotated[tuple[TrackerName, ...], BeforeValidator(_read_trackers)]
