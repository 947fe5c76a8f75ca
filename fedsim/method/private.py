"""How does a version hide whether a client took part? The Gaussian mechanism, on factors.

One client can move the sum of clipped updates by at most the clip, in Frobenius norm over all layers
together. Noise is added in coordinates that were public before the round: a subspace that follows from the
last version and the run's seed alone. The sum is projected on it first, which lengthens nothing, so the clip
still bounds what one client does. Whatever comes after (the cut to a rank, the spectrum, allocation) is
post-processing.

The divisor is the planned cohort and not the number of updates that came, because that number is a secret
too; sample counts have no say for the same reason. docs/privacy.md states what this does not cover.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from fedsim.errors import ProtocolError
from fedsim.lora.basis import Basis, balanced, compact_svd
from fedsim.lora.drift import cosine
from fedsim.lora.factors import Adapter, Factors, adapter_norm, stack
from fedsim.method import aggregate as aggregation
from fedsim.method.bundle import BasisState, FactorState, Method, State
from fedsim.method.messages import Defence, Update
from fedsim.method.pairs import next_pair, update_of
from fedsim.seeds import Seeds
from fedsim.world.shape import LayerShape


@dataclass(frozen=True, slots=True)
class Mechanism:
    """The Gaussian mechanism of a run.

    Args:
        clip: Bound on the norm of one client's update.
        noise_multiplier: Standard deviation of the noise on the sum, in clips.
        cohort: Updates that a round is planned for; the divisor of the sum.
        seed: Root of the noise, one stream per version and layer.
    """

    clip: float
    noise_multiplier: float
    cohort: int
    seed: int

    @property
    def noise_std(self) -> float:
        """Standard deviation per coordinate of the noise on the mean."""
        return self.noise_multiplier * self.clip / self.cohort


@dataclass(frozen=True, slots=True, eq=False)
class Released:
    """A version that may be shown.

    Args:
        state: The version.
        alignments: Assignment -> cosine of its update with the released change, noise and all.
        defence: For the record.
    """

    state: State
    alignments: dict[int, float]
    defence: Defence


def release(mechanism: Mechanism, method: Method, state: State, updates: Sequence[Update]) -> Released:
    """Make the next version from clipped updates and noise; without any update, from noise alone.

    Args:
        mechanism: What bounds and hides one client.
        method: One that has a rule for it, `Method.release`.
        state: The version that every update started from.
        updates: At most a cohort of them, one per client.

    Raises:
        ProtocolError: If a client is there twice, an update started elsewhere, or there are too many.

    Source:
        McMahan et al., "Learning differentially private recurrent language models", ICLR 2018, with a fixed
        divisor; the projection is fedsim's own.
    """
    ordered = sorted(updates, key=lambda update: update.assignment)
    _check_bounded(mechanism, state, ordered)
    moves = [update_of(method.redistribute, state, update) for update in ordered]
    norms = [adapter_norm(move) for move in moves]
    factors = [min(1.0, mechanism.clip / norm) if norm > 0.0 else 1.0 for norm in norms]
    if method.release is None:
        raise ProtocolError(f"the method {method.name} has no rule for private versions")
    noise = Noise(Seeds(mechanism.seed), state.version, mechanism.noise_std)
    made = method.release(state, ordered, [factor / mechanism.cohort for factor in factors], noise)
    change = difference(method.export(made), method.export(state))
    numbers = [update.assignment for update in ordered]
    return Released(
        state=made,
        alignments={number: cosine(move, change) for number, move in zip(numbers, moves, strict=True)},
        defence=Defence(
            norms=dict(zip(numbers, norms, strict=True)),
            counted=dict(zip(numbers, factors, strict=True)),
            noise_std=mechanism.noise_std,
        ),
    )


def _check_bounded(mechanism: Mechanism, state: State, updates: Sequence[Update]) -> None:
    """What one client can do is bounded only if it does it once."""
    clients = [update.client for update in updates]
    if len(set(clients)) < len(clients) or len(clients) > mechanism.cohort:
        raise ProtocolError(
            f"private version {state.version + 1}: expected at most {mechanism.cohort} updates of different "
            f"clients, got those of {clients}"
        )
    for update in updates:
        aggregation.version_of({state.version: state}, update.base_version)


@dataclass(frozen=True, slots=True)
class Noise:
    """Where the noise of a version comes from.

    Args:
        seeds: Root of the noise.
        version: That is replaced.
        std: Standard deviation per coordinate.
    """

    seeds: Seeds
    version: int
    std: float

    def draw(self, part: str, layer: str, rows: int, columns: int) -> Float[Tensor, "rows columns"]:
        """Return independent normal numbers, float64."""
        generator = self.seeds.generator("privacy", self.version, part, layer)
        return torch.from_numpy(self.std * generator.standard_normal((rows, columns)))


@runtime_checkable
class Release(Protocol):
    """What is the next version if no client may show in it?"""

    def __call__(
        self, state: State, updates: Sequence[Update], shares: Sequence[float], noise: Noise
    ) -> State:
        """Return version ``state.version + 1``: the old one, the sum of shares of updates, and noise.

        Noise lies in coordinates that follow from `state` alone, isotropic in the norm of the product.
        """
        ...


def release_basis(
    state: BasisState, updates: Sequence[Update], shares: Sequence[float], noise: Noise, *, max_rank: int
) -> BasisState:
    """Return ``W + P_T(sum_i s_i dW_i) + N``, cut to a rank, with noise N in the tangent space T.

    T holds every matrix that has the column space of W, or the row space of W and of the columns that all
    clients of this version may draw fresh. It is where a step in factors moves the product to first order.

    Args:
        state: The version, W.
        updates: That started from it.
        shares: Factor per update.
        noise: Of this version.
        max_rank: Most columns of a layer.
    """
    moves = [aggregation.update_factors(update, {state.version: state}) for update in updates]
    basis = {}
    for layer in state.shapes:
        frame = Frame.of(state, layer, max_rank)
        parts = [
            aggregation.weighted(move[layer.name], share)
            for move, share in zip(moves, shares, strict=True)
            if layer.name in move
        ]
        stacks = [balanced(state.basis[layer.name]), *map(frame.project, parts), frame.noise(noise, layer)]
        basis[layer.name] = compact_svd(stack(stacks), max_rank)
    return BasisState(state.version + 1, basis, state.shapes, state.seed)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Orthonormal coordinates that were public before the round.

    Args:
        u: Column space of the version.
        v: Row space of the version and of fresh columns.
    """

    u: Float[Tensor, "d_out left"]
    v: Float[Tensor, "d_in right"]

    @classmethod
    def of(cls, state: BasisState, layer: LayerShape, max_rank: int) -> "Frame":
        """Return the frame of one layer: a function of version, seed and largest rank."""
        rank = min(max_rank, layer.d_in, layer.d_out)
        basis: Basis = state.basis[layer.name]
        fresh = aggregation.received_columns(state, layer, max(rank, basis.rank)).lora_a[basis.rank :]
        rows = torch.cat([basis.vh, fresh]).double()
        return cls(basis.u.double(), torch.linalg.qr(rows.T).Q)

    def project(self, factors: Factors) -> Factors:
        """Return the part of a product that lies in the space, as factors: ``U U' X + (1 - U U') X V V'``."""
        output, features = factors.lora_b.double(), factors.lora_a.double()
        inside = self.u.T @ output
        return _single(
            torch.cat([inside @ features, (features @ self.v) @ self.v.T]),
            torch.cat([self.u, output - self.u @ inside], dim=1),
            factors,
        )

    def noise(self, noise: Noise, layer: LayerShape) -> Factors:
        """Return isotropic noise of the space: ``Y V'``, and ``U Z'`` for Z outside of V."""
        right = noise.draw("right", layer.name, layer.d_out, self.v.shape[1])
        left = noise.draw("left", layer.name, layer.d_in, self.u.shape[1])
        left = left - self.v @ (self.v.T @ left)
        return Factors(
            lora_a=torch.cat([self.v.T, left.T]).float(), lora_b=torch.cat([right, self.u], dim=1).float()
        )


