"""Who trains the clients of one process? One frozen base, one slot, one client or group after the other."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from fedsim.learn.cohort import Member, Outcome, train_client, train_cohort
from fedsim.learn.data import FixedTask, Task
from fedsim.learn.encode import Encoded, encode
from fedsim.learn.model import LoadedModel
from fedsim.learn.peft_bridge import AdapterSlot
from fedsim.learn.token_store import TokenTable, token_table
from fedsim.learn.train import Job, LocalRun, Trained, TrainingSettings
from fedsim.method.bundle import Payload

_KEPT_SHARDS = 64


@runtime_checkable
class Trainer(Protocol):
    """Trains groups of clients; `ClientTrainer`, or what makes one when it is needed."""

    def train_group(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Train clients together. See `ClientTrainer.train_group`."""
        ...

    def batched(self, batch_clients: int) -> "Trainer":
        """Return a trainer on the same base that trains so many clients together."""
        ...


class ClientTrainer:
    """Trains any client of a task on one frozen base.

    Args:
        loaded: Base model and tokenizer.
        slot: Where adapters are loaded into that model.
        task: Its shards.
        settings: What is the same for every assignment.
    """

    def __init__(
        self, loaded: LoadedModel, slot: AdapterSlot, task: Task, settings: TrainingSettings
    ) -> None:
        self._loaded = loaded
        self._tokenizer = loaded.tokenizer
        self._slot = slot
        self._task = task
        self._settings = settings
        self._tokens = shared_tokens(loaded.tokenizer, task, settings.max_length)
        self._shards: OrderedDict[int, list[Encoded]] = OrderedDict()

    def batched(self, batch_clients: int) -> "ClientTrainer":
        """Return a trainer on the same base that trains so many clients together."""
        settings = replace(self._settings, batch_clients=batch_clients)
        return ClientTrainer(self._loaded, self._slot, self._task, settings)

    def train(self, client: int, payload: Payload, run: LocalRun) -> Trained:
        """Train one client; the same arguments give the same result in every process.

        Raises:
            TrainingError: If training fails or becomes non-finite.
        """
        return train_client(
            self._slot,
            payload,
            self._shard(client),
            run=run,
            settings=self._settings,
            pad_id=self._tokenizer.pad_token_id,
        )

    def train_group(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Train clients together.

        Args:
            jobs: A group of `fedsim.learn.groups`; the same group gives the same result in every process.

        Returns:
            Per client what was trained, or why it failed.
        """
        members = [Member(job.payload, self._shard(job.client), job.run) for job in jobs]
        return train_cohort(self._slot, members, settings=self._settings, pad_id=self._tokenizer.pad_token_id)

    def _shard(self, client: int) -> list[Encoded]:
        """Make a shard of tokens, and keep the ones used last."""
        if client not in self._shards:
            self._shards[client] = self._made(client)
        self._shards.move_to_end(client)
        while len(self._shards) > _KEPT_SHARDS:
            self._shards.popitem(last=False)
        return self._shards[client]

    def _made(self, client: int) -> list[Encoded]:
        if self._tokens is not None and isinstance(self._task, FixedTask):
            return self._tokens.rows(self._task.members[client])
        return encode(self._tokenizer, self._task.shard(client), self._settings.max_length)


def shared_tokens(tokenizer: Any, task: Task, max_length: int) -> TokenTable | None:
    """Open the tokens of a task on files, which all processes and later runs share; None for generated data.

    Args:
        tokenizer: Cuts the texts.
        task: Its training examples.
        max_length: Longer ones are cut.

    Raises:
        StorageError: If they are made now and cannot be written.
    """
    return token_table(tokenizer, task.examples, max_length) if isinstance(task, FixedTask) else None
