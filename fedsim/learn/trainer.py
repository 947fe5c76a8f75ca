"""Who trains the clients of one process? One frozen base, one slot, one shard after the other."""

from collections import OrderedDict

from fedsim.learn.data import Task
from fedsim.learn.encode import Encoded, encode
from fedsim.learn.model import LoadedModel
from fedsim.learn.peft_bridge import AdapterSlot
from fedsim.learn.train import LocalRun, Trained, TrainingSettings, train_local
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

    def _shard(self, client: int) -> list[Encoded]:
        """Tokenise a shard, and keep the ones used last."""
        if client not in self._shards:
            examples = self._task.shard(client)
            self._shards[client] = encode(self._tokenizer, examples, self._settings.max_length)
        self._shards.move_to_end(client)
        while len(self._shards) > _KEPT_SHARDS:
            self._shards.popitem(last=False)
        return self._shards[client]
