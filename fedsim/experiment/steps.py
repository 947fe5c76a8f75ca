"""How many local steps did a run ask for, and how many of them counted?"""

from collections.abc import Mapping, Sequence

from fedsim.method.messages import TrainingFailure, TrainRequest, Update
from fedsim.sim.executor import Executor


class CountingExecutor:
    """Passes requests on and counts their steps, those that a journal answers included.

    Args:
        inner: Trains, or knows what was trained.
    """

    def __init__(self, inner: Executor) -> None:
        self._inner = inner
        self._asked = 0

    async def train(self, requests: Sequence[TrainRequest]) -> Sequence[Update | TrainingFailure]:
        """Train every request; answers in their order."""
        self._asked += sum(request.assignment.steps for request in requests)
        return await self._inner.train(requests)

    def summary(self, aggregated: int) -> Mapping[str, int]:
        """Say what was asked for, and what of it led to nothing.

        Args:
            aggregated: Steps of the updates that made a version.
        """
        return {"asked": self._asked, "wasted": self._asked - aggregated}
