"""What is the server told once? Its method, its pacing, and how it plans."""

from collections.abc import Callable
from dataclasses import dataclass

from fedsim.method.bundle import Method
from fedsim.method.estimate import RateRule
from fedsim.method.pacing import Pacing
from fedsim.method.select import Select
from fedsim.seeds import Seeds
from fedsim.world.cost import Prices


@dataclass(frozen=True, slots=True)
class StopRule:
    """When the run ends, apart from its limit of virtual time.

    Args:
        rounds: After this many rounds, with or without a version; None for no limit.
        target_loss: As soon as an evaluation is at or below this loss; None for no target.
    """

    rounds: int | None = None
    target_loss: float | None = None


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything that the server is told once.

    Args:
        method: The method's decisions.
        pacing: When to aggregate.
        select: Who is asked.
        prices: What an assignment costs.
        rates: How links are estimated.
        seeds: Streams of the run.
        steps: Local steps per assignment.
        learning_rate: Version -> learning rate.
        download_window_s: Seconds in which the download should end.
        replan: Whether plans follow budgets that move while a client waits or downloads.
        replan_threshold: Relative move of a budget that makes a new plan.
        evaluate_every: Versions between evaluations.
        stop: When the run ends.
        progressive: Whether columns are streamed; clients then train what has come when the stream closes.
        partial_upload: Whether what has come of an interrupted upload counts.
        safety_margin: Share of deadline and window that plans leave unused, in [0, 1).
    """

    method: Method
    pacing: Pacing
    select: Select
    prices: Prices
    rates: RateRule
    seeds: Seeds
    steps: int
    learning_rate: Callable[[int], float]
    download_window_s: float
    replan: bool
    replan_threshold: float
    evaluate_every: int
    stop: StopRule
    progressive: bool = False
    partial_upload: bool = False
    safety_margin: float = 0.0

    @property
    def planned_deadline_s(self) -> float | None:
        """Seconds from dispatch until plans want to be done."""
        deadline_s = self.pacing.deadline_s
        return None if deadline_s is None else deadline_s * (1.0 - self.safety_margin)

    @property
    def planned_window_s(self) -> float:
        """Seconds of download that a plan counts on."""
        return self.download_window_s * (1.0 - self.safety_margin)
