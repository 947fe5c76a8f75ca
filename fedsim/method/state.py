"""What does the server remember between events? Ids, ranks and numbers; no tensors, no files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fedsim.errors import ProtocolError
from fedsim.method.bundle import ClientMemory
from fedsim.method.events import Spectrum
from fedsim.method.messages import Assignment, Budget, RankPlan

Stage = Literal["new", "opening", "collecting", "aggregating", "evaluating", "stopped"]
FlightStatus = Literal["downloading", "working", "arrived"]


@dataclass(frozen=True, slots=True)
class Flight:
    """An assignment that has not ended.

    Args:
        assignment: What was dispatched.
        plan: The newest plan.
        budget: The budget for which that plan was made.
        round: The round it belongs to.
        num_examples: Size of the client's shard.
        status: Where it is.
    """

    assignment: Assignment
    plan: RankPlan
    budget: Budget
    round: int
    num_examples: int
    status: FlightStatus


# The table of legal transitions: event name -> statuses in which it may be told of a flight.
LEGAL: Mapping[str, frozenset[FlightStatus]] = {
    "Progressed": frozenset({"downloading"}),
    "Downloaded": frozenset({"downloading"}),
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


@dataclass(slots=True)
class ServerState:
    """Everything that one server knows.

    Args:
        version: Newest global version.
        round: Number of the open round; rounds without a version count too.
        stage: What the server is doing.
        next_assignment: Next dispatch number.
        flights: Assignment -> flight, until it is settled.
        spectra: Version -> singular values, while anything refers to the version.
        memory: Client -> what is kept of it; changes only when its update is aggregated.
        evaluated: Newest version that has been measured.
        declined: Clients that were declined in the open round, told once each.
        stopping: Reason to stop as soon as the step under way is over.
    """

    version: int = 0
    round: int = 0
    stage: Stage = "new"
    next_assignment: int = 0
    flights: dict[int, Flight] = field(default_factory=dict)
    spectra: dict[int, Spectrum] = field(default_factory=dict)
    memory: dict[int, ClientMemory] = field(default_factory=dict)
    evaluated: int = -1
    declined: set[int] = field(default_factory=set)
    stopping: str | None = None

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

    def of_round(self, round_number: int, *statuses: FlightStatus) -> list[Flight]:
        """Flights of one round in these statuses, by ascending assignment id."""
        return [
            flight
            for _, flight in sorted(self.flights.items())
            if flight.round == round_number and flight.status in statuses
        ]

    def referenced(self, version: int) -> bool:
        """Whether the newest version, or any flight, still needs this version."""
        return version == self.version or any(
            flight.assignment.version == version for flight in self.flights.values()
        )
