"""What is a method? A frozen bundle of pure callables and the values that pass between them.

The server calls `allocate`, `replan` and `gate`; the executor calls `redistribute`; whoever holds the
versions calls `init`, `aggregate`, `spectrum`, `align` and `export`. This module knows no tensor library at
run time, so the server can hold a bundle without loading one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from fedsim.method.events import Spectrum
from fedsim.method.messages import Budget, Defence, RankPlan, Update
from fedsim.seeds import Seeds
from fedsim.world.cost import Prices
from fedsim.world.shape import LayerShape

if TYPE_CHECKING:
    from fedsim.lora.basis import Basis
    from fedsim.lora.factors import Adapter, Factors
    from fedsim.method.private import Release

InfeasibleReason = Literal["base", "memory", "time", "no column"]


@dataclass(frozen=True, slots=True)
class Infeasible:
    """Why a device gets no plan.

    Args:
        reason: ``base``: the frozen base alone exceeds memory or time. ``no column``: no single column can be
            received and trained. Only from a re-plan, where columns are already there: ``memory``: base and
            received columns exceed the memory left; ``time``: they exceed the seconds left.
    """

    reason: InfeasibleReason


@dataclass(frozen=True, slots=True)
class ClientMemory:
    """What the server remembers of a client; changes only when an update of that client is aggregated.

    Args:
        alignment: Cosine of its last aggregated update with the aggregate update, in [-1, 1].
        version: Version that it was dispatched with for that update.
        rank: Largest rank of its coming plans, where the method prunes clients; None for no limit.
    """

    alignment: float
    version: int
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What the server knows of a client when it plans for it, besides its budget.

    Args:
        memory: What is remembered of it; None if it was never aggregated.
        missed: Columns per layer that were aggregated after the version that it is known to hold (the one in
            its memory; version 0 without one). Empty where nothing was aggregated yet.
    """

    memory: ClientMemory | None
    missed: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class BasisState:
    """One global version: a truncated singular value decomposition per layer.

    Args:
        version: Number of aggregations so far.
        basis: Layer name -> U, singular values, Vh, cut at the numerical rank.
        shapes: The layers, in the order of ``ModelShape.layers``.
        seed: Root of the streams that fresh columns are drawn from, one per version and layer.
    """

    version: int
    basis: "Mapping[str, Basis]"
    shapes: tuple[LayerShape, ...]
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class FactorState:
    """One global version: a pair of factors per layer, and what has been folded into the frozen base.

    Args:
        version: Number of aggregations so far.
        pair: Layer name -> the factors that clients train, all of one rank.
        merged: Layer name -> frozen low-rank term on top, rank at most min(d_in, d_out); empty without one.
        shapes: The layers, in the order of ``ModelShape.layers``.
        seed: Root of the streams that columns are drawn from.
    """

    version: int
    pair: "Mapping[str, Factors]"
    merged: "Mapping[str, Basis]"
    shapes: tuple[LayerShape, ...]
    seed: int


State: TypeAlias = Any
"""One global version: `BasisState`, `FactorState`, or a method's own frozen dataclass with the fields
`version`, `shapes` and `seed`. Only the rules of the method that made it look inside."""


def column_seed(state: State, assignment: int) -> int:
    """Seed from which an assignment draws columns of its own.

    A function of run and assignment, so that redistribution and aggregation draw the same ones.
    """
    return Seeds(state.seed).seed("columns", assignment)


@dataclass(frozen=True, slots=True)
class LocalRule:
    """How a method trains a payload, where it departs from plain training of both factors.

    Args:
        trains: Which factors of the prefix have gradients.
        penalty: Strength of a regulariser on the last columns: this times the sum over layers of
            ``||B_last|| ||A_last||`` (Frobenius).
        penalty_from: The last columns begin at this share of the trained rank, rounded down.
        tail: What comes back of the frozen tail: nothing, or all of it, as received (`returned`) or scaled by
            the client's gate (`returned_gated`). Then the change has one column for each received one.
    """

    trains: Literal["both", "b_only"] = "both"
    penalty: float = 0.0
    penalty_from: float = 1.0
    tail: Literal["kept", "returned", "returned_gated"] = "kept"


