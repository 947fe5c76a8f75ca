"""FedHera as published: the rules of its code where they differ from `fedsim.method.fedhera`.

Source:
    FedHera, ICML 2026, and its published code: greedy water-filling of r_tot and r_train, balanced factors at
    scale alpha / r_tot, adaptive tail warm-up, upload of every received column, aggregation ``original``
    (W = sum_i p_i s_i B'_i A'_i) or ``unbiased`` (W = W_t + sum_i p_i (s_i B'_i A'_i - W_t^(i))).

Differs from the source:
    * Only rules of the method are followed. Faults of its state are not: a layer without columns carries no
      foreign adapter, and every update has the version that it was dispatched with.
    * Budgets hold: bytes, memory and seconds are those of the scenario, with the base model and the tail
      counted, from the first round on. The code's first round ignores them, and its memory budget cannot
      bind.
    * Columns stop at the numerical rank of a layer, and budget left over buys fresh ones; the code fills up
      with columns of rounding noise.
    * Local training is the scenario's, without dropout; the tail is frozen and costs no gradient, where the
      code masks a gradient that it has computed.

The gate returns with the tail by default (``gate_at_upload``): the tail shrinks by its own gate, and at
learning rate zero the model still moves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Literal, get_args

from fedsim.lora.basis import compact_svd
from fedsim.lora.drift import clipped_cosine
from fedsim.lora.factors import Adapter, Factors, adapter_inner, adapter_norm, stack
from fedsim.method import aggregate as aggregation
from fedsim.method import spectral
from fedsim.method.allocate import AllocationRule, Energy, Overflow
from fedsim.method.bundle import BasisState, LocalRule, Method, Payload
from fedsim.method.decoupled import Decoupled
from fedsim.method.flexlora import REPLACES
from fedsim.method.messages import RankPlan, Update
from fedsim.method.options import Option, check_options
from fedsim.method.returned import RETURNS, as_covered
from fedsim.method.tail import tail_gate
from fedsim.world.cost import whole_upload

Aggregation = Literal["original", "unbiased"]


@dataclass(frozen=True, slots=True)
class PaperOptions:
    """What a scenario may set.

    Args:
        rank_cap: Most columns of a layer.
        energy: ``raw`` as in the code, ``layer_normalized`` as in its draft.
        overflow: ``skip`` as in the code, ``break`` as in its draft.
        aggregation: ``unbiased`` or ``original``.
        gate_at_upload: Whether the tail comes back scaled by the gate, or as it was received.
        alpha: Numerator of the scale alpha / r_tot.
        train_reserve: Share of memory and time that received columns leave for training.
        initial_rank: Cap of the common rank of version 0, and floor of fresh columns.
        tail_warmup: Versions until the gate is about 63 % open (paper: T_w).
        beta: How fast a score is forgotten per version.
    """

    rank_cap: int = 64
    energy: Energy = "raw"
    overflow: Overflow = "skip"
    aggregation: Aggregation = "unbiased"
    gate_at_upload: bool = True
    alpha: float = 16.0
    train_reserve: float = 0.25
    initial_rank: int = 8
    tail_warmup: float = 2.0
    beta: float = 0.9


_KNOWN = {
    "rank_cap": Option("integer", low=1),
    "energy": Option("choice", choices=get_args(Energy)),
    "overflow": Option("choice", choices=get_args(Overflow)),
    "aggregation": Option("choice", choices=get_args(Aggregation)),
    "gate_at_upload": Option("yes or no"),
    "alpha": Option("number", low=1e-6),
    "train_reserve": Option("number", high=1.0),
    "initial_rank": Option("integer", low=1),
    "tail_warmup": Option("number"),
    "beta": Option("number", high=1.0),
}


def build(options: Mapping[str, object]) -> Method:
    """Assemble the method from any fields of `PaperOptions`."""
    check_options("fedhera_paper", options, _KNOWN)
    return assemble(PaperOptions(**dict(options)))  # type: ignore[arg-type]  # kinds are checked above


def assemble(options: PaperOptions) -> Method:
    """Assemble the method from its parts."""
    shared = {field.name for field in fields(AllocationRule)} & {field.name for field in fields(options)}
    rule = AllocationRule(**{name: value for name, value in asdict(options).items() if name in shared})
    allocation = Decoupled(rule)
    local = LocalRule(tail="returned_gated" if options.gate_at_upload else "returned")
    paper = _Paper(float(options.alpha), options.rank_cap, options.aggregation)
    return Method(
        name="fedhera_paper",
        allocate=allocation.allocate,
        replan=allocation.replan,
        streaming=allocation.streaming,
        gate=partial(tail_gate, warmup=float(options.tail_warmup), decay=float(options.beta)),
        init=partial(spectral.initial_state, max_rank=options.rank_cap),
        redistribute=partial(redistribute, alpha=paper.alpha, rule=local),
        aggregate=paper.aggregate,
        spectrum=spectral.spectrum_of,
        align=paper.align,
        export=spectral.export,
        charge=whole_upload,
        sync_only=REPLACES if options.aggregation == "original" else "",
        own_weights=RETURNS,
    )


def redistribute(state: BasisState, plan: RankPlan, seed: int, *, alpha: float, rule: LocalRule) -> Payload:
    """Return balanced factors of which ``alpha / r_tot`` times the product is the truncated model."""
    payload = spectral.redistribute(state, plan, seed)
    scaling = {
        layer.name: alpha / total for layer, total in zip(state.shapes, plan.total, strict=True) if total
    }

    def shrunk(adapter: Adapter) -> dict[str, Factors]:
        return {
            name: aggregation.weighted(factors, 1.0 / scaling.get(name, 1.0))
            for name, factors in adapter.items()
        }

    return Payload(shrunk(payload.prefix), shrunk(payload.tail), scaling=scaling, rule=rule)


@dataclass(frozen=True, slots=True)
class _Paper:
    """The published server rules.

    Args:
        alpha: Numerator of the scale.
        max_rank: Most columns kept per layer.
        aggregation: Which rule.
    """

    alpha: float
    max_rank: int
    aggregation: Aggregation

    def aggregate(
        self,
        state: BasisState,
        updates: Sequence[Update],
        weights: Sequence[float],
        earlier: Mapping[int, BasisState] | None = None,
    ) -> BasisState:
        """Return the decomposition of the new global adapter."""
        whole = [as_covered(self._at_constant_scale(update, state)) for update in updates]
        if self.aggregation == "unbiased":
            return aggregation.aggregate(state, whole, weights, earlier, max_rank=self.max_rank)
        total = self._mean(state, whole, weights, earlier)
        basis = {layer.name: compact_svd(total[layer.name], self.max_rank) for layer in state.shapes}
        return BasisState(state.version + 1, basis, state.shapes, state.seed)

    def align(
        self,
        state: BasisState,
        updates: Sequence[Update],
        weights: Sequence[float],
        earlier: Mapping[int, BasisState] | None = None,
    ) -> dict[int, float]:
        """Return the published score: the cosine of each *whole* uploaded adapter with the new global one."""
        versions = {**(earlier or {}), state.version: state}
        fresh = spectral.export(self.aggregate(state, updates, weights, earlier))
        norm = adapter_norm(fresh)
        scores = {}
        for update in updates:
            whole = as_covered(self._at_constant_scale(update, state))
            uploaded = {
                layer.name: aggregation.trained_factors(whole, versions, index, layer)
                for index, layer in enumerate(state.shapes)
            }
            inner = adapter_inner(uploaded, fresh)
            scores[update.assignment] = clipped_cosine(inner, adapter_norm(uploaded) * norm)
        return scores

    def _mean(
        self,
        state: BasisState,
        whole: Sequence[Update],
        weights: Sequence[float],
        earlier: Mapping[int, BasisState] | None,
    ) -> dict[str, Factors]:
        versions = {**(earlier or {}), state.version: state}
        ordered = aggregation.in_order(whole, weights)
        return {
            layer.name: stack(
                [
                    aggregation.weighted(aggregation.trained_factors(update, versions, index, layer), weight)
                    for update, weight in ordered
                ]
            )
            for index, layer in enumerate(state.shapes)
        }

    def _at_constant_scale(self, update: Update, state: BasisState) -> Update:
        """Express a change of scaled factors as one of factors at scale 1: times the root of the scale."""
        change = {}
        for layer, total in zip(state.shapes, update.plan.total, strict=True):
            if update.change is not None and layer.name in update.change:
                change[layer.name] = aggregation.weighted(update.change[layer.name], self.alpha / total)
        return replace(update, change=change)
