"""What does an assignment look like on its way out, and what must come back?"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from fedsim.deploy.desk import Peer
from fedsim.deploy.messages import Assign, UpdateSent
from fedsim.deploy.parcels import pack, size_bytes, unpack
from fedsim.errors import PeerError, ScenarioError
from fedsim.experiment.build import Experiment
from fedsim.experiment.guard import finite
from fedsim.method import events as ev
from fedsim.method.bundle import Payload
from fedsim.method.messages import TrainingFailure, TrainRequest, Update
from fedsim.sim.trip import Trip


@dataclass(slots=True, eq=False)
class Errand:
    """One assignment on its way, and what came back of it once that is whole.

    Args:
        trip: As in a simulation.
        peer: Who has it.
        ranks: Columns per layer that must come back.
        down_bytes: Columns on their way to the client.
        up_bytes: Columns that must come back.
        answer: What came back.
    """

    trip: Trip
    peer: Peer
    ranks: tuple[int, ...] = ()
    down_bytes: int = 0
    up_bytes: int = 0
    answer: Update | TrainingFailure | None = None


def outgoing(
    experiment: Experiment, errand: Errand, request: TrainRequest, payload: Payload
) -> tuple[Assign, bytes]:
    """Encode an assignment, and note in the errand what must come back.

    Raises:
        ScenarioError: If the codec's bytes are not the bytes that the method is charged for.
    """
    assignment, plan = request.assignment, request.plan
    parts = {"prefix": payload.prefix, "tail": payload.tail, "merged": payload.merged}
    layers, dtype = experiment.shape.layers, experiment.scenario.training.wire_dtype
    ranks, body = pack(parts, layers, dtype)
    errand.ranks = plan.trained if payload.rule.tail == "kept" else plan.total
    errand.down_bytes = size_bytes(ranks, layers, dtype)
    errand.up_bytes = size_bytes({"change": errand.ranks}, layers, dtype)
    _check_price(experiment, "down", errand.down_bytes, experiment.prices.bytes_down(plan))
    _check_price(experiment, "up", errand.up_bytes, experiment.prices.bytes_up(plan))
    message = Assign(
        assignment=assignment.id,
        version=assignment.version,
        ranks=ranks,
        scaling=dict(payload.scaling),
        rule=asdict(payload.rule),
        steps=assignment.steps,
        learning_rate=assignment.learning_rate,
        gate=assignment.gate,
        seed=f"{assignment.seed:x}",
        flops=experiment.prices.flops(plan.total, plan.trained),
    )
    return message, body


def incoming(
    experiment: Experiment, errand: Errand, message: UpdateSent, body: bytes
) -> Update | TrainingFailure:
    """Decode an update; it must have exactly the columns that were asked for.

    Raises:
        PeerError: If it has not, or is no update at all.
    """
    assignment = errand.trip.assignment
    if {name: tuple(ranks) for name, ranks in message.ranks.items()} != {"change": errand.ranks}:
        raise PeerError(f"update of assignment {assignment.id}: expected the columns that were asked for")
    dtype = experiment.scenario.training.wire_dtype
    change = unpack(message.ranks, body, experiment.shape.layers, dtype)["change"]
    return finite(
        Update(
            assignment=assignment.id,
            client=assignment.client,
            base_version=assignment.version,
            plan=errand.trip.plan,
            change={name: factors for name, factors in change.items() if factors.rank},
            num_examples=errand.peer.ready.num_examples,
            loss=message.loss,
        )
    )


def shares_left(action: ev.Aggregate, updates: Sequence[Update]) -> list[float]:
    """Shares of the updates that came, renormalised."""
    share_of = dict(zip(action.assignments, action.weights, strict=True))
    left = sum(share_of[update.assignment] for update in updates)
    return [share_of[update.assignment] / left for update in updates]


def _check_price(experiment: Experiment, way: str, sent: int, priced: int) -> None:
    if sent != priced:
        raise ScenarioError(
            f"method.name: {experiment.scenario.method.name} is charged {priced} bytes {way} for what takes "
            f"{sent} on this wire; it cannot be deployed, choose another"
        )