@dataclass(frozen=True, slots=True)
class Measurements:
    """Figures about the updates that made a version; they describe a run and steer nothing.

    Args:
        means: Figure -> mean over the updates that have it, None where none has.
        assignments: Assignment -> figure -> value.
        spectrum: Layer -> singular values of the new version.
    """

    means: Mapping[str, float | None]
    assignments: Mapping[int, Mapping[str, float | None]]
    spectrum: Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Combined:
    """What aggregation yields besides tensors.

    Args:
        spectrum: Singular values of the new version.
        alignments: Assignment -> cosine between its update and the aggregate update, in [-1, 1].
        failed: Assignment -> reason, for updates that turned out unusable (non-finite).
        pruned: Assignment -> largest rank of its client from now on, for methods that prune.
        measured: Figures about the updates, where the scenario asks for them.
        arrived: Assignment -> columns per layer that counted, of those whose upload was cut.
        defence: How far each update was trusted, where the scenario has a rule for it.
    """

    spectrum: Spectrum
    alignments: dict[int, float]
    failed: dict[int, str]
    pruned: dict[int, int] = field(default_factory=dict)
    measured: Measurements | None = None
    arrived: dict[int, tuple[int, ...]] = field(default_factory=dict)
    defence: Defence | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Payload:
    """What a client receives: exact factors, before the number format of the wire rounds them.

    Every layer is present in both parts, with zero columns where the plan has none. The forward pass of a
    layer is ``W0 x + s (P_prefix Q_prefix x + gate P_tail Q_tail x) + P_merged Q_merged x`` with ``P =
    lora_b`` and ``Q = lora_a``.

    Args:
        prefix: Trainable factors, ``plan.trained`` columns of each layer.
        tail: Frozen factors, the columns from ``plan.trained`` to ``plan.total``.
        merged: Frozen factors that the client folds into its base; layers may be missing.
        scaling: Layer name -> s; 1 where it is missing.
        rule: How the prefix is trained.
    """

    prefix: "Adapter"
    tail: "Adapter"
    merged: "Adapter" = field(default_factory=dict)
    scaling: Mapping[str, float] = field(default_factory=dict)
    rule: LocalRule = LocalRule()


@runtime_checkable
class Allocate(Protocol):
    """How much rank does each client of a cohort get, under its own budgets?"""

    def __call__(
        self,
        spectrum: Spectrum,
        budgets: Sequence[Budget],
        prices: Prices,
        fresh_rank: int | None,
        standings: Sequence[Standing] | None = None,
    ) -> list[RankPlan | Infeasible]:
        """Return one plan per budget.

        `fresh_rank` None takes the method's own floor of fresh columns; `standings` None means clients of
        which nothing is known.
        """
        ...


@runtime_checkable
class Replan(Protocol):
    """How much rank do clients get now, given the columns that have already arrived?"""

    def __call__(
        self,
        spectrum: Spectrum,
        budgets: Sequence[Budget],
        prices: Prices,
        received: Sequence[tuple[int, ...]],
        standings: Sequence[Standing] | None = None,
        fresh_rank: int | None = None,
    ) -> list[RankPlan | Infeasible]:
        """Return one plan per budget that keeps every received column; all clients are of one version.

        Budgets count from now: bytes and seconds that are still to come, and all the memory. Received
        columns cost memory and FLOP, and no more bytes. Merged columns stay as they were offered: whoever
        asks takes them off the budget and puts them into the new plan. `fresh_rank` as in `Allocate`.
        """
        ...


@runtime_checkable
class StreamOrder(Protocol):
    """In which order are the columns of a plan sent, so that whatever has come is a plan itself?"""

    def __call__(self, spectrum: Spectrum, prices: Prices, plan: RankPlan) -> tuple[int, ...]:
        """Return the layer of each column; the k-th mention of a layer is its column k."""
        ...


@dataclass(frozen=True, slots=True)
class Streaming:
    """Whether a method can be delivered column by column.

    Args:
        order: The order of columns; None where a part of a delivery is of no use.
        refusal: Why it is of no use.
    """

    order: StreamOrder | None = None
    refusal: str = "every layer of a client has the same rank, and a part of a delivery has not"


