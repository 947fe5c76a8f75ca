"""How do local updates relate to what unbounded clients would have learned? Drift, and what goes with it.

`DriftGauge` stands between the clock and the two who do real work. Where a version is to be measured, it
trains oracles for a sample of the clients and writes figures beside the aggregation; it changes neither. All
figures are computed on factors. Drift is meaningless without length and angle, so the update norm and the
alignment stand beside every distance.
"""

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Protocol, runtime_checkable

import numpy as np

from fedsim.learn.oracle import Definition, OracleStore
from fedsim.lora.codec import roundtrip_adapter
from fedsim.lora.drift import cosine, dispersion, distance, grams
from fedsim.lora.factors import Adapter, Factors, adapter_norm, is_finite, moved, stack, truncate
from fedsim.method.bundle import Combined, Measurements, Payload
from fedsim.method.events import Spectrum
from fedsim.method.messages import RankPlan, TrainingFailure, TrainRequest, Update
from fedsim.seeds import Seeds
from fedsim.wire import WireDtype

Figures = dict[str, float | None]

UPDATE_FIGURES = ("update_norm", "reception_error", "information_gain_ratio")
DRIFT_FIGURES: Mapping[Definition, tuple[str, ...]] = {
    "fedsim": ("absolute_drift", "relative_drift", "alignment", "oracle_norm"),
    "paper": ("paper_absolute_drift", "paper_relative_drift"),
}
VERSION_FIGURES = ("cross_client_drift", "effective_rank")


