"""What does a resumed run do again? Nothing that is in its journal, which stands between clock and work.

The clock of a resumed run starts from zero and asks for everything it asked for before. What the journal has
is answered from it; from the first question on that it has no answer to, the work is real again, on versions
that are read back when they are needed.
"""

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fedsim.errors import InputError
from fedsim.experiment.guard import finite
from fedsim.experiment.journal import Journal
from fedsim.experiment.journal_index import Entry
from fedsim.learn.groups import groups, whole_groups
from fedsim.method.bundle import Combined
from fedsim.method.events import Spectrum
from fedsim.method.messages import Evaluation, TrainingFailure, TrainRequest, Update
from fedsim.sim.executor import Aggregator, Evaluator, Executor
from fedsim.sim.server import RealWork

if TYPE_CHECKING:
    from fedsim.experiment.build import Experiment

Answer = Update | TrainingFailure


class Store(Protocol):
    """Where versions live; `fedsim.learn.versions.VersionStore` is one."""

    @property
    def versions(self) -> tuple[int, ...]:
        """Numbers of the stored versions, ascending."""
        ...

    def state(self, version: int) -> Any:
        """Return a stored version."""
        ...

    def put(self, version: int, state: Any) -> None:
        """Store a version that was made before."""
        ...

    def release(self, version: int) -> None:
        """Forget a version."""
        ...


