"""Who serves the next group of clients? Whoever is free: a number of places, each with one group at a time.

What is asked for first is served first, over all calls, so calls overlap. Each place has a thread that waits
for it, so that it holds up nothing else.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from fedsim.learn.executors.exchange import Answer
from fedsim.learn.groups import groups
from fedsim.method.messages import TrainRequest


class Pool:
    """Spreads requests over places.

    Args:
        size: Number of places.
        batch_clients: Largest group of clients that are trained together.
        serve: (place, requests) -> their answers; runs in a thread.
        stop: Ends what is under way, so that no thread waits for ever.
    """

    def __init__(
        self,
        size: int,
        batch_clients: int,
        serve: Callable[[int, Sequence[TrainRequest]], list[Answer]],
        stop: Callable[[], None],
    ) -> None:
        self._batch_clients = batch_clients
        self._serve = serve
        self._stop = stop
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="fedsim-worker")
        self._free: asyncio.Queue[int] = asyncio.Queue()
        for place in range(size):
            self._free.put_nowait(place)

    async def train(self, requests: Sequence[TrainRequest]) -> list[Answer]:
        """Serve every request; answers in their order. A failure, or being cancelled, stops everything."""
        cut = groups(requests, self._batch_clients)
        try:
            async with asyncio.TaskGroup() as tasks:
                works = [
                    tasks.create_task(self._one([requests[position] for position in group])) for group in cut
                ]
        except BaseExceptionGroup as failed:
            self._stop()
            raise failed.exceptions[0] from None  # one reason is enough to end, and says what to do
        except BaseException:
            self._stop()
            raise
        answers: dict[int, Answer] = {}
        for group, work in zip(cut, works, strict=True):
            answers |= zip(group, work.result(), strict=True)
        return [answers[position] for position in range(len(requests))]

    def close(self) -> None:
        """Let the threads go; call after `stop`."""
        self._threads.shutdown(wait=False)

    async def _one(self, requests: Sequence[TrainRequest]) -> list[Answer]:
        place = await self._free.get()
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self._serve, place, requests
            )
        finally:
            self._free.put_nowait(place)
