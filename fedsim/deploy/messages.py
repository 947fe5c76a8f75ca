"""What do server and clients of a real run say to each other? One frozen model per kind of message.

Unknown kinds, unknown fields and wrong types are refused. A message holds values only: nothing in it is ever
executed, and no path in it is ever opened.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fedsim.errors import PeerError

T = TypeVar("T")

PROTOCOL = 1
MAX_RANK = 1 << 16

Number = Annotated[int, Field(ge=0, lt=2**53)]
Seed = Annotated[int, Field(ge=0, lt=2**128)]
Text = Annotated[str, Field(max_length=2000)]
Nonce = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Rate = Annotated[float, Field(gt=0)]
Ranks = dict[Annotated[str, Field(max_length=20)], list[Annotated[int, Field(ge=0, le=MAX_RANK)]]]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Challenge(_Message):
    """Server: prove that you know the token."""

    kind: Literal["challenge"] = "challenge"
    protocol: int
    nonce: Nonce


class Hello(_Message):
    """Client: this is who I am, by a tag that depends on the challenge."""

    kind: Literal["hello"] = "hello"
    protocol: int
    device: Text
    nonce: Nonce


class Welcome(_Message):
    """Server: this is what we train; the client finds its shard by its index.

    Args:
        client: Index of the device.
        num_clients: Number of shards.
        scenario: Resolved.
        scenario_sha256: Of what may change a record.
        sets: Per device, the set that its data follow; empty where they follow none.
    """

    kind: Literal["welcome"] = "welcome"
    client: Number
    num_clients: Number
    scenario: dict[str, Any]
    scenario_sha256: Text
    sets: list[int] = []


class Ready(_Message):
    """Client: model and shard are loaded.

    Args:
        num_examples: Size of its shard.
        memory_bytes: What it may use; None: as the scenario says of this device.
        flops: How fast it trains; None: as the scenario says of this device.
    """

    kind: Literal["ready"] = "ready"
    num_examples: Annotated[int, Field(ge=1, lt=2**53)]
    memory_bytes: Rate | None = None
    flops: Rate | None = None


class Assign(_Message):
    """Server: train this. The body holds the columns.

    Args:
        assignment: Its id.
        version: From which it starts.
        ranks: Part of the payload -> columns per layer.
        scaling: Layer -> factor.
        rule: Fields of `fedsim.method.bundle.LocalRule`.
        steps: Optimizer steps.
        learning_rate: Constant over them.
        gate: Weight of the frozen tail.
        seed: Of the data order, in hexadecimal.
        flops: What the cost model counts for all steps.
    """

    kind: Literal["assign"] = "assign"
    assignment: Number
    version: Number
    ranks: Ranks
    scaling: dict[str, float] = {}
    rule: dict[str, Any] = {}
    steps: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(ge=0)]
    gate: float
    seed: Annotated[str, Field(pattern=r"^[0-9a-f]{1,32}$")]
    flops: Annotated[float, Field(ge=0)]


class Received(_Message):
    """Client: the columns of an assignment are whole; training begins."""

    kind: Literal["received"] = "received"
    assignment: Number


class Trained(_Message):
    """Client: the steps are done; the update follows."""

    kind: Literal["trained"] = "trained"
    assignment: Number


class UpdateSent(_Message):
    """Client: the change of the trained columns, in the body."""

    kind: Literal["update"] = "update"
    assignment: Number
    ranks: Ranks
    loss: float


class Failed(_Message):
    """Client: this could not be trained."""

    kind: Literal["failed"] = "failed"
    assignment: Number
    reason: Text


class Recalled(_Message):
    """Server: nobody waits for this any more."""

    kind: Literal["recall"] = "recall"
    assignment: Number


class Goodbye(_Message):
    """Server: the run is over, or this client is not wanted."""

    kind: Literal["goodbye"] = "goodbye"
    reason: Text
    is_error: bool = False


FromClient = Annotated[Received | Trained | UpdateSent | Failed, Field(discriminator="kind")]
FromServer = Annotated[Assign | Recalled | Goodbye, Field(discriminator="kind")]
Greeting = Annotated[Welcome | Goodbye, Field(discriminator="kind")]
Message = (
    Challenge
    | Hello
    | Welcome
    | Ready
    | Assign
    | Received
    | Trained
    | UpdateSent
    | Failed
    | Recalled
    | Goodbye
)

FROM_CLIENT: TypeAdapter[Received | Trained | UpdateSent | Failed] = TypeAdapter(FromClient)
FROM_SERVER: TypeAdapter[Assign | Recalled | Goodbye] = TypeAdapter(FromServer)
GREETING: TypeAdapter[Welcome | Goodbye] = TypeAdapter(Greeting)
CHALLENGE: TypeAdapter[Challenge] = TypeAdapter(Challenge)
HELLO: TypeAdapter[Hello] = TypeAdapter(Hello)
READY: TypeAdapter[Ready] = TypeAdapter(Ready)


def read_message(expected: TypeAdapter[T], header: dict[str, Any]) -> T:
    """Check a header.

    Raises:
        PeerError: If it is not one of the messages that may come now.
    """
    try:
        return expected.validate_python(header)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise PeerError(f"a message that may not come now, or not so: {place}: {first['msg']}") from error
