"""What may the server be told, and what may it ask for?

`Server.handle(event)` answers with actions; the driver carries them out and feeds what comes of them back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from fedsim.method.messages import (
    Assignment,
    Budget,
    Defence,
    DeviceReport,
    Evaluation,
    Phase,
    RankPlan,
    Stream,
)

Spectrum = dict[str, np.ndarray]  # layer name -> singular values, descending, numerical rank long


@runtime_checkable
class FleetView(Protocol):
    """The fleet at one instant, as far as a server can see it."""

    def online(self) -> np.ndarray:
        """Indices of the devices that are online and idle, ascending int64."""
        ...

    @property
    def num_devices(self) -> int:
        """How many devices there are, wherever they are."""
        ...

    def is_idle(self, client: int) -> bool:
        """Whether this device is online and idle."""
        ...

    def report(self, client: int) -> DeviceReport:
        """What this device tells when it checks in now."""
        ...


# --- events: what the server is told --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened:
    """The run begins: version 0 exists, with this spectrum (empty arrays for a zero adapter)."""

    now_s: float
    spectrum: Spectrum


@dataclass(frozen=True, slots=True)
class FleetSeen:
    """Answer to `LookAtFleet`: who is online now."""

    now_s: float
    fleet: FleetView


@dataclass(frozen=True, slots=True)
class FleetGone:
    """Answer to `LookAtFleet`: no device will ever come online again."""

    now_s: float


@dataclass(frozen=True, slots=True)
class TimeUp:
    """The virtual time that the run may take is over."""

    now_s: float


@dataclass(frozen=True, slots=True)
class Progressed:
    """A client waits or downloads and reports: received columns, observed rate, free memory."""

    now_s: float
    assignment: int
    received_bytes: int
    received: tuple[int, ...]
    report: DeviceReport


@dataclass(frozen=True, slots=True)
class Reported:
    """Several clients report at one instant, in this order."""

    now_s: float
    reports: tuple[Progressed, ...]


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A download ended; the plan is final now.

    Args:
        received: Columns per layer that are whole, where they were streamed; None: all of the plan.
    """

    now_s: float
    assignment: int
    size_bytes: int
    duration_s: float
    report: DeviceReport
    received: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class MemoryFell:
    """A client that trains has less memory than its plan needs, and would go on with a smaller one."""

    now_s: float
    assignment: int
    report: DeviceReport


@dataclass(frozen=True, slots=True)
class Uploaded:
    """An update reached the server."""

    now_s: float
    assignment: int
    size_bytes: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class TransferCut:
    """A transfer ended before it was whole; what it moved still tells how fast the link is.

    Args:
        now_s: Virtual time.
        client: Index of the device.
        direction: Which link.
        size_bytes: Bytes moved.
        duration_s: Seconds since the transfer began.
    """

    now_s: float
    client: int
    direction: Literal["download", "upload"]
    size_bytes: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class Dropped:
    """A device left, or could not go on, before its update was whole.

    Args:
        received_bytes: What has come of its update.
    """

    now_s: float
    assignment: int
    phase: Phase
    reason: str
    received_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The deadline of a round fired; under buffered pacing, of the assignments of one look at the fleet.

    Args:
        received_bytes: Assignment -> what has come of its update, for those that upload now.
    """

    now_s: float
    round: int
    received_bytes: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Aggregated:
    """Answer to `Aggregate`: the new version, or which assignments failed in training.

    Args:
        now_s: Virtual time.
        version: The new version; equal to the old one where too few updates were left.
        spectrum: Of the new version.
        alignments: Assignment -> cosine of its update with the aggregate, in [-1, 1].
        losses: Assignment -> mean training loss.
        failed: Assignment -> reason.
        pruned: Assignment -> largest rank of its client from now on.
        arrived: Assignment -> columns per layer that counted, of those whose upload was cut.
        defence: How far each update was trusted; None where no rule says.
    """

    now_s: float
    version: int
    spectrum: Spectrum
    alignments: dict[int, float]
    losses: dict[int, float]
    failed: dict[int, str]
    pruned: dict[int, int] = field(default_factory=dict)
    arrived: dict[int, tuple[int, ...]] = field(default_factory=dict)
    defence: Defence | None = None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Answer to `Evaluate`."""

    now_s: float
    evaluation: Evaluation