def _single(lora_a: Tensor, lora_b: Tensor, like: Factors) -> Factors:
    return Factors(lora_a=lora_a.to(like.lora_a.dtype), lora_b=lora_b.to(like.lora_b.dtype))


def release_outputs(
    state: FactorState, updates: Sequence[Update], shares: Sequence[float], noise: Noise
) -> FactorState:
    """Return ``(B + sum_i s_i dB_i + N) A`` for a public A: noise in orthonormal coordinates of its rows.

    The update is linear in what is trained, so nothing is lost in projection.

    Args:
        state: The version.
        updates: That started from it.
        shares: Factor per update.
        noise: Of this version.
    """
    pair = {}
    for index, layer in enumerate(state.shapes):
        before = state.pair[layer.name]
        lora_b = before.lora_b.double().clone()
        for update, share in zip(updates, shares, strict=True):
            trained = update.plan.trained[index]
            lora_b[:, :trained] += share * aggregation.change_of(update, layer, trained).lora_b.double()
        triangle = torch.linalg.qr(before.lora_a.T.double()).R
        drawn = noise.draw("right", layer.name, layer.d_out, triangle.shape[0])
        lora_b += drawn @ torch.linalg.pinv(triangle).T
        pair[layer.name] = Factors(lora_a=before.lora_a, lora_b=lora_b.to(before.lora_b.dtype))
    return next_pair(state, pair)


def difference(left: Adapter, right: Adapter) -> dict[str, Factors]:
    """Return ``left - right`` as stacked factors."""
    return {
        name: stack([left[name], Factors(lora_a=right[name].lora_a, lora_b=-right[name].lora_b)])
        for name in left
    }
