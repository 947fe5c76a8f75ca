"""How far is one assignment? What is planned, which job is under way, and what has been moved so far.

A job is work on one resource of the device: receiving, computing, sending. It knows how much there is to do
and when that much is done; whether the device stays that long is the client's business.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from fedsim.method.messages import Assignment, Phase, RankPlan, Stream
from fedsim.sim.delivery import Delivery, Streamed
from fedsim.sim.sharing import Flow, SharedLinks
from fedsim.sim.timeline import Walk
from fedsim.world.device import Device
from fedsim.world.link import Link


@dataclass(slots=True)
class Trip:
    """One assignment on its way: what is planned, and how far it got.

    Args:
        assignment: What was dispatched.
        device: The machine it runs on.
        plan: The newest plan; the server may change it until the download ends.
        delivery: The stream of columns of that plan.
        phase: What the client does now.
        phase_began_s: Virtual time at which the phase began.
        bytes_down: Bytes received.
        bytes_up: Bytes sent.
        walk: The process of the client; None before it runs.
        recalled: Whether the server has told it to stop.
        under_way: The job that goes on now, when it began or went on, and how much had been done before.
    """

    assignment: Assignment
    device: Device
    plan: RankPlan
    delivery: Delivery | Streamed
    phase: Phase = "download"
    phase_began_s: float = 0.0
    bytes_down: int = 0
    bytes_up: int = 0
    walk: Walk | None = field(default=None, repr=False)
    recalled: bool = False
    under_way: "tuple[Job, float, float] | None" = field(default=None, repr=False)

    def replan(self, plan: RankPlan, stream: Stream | None = None) -> None:
        """Follow a new plan from here on."""
        if self.phase == "download":
            self.delivery = self.delivery.replanned(self.bytes_down, plan, stream)
        self.plan = plan

    def note_progress(self, now_s: float) -> None:
        """Bring the byte counts up to the present instant."""
        if self.under_way is not None:
            job, start_s, carried = self.under_way
            job.note(carried + job.done(start_s, now_s))


class Job(Protocol):
    """Work that takes time on one resource of the device; a plain value holds for as long as it lasts."""

    @property
    def is_watched(self) -> bool:
        """Whether anything but its end or a departure can come in between."""
        ...

    @property
    def reports(self) -> bool:
        """Whether the client reports on the way."""
        ...

    @property
    def memory_bytes(self) -> float:
        """What the work needs; the device kills it when less is free."""
        ...

    @property
    def closes_at_s(self) -> float:
        """When the work may end before it is done."""
        ...

    @property
    def flow(self) -> Flow | None:
        """The transfer over links that others use too; None where the device is alone."""
        ...

    def share(self, links: SharedLinks) -> Flow | None:
        """Begin a transfer over shared links, if it passes any."""
        ...

    def amount(self) -> float:
        """How much there is to do; a re-plan may change it."""
        ...

    def least(self) -> float:
        """How much must be done before the work may be cut."""
        ...

    def end_s(self, start_s: float, amount: float) -> float:
        """Return the instant at which that much is done."""
        ...

    def done(self, start_s: float, end_s: float) -> float:
        """Return how much is done in between."""
        ...

    def note(self, done: float) -> None:
        """Take the amount done so far."""
        ...


class _Transfer:
    """Bytes over one direction of the device's connection, alone or beside others.

    Args:
        trip: Whose.
        direction: Which way.
        link: The connection.
    """

    memory_bytes: ClassVar[float] = 0.0
    __slots__ = ("direction", "flow", "link", "trip")

    def __init__(self, trip: Trip, direction: Literal["download", "upload"], link: Link) -> None:
        self.trip = trip
        self.direction = direction
        self.link = link
        self.flow: Flow | None = None

    def share(self, links: SharedLinks) -> Flow | None:
        """Begin the transfer over shared links, if it passes any."""
        self.flow = links.join(self.trip.device.index, self.direction, self.link)
        return self.flow

    def end_s(self, start_s: float, amount: float) -> float:
        """Return when so many bytes have moved."""
        if self.flow is None:
            return self.link.transfer_end_s(start_s, amount)
        return self.flow.end_s(start_s, amount)

    def done(self, start_s: float, end_s: float) -> float:
        """Return the bytes that move in between."""
        if self.flow is None:
            return self.link.bytes_between(start_s, end_s)
        return self.flow.done(start_s, end_s)


class Downloading(_Transfer):
    """Receiving the columns of a plan.

    Args:
        trip: Whose.
        reports_regularly: Whether the client tells how far it is, whatever happens.
    """

    reports: ClassVar[bool] = True
    __slots__ = ("closes_at_s", "is_watched")

    def __init__(self, trip: Trip, *, reports_regularly: bool) -> None:
        super().__init__(trip, "download", trip.device.downlink)
        self.closes_at_s = trip.delivery.closes_at_s
        self.is_watched = (
            reports_regularly or self.closes_at_s < math.inf or not trip.device.memory.is_constant
        )

    def amount(self) -> float:
        """Bytes of the newest plan."""
        return float(self.trip.delivery.size_bytes)

    def least(self) -> float:
        """Bytes up to the first column that can be trained."""
        return float(self.trip.delivery.least_bytes)

    def note(self, done: float) -> None:
        """Count bytes; what came before a re-plan stays."""
        trip = self.trip
        trip.bytes_down = max(trip.bytes_down, min(trip.delivery.size_bytes, int(done)))


class Uploading(_Transfer):
    """Sending an update.

    Args:
        trip: Whose.
        size_bytes: Of the update.
    """

    is_watched: ClassVar[bool] = False
    reports: ClassVar[bool] = False
    closes_at_s: ClassVar[float] = math.inf
    __slots__ = ("size_bytes",)

    def __init__(self, trip: Trip, size_bytes: int) -> None:
        super().__init__(trip, "upload", trip.device.uplink)
        self.size_bytes = size_bytes

    def amount(self) -> float:
        """Bytes of the update."""
        return float(self.size_bytes)

    def least(self) -> float:
        """All of them."""
        return float(self.size_bytes)

    def note(self, done: float) -> None:
        """Count bytes."""
        self.trip.bytes_up = max(self.trip.bytes_up, min(self.size_bytes, int(done)))


class Training:
    """The local steps.

    Args:
        device: Where they run.
        flops: Of all steps.
        memory_bytes: What they need.
    """

    reports: ClassVar[bool] = False
    closes_at_s: ClassVar[float] = math.inf
    flow: ClassVar[None] = None
    __slots__ = ("done", "end_s", "flops", "is_watched", "memory_bytes")

    def __init__(self, device: Device, flops: float, memory_bytes: float) -> None:
        memory = device.memory
        self.flops = flops
        self.memory_bytes = memory_bytes
        self.is_watched = not memory.is_constant or memory.value(0.0) < memory_bytes
        self.end_s = device.compute.inverse_integral
        self.done = device.compute.integral

    def share(self, links: SharedLinks) -> Flow | None:
        """Share nothing."""
        del links
        return None

    def amount(self) -> float:
        """FLOP of all steps."""
        return self.flops

    def least(self) -> float:
        """All of them."""
        return self.flops

    def note(self, done: float) -> None:
        """Training moves no bytes."""
