"""What may selection know of clients? Counts and figures by client, in arrays that grow with who was met.

Whatever depends on tensors (the loss) is learnt when an update is aggregated and at no other time, so that a
run that trains everything and a run that trains only what counts choose the same clients.
"""

from dataclasses import dataclass, field

import numpy as np

_FIRST_SIZE = 64


@dataclass(slots=True)
class Experience:
    """Figures of every client that was met, by index; a client that was never met has zeros.

    Args:
        looks: Looks at the fleet that counted who is there.
        utilities: Statistical utility gained by each aggregation, oldest first.
        asked: Client -> assignments.
        aggregated: Client -> aggregated updates.
        seen: Client -> looks at which it was there.
        loss: Client -> loss of its last aggregated update; one where nothing was really trained.
        examples: Client -> size of its shard.
        duration_s: Client -> seconds from dispatch to arrival of its last aggregated update.
        last_round: Client -> round of its last aggregated update.
    """

    looks: int = 0
    utilities: list[float] = field(default_factory=list)
    asked: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    aggregated: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    seen: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    loss: np.ndarray = field(default_factory=lambda: np.zeros(0))
    examples: np.ndarray = field(default_factory=lambda: np.zeros(0))
    duration_s: np.ndarray = field(default_factory=lambda: np.zeros(0))
    last_round: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def cover(self, largest: int) -> None:
        """Make room for a client of this index."""
        size = len(self.asked)
        if largest < size:
            return
        room = max(2 * size, largest + 1, _FIRST_SIZE) - size
        for name in ("asked", "aggregated", "seen", "loss", "examples", "duration_s", "last_round"):
            values = getattr(self, name)
            setattr(self, name, np.concatenate((values, np.zeros(room, dtype=values.dtype))))

    def look(self, idle: np.ndarray, at_work: np.ndarray) -> None:
        """Count who is there: idle clients and those at work."""
        self.looks += 1
        for clients in (idle, at_work):
            if len(clients):
                self.cover(int(clients.max()))
                self.seen[clients] += 1

    def ask(self, client: int) -> None:
        """Count an assignment."""
        self.cover(client)
        self.asked[client] += 1

    def learn(
        self, client: int, *, round_number: int, loss: float | None, examples: int, duration_s: float
    ) -> None:
        """Take an aggregated update into account."""
        self.cover(client)
        self.aggregated[client] += 1
        self.loss[client] = 1.0 if loss is None else loss
        self.examples[client] = examples
        self.duration_s[client] = duration_s
        self.last_round[client] = round_number

    def close_round(self, clients: np.ndarray) -> None:
        """Note what an aggregation has gained, after its updates have been learnt."""
        self.utilities.append(float(self.utility(clients).sum()))

    def utility(self, clients: np.ndarray) -> np.ndarray:
        """Statistical utility of clients: examples times loss, at their last aggregated update."""
        utility: np.ndarray = self.examples[clients] * self.loss[clients]
        return utility
