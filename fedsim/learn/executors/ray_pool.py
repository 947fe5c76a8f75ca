"""Trains in actors of Ray, on this machine or a cluster; bit for bit what `InlineExecutor` gives.

Each actor holds the frozen base and one torch thread. A version is put into Ray's object store once and
reaches each actor once; changes come back. An actor that dies is replaced, and its group tried once more. Ray
pickles the calls themselves, as it does everywhere; tensors are safetensors frames inside of them.
"""

import asyncio
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from threading import Lock
from typing import Any

from fedsim.errors import InputError, MissingExtraError, ModelError, ScenarioError, TrainingError
from fedsim.learn.cohort import Outcome
from fedsim.learn.executors.exchange import Answer, OnAnswer, conclude, no_one_waits
from fedsim.learn.executors.frames import unpack_answer
from fedsim.learn.executors.pool import Pool
from fedsim.learn.executors.ray_actor import ActorSetup, Machine, RayActor
from fedsim.learn.freeze import freeze
from fedsim.learn.versions import VersionStore
from fedsim.method.messages import TrainRequest

_ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where actors live, and what each of them gets.

    Args:
        address: Of a Ray cluster; None starts Ray on this machine, and ends it at the end.
        num_cpus: Cores per actor.
        num_gpus: GPUs per actor, or a share of one.
    """

    address: str | None = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0


def need_ray() -> Any:
    """Return the module of Ray, which is an optional package.

    Raises:
        MissingExtraError: If it is not installed.
    """
    if find_spec("ray") is None:
        raise MissingExtraError(
            "executor ray needs the package ray; install it with: pip install 'fedsim-lora[ray]'"
        )
    import ray  # noqa: PLC0415 - an optional package, and it takes a second

    return ray


class RayExecutor:
    """A pool of training actors. They start at once and warm up while the caller goes on.

    Args:
        store: Versions that payloads are made from.
        setup: What every actor is told.
        cluster: Where they live.
        num_actors: How many.

    Raises:
        MissingExtraError: If Ray is not installed.
        InputError: If the cluster cannot be reached, or has no room for them.
    """

    def __init__(self, store: VersionStore, setup: ActorSetup, cluster: Cluster, num_actors: int) -> None:
        self._ray = need_ray()
        self._store = store
        self._task, self._settings = setup.worker.task, setup.worker.settings
        self._setup = _placed(setup, cluster)
        self._cluster = cluster
        self._is_ours = _connect(self._ray, cluster, num_actors)
        self._actors = [self._actor() for _ in range(num_actors)]
        self._versions: dict[int, Any] = {}
        self._pool = Pool(num_actors, self._settings.batch_clients, self._train, self._kill)
        self._is_closed = False
        self._changing = Lock()
        self.on_answer: OnAnswer = no_one_waits

    def pids(self) -> tuple[int, ...]:
        """Process ids on their nodes, once all actors have loaded."""
        return tuple(actor.ready() for actor in self._actors)

    async def train(self, requests: Sequence[TrainRequest]) -> list[Answer]:
        """Train every request; answers in their order. Cancelling it ends the actors.

        Raises:
            ModelError: If an actor cannot start.
            InputError: If an actor's machine would give other results than this one.
            TrainingError: If the executor has been closed.
        """
        if self._is_closed:
            raise TrainingError("the actors are closed; make a new executor")
        return await self._pool.train(requests)

    async def close(self) -> None:
        """End all actors, and Ray where it was started for them."""
        await asyncio.to_thread(self._kill)
        self._pool.close()
        if self._is_ours:
            await asyncio.to_thread(self._ray.shutdown)

    def _train(self, index: int, requests: Sequence[TrainRequest]) -> list[Answer]:
        outcomes = self._ask(index, requests)
        return conclude(
            requests,
            outcomes,
            task=self._task,
            dtype=self._settings.wire_dtype,
            on_answer=self.on_answer,
        )

    def _ask(self, index: int, requests: Sequence[TrainRequest]) -> list[Outcome]:
        """Send a group to an actor; replace it and try once more if it dies."""
        wanted = {request.assignment.version for request in requests}
        group = [freeze(request) for request in requests]
        for _ in range(_ATTEMPTS):
            try:
                answers = self._actors[index].ask(self._held(wanted), wanted, group)
                return [unpack_answer(frames) for frames in answers]
            except self._ray.exceptions.RayActorError:
                self._replace(index)
        return [f"the actor of Ray died {_ATTEMPTS} times on this request"] * len(requests)

    def _held(self, wanted: set[int]) -> dict[int, Any]:
        """Return the versions in Ray's object store: with those that are wanted, without any that is over."""
        with self._changing:
            known = {
                number: held for number, held in self._versions.items() if number in self._store.versions
            }
            known |= {
                number: self._ray.put(freeze(self._store.state(number)))
                for number in sorted(wanted)
                if number not in known
            }
            self._versions = known
            return known

    def _actor(self) -> "_Actor":
        return _Actor(self._ray, self._setup, self._cluster)

    def _replace(self, index: int) -> None:
        with self._changing:
            if self._is_closed:
                raise TrainingError("the actors were closed while they trained")
            self._actors[index].kill()
            self._actors[index] = self._actor()

    def _kill(self) -> None:
        with self._changing:
            self._is_closed = True
            for actor in self._actors:
                actor.kill()


