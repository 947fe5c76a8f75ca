"""What if the tail came back too? A client then uploads one changed column for each that it received.

FedHera keeps the tail at the server; the published code returns it. Bytes, seconds and the coverage of the
aggregation follow from this one difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fedsim.method.bundle import LocalRule, Method, Payload, State
from fedsim.method.messages import RankPlan, Update
from fedsim.world.cost import whole_upload

RETURNS = (
    "what comes back of the tail was never trained, so the norm of an upload says little about its client"
)


def with_returned_tail(method: Method, rule: LocalRule) -> Method:
    """Return the method with clients that send back every received column.

    Args:
        method: Its rules treat a received column as a trained one from here on.
        rule: How clients train and return.
    """

    def redistribute(state: State, plan: RankPlan, seed: int) -> Payload:
        return replace(method.redistribute(state, plan, seed), rule=rule)

    def aggregate(
        state: State,
        updates: Sequence[Update],
        weights: Sequence[float],
        earlier: Mapping[int, State] | None = None,
    ) -> State:
        return method.aggregate(state, [as_covered(update) for update in updates], weights, earlier)

    def align(
        state: State,
        updates: Sequence[Update],
        weights: Sequence[float],
        earlier: Mapping[int, State] | None = None,
    ) -> dict[int, float]:
        return method.align(state, [as_covered(update) for update in updates], weights, earlier)

    return replace(
        method,
        redistribute=redistribute,
        aggregate=aggregate,
        align=align,
        charge=whole_upload,
        release=None,
        own_weights=RETURNS,
    )


def as_covered(update: Update) -> Update:
    """Count every received column as changed."""
    return replace(update, plan=replace(update.plan, trained=update.plan.total))