@dataclass(frozen=True, slots=True)
class DriftSettings:
    """What is measured, and how often.

    Args:
        clients: Aggregated clients per measured version for which an oracle is trained.
        every: Versions between two measured ones.
        oracle_rank: Columns of a layer that an oracle trains.
        definitions: Which drifts.
        seed: Of the sample; no other stream is touched.
        wire_dtype: Number format in which clients receive columns.
    """

    clients: int
    every: int
    oracle_rank: int
    definitions: tuple[Definition, ...]
    seed: int
    wire_dtype: WireDtype

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of all figures, in the order of the columns of a table."""
        drift = tuple(name for definition in self.definitions for name in DRIFT_FIGURES[definition])
        return drift + UPDATE_FIGURES + VERSION_FIGURES


@runtime_checkable
class Trains(Protocol):
    """Any executor of local training."""

    async def train(self, requests: Sequence[TrainRequest]) -> Sequence[Update | TrainingFailure]:
        """Train every request; answers in their order."""
        ...


class DriftGauge:
    """Measures drift while a run goes on; both executor and aggregator to whoever drives the run.

    Oracles are trained only for updates that are aggregated, and only when they are, so deferred and eager
    runs measure the same.

    Args:
        executor: Trains clients, and oracles.
        store: The versions.
        settings: What is measured.
    """

    def __init__(self, executor: Trains, store: OracleStore, settings: DriftSettings) -> None:
        self._executor = executor
        self._store = store
        self._settings = settings
        self._requests: dict[int, TrainRequest] = {}

    async def train(self, requests: Sequence[TrainRequest]) -> Sequence[Update | TrainingFailure]:
        """Train every request, and remember it until it is aggregated."""
        self.expect(requests)
        return await self._executor.train(requests)

    def expect(self, requests: Sequence[TrainRequest]) -> None:
        """Remember requests whose updates come from elsewhere, as they do in a resumed run."""
        self._requests.update({request.assignment.id: request for request in requests})

    def spectrum(self, version: int) -> Spectrum:
        """Singular values of a stored version."""
        return self._store.spectrum(version)

    def release(self, version: int) -> None:
        """Forget a version, and the requests that started from it."""
        for number in [n for n, asked in self._requests.items() if asked.assignment.version == version]:
            del self._requests[number]
        self._store.release(version)

    async def aggregate(self, version: int, updates: Sequence[Update], weights: Sequence[float]) -> Combined:
        """Make the next version, and measure the updates that make it where the sample asks for it."""
        if (version + 1) % self._settings.every:
            return await self._store.aggregate(version, updates, weights)
        usable = [
            self._store.arrived(update)
            for update in updates
            if update.change is not None and is_finite(update.change)
        ]
        by_assignment, cross_client = await self._measure_updates(usable)
        combined = await self._store.aggregate(version, updates, weights)
        means = mean_figures(by_assignment.values(), self._settings.figures)
        means |= {"cross_client_drift": cross_client, "effective_rank": effective_rank(combined.spectrum)}
        spectrum = {layer: values.tolist() for layer, values in combined.spectrum.items()}
        return replace(combined, measured=Measurements(means, by_assignment, spectrum))

    async def _measure_updates(self, updates: Sequence[Update]) -> tuple[dict[int, Figures], float | None]:
        """Return figures by assignment, and the dispersion over all of them."""
        ordered = sorted(updates, key=lambda update: update.assignment)
        oracles = await self._oracles(ordered)
        return await asyncio.to_thread(self._figures, ordered, oracles)

    async def _oracles(self, updates: Sequence[Update]) -> dict[tuple[int, Definition], Adapter]:
        """Train the oracles of a sample; an oracle that fails is left out."""
        wanted = [
            self._store.oracle_request(
                self._requests[update.assignment], self._settings.oracle_rank, definition
            )
            for update in self._sample(updates)
            for definition in self._settings.definitions
            if definition == "fedsim" or update.base_version > 0
        ]
        answers = await self._executor.train(wanted) if wanted else []
        return {
            (request.assignment.id, request.definition): update_of(
                self._store.payload(request), answer.change
            )
            for request, answer in zip(wanted, answers, strict=True)
            if isinstance(answer, Update) and answer.change is not None
        }

    def _sample(self, updates: Sequence[Update]) -> list[Update]:
        """Draw clients by hash, so that methods compared under one seed measure the same ones if they can."""
        seeds = Seeds(self._settings.seed)
        drawn = sorted(
            updates,
            key=lambda update: (seeds.seed("drift", update.base_version, update.client), update.assignment),
        )
        return sorted(drawn[: self._settings.clients], key=lambda update: update.assignment)

    def _figures(
        self, updates: Sequence[Update], oracles: Mapping[tuple[int, Definition], Adapter]
    ) -> tuple[dict[int, Figures], float | None]:
        figures: dict[int, Figures] = {}
        moves = []
        for update in updates:
            number, change = update.assignment, update.change or {}
            request = self._requests[number]
            payload = self._store.payload(request)
            move = update_of(payload, change)
            figures[number] = {"update_norm": adapter_norm(move), **self._reception(request, payload)}
            if (number, "fedsim") in oracles:
                figures[number] |= drift(move, oracles[number, "fedsim"])
            if (number, "paper") in oracles:
                whole = joined(received_adapter(payload, request.assignment.gate), move)
                figures[number] |= paper_drift(whole, oracles[number, "paper"])
            moves.append(move)
        return figures, dispersion(grams(moves)) if moves else None

    def _reception(self, request: TrainRequest, payload: Payload) -> Figures:
        """How much of the version did the client receive?"""
        version, dtype = request.assignment.version, self._settings.wire_dtype
        whole = self._store.export(version)
        decoded = replace(
            payload,
            prefix=roundtrip_adapter(payload.prefix, dtype),
            tail=roundtrip_adapter(payload.tail, dtype),
        )
        error, norm = distance(whole, received_adapter(decoded, 1.0)), adapter_norm(whole)
        return {
            "reception_error": error / norm if norm > 0.0 else None,
            "information_gain_ratio": information_gain_ratio(self._store.spectrum(version), request.plan),
        }


def update_of(payload: Payload, change: Adapter) -> dict[str, Factors]:
    """Return what the change of a trained prefix does to the product, as thin factors.

    Where a method sends its tail back, the change has columns for it too; nothing was learned in them.
    """
    moves = {
        name: moved(payload.prefix[name], truncate(part, payload.prefix[name].rank))
        for name, part in change.items()
    }
    return _times(moves, payload.scaling)


def received_adapter(payload: Payload, gate: float) -> dict[str, Factors]:
    """Return what a payload amounts to, with its tail weighed by a gate."""
    tail = _times(payload.tail, dict.fromkeys(payload.tail, gate))
    return joined(_times(joined(payload.prefix, tail), payload.scaling), payload.merged)


def _times(adapter: Adapter, scaling: Mapping[str, float]) -> dict[str, Factors]:
    """Scale the products of layers; by 1 where nothing is said."""
    return {
        name: Factors(lora_a=pair.lora_a, lora_b=pair.lora_b * scaling.get(name, 1.0))
        for name, pair in adapter.items()
    }


def joined(*adapters: Adapter) -> dict[str, Factors]:
    """Return the sum of adapters as stacked factors; a layer that one of them lacks is zero there."""
    names = {name: None for adapter in adapters for name in adapter}
    return {name: stack([adapter[name] for adapter in adapters if name in adapter]) for name in names}


def drift(update: Adapter, oracle: Adapter) -> Figures:
    """Compare an update with the one that the oracle of the same client made.

    Args:
        update: Change of the client's adapter, as a product.
        oracle: Change of the oracle's.

    Returns:
        Frobenius distance over all layers, the same relative to the oracle's norm, the cosine, and that norm.
    """
    absolute, norm = distance(update, oracle), adapter_norm(oracle)
    return {
        "absolute_drift": absolute,
        "relative_drift": absolute / norm if norm > 0.0 else None,
        "alignment": cosine(update, oracle),
        "oracle_norm": norm,
    }


def paper_drift(adapter: Adapter, oracle: Adapter) -> Figures:
    """Compare a client's whole adapter with one that was trained from zero.

    The client's side has gathered over all rounds, the oracle's over one, so this grows with the norm of the
    adapter and hardly sees its direction. It stands here to be compared with published figures.

    Source:
        The published FedHera code.
    """
    absolute, norm = distance(adapter, oracle), adapter_norm(oracle)
    return {
        "paper_absolute_drift": absolute,
        "paper_relative_drift": absolute / norm if norm > 0.0 else None,
    }


def information_gain_ratio(spectrum: Spectrum, plan: RankPlan) -> float | None:
    """Return the energy that a plan receives over the energy that it would with its trained ranks alone.

    The published work names such a ratio and does not define it; this definition is fedsim's own.

    Args:
        spectrum: Layer name -> singular values, in the order of the plan.
        plan: Received and trained ranks.

    Returns:
        At least 1; None where the trained columns carry no energy.
    """
    received = trained = 0.0
    for values, total, kept in zip(spectrum.values(), plan.total, plan.trained, strict=True):
        energy = values**2
        received += float(energy[:total].sum())
        trained += float(energy[:kept].sum())
    return received / trained if trained > 0.0 else None


def effective_rank(spectrum: Spectrum) -> float | None:
    """Return the mean over layers of ``exp(entropy)`` of the singular values; None for a zero adapter.

    Source:
        Roy and Vetterli, "The effective rank", EUSIPCO 2007, definition 1.
    """
    ranks = []
    for values in spectrum.values():
        total = float(values.sum())
        if total > 0.0:
            share = values[values > 0.0] / total
            ranks.append(math.exp(-float((share * np.log(share)).sum())))
    return fmean(ranks) if ranks else None


def mean_figures(rows: Iterable[Figures], names: Sequence[str]) -> Figures:
    """Average each figure over the rows that have it; None where none has."""
    listed = list(rows)
    found = {name: [value for row in listed if (value := row.get(name)) is not None] for name in names}
    return {name: fmean(values) if values else None for name, values in found.items()}