Event = (
    Opened
    | FleetSeen
    | FleetGone
    | TimeUp
    | Progressed
    | Reported
    | Downloaded
    | MemoryFell
    | Uploaded
    | TransferCut
    | Dropped
    | DeadlinePassed
    | Aggregated
    | Evaluated
)

# --- actions: what the server asks for ------------------------------------------------------------------

Outcome = Literal["aggregated", "late", "timed_out", "stale", "dropped", "failed", "discarded", "cancelled"]


@dataclass(frozen=True, slots=True)
class LookAtFleet:
    """Tell me who is online: at `at_s`, or as soon as one more device arrives after now if None."""

    at_s: float | None


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send this assignment; its plan was made for this budget, and is streamed where a stream is given."""

    assignment: Assignment
    budget: Budget
    stream: Stream | None = None


@dataclass(frozen=True, slots=True)
class Replan:
    """A client that waits or downloads has a new plan, made for what of its budget was still to come.

    Args:
        assignment: Whose plan.
        old: The plan until now.
        new: The plan from now on.
        budget: The whole budget, from the first byte, as it is seen now.
        ahead: What of it was still to come: bytes and seconds beyond the columns in `received`.
        received: Columns per layer that had arrived or were under way.
        received_bytes: Bytes that had arrived.
        reason: The budget that moved.
    """

    assignment: int
    old: RankPlan
    new: RankPlan
    budget: Budget
    ahead: Budget
    received: tuple[int, ...]
    received_bytes: int
    reason: str
    stream: Stream | None = None


@dataclass(frozen=True, slots=True)
class Recall:
    """Stop work on this assignment: nobody waits for it any more."""

    assignment: int


@dataclass(frozen=True, slots=True)
class TakePart:
    """The upload of this assignment ends here, and what has come of it counts as its update."""

    assignment: int
    reason: str


@dataclass(frozen=True, slots=True)
class Decline:
    """This device cannot hold the base model, or no column; no assignment exists."""

    client: int
    reason: str


@dataclass(frozen=True, slots=True)
class SetDeadline:
    """Wake me with `DeadlinePassed` at this time."""

    round: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Combine these updates into the next version.

    Args:
        version: The version that the result replaces.
        assignments: In canonical order (ascending id).
        weights: Weight of each before failures are known; the answer renormalises over what is left.
        minimum: Fewest updates that make a version.
        staleness: Versions that each is behind; empty where all start from the newest.
        discounts: Factor of each, after the weights of what is left have been renormalised: an old buffer
            moves the model less. Empty where every update counts in full.
        damping: Factor on what of each lies outside the newest basis; empty where all of it counts alike.
    """

    version: int
    assignments: tuple[int, ...]
    weights: tuple[float, ...]
    minimum: int
    staleness: tuple[int, ...] = ()
    discounts: tuple[float, ...] = ()
    damping: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Measure this version on held-out data."""

    version: int


@dataclass(frozen=True, slots=True)
class Settle:
    """An assignment has ended, with this outcome; said exactly once for each."""

    assignment: int
    outcome: Outcome
    phase: Phase | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """No assignment refers to this version any more."""

    version: int


@dataclass(frozen=True, slots=True)
class CloseRound:
    """A round has ended: with a new version, or without ("discarded").

    Under buffered pacing a round is what lies between two aggregations.
    """

    round: int
    version: int
    result: Literal["aggregated", "discarded"]


@dataclass(frozen=True, slots=True)
class Stop:
    """The stop rule is met; everything in flight has been settled."""

    reason: str


Action = (
    LookAtFleet
    | Dispatch
    | Replan
    | Recall
    | TakePart
    | Decline
    | SetDeadline
    | Aggregate
    | Evaluate
    | Settle
    | Release
    | CloseRound
    | Stop
)