@runtime_checkable
class Gate(Protocol):
    """How much does the frozen tail weigh (paper: lambda)?"""

    def __call__(self, memory: ClientMemory | None, version: int) -> float:
        """Return the gate in [0, 1] for a client dispatched at this version; None was never aggregated."""
        ...


@runtime_checkable
class Init(Protocol):
    """What is version 0?"""

    def __call__(self, shapes: tuple[LayerShape, ...], seed: int, adapter: "Adapter | None") -> State:
        """Return version 0, from an adapter or from zero."""
        ...


@runtime_checkable
class Redistribute(Protocol):
    """What does a client receive under a plan?"""

    def __call__(self, state: State, plan: RankPlan, seed: int) -> Payload:
        """Return its factors; `seed` is its `column_seed`, for methods that draw columns per client."""
        ...


@runtime_checkable
class Aggregate(Protocol):
    """How do updates combine into the next version?"""

    def __call__(
        self,
        state: State,
        updates: Sequence[Update],
        weights: Sequence[float],
        earlier: Mapping[int, State] | None = None,
    ) -> State:
        """Return version ``state.version + 1``; `earlier` holds older versions that updates started from."""
        ...


@runtime_checkable
class SpectrumOf(Protocol):
    """Which singular values does a version have?"""

    def __call__(self, state: State) -> Spectrum:
        """Return them per layer, descending, numerical rank long, float64."""
        ...


@runtime_checkable
class Align(Protocol):
    """How well does each update agree with the aggregate?"""

    def __call__(
        self,
        state: State,
        updates: Sequence[Update],
        weights: Sequence[float],
        earlier: Mapping[int, State] | None = None,
    ) -> dict[int, float]:
        """Return assignment id -> cosine in [-1, 1]; `state` is the version before the aggregation."""
        ...


@runtime_checkable
class Export(Protocol):
    """Which adapter is this version, as plain factors with scaling 1?"""

    def __call__(self, state: State) -> "Adapter":
        """Return balanced factors; layers of rank 0 have zero columns."""
        ...


@runtime_checkable
class Charge(Protocol):
    """What does an assignment of this method cost, given the prices of plain dual-rank training?

    For what is not priced by ranks alone, for instance factors that never travel. Bytes of the record, the
    budgets of the allocator and the clock all follow the prices that come out.
    """

    def __call__(self, prices: Prices) -> Prices:
        """Return the method's own price list."""
        ...


@runtime_checkable
class Prune(Protocol):
    """Which clients get a smaller rank from now on, judging by their updates?"""

    def __call__(
        self, state: State, updates: Sequence[Update], earlier: Mapping[int, State] | None = None
    ) -> dict[int, int]:
        """Return assignment id -> largest rank of the client's coming plans."""
        ...


def as_priced(prices: Prices) -> Prices:
    """Charge what plain dual-rank training costs."""
    return prices


@dataclass(frozen=True, slots=True)
class Method:
    """One federated method, assembled from pure parts. See the Protocol of each field.

    Args:
        for_fleet: For methods that have one rank for everybody: takes the budget of every device at the start
            of the run and the method's prices, and returns the method bound to that fleet.
        sync_only: Why updates that started from different versions make no sense for this method; empty
            where they do. Pacing that mixes versions refuses the method with this reason.
        streaming: How columns are streamed to clients, or why they cannot be.
        needs_whole_uploads: Why a part of an update is of no use; empty where it is.
        no_subspace: Why old updates cannot be damped outside the newest basis alone; empty where they can.
        release: How a version is made under the Gaussian mechanism; None where no clip bounds a client.
        own_weights: Why no rule may weigh its updates; empty where one may.
    """

    name: str
    allocate: Allocate
    replan: Replan
    gate: Gate
    init: Init
    redistribute: Redistribute
    aggregate: Aggregate
    spectrum: SpectrumOf
    align: Align
    export: Export
    charge: Charge = as_priced
    prune: Prune | None = None
    for_fleet: "Callable[[Sequence[Budget], Prices], Method] | None" = None
    sync_only: str = ""
    streaming: Streaming = Streaming()
    needs_whole_uploads: str = "its aggregation takes the trained columns of a client as a whole"
    no_subspace: str = "its aggregation knows no basis of the newest version to project on"
    release: "Release | None" = None
    own_weights: str = ""
