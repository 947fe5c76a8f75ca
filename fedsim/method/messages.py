"""What do server and clients tell each other? Values only: ids, ranks and numbers.

Tensors travel inside an `Update`, opaque to everything that decides. Per-layer tuples follow the order of
``ModelShape.layers`` (`fedsim.world.shape`).
"""

from dataclasses import dataclass, field
from operator import gt
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedsim.lora.factors import Adapter

Phase = Literal["download", "train", "upload"]


@dataclass(frozen=True, slots=True)
class RankPlan:
    """How many columns of each layer a client receives, and how many of them it trains.

    Args:
        total: Received columns per layer (paper: r_tot).
        trained: Trained columns per layer (paper: r_train), a prefix of the received ones. Where a method
            trains an index set, it is a function of the assignment, and the trained columns come first.
        merged: Columns per layer that are received and folded into the frozen base: they cost bytes, no
            memory and no time. Empty where there are none.
    """

    total: tuple[int, ...]
    trained: tuple[int, ...]
    merged: tuple[int, ...] = ()
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse a plan that trains what it does not receive."""
        if self.merged and (len(self.merged) != len(self.total) or min(self.merged) < 0):
            raise ValueError(f"expected one merged rank per layer, at least 0, got {self.merged}")
        if (
            len(self.total) != len(self.trained)
            or min(self.trained, default=0) < 0
            or any(map(gt, self.trained, self.total))
        ):
            raise ValueError(f"expected 0 <= trained <= total per layer, got {self.trained} and {self.total}")
        object.__setattr__(self, "_hash", hash((self.total, self.trained, self.merged)))

    def __hash__(self) -> int:
        """Return what was worked out once: plans are looked up at each step of each client."""
        return self._hash

    @property
    def is_empty(self) -> bool:
        """Whether nothing would be trained."""
        return not any(self.trained)


@dataclass(frozen=True, slots=True)
class Budget:
    """What one device can afford at one instant, as the server sees it.

    Args:
        download_bytes: What the download window carries at the estimated rate.
        memory_bytes: Free memory for base model, activations and adapter together.
        seconds: From dispatch to the deadline, latencies taken off.
        download_bps: Estimated download rate, bits per second.
        upload_bps: Estimated upload rate, bits per second.
        flops: Effective training rate, FLOP per second.
    """

    download_bytes: float
    memory_bytes: float
    seconds: float
    download_bps: float
    upload_bps: float
    flops: float


@dataclass(frozen=True, slots=True)
class Stream:
    """Columns that are sent one after another until the server closes the stream.

    Args:
        layers: Layer of each column in the order sent; the k-th mention of a layer is its column k.
        closes_at_s: Virtual time at which it closes, or as soon after as one trainable column has come.
    """

    layers: tuple[int, ...]
    closes_at_s: float


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """What a device tells the server when it checks in, and what the world alone knows.

    Args:
        client: Index of the device in the population.
        device_class: Name of its class.
        memory_bytes: Free memory now.
        flops: Effective training rate now, FLOP per second.
        num_examples: Size of its data shard.
        latency_s: One-way latency of its link, both transfers pay it once.
        known_download_bps: Mean rate over the coming download window; set only for the oracle estimator.
        known_upload_bps: The same for the uplink.
    """

    client: int
    device_class: str
    memory_bytes: float
    flops: float
    num_examples: int
    latency_s: float = 0.0
    known_download_bps: float | None = None
    known_upload_bps: float | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """All that a client is told when it is dispatched: a pure value, so training can be deferred.

    Args:
        id: Dispatch number, unique in the run.
        client: Index of the device, and of its data shard.
        version: Global version it starts from.
        offered: Plan at dispatch; the final one comes with `TrainRequest`.
        steps: Local optimizer steps.
        seed: Seed of data order and dropout.
        gate: Weight of the frozen tail in the forward pass (paper: lambda), in [0, 1].
        learning_rate: Of this version.
        dispatched_at_s: Virtual time of dispatch.
        deadline_at_s: Virtual time at which its round closes, infinity without a deadline.
    """

    id: int
    client: int
    version: int
    offered: RankPlan
    steps: int
    seed: int
    gate: float
    learning_rate: float
    dispatched_at_s: float
    deadline_at_s: float


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """An assignment with its final plan: everything that local training depends on."""

    assignment: Assignment
    plan: RankPlan


@dataclass(frozen=True, slots=True)
class UploadCut:
    """Where an upload ended before it was whole.

    Args:
        size_bytes: What had come.
        column_bytes: Bytes of one column of each layer.
    """

    size_bytes: int
    column_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """What a client returns: the change of its trained prefix, as the server decodes it.

    Args:
        assignment: Id of the assignment it answers.
        client: Index of the device.
        base_version: Version it was trained from.
        plan: Final plan.
        change: Per layer with a trained prefix: the change of both factors; None from the stub.
        num_examples: Size of the client's shard.
        loss: Mean training loss over the local steps, nats per target token; None from the stub.
        sent: Where its upload was cut; None where it came whole.
        arrived: Layer -> columns of the trained prefix that came, where the upload was cut; the change of
            the others is zero.
        discount: Factor on its share of the aggregate, below 1 where it is old.
        damping: Factor on what of it lies outside the newest basis, below 1 where it is old and only that
            counts less.
    """

    assignment: int
    client: int
    base_version: int
    plan: RankPlan
    change: "Adapter | None"
    num_examples: int
    loss: float | None
    sent: UploadCut | None = None
    arrived: "Mapping[str, tuple[int, ...]] | None" = None
    discount: float = 1.0
    damping: float = 1.0

    def counted(self, *, sent: UploadCut | None, discount: float, damping: float) -> "Update":
        """Return the same update with what the server knows of it beside its tensors."""
        return Update(
            self.assignment,
            self.client,
            self.base_version,
            self.plan,
            self.change,
            self.num_examples,
            self.loss,
            sent,
            self.arrived,
            discount,
            damping,
        )


@dataclass(frozen=True, slots=True)
class TrainingFailure:
    """Local training raised, or gave non-finite values."""

    assignment: int
    client: int
    reason: str


@dataclass(frozen=True, slots=True)
class Defence:
    """What was done to the updates of a version so that no single one has too much say.

    Args:
        norms: Assignment -> Frobenius norm, over all layers, of what the update does to the product.
        counted: Assignment -> factor on top of its weight; 1 untouched, 0 set aside.
        noise_std: Standard deviation of the noise on each coordinate of the mean; None without noise.
    """

    norms: dict[int, float]
    counted: dict[int, float]
    noise_std: float | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Measures of one global version on held-out data.

    Args:
        version: Which version.
        loss: Nats per target token; None where nothing was really trained (stub).
        token_accuracy: Share of target tokens predicted under teacher forcing.
        metrics: Task metrics by name, for instance ``rouge_l`` of generated responses.
    """

    version: int
    loss: float | None
    token_accuracy: float | None
    metrics: dict[str, float]
