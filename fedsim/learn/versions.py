"""Where do the global versions live? They are held here, and combined by the method's pure rules."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from fedsim.errors import ProtocolError
from fedsim.lora.factors import Adapter, is_finite
from fedsim.method.bundle import Combined, Method, Payload, State, column_seed
from fedsim.method.events import Spectrum
from fedsim.method.messages import TrainRequest, Update
from fedsim.method.partial import arrived, arrived_ranks
from fedsim.world.shape import LayerShape


class VersionStore:
    """All versions that somebody may still ask for.

    Args:
        method: Its rules make, combine and redistribute versions.
        shapes: The layers of the model that is really trained.
        seed: Of fresh columns.
        init_adapter: Version 0; zero where it is None.
    """

    def __init__(
        self, method: Method, shapes: tuple[LayerShape, ...], seed: int, init_adapter: Adapter | None = None
    ) -> None:
        self._method = method
        self._states: dict[int, State] = {0: method.init(shapes, seed, init_adapter)}

    @property
    def versions(self) -> tuple[int, ...]:
        """Numbers of the stored versions, ascending."""
        return tuple(sorted(self._states))

    def state(self, version: int) -> State:
        """Return a stored version.

        Raises:
            ProtocolError: If it was never made, or has been released.
        """
        if version not in self._states:
            raise ProtocolError(f"version {version} is not stored; stored are {self.versions}")
        return self._states[version]

    def put(self, version: int, state: State) -> None:
        """Store a version that was made before, when a run is resumed."""
        self._states[version] = state

    def spectrum(self, version: int) -> Spectrum:
        """Singular values of a stored version."""
        return self._method.spectrum(self.state(version))

    def export(self, version: int) -> Adapter:
        """Return a stored version as plain factors with scaling 1."""
        return self._method.export(self.state(version))

    def payload(self, request: TrainRequest) -> Payload:
        """Return what a client receives under its final plan, exact."""
        assignment = request.assignment
        state = self.state(assignment.version)
        return self._method.redistribute(state, request.plan, column_seed(state, assignment.id))

    async def aggregate(self, version: int, updates: Sequence[Update], weights: Sequence[float]) -> Combined:
        """Make version ``version + 1``.

        Updates without tensors or with non-finite ones are set aside, and their share goes to the others in
        proportion; discounts stay as they are. Where none is left, the new version equals the old one.
        """
        return await asyncio.to_thread(self._aggregate, version, updates, weights)

    def arrived(self, update: Update) -> Update:
        """Return an update without what was not sent; one that came whole stays as it is."""
        if update.sent is None:
            return update
        state = self.state(update.base_version)
        payload = self._method.redistribute(state, update.plan, column_seed(state, update.assignment))
        return arrived(update, payload.prefix, state.shapes)

    def release(self, version: int) -> None:
        """Forget a version that nobody refers to."""
        self.state(version)
        del self._states[version]

    def _aggregate(self, version: int, updates: Sequence[Update], weights: Sequence[float]) -> Combined:
        state = self.state(version)
        updates = [self.arrived(update) if _is_usable(update) else update for update in updates]
        failed = {update.assignment: "non-finite update" for update in updates if not _is_usable(update)}
        kept = [pair for pair in zip(updates, weights, strict=True) if pair[0].assignment not in failed]
        left = sum(weight for _, weight in kept)
        if not kept or left <= 0.0:
            self._states[version + 1] = replace(state, version=version + 1)
            return Combined(self.spectrum(version + 1), {}, failed)
        good = [update for update, _ in kept]
        scaled = [(weight / left if failed else weight) * update.discount for update, weight in kept]
        earlier = {update.base_version: self.state(update.base_version) for update in good}
        alignments = self._method.align(state, good, scaled, earlier)
        self._states[version + 1] = self._method.aggregate(state, good, scaled, earlier)
        prune = self._method.prune
        pruned = {} if prune is None else prune(state, good, earlier)
        cut = {
            update.assignment: arrived_ranks(update, state.shapes)
            for update in good
            if update.arrived is not None
        }
        return Combined(self.spectrum(version + 1), alignments, failed, pruned=pruned, arrived=cut)


def _is_usable(update: Update) -> bool:
    return update.change is not None and is_finite(update.change)
