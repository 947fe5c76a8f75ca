"""What does the server know of an update beside its tensors? Where it was cut, and how old it is."""

from collections.abc import Mapping, Sequence

from fedsim.method import events as ev
from fedsim.method.messages import Update, UploadCut


def as_counted(
    action: ev.Aggregate, updates: Sequence[Update], cuts: Mapping[int, UploadCut]
) -> list[Update]:
    """Write that on each update, for whoever combines them.

    Args:
        action: Tells discounts and damping.
        updates: As they were trained, whole.
        cuts: Assignment -> where its upload ended; those that came whole are missing.
    """
    discount_of = dict(zip(action.assignments, action.discounts, strict=False))
    damping_of = dict(zip(action.assignments, action.damping, strict=False))
    if not (cuts or discount_of or damping_of):
        return list(updates)
    return [
        update.counted(
            sent=cuts.get(update.assignment),
            discount=discount_of.get(update.assignment, 1.0),
            damping=damping_of.get(update.assignment, 1.0),
        )
        for update in updates
    ]
