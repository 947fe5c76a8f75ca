"""When is the base model loaded? At once, unless its shape is known: then when its weights are needed.

A resumed run goes through its record without any weights, and a replay never needs them.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import cached_property
from threading import RLock

from fedsim.errors import InputError
from fedsim.learn.cohort import Outcome
from fedsim.learn.evaluate import GlobalEvaluator
from fedsim.learn.model import LoadedModel, model_shape
from fedsim.learn.peft_bridge import AdapterSlot
from fedsim.learn.train import Job
from fedsim.learn.trainer import ClientTrainer
from fedsim.method.messages import Evaluation
from fedsim.world.shape import ModelShape


class LateBase:
    """A base model and the place for adapters in it.

    Args:
        load: Loads the model.
        targets: Which of its modules carry an adapter.
        known: Its shape, where an earlier process has read it; the model must have it still.
    """

    def __init__(
        self, load: Callable[[], LoadedModel], targets: tuple[str, ...] | str, known: ModelShape | None
    ) -> None:
        self._load = load
        self._targets = targets
        self._known = known
        self._one_at_a_time = RLock()  # trainer and evaluator ask from threads of their own

    @property
    def is_late(self) -> bool:
        """Whether a run may begin without the model."""
        return self._known is not None

    @property
    def shape(self) -> ModelShape:
        """What is known of the model, or what it is found to be."""
        return self._known or self._found[1]

    @property
    def model(self) -> LoadedModel:
        """The model, which is loaded now if it is not there yet.

        Raises:
            InputError: If it cannot be loaded, or is another one than it was.
        """
        return self._found[0]

    @property
    def slot(self) -> AdapterSlot:
        """Where adapters go."""
        with self._one_at_a_time:
            return self._made_slot

    @property
    def _found(self) -> tuple[LoadedModel, ModelShape]:
        with self._one_at_a_time:
            return self._loaded

    @cached_property
    def _loaded(self) -> tuple[LoadedModel, ModelShape]:
        loaded = self._load()
        shape = model_shape(loaded, self._targets)
        if self._known not in {None, shape}:
            raise InputError(
                f"model {loaded.source!r}: its layers are not those that the run began with; restore the "
                "model, or run the scenario anew"
            )
        return loaded, shape

    @cached_property
    def _made_slot(self) -> AdapterSlot:
        return AdapterSlot(self.model.model, tuple(layer.name for layer in self.shape.layers))


class LateTrainer:
    """A trainer that may be made when a client trains first.

    Args:
        make: Makes it.
        late: Whether it may wait; else it is made now, so that what is wrong shows before a run begins.
    """

    def __init__(self, make: Callable[[], ClientTrainer], *, late: bool) -> None:
        self._make = make
        self._made = None if late else make()

    def train_group(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Train clients. See `ClientTrainer`."""
        return self._trainer.train_group(jobs)

    def batched(self, batch_clients: int) -> ClientTrainer:
        """Return a trainer on the same base that trains so many clients together."""
        return self._trainer.batched(batch_clients)

    @property
    def _trainer(self) -> ClientTrainer:
        if self._made is None:
            self._made = self._make()
        return self._made


class LateEvaluator:
    """An evaluator that may be made when a version is measured first.

    Args:
        make: Makes it.
        late: As for `LateTrainer`.
    """

    def __init__(self, make: Callable[[], GlobalEvaluator], *, late: bool) -> None:
        self._make = make
        self._made = None if late else make()

    async def evaluate(self, version: int) -> Evaluation:
        """Measure a version. See `GlobalEvaluator`."""
        if self._made is None:
            self._made = await asyncio.to_thread(self._make)
        return await self._made.evaluate(version)
