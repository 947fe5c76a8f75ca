"""What is the driver told once? How the world treats clients, and who does the real work."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from fedsim.sim.executor import Aggregator, Evaluator, Executor

Prefetch: TypeAlias = Literal["none", "certain", "speculative"]
"""What is trained before an aggregation asks for it."""


@dataclass(frozen=True, slots=True)
class DriverConfig:
    """How the world treats clients.

    Args:
        on_interrupt: Whether a device that leaves drops its work, or goes on when it is back.
        report_every_s: How often a downloading client reports.
        horizon_s: Limit of virtual time, or None.
        prefetch: Train only what is aggregated, also what the traces say will arrive, or everything that
            begins to train.
        on_memory_drop: Whether training that lacks memory is lost, or begins again with a smaller plan.
        partial_upload: Whether the server counts what has come of an interrupted upload.
        watches_presence: Whether arrivals and departures of devices that have taken part are recorded.
        measures_aside: Whether a version is measured while the next one is trained. No decision may then
            depend on a measurement, and the evaluator must share nothing with those who train.
    """

    on_interrupt: Literal["drop", "pause"]
    report_every_s: float
    horizon_s: float | None
    prefetch: Prefetch = "none"
    on_memory_drop: Literal["drop", "shrink"] = "drop"
    partial_upload: bool = False
    watches_presence: bool = True
    measures_aside: bool = False


@dataclass(slots=True)
class RealWork:
    """The three who do real work."""

    executor: Executor
    aggregator: Aggregator
    evaluator: Evaluator
