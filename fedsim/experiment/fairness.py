"""Whose data made the model? How updates spread over the fleet, and which devices were never reached."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(slots=True)
class Fairness:
    """Counts by device over a run. Satisfies `fedsim.sim.instrument.Instrument`.

    Args:
        class_names: Names of the device classes.
        class_index: Class of each device, by index.
    """

    class_names: Sequence[str]
    class_index: np.ndarray
    _asked: np.ndarray = field(init=False)
    _aggregated: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Nobody has been asked yet."""
        self._asked = np.zeros(len(self.class_index), dtype=np.int64)
        self._aggregated = np.zeros(len(self.class_index), dtype=np.int64)

    def observe(self, time_s: float, event: str, fields: Mapping[str, Any]) -> None:
        """Count assignments and aggregated updates."""
        del time_s
        if event == "dispatched":
            self._asked[fields["client"]] += 1
        elif event == "settled" and fields["outcome"] == "aggregated":
            self._aggregated[fields["client"]] += 1

    def summary(self) -> dict[str, object]:
        """Return what `summary.json` says: by class, over all devices of the fleet, those never online too.

        A class that has as large a share of the updates as of the devices is represented fairly.
        """
        return {
            "gini_of_updates": gini(self._aggregated),
            "never_asked": int((self._asked == 0).sum()),
            "never_aggregated": int((self._aggregated == 0).sum()),
            "by_class": {name: self._of_class(index) for index, name in enumerate(self.class_names)},
        }

    def _of_class(self, index: int) -> dict[str, object]:
        own = self.class_index == index
        updates = int(self._aggregated.sum())
        return {
            "devices": int(own.sum()),
            "share_of_devices": float(own.mean()),
            "share_of_updates": float(self._aggregated[own].sum() / updates) if updates else None,
            "never_asked": int((self._asked[own] == 0).sum()),
            "never_aggregated": int((self._aggregated[own] == 0).sum()),
        }


def gini(counts: np.ndarray) -> float | None:
    """Return the Gini coefficient: 0 if all counts are equal, near 1 if one has everything; None of nothing.

    Args:
        counts: Non-negative, one per device.
    """
    ordered = np.sort(counts).astype(np.float64)
    total, size = float(ordered.sum()), len(ordered)
    if not total:
        return None
    return float(2.0 * (np.arange(1, size + 1) @ ordered) / (size * total) - (size + 1) / size)
