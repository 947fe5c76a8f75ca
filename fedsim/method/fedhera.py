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

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import get_args

import numpy as np

from fedsim.errors import ScenarioError
from fedsim.lora.basis import balanced, compact_svd, zero_basis
from fedsim.lora.factors import Adapter, Factors
from fedsim.method import aggregate as aggregation
from fedsim.method.allocate import Allocation, AllocationRule, Energy, Overflow, allocate, replan
from fedsim.method.bundle import BasisState, Infeasible, Method, Payload, Standing
from fedsim.method.events import Spectrum
from fedsim.method.messages import Budget, RankPlan
from fedsim.method.options import Option, check_options
from fedsim.method.tail import tail_gate
from fedsim.world.cost import Prices
from fedsim.world.shape import LayerShape


@dataclass(frozen=True, slots=True)
class FedHeraOptions:
    """What a scenario may set.

    Args:
        rank_cap: Most columns of a layer, on the server and on every client.
        energy: Worth of a column: squared singular value, raw or as a share of its layer.
        overflow: Past a column that does not fit, `skip` it or `break` off.
        train_reserve: Share of memory and time that received columns leave for training, in [0, 1].
        initial_rank: Cap of the common rank of version 0, and floor that fresh columns fill up to later.
        tail_warmup: Versions until the gate of the tail is about 63 % open (paper: T_w); 0 keeps it open.
        beta: How fast an alignment score is forgotten per version.
        allocation: Order in which columns are offered.
        coupled: Train every received column: no frozen tail.
    """

    rank_cap: int = 64
    energy: Energy = "raw"
    overflow: Overflow = "skip"
    train_reserve: float = 0.25
    initial_rank: int = 8
    tail_warmup: float = 2.0
    beta: float = 0.9
    allocation: Allocation = "water_filling"
    coupled: bool = False


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
}


def build(options: Mapping[str, object]) -> Method:
    """Assemble the method from the options of a scenario.

    Args:
        options: Any fields of `FedHeraOptions`.

    Raises:
        ScenarioError: If an option is unknown or takes no such value.
    """
    check_options("fedhera", options, _KNOWN)
    return assemble(FedHeraOptions(**dict(options)))  # type: ignore[arg-type]  # kinds are checked above


def assemble(options: FedHeraOptions) -> Method:
    """Assemble the method from its parts.

    Raises:
        ScenarioError: If the initial rank exceeds the cap.
    """
    if options.initial_rank > options.rank_cap:
        raise ScenarioError(
            f"method fedhera: initial_rank: expected at most rank_cap ({options.rank_cap}), "
            f"got {options.initial_rank}"
        )
    shared = {field.name for field in fields(AllocationRule)} & {field.name for field in fields(options)}
    rule = AllocationRule(**{name: value for name, value in asdict(options).items() if name in shared})

    def allocate_cohort(
        spectrum: Spectrum,
        budgets: Sequence[Budget],
        prices: Prices,
        fresh_rank: int | None,
        standings: Sequence[Standing] | None = None,
    ) -> list[RankPlan | Infeasible]:
        del standings  # a plan follows from the budget alone
        return allocate(spectrum, budgets, prices, fresh_rank, rule)

    def replan_client(
        spectrum: Spectrum, budget: Budget, prices: Prices, received: tuple[int, ...]
    ) -> RankPlan | Infeasible:
        return replan(spectrum, budget, prices, received, rule)

    return Method(
        name="fedhera",
        allocate=allocate_cohort,
        replan=replan_client,
        gate=partial(tail_gate, warmup=float(options.tail_warmup), decay=float(options.beta)),
        init=partial(initial_state, max_rank=options.rank_cap),
        redistribute=redistribute,
        aggregate=partial(aggregation.aggregate, max_rank=options.rank_cap),
        spectrum=spectrum_of,
        align=aggregation.alignments,
        export=export,
    )


def initial_state(
    shapes: tuple[LayerShape, ...], seed: int, adapter: Adapter | None, *, max_rank: int
) -> BasisState:
    """Return version 0: zero, or the decomposition of an adapter.

    Raises:
        ScenarioError: If the adapter has a layer that the model lacks, or one of another shape.
    """
    start = {} if adapter is None else adapter
    unknown = sorted(set(start) - {layer.name for layer in shapes})
    if unknown:
        raise ScenarioError(
            f"initial adapter: expected layers that carry an adapter in this model, got {unknown[0]!r}"
        )
    return BasisState(
        version=0,
        basis={
            layer.name: compact_svd(_fitting(start[layer.name], layer), max_rank)
            if layer.name in start
            else zero_basis(layer.d_in, layer.d_out)
            for layer in shapes
        },
        shapes=shapes,
        seed=seed,
    )


def _fitting(factors: Factors, layer: LayerShape) -> Factors:
    """Refuse factors of another shape than the layer."""
    if (factors.d_in, factors.d_out) != (layer.d_in, layer.d_out):
        raise ScenarioError(
            f"initial adapter, {layer.name}: expected {layer.d_out} x {layer.d_in}, "
            f"got {factors.d_out} x {factors.d_in}"
        )
    return factors


def redistribute(state: BasisState, plan: RankPlan, seed: int) -> Payload:
    """Return the columns that a plan grants, split into trained prefix and frozen tail.

    All clients of a version get the same columns, so `seed` has no effect on them.
    """
    del seed
    prefix, tail = {}, {}
    for layer, total, trained in zip(state.shapes, plan.total, plan.trained, strict=True):
        prefix[layer.name], tail[layer.name] = aggregation.split_plan(state, layer, total, trained)
    return Payload(prefix=prefix, tail=tail)


def spectrum_of(state: BasisState) -> Spectrum:
    """Return the singular values per layer."""
    return {
        layer.name: np.asarray(state.basis[layer.name].sigma.numpy(), dtype=np.float64)
        for layer in state.shapes
    }


def export(state: BasisState) -> Adapter:
    """Return the global adapter as balanced factors, scaling 1."""
    return {layer.name: balanced(state.basis[layer.name]) for layer in state.shapes}
