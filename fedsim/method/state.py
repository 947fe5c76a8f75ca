"""What does the server remember between events? Ids, ranks and numbers; no tensors, no files."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fedsim.errors import ProtocolError
from fedsim.method.bundle import ClientMemory
from fedsim.method.events import Spectrum
from fedsim.method.experience import Experience
from fedsim.method.messages import Assignment, Budget, DeviceReport, RankPlan

Stage = Literal["new", "opening", "collecting", "aggregating", "evaluating", "between", "stopped"]
FlightStatus = Literal["downloading", "working", "arrived"]


@dataclass(frozen=True, slots=True)
class Flight:
    """An assignment that has not ended.

    Args:
        assignment: What was dispatched.
        plan: The newest plan.
        budget: The budget for which that plan was made.
        round: The round it belongs to; under buffered pacing, the look at the fleet that sent it.
        num_examples: Size of the client's shard.
        status: Where it is.
        arrived_at_s: Virtual time at which its update was there; None before.
        closes_at_s: Virtual time at which its delivery is cut; infinity where it is delivered whole.
    """

    assignment: Assignment
    plan: RankPlan
    budget: Budget
    round: int
    num_examples: int
    status: FlightStatus
    arrived_at_s: float | None = None
    closes_at_s: float = math.inf

    def at(self, status: FlightStatus, arrived_at_s: float | None = None) -> "Flight":
        """Return the same assignment where it is now."""
        return Flight(
            self.assignment,
            self.plan,
            self.budget,
            self.round,
            self.num_examples,
            status,
            arrived_at_s,
            self.closes_at_s,
        )


@dataclass(slots=True)
class _Mates:
    """Flights of one round, by ascending id, and how many of them are where."""

    numbers: dict[int, None] = field(default_factory=dict)
    counts: dict[FlightStatus, int] = field(
        default_factory=lambda: {"downloading": 0, "working": 0, "arrived": 0}
    )


# The table of legal transitions: event name -> statuses in which it may be told of a flight.
LEGAL: Mapping[str, frozenset[FlightStatus]] = {
    "Progressed": frozenset({"downloading"}),
    "Downloaded": frozenset({"downloading"}),
    "MemoryFell": frozenset({"working"}),
    "Uploaded": frozenset({"working"}),
    "Dropped": frozenset({"downloading", "working"}),
    "Aggregated": frozenset({"arrived"}),
}
# And of the run: event name -> stages in which the server may hear it.
LEGAL_STAGES: Mapping[str, frozenset[Stage]] = {
    "Opened": frozenset({"new"}),
    "FleetSeen": frozenset({"opening"}),
    "FleetGone": frozenset({"opening"}),
    "Aggregated": frozenset({"aggregating"}),
    "Evaluated": frozenset({"evaluating"}),
}
# Where clients are at work between rounds too, the fleet is looked at whenever one of them is free.
_OPEN: frozenset[Stage] = frozenset({"opening", "collecting", "aggregating", "evaluating"})
MIXED_STAGES: Mapping[str, frozenset[Stage]] = {
    **LEGAL_STAGES,
    "FleetSeen": _OPEN,
    "FleetGone": _OPEN,
}


@dataclass(slots=True)
class ServerState:
    """Everything that one server knows.

    Flights change by `launch`, `change` and `end` only: the books beside them are kept there, so that no
    event has to walk over everything in flight.

    Args:
        version: Newest global version.
        round: Number of the open round; rounds without a version count too.
        stage: What the server is doing; `between` never outlasts an event.
        next_assignment: Next dispatch number.
        next_wave: Next number of a look at the fleet that dispatches, under buffered pacing.
        flights: Assignment -> flight, until it is settled, by ascending id.
        arrived: Flights whose update has come and waits, in the order of arrival.
        combining: Assignments that the aggregation under way combines.
        spectra: Version -> singular values, while anything refers to the version.
        memory: Client -> what is kept of it; changes only when its update is aggregated.
        stacked: Version -> columns per layer that were aggregated to make it and all before it.
        experience: What selection may know of clients.
        evaluated: Newest version that has been measured.
        measure: Whether the newest version is to be measured before anything else.
        declined: Clients that were declined in the open round, told once each.
        unfit: Clients that could not carry the bare base, and what they reported then.
        look_at_s: Instant of the look at the fleet that is under way, or None.
        awaits_arrival: Whether the server will hear of the next device that comes online.
        stopping: Reason to stop as soon as the step under way is over.
    """

    version: int = 0
    round: int = 0
    stage: Stage = "new"
    next_assignment: int = 0
    next_wave: int = 0
    flights: dict[int, Flight] = field(default_factory=dict)
    arrived: dict[int, None] = field(default_factory=dict)
    combining: tuple[int, ...] = ()
    spectra: dict[int, Spectrum] = field(default_factory=dict)
    memory: dict[int, ClientMemory] = field(default_factory=dict)
    stacked: dict[int, tuple[int, ...]] = field(default_factory=dict)
    experience: Experience = field(default_factory=Experience)
    evaluated: int = -1
    measure: bool = False
    declined: set[int] = field(default_factory=set)
    unfit: dict[int, DeviceReport] = field(default_factory=dict)
    look_at_s: float | None = None
    awaits_arrival: bool = False
    stopping: str | None = None
    _holders: dict[int, int] = field(default_factory=dict)
    _by_round: dict[int, _Mates] = field(default_factory=dict)

    @property
    def at_work(self) -> int:
        """How many assignments may still deliver."""
        return len(self.flights) - len(self.arrived)

    def flight(self, assignment: int, event: str) -> Flight:
        """The flight that an event speaks of.

        Raises:
            ProtocolError: If there is none, or the event is not legal in its status.
        """
        flight = self.flights.get(assignment)
        if flight is None:
            raise ProtocolError(f"{event} of assignment {assignment}, which has ended or never began")
        if flight.status not in LEGAL[event]:
            raise ProtocolError(f"{event} of assignment {assignment} while it is {flight.status}")
        return flight

    def launch(self, flight: Flight) -> None:
        """Enter a new flight."""
        number = flight.assignment.id
        self.flights[number] = flight
        version = flight.assignment.version
        self._holders[version] = self._holders.get(version, 0) + 1
        mates = self._by_round.get(flight.round)
        if mates is None:
            mates = self._by_round[flight.round] = _Mates()
        mates.numbers[number] = None
        mates.counts[flight.status] += 1

    def change(self, flight: Flight) -> None:
        """Enter what has become of a flight."""
        number, counts = flight.assignment.id, self._by_round[flight.round].counts
        counts[self.flights[number].status] -= 1
        counts[flight.status] += 1
        self.flights[number] = flight
        if flight.status == "arrived":
            self.arrived[number] = None

    def end(self, number: int) -> Flight:
        """Strike a flight out."""
        flight = self.flights.pop(number)
        version, mates = flight.assignment.version, self._by_round[flight.round]
        self.arrived.pop(number, None)
        mates.counts[flight.status] -= 1
        del mates.numbers[number]
        if not mates.numbers:
            del self._by_round[flight.round]
        self._holders[version] -= 1
        if not self._holders[version]:
            del self._holders[version]
        return flight

    def count(self, round_number: int, *statuses: FlightStatus) -> int:
        """How many flights of one round are in these statuses."""
        mates = self._by_round.get(round_number)
        return 0 if mates is None else sum(mates.counts[status] for status in statuses)

    def of_round(self, round_number: int, *statuses: FlightStatus) -> list[Flight]:
        """Flights of one round in these statuses, by ascending assignment id."""
        mates = self._by_round.get(round_number)
        flights = [] if mates is None else [self.flights[number] for number in mates.numbers]
        return [flight for flight in flights if flight.status in statuses]

    def older_than(self, version: int) -> list[Flight]:
        """Flights that were dispatched with an earlier version, by ascending assignment id."""
        if not any(held < version for held in self._holders):
            return []
        return [flight for flight in self.flights.values() if flight.assignment.version < version]

    def referenced(self, version: int) -> bool:
        """Whether the newest version, or any flight, still needs this version."""
        return version == self.version or version in self._holders
