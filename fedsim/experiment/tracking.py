"""Who else is told how a run goes? TensorBoard, MLflow and Weights & Biases, through accelerate's trackers.

Every figure is told twice, because a run has two costs: over virtual hours and over bytes on both links. What
a tracker writes lies in the run's folder. Trackers watch as every instrument does: the record does not depend
on them.

Source:
    `accelerate.tracking` of Hugging Face Accelerate, for the trackers.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fedsim.errors import MissingExtraError
from fedsim.experiment.record import Tally

if TYPE_CHECKING:
    from fedsim.experiment.scenario import Scenario

FOLDER = "track"
OVER_HOURS, OVER_BYTES = "over_hours", "over_bytes"
HOURS, BYTES = "virtual_hours", "bytes"
HOUR_S = 3600.0

# Tracker -> packages of which one is enough.
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
}


class Tracker(Protocol):
    """What is used of accelerate's `GeneralTracker`."""

    def log(self, values: dict[str, float], step: int | None = None, **kwargs: Any) -> None:
        """Take down figures."""
        ...

    def finish(self) -> None:
        """Write what is left."""
        ...


class Sink(Protocol):
    """One tracker, with its own notion of an axis."""

    def tell(self, values: Mapping[str, float], time_s: float, moved_bytes: int) -> None:
        """Take down figures at a virtual time and a number of bytes."""
        ...

    def finish(self) -> None:
        """Write what is left."""
        ...


class StepSink:
    """A tracker whose axis is a whole number: virtual seconds for one copy of a figure, bytes for the other.

    Args:
        tracker: Of accelerate.
        takes_time: Whether it takes a time stamp, from which TensorBoard's relative axis shows virtual hours.
    """

    def __init__(self, tracker: Tracker, *, takes_time: bool = False) -> None:
        self._tracker = tracker
        self._takes_time = takes_time

    def tell(self, values: Mapping[str, float], time_s: float, moved_bytes: int) -> None:
        """Log both copies."""
        stamp = {"walltime": time_s} if self._takes_time else {}
        for axis, step in ((OVER_HOURS, round(time_s)), (OVER_BYTES, moved_bytes)):
            self._tracker.log({f"{axis}/{name}": value for name, value in values.items()}, step=step, **stamp)

    def finish(self) -> None:
        """Close the tracker."""
        self._tracker.finish()


class MetricSink:
    """A tracker that takes another figure as the axis, as W&B does.

    Args:
        tracker: Of accelerate, started.
        run: W&B's own run.
    """

    def __init__(self, tracker: Tracker, run: Any) -> None:
        self._tracker = tracker
        for axis, figure in ((OVER_HOURS, HOURS), (OVER_BYTES, BYTES)):
            run.define_metric(f"{axis}/*", step_metric=figure)

    def tell(self, values: Mapping[str, float], time_s: float, moved_bytes: int) -> None:
        """Log both copies, and the two axes."""
        copies = {
            f"{axis}/{name}": value for axis in (OVER_HOURS, OVER_BYTES) for name, value in values.items()
        }
        self._tracker.log({**copies, HOURS: time_s / HOUR_S, BYTES: float(moved_bytes)})

    def finish(self) -> None:
        """Close the tracker."""
        self._tracker.finish()


class Tracking:
    """Tells sinks what is measured. Satisfies `fedsim.sim.instrument.Instrument`.

    Args:
        sinks: Who is told.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)
        self._tally = Tally()

    def observe(self, time_s: float, event: str, fields: Mapping[str, object]) -> None:
        """Pass on evaluations, and what rounds cost."""
        self._tally.observe(time_s, event, fields)
        if event == "evaluated":
            self._tell(time_s, _numbers(fields))
        elif event == "round_closed":
            self._tell(time_s, {f"updates/{name}": count for name, count in _outcomes(self._tally).items()})

    def _tell(self, time_s: float, values: Mapping[str, float]) -> None:
        if values:
            for sink in self._sinks:
                sink.tell(values, time_s, self._tally.bytes_down + self._tally.bytes_up)

    def finish(self) -> None:
        """Let every tracker write what is left."""
        for sink in self._sinks:
            sink.finish()


@contextmanager
def tracking(scenario: "Scenario", directory: Path) -> Iterator[list[Tracking]]:
    """Watch a run for the trackers of its scenario; what an earlier part of the run told them is told again.

    Args:
        scenario: Names the trackers.
        directory: Of the run.

    Yields:
        Nobody, or one instrument.
    """
    if not scenario.track:
        yield []
        return
    folder = directory / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    watching = Tracking(
        [_sink(name, f"{scenario.name}-s{scenario.seed}", folder / name) for name in scenario.track]
    )
    try:
        yield [watching]
    finally:
        watching.finish()


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers whose package is not installed.

    Raises:
        MissingExtraError: If one is not.
    """
    for name in names:
        if not any(find_spec(package) for package in PACKAGES[name]):
            raise MissingExtraError(
                f"track: {name} needs the package {PACKAGES[name][0]}; install it with: "
                f"pip install 'fedsim-lora[{name}]', or leave {name} out"
            )


def _sink(name: str, run_name: str, folder: Path) -> Sink:
    """Start one tracker."""
    from accelerate import tracking as accelerate  # noqa: PLC0415 - imports torch, and few runs track

    folder.mkdir(parents=True)
    if name == "tensorboard":
        board = accelerate.TensorBoardTracker(run_name, folder)
        board.start()
        return StepSink(board, takes_time=True)
    if name == "mlflow":
        import mlflow  # noqa: PLC0415 - optional

        if "MLFLOW_TRACKING_URI" not in os.environ:  # whoever runs a server says so
            mlflow.set_tracking_uri(f"sqlite:///{folder.absolute() / 'mlflow.db'}")
        flow = accelerate.MLflowTracker(
            experiment_name=run_name,
            logging_dir=(folder / "artifacts").absolute().as_uri(),
            run_name=run_name,
        )
        flow.start()
        return StepSink(flow)
    mode = os.environ.get("WANDB_MODE", "offline")  # nothing leaves the machine unless asked for
    biases = accelerate.WandBTracker(run_name, dir=str(folder), mode=mode)
    biases.start()
    return MetricSink(biases, biases.tracker)


def _numbers(fields: Mapping[str, object]) -> dict[str, float]:
    """Take the figures of an evaluation, which a stub does not have."""
    told = {name: value for name, value in fields.items() if name != "version"}
    return {name: float(value) for name, value in told.items() if isinstance(value, int | float)}


def _outcomes(tally: Tally) -> dict[str, float]:
    """Count assignments by outcome, wherever a drop happened."""
    counts: Counter[str] = Counter()
    for outcome, count in tally.outcomes.items():
        counts[outcome.partition(":")[0]] += count
    return {outcome: float(count) for outcome, count in counts.items()}