class Journaled:
    """Executor, aggregator and evaluator in one, with a memory that outlives the process.

    Args:
        journal: Results so far.
        executor: Trains what is new.
        aggregator: Makes versions that are new.
        evaluator: Measures versions that are new.
        store: Versions that these three read and write.
        keep: Newest versions whose tensors stay after nobody refers to them.
        batch_clients: How many clients the executor trains together; what it must train again, it trains
            with the same others, so that it comes out the same.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        executor: Executor,
        aggregator: Aggregator,
        evaluator: Evaluator,
        store: Store,
        keep: int,
        batch_clients: int = 1,
    ) -> None:
        self._journal = journal
        self._executor = executor
        self._aggregator = aggregator
        self._evaluator = evaluator
        self._store = store
        self._keep = keep
        self._batch_clients = batch_clients
        self._newest = 0
        self._requests: dict[int, TrainRequest] = {}
        self._together: dict[int, list[TrainRequest]] = {}
        self._released: set[int] = set()

    # --- training ---------------------------------------------------------------------------------------

    async def train(self, requests: Sequence[TrainRequest]) -> list[Answer]:
        """Answer every request, from the journal where it can; answers in their order."""
        self._requests |= {request.assignment.id: request for request in requests}
        for group in groups(requests, self._batch_clients):
            together = [requests[position] for position in group]
            self._together |= {request.assignment.id: together for request in together}
        known = {request.assignment.id: self._remembered(request) for request in requests}
        unknown = [index for index, asked in enumerate(requests) if known[asked.assignment.id] is None]
        new = [requests[index] for index in whole_groups(requests, self._batch_clients, unknown)]
        self._expect([request for request in requests if known[request.assignment.id] is not None])
        fresh: dict[int, Answer] = {}
        if new:
            await self._ready({request.assignment.version for request in new})
            answers = await self._executor.train(new)
            await asyncio.to_thread(self._keep_all, new, answers)
            fresh = {answer.assignment: answer for answer in answers}
        return [known[request.assignment.id] or fresh[request.assignment.id] for request in requests]

    def done(self, request: TrainRequest, answer: Answer) -> None:
        """Keep one update as soon as it is trained, while others of its batch are still at work.

        Failures wait: whether they count is decided where the batch was asked for.
        """
        if self._requests.get(request.assignment.id) is request and isinstance(finite(answer), Update):
            self._keep_answer(request, answer)

    def _expect(self, requests: Sequence[TrainRequest]) -> None:
        """Tell whoever must know requests by their updates, though it is not asked to train them."""
        expect = getattr(self._aggregator, "expect", None)
        if expect is not None:
            expect(requests)

    def _keep_all(self, requests: Sequence[TrainRequest], answers: Sequence[Answer]) -> None:
        for request, answer in zip(requests, answers, strict=True):
            if self._journal.get("update", request.assignment.id) is None:
                self._keep_answer(request, answer)

    def _keep_answer(self, request: TrainRequest, answer: Answer) -> None:
        number, asked = request.assignment.id, digest(request)
        if isinstance(answer, TrainingFailure):
            self._journal.keep("update", number, asked, told={"failed": answer.reason})
            return
        told = {"num_examples": answer.num_examples, "loss": answer.loss}
        self._journal.keep("update", number, asked, told=told, content=answer.change)

    def _remembered(self, request: TrainRequest) -> Answer | None:
        """Return an answer without its tensors; they are read if the next version is not there either."""
        number, client = request.assignment.id, request.assignment.client
        entry = self._journal.find("update", number, digest(request))
        if entry is None:
            return None
        if "failed" in entry.told:
            return TrainingFailure(number, client, entry.told["failed"])
        return Update(
            assignment=number,
            client=client,
            base_version=request.assignment.version,
            plan=request.plan,
            change=None,
            num_examples=entry.told["num_examples"],
            loss=entry.told["loss"],
        )

    async def _whole(self, update: Update) -> Update:
        """Return an update with its tensors; one whose file was deleted is trained again, to the same end."""
        entry = self._journal.get("update", update.assignment)
        if update.change is not None or entry is None or entry.content is None:
            return update
        if self._journal.has_content(entry) or self._journal.is_dropped(entry):
            return replace(update, change=self._journal.load(entry))
        together = self._together[update.assignment]
        await self._ready({request.assignment.version for request in together})
        answers = {answer.assignment: answer for answer in await self._executor.train(together)}
        answer = answers[update.assignment]
        self._keep_answer(self._requests[update.assignment], answer)
        return replace(update, change=answer.change) if isinstance(answer, Update) else update

    # --- versions ---------------------------------------------------------------------------------------

    def spectrum(self, version: int) -> Spectrum:
        """Singular values of a version."""
        if version in self._store.versions:
            return self._aggregator.spectrum(version)
        return self._combined(self._entry("combined", version)).spectrum

    async def aggregate(self, version: int, updates: Sequence[Update], weights: Sequence[float]) -> Combined:
        """Make version ``version + 1``, or remember what came of it."""
        made = version + 1
        asked = hashlib.blake2b(
            repr([version, [update.assignment for update in updates], list(weights)]).encode(), digest_size=8
        ).hexdigest()
        entry = self._journal.find("combined", made, asked)
        if entry is not None:
            combined = self._combined(entry)
        else:
            combined = await self._combine(version, updates, weights, asked)
        self._newest = made
        for update in updates:
            self._journal.drop("update", update.assignment)
            self._requests.pop(update.assignment, None)
            self._together.pop(update.assignment, None)
        self._prune()
        return combined

    async def _combine(
        self, version: int, updates: Sequence[Update], weights: Sequence[float], asked: str
    ) -> Combined:
        await self._ready({version, *(update.base_version for update in updates)})
        whole = [await self._whole(update) for update in updates]
        combined = await self._aggregator.aggregate(version, whole, weights)
        await asyncio.to_thread(self._keep_version, version + 1, asked, combined)
        return combined

    def _keep_version(self, version: int, asked: str, combined: Combined) -> None:
        """The tensors first: where the index tells of a version, its tensors are there."""
        self._journal.keep("state", version, asked, content=self._store.state(version))
        self._journal.keep("combined", version, asked, content=combined)
        self._journal.sync()

    def _combined(self, entry: Entry) -> Combined:
        combined = self._journal.load(entry)
        if not isinstance(combined, Combined):
            raise InputError(
                f"{self._journal.directory}: combined {entry.number} holds {type(combined).__name__}"
            )
        return combined

    def release(self, version: int) -> None:
        """Forget a version that nobody refers to."""
        self._released.add(version)
        if version in self._store.versions:
            self._aggregator.release(version)
        for number in [n for n, asked in self._requests.items() if asked.assignment.version == version]:
            del self._requests[number], self._together[number]
            self._journal.drop("update", number)
        self._prune()

    def _prune(self) -> None:
        """Let go of the tensors of versions that are neither in use nor among the newest."""
        old = [version for version in self._released if version <= self._newest - self._keep]
        for version in old:
            self._released.discard(version)
            self._journal.drop("state", version)

    def prepare_newest(self) -> None:
        """Make sure that the newest version is in the store, for whoever exports it."""
        self._restore({self._newest})

    async def _ready(self, versions: set[int]) -> None:
        if versions - set(self._store.versions):
            await asyncio.to_thread(self._restore, versions)

    def _restore(self, versions: set[int]) -> None:
        for version in sorted(versions - set(self._store.versions)):
            self._store.put(version, self._journal.load(self._entry("state", version)))

    def _entry(self, kind: str, version: int) -> Entry:
        entry = self._journal.get(kind, version)
        if entry is None:
            raise InputError(
                f"{self._journal.directory}: version {version} is needed and is not there; run anew"
            )
        return entry

    # --- evaluation -------------------------------------------------------------------------------------

    async def evaluate(self, version: int) -> Evaluation:
        """Measure a version, or remember how it measured."""
        entry = self._journal.find("evaluation", version, "")
        if entry is not None:
            told = entry.told
            return Evaluation(version, told["loss"], told["token_accuracy"], told["metrics"])
        await self._ready({version})
        found = await self._evaluator.evaluate(version)
        told = {
            "loss": found.loss,
            "token_accuracy": found.token_accuracy,
            "metrics": found.metrics,
        }
        self._journal.keep("evaluation", version, "", told=told)
        return found


@contextmanager
def journaling(experiment: "Experiment", directory: Path) -> Iterator["Experiment"]:
    """Give an experiment a memory on disk; one in which nothing is trained needs none, and does all again.

    Args:
        experiment: Fresh.
        directory: Of the run.

    Yields:
        The experiment whose work is kept, and taken from what is kept.

    Raises:
        InputError: If there is a journal already, and it is damaged.
    """
    engine, work = experiment.engine, experiment.work
    if engine is None:
        yield experiment
        return
    journal = Journal(directory)
    kept = Journaled(
        journal,
        executor=work.executor,
        aggregator=work.aggregator,
        evaluator=work.evaluator,
        store=engine.store,
        keep=experiment.scenario.journal.keep,
        batch_clients=engine.batch_clients,
    )
    engine.trainer.on_answer = kept.done

    def export(to: Path) -> None:
        kept.prepare_newest()
        experiment.export(to)

    try:
        yield replace(experiment, work=RealWork(kept, kept, kept), export=export)
    finally:
        journal.close()


def digest(request: TrainRequest) -> str:
    """Name a request by all that local training depends on."""
    return hashlib.blake2b(repr(request).encode(), digest_size=8).hexdigest()
