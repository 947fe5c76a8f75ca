"""How much does an old update count? A factor in (0, 1] for each number of versions that it is behind.

Factors multiply sample weights and are *not* renormalised: an old cohort then moves the model less.
"""

from dataclasses import dataclass
from typing import Literal

from fedsim.errors import ScenarioError

StalenessKind = Literal["constant", "polynomial", "hinge"]


def constant(staleness: int) -> float:
    """Count every update in full."""
    _check(staleness)
    return 1.0


def polynomial(staleness: int, exponent: float = 0.5) -> float:
    """Return ``(1 + staleness)^-exponent``.

    Source:
        Xie et al., "Asynchronous federated optimization", 2019, arXiv 1903.03934; exponent 1/2 as in Nguyen
        et al., "Federated learning with buffered asynchronous aggregation", 2022, arXiv 2106.06639.
    """
    _check(staleness)
    if exponent < 0.0:
        raise ScenarioError(f"staleness exponent: expected at least 0, got {exponent}")
    return float((1.0 + staleness) ** -exponent)


def hinge(staleness: int, slope: float = 10.0, grace: int = 4) -> float:
    """Count in full up to `grace` versions, then as ``1 / (slope (staleness - grace) + 1)``.

    Source:
        Xie et al., "Asynchronous federated optimization", 2019, arXiv 1903.03934.
    """
    _check(staleness)
    if slope <= 0.0 or grace < 0:
        raise ScenarioError(
            f"staleness hinge: expected a positive slope and a grace of at least 0, got {slope} and {grace}"
        )
    return 1.0 if staleness <= grace else 1.0 / (slope * (staleness - grace) + 1.0)


@dataclass(frozen=True, slots=True)
class StalenessRule:
    """One of the rules with its constants.

    Args:
        kind: Which rule.
        exponent: Of `polynomial`.
        slope: Of `hinge`.
        grace: Of `hinge`: versions that cost nothing.
    """

    kind: StalenessKind = "polynomial"
    exponent: float = 0.5
    slope: float = 10.0
    grace: int = 4

    def __post_init__(self) -> None:
        """Refuse wrong constants before a run begins."""
        self(0)

    def __call__(self, staleness: int) -> float:
        """Return what an update counts for that is so many versions behind, in (0, 1]."""
        if self.kind == "constant":
            return constant(staleness)
        if self.kind == "polynomial":
            return polynomial(staleness, self.exponent)
        return hinge(staleness, self.slope, self.grace)


def _check(staleness: int) -> None:
    """Refuse an update from the future."""
    if staleness < 0:
        raise ValueError(f"staleness: expected at least 0, got {staleness}")