class _Actor:
    """One actor, and what it holds."""

    def __init__(self, ray: Any, setup: ActorSetup, cluster: Cluster) -> None:
        self._ray = ray
        self._source = setup.worker.source
        made = ray.remote(num_cpus=cluster.num_cpus, num_gpus=cluster.num_gpus)(RayActor)
        self._handle = made.remote(setup)
        self._pid = 0
        self._holds: set[int] = set()

    def ready(self) -> int:
        """Wait until it has loaded; returns its process id.

        Raises:
            ModelError: If it cannot load the base.
            InputError: If results would depend on which of two machines trains.
        """
        if not self._pid:
            try:
                self._pid, machine = self._ray.get(self._handle.about.remote())
            except self._ray.exceptions.RayActorError as error:
                reason = [line for line in str(error).splitlines() if line.strip()][-1].strip()
                raise ModelError(
                    f"an actor of Ray died while it loaded {self._source!r}: {reason}"
                ) from error
            _check_same(machine)
        return self._pid

    def ask(
        self, versions: Mapping[int, Any], wanted: set[int], group: Sequence[bytes]
    ) -> list[tuple[bytes, bytes]]:
        """Train a group; a version that it lacks is sent ahead, as the actor does one thing after the other.

        Raises:
            RayActorError: If it dies before it has answered.
        """
        self.ready()
        for number in sorted(self._holds - set(versions)):
            self._handle.forget.remote(number)
        for number in sorted(wanted - self._holds):
            self._handle.hold.remote(number, versions[number])
        self._holds = (self._holds & set(versions)) | wanted
        answers: list[tuple[bytes, bytes]] = self._ray.get(self._handle.train.remote(list(group)))
        return answers

    def kill(self) -> None:
        """End it; whoever waits for its answer gets a RayActorError."""
        self._ray.kill(self._handle)


def _placed(setup: ActorSetup, cluster: Cluster) -> ActorSetup:
    """Ray shows an actor its own GPUs; without any, `auto` means the CPU even where the node has some."""
    if setup.worker.device == "auto" and not cluster.num_gpus:
        return replace(setup, worker=replace(setup.worker, device="cpu"))
    return setup


def _connect(ray: Any, cluster: Cluster, num_actors: int) -> bool:
    """Join a cluster or start one; returns whether it is ours to end.

    Raises:
        InputError: If it cannot be reached, or has no room for all actors.
    """
    is_ours = not ray.is_initialized()
    if is_ours:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves this machine unasked
        size = {} if cluster.address else {"num_cpus": math.ceil(num_actors * cluster.num_cpus)}
        try:
            ray.init(
                cluster.address or "local",
                include_dashboard=False if not cluster.address else None,
                log_to_driver=False,
                logging_level="error",
                **size,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"executor.address {cluster.address}: expected a Ray cluster that can be reached: {reason}"
            ) from error
    there = ray.cluster_resources()
    for name, each in (("CPU", cluster.num_cpus), ("GPU", cluster.num_gpus)):
        if each * num_actors > there.get(name, 0.0):
            if is_ours:
                ray.shutdown()
            raise ScenarioError(
                f"executor.workers: {num_actors} actors with {each:g} {name} each need "
                f"{each * num_actors:g}, Ray has {there.get(name, 0.0):g}; ask for fewer or less"
            )
    return is_ours


def _check_same(machine: Machine) -> None:
    """Refuse a machine that gives other last digits than this one."""
    here = Machine.here(machine.device)
    if machine != here:
        raise InputError(
            f"an actor of Ray has PyTorch {machine.torch} on {machine.cpu_capability}, this process "
            f"{here.torch} on {here.cpu_capability}: the record would depend on who trains whom; use nodes "
            "of one kind, or set ATEN_CPU_CAPABILITY alike on all"
        )
