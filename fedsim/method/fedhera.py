"""FedHera: clients receive a wide basis, train its first columns, and fade the frozen rest in.

Source:
    FedHera, ICML 2026, and its published code: water-filling of r_tot and r_train, prefix training, adaptive
    tail warm-up, redistribution by singular value decomposition.

Differs from the source:
    * Only the *change* of the trained prefix is uploaded and aggregated by the coverage identity. In the
      published code the gated tail travels back and is averaged, which shrinks it by its own gate.
    * Factors have a constant scale. With the published ``alpha / r_tot`` the step length depends on the
      received rank.
    * Budgets count the frozen base, activations, both links and the tail, as one plan; the published memory
      budget cannot bind, and its prices cancel.
    * Columns are offered up to the numerical rank of a layer; beyond it they carry rounding noise. What
      budget is left buys fresh columns, so a layer at rank 0 can come back. Version 0 obeys the budgets too.
    * The alignment score is the cosine of updates instead of whole adapters.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Literal, get_args

from fedsim.method import aggregate as aggregation
from fedsim.method import spectral
from fedsim.method.allocate import Allocation, AllocationRule, Energy, Overflow
from fedsim.method.bundle import LocalRule, Method
from fedsim.method.decoupled import Decoupled
from fedsim.method.options import Option, OptionError, check_options
from fedsim.method.private import release_basis
from fedsim.method.returned import with_returned_tail
from fedsim.method.tail import tail_gate

Tail = Literal["frozen", "none", "returned_gated"]


@dataclass(frozen=True, slots=True)
class FedHeraOptions:
    """What a scenario may set.

    Args:
        rank_cap: Most columns of a layer, on the server and on every client.
        energy: Worth of a column: squared singular value, raw or as a share of its layer.
        overflow: Past a column that does not fit, `skip` it or `break` off.
        train_reserve: Share of memory and time that received columns leave for training, in [0, 1].
        initial_rank: Cap of the common rank of version 0, and floor that fresh columns fill up to later;
            None for both takes the largest common rank that the client's budgets allow.
        tail_warmup: Versions until the gate of the tail is about 63 % open (paper: T_w); 0 keeps it open.
        beta: How fast an alignment score is forgotten per version.
        allocation: Order in which columns are offered.
        coupled: Train every received column: no frozen tail.
        tail: What becomes of columns that are not trained. ``frozen`` is FedHera. Ablations: ``none`` does
            not send them; ``returned_gated`` sends them back scaled by the gate, and averages them.
    """

    rank_cap: int = 64
    energy: Energy = "raw"
    overflow: Overflow = "skip"
    train_reserve: float = 0.25
    initial_rank: int | None = None
    tail_warmup: float = 2.0
    beta: float = 0.9
    allocation: Allocation = "water_filling"
    coupled: bool = False
    tail: Tail = "frozen"


_KNOWN: dict[str, Option] = {
    "rank_cap": Option("integer", low=1),
    "energy": Option("choice", choices=get_args(Energy)),
    "overflow": Option("choice", choices=get_args(Overflow)),
    "train_reserve": Option("number", high=1.0),
    "initial_rank": Option("integer", low=1),
    "tail_warmup": Option("number"),
    "beta": Option("number", high=1.0),
    "allocation": Option("choice", choices=get_args(Allocation)),
    "coupled": Option("yes or no"),
    "tail": Option("choice", choices=get_args(Tail)),
}


def build(options: Mapping[str, object]) -> Method:
    """Assemble the method from the options of a scenario.

    Args:
        options: Any fields of `FedHeraOptions`.

    Raises:
        OptionError: If an option is unknown or takes no such value.
    """
    check_options("fedhera", options, _KNOWN)
    return assemble(FedHeraOptions(**dict(options)))  # type: ignore[arg-type]  # kinds are checked above


def assemble(options: FedHeraOptions) -> Method:
    """Assemble the method from its parts.

    Raises:
        OptionError: If the initial rank exceeds the cap.
    """
    if options.initial_rank is not None and options.initial_rank > options.rank_cap:
        raise OptionError(
            "fedhera",
            "initial_rank",
            f"expected at most rank_cap ({options.rank_cap}), got {options.initial_rank}",
        )
    shared = {field.name for field in fields(AllocationRule)} & {field.name for field in fields(options)}
    rule = AllocationRule(**{name: value for name, value in asdict(options).items() if name in shared})

    allocation = Decoupled(rule, with_tail=options.tail != "none")
    gate = partial(tail_gate, warmup=float(options.tail_warmup), decay=float(options.beta))
    aggregate = partial(aggregation.aggregate, max_rank=options.rank_cap)
    method = Method(
        name="fedhera",
        allocate=allocation.allocate,
        replan=allocation.replan,
        streaming=allocation.streaming,
        gate=gate,
        init=partial(spectral.initial_state, max_rank=options.rank_cap),
        redistribute=spectral.redistribute,
        aggregate=aggregate,
        spectrum=spectral.spectrum_of,
        align=aggregation.alignments,
        export=spectral.export,
        needs_whole_uploads="",
        no_subspace="",
        release=partial(release_basis, max_rank=options.rank_cap),
    )
    if options.tail == "none":
        return replace(method, redistribute=spectral.redistribute_trained)
    if options.tail == "returned_gated":
        whole = "the tail travels back too, and has no energy to be sent by"
        method = replace(method, needs_whole_uploads=whole)
        return with_returned_tail(method, LocalRule(tail="returned_gated"))
    return method
