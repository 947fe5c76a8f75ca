"""Where do the global versions live? They are held here, and combined by the method's pure rules."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedsim.errors import ProtocolError
from fedsim.lora.factors import Adapter, is_finite
from fedsim.method.bundle import Combined, Method, Payload, State, column_seed
from fedsim.method.events import Spectrum
from fedsim.method.messages import TrainRequest, Update
from fedsim.method.partial import arrived, arrived_ranks
from fedsim.method.private import Mechanism, release
from fedsim.method.robust import Rule, weigh
from fedsim.world.shape import LayerShape


@dataclass(frozen=True, slots=True)
class VersionGuard:
    """What keeps one update from having too much say; at most one of the two.

    Args:
        rule: Weighs updates; see `fedsim.method.robust`.
        mechanism: Clips them and adds noise; see `fedsim.method.private`.
    """

    rule: Rule | None = None
    mechanism: Mechanism | None = None


class VersionStore:
    """All versions that somebody may still ask for.

    Args:
        method: Its rules make, combine and redistribute versions.
        shapes: The layers of the model that is really trained.
        seed: Of fresh columns.
        init_adapter: Version 0; zero where it is None.
        guard: What keeps one update from having too much say.
    """

    def __init__(
        self,
        method: Method,
        shapes: tuple[LayerShape, ...],
        seed: int,
        init_adapter: Adapter | None = None,
        guard: VersionGuard | None = None,
    ) -> None:
        self._method = method
        self._guard = guard or VersionGuard()
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
        updates = [self.arrived(update) if _is_usable(update) else update for update in updates]
        failed = {update.assignment: "non-finite update" for update in updates if not _is_usable(update)}
        kept = [pair for pair in zip(updates, weights, strict=True) if pair[0].assignment not in failed]
        if self._guard.mechanism is not None:
            return self._release(self._guard.mechanism, version, [update for update, _ in kept], failed)
        left = sum(weight for _, weight in kept)
        if not kept or left <= 0.0:
            self._states[version + 1] = replace(self.state(version), version=version + 1)
            return Combined(self.spectrum(version + 1), {}, failed)
        scaled = [(weight / left if failed else weight) * update.discount for update, weight in kept]
        return self._combine(version, [update for update, _ in kept], scaled, failed)

    def _combine(
        self, version: int, good: Sequence[Update], weights: Sequence[float], failed: dict[int, str]
    ) -> Combined:
        """Combine what is usable, after the rule for robustness if there is one."""
        state = self.state(version)
        earlier = {update.base_version: self.state(update.base_version) for update in good}
        defence = None
        if self._guard.rule is not None:
            found = weigh(self._guard.rule, self._method, {**earlier, version: state}, good, weights)
            good, weights, defence = found.updates, found.weights, found.defence
            failed = {**failed, **found.aside}
        alignments = self._method.align(state, good, weights, earlier)
        self._states[version + 1] = self._method.aggregate(state, good, weights, earlier)
        prune = self._method.prune
        pruned = {} if prune is None else prune(state, good, earlier)
        spectrum = self.spectrum(version + 1)
        cut = self._cut(good)
        return Combined(spectrum, alignments, failed, pruned=pruned, arrived=cut, defence=defence)

    def _cut(self, good: Sequence[Update]) -> dict[int, tuple[int, ...]]:
        """Say what has arrived of updates that did not come whole."""
        return {
            update.assignment: arrived_ranks(update, self.state(update.base_version).shapes)
            for update in good
            if update.arrived is not None
        }

    def _release(
        self, mechanism: Mechanism, version: int, good: Sequence[Update], failed: dict[int, str]
    ) -> Combined:
        """Make a private version; where nothing is usable there is noise all the same."""
        released = release(mechanism, self._method, self.state(version), good)
        self._states[version + 1] = released.state
        spectrum, cut = self.spectrum(version + 1), self._cut(good)
        return Combined(spectrum, released.alignments, failed, arrived=cut, defence=released.defence)


def _is_usable(update: Update) -> bool:
    return update.change is not None and is_finite(update.change)
