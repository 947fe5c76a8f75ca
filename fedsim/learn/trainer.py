"""Who trains the clients of one process? One frozen base, one slot, one client or group after the other."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from fedsim.errors import TrainingError
from fedsim.learn.cohort import Member, Outcome, train_cohort
from fedsim.learn.data import FixedTask, Task
from fedsim.learn.encode import Encoded, encode
from fedsim.learn.model import LoadedModel
from fedsim.learn.peft_bridge import AdapterSlot
from fedsim.learn.token_store import TokenTable, token_table
from fedsim.learn.train import Job, LocalRun, Trained, TrainingSettings, train_local
from fedsim.method.bundle import Payload

_KEPT_SHARDS = 64


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
        self._tokenizer = loaded.tokenizer
        self._slot = slot
        self._task = task
        self._settings = settings
        self._tokens = shared_tokens(loaded.tokenizer, task, settings.max_length)
        self._shards: OrderedDict[int, list[Encoded]] = OrderedDict()

    def train(self, client: int, payload: Payload, run: LocalRun) -> Trained:
        """Train one client; the same arguments give the same result in every process.

        Raises:
            TrainingError: If training fails or becomes non-finite.
        """
        return train_local(
            self._slot,
            payload,
            self._shard(client),
            run=run,
            settings=self._settings,
            pad_id=self._tokenizer.pad_token_id,
        )

    def train_group(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Train clients together, or one after the other where the settings allow no more than one.

        Args:
            jobs: A group of `fedsim.learn.groups`; the same group gives the same result in every process.

        Returns:
            Per client what was trained, or why it failed.
        """
        if self._settings.batch_clients == 1:
            return [self._alone(job) for job in jobs]
        members = [Member(job.payload, self._shard(job.client), job.run) for job in jobs]
        return train_cohort(self._slot, members, settings=self._settings, pad_id=self._tokenizer.pad_token_id)

    def _alone(self, job: Job) -> Outcome:
        try:
            return self.train(job.client, job.payload, job.run)
        except TrainingError as error:
            return str(error)

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
