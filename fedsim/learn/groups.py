"""Which clients are trained together? A pure function of what is asked, so that a record can be made again.

Who shares a pass with whom shows in the last digits of the result. So it follows from the requests for one
version, never from the number of workers or from what is already known of them; and whoever needs some of the
answers again asks for whole groups. A list of whole groups is cut into these same groups: sizes differ by at
most one, and as few groups are made as the limit allows, which holds for a part of the groups as it does for
all.
"""

from collections.abc import Collection, Sequence

from fedsim.method.messages import TrainRequest


def groups(requests: Sequence[TrainRequest], batch_clients: int) -> list[list[int]]:
    """Cut requests into groups of clients with similar amounts of work.

    Args:
        requests: Everything that is asked for at once, in canonical order.
        batch_clients: Largest group.

    Returns:
        Positions in `requests`, group by group; each occurs once. With a limit of one they keep their order.
    """
    if batch_clients == 1:
        return [[position] for position in range(len(requests))]
    order = sorted(range(len(requests)), key=lambda position: _work(requests[position]))
    number = -(-len(order) // batch_clients)
    found, begin = [], 0
    for index in range(number):
        size = -(-(len(order) - begin) // (number - index))
        found.append(order[begin : begin + size])
        begin += size
    return found


def whole_groups(requests: Sequence[TrainRequest], batch_clients: int, wanted: Collection[int]) -> list[int]:
    """Return which requests must be trained again so that some of them come out the same.

    Args:
        requests: Everything that was asked for at once.
        batch_clients: Largest group.
        wanted: Positions of those that matter.

    Returns:
        Positions, ascending; no others than those wanted where the limit is one.
    """
    sought = set(wanted)
    kept = [group for group in groups(requests, batch_clients) if not sought.isdisjoint(group)]
    return sorted(position for group in kept for position in group)


def _work(request: TrainRequest) -> tuple[int, int, int]:
    """Most steps first, then most columns: who is padded to whom differs little."""
    plan = request.plan
    return -request.assignment.steps, -sum(plan.trained), -sum(plan.total)
