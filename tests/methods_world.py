"""A tiny fixed federation for every method: three clients of the shipped base, one seed for all."""

import asyncio

import numpy as np

from fedsim.learn.evaluate import EvaluationSettings, GlobalEvaluator
from fedsim.learn.executors.inline import InlineExecutor
from fedsim.learn.measure import DriftGauge, DriftSettings
from fedsim.learn.oracle import OracleStore
from fedsim.learn.train import TrainingSettings
from fedsim.learn.trainer import ClientTrainer
from fedsim.lora.factors import Factors, adapter_norm, stack
from fedsim.method.bundle import ClientMemory, Standing
from fedsim.method.catalogue import build_method
from fedsim.method.messages import Assignment, Budget, TrainRequest
from fedsim.world.cost import Workload, roofline

DRIFT = ("absolute_drift", "relative_drift", "cross_client_drift")
WEIGHTS = (0.3, 0.5, 0.2)
OPTIONS = {  # what a method needs besides its defaults to fit into this small world
    "fedhomolora": {"rank": 4},
    "fedex_lora": {"rank": 4},
    "fed_plora": {"rank_cap": 12},
    "fedhera": {"initial_rank": 4},
    "fedhera_paper": {"initial_rank": 4},
}


def federation(
    name, loaded, slot, shape, task, *, rounds=3, steps=4, options=None, learning_rate=1e-2, drift=False
):
    """Train a method for a few rounds; returns figures of each version, the base model first.

    With `drift`, the last version has that of one client, and the dispersion of all.
    """
    given = options if options is not None else OPTIONS.get(name, {"rank_cap": 12})
    method = build_method(name, given)
    prices = method.charge(roofline(shape, Workload(4, 48, steps, "bfloat16")))
    settings = TrainingSettings(batch_size=4, max_length=48, wire_dtype="bfloat16")
    store = OracleStore(method, shape.layers, 11)
    executor = InlineExecutor(store, ClientTrainer(loaded, slot, task, settings), task, settings)
    gauge = DriftGauge(executor, store, DriftSettings(int(drift), rounds, 12, ("fedsim",), 7, "bfloat16"))
    judge = GlobalEvaluator(
        loaded, slot, store, task.held_out, EvaluationSettings(max_length=48, generated=0)
    )
    memory, figures = {}, [measured(judge, store, 0)]
    for version in range(rounds):
        standings = [Standing(memory.get(client), ()) for client in range(3)]
        plans = method.allocate(store.spectrum(version), budgets(prices), prices, None, standings)
        requests = [
            TrainRequest(
                Assignment(
                    id=3 * version + client,
                    client=client,
                    version=version,
                    offered=plan,
                    steps=steps,
                    seed=100 * version + client,
                    gate=method.gate(memory.get(client), version),
                    learning_rate=learning_rate,
                    dispatched_at_s=0.0,
                    deadline_at_s=1.0,
                ),
                plan,
            )
            for client, plan in enumerate(plans)
        ]
        updates = asyncio.run(gauge.train(requests))
        combined = asyncio.run(gauge.aggregate(version, updates, WEIGHTS))
        assert not combined.failed
        for update in updates:
            rank = combined.pruned.get(update.assignment)
            memory[update.client] = ClientMemory(combined.alignments[update.assignment], version, rank)
        gates = [request.assignment.gate for request in requests]
        figures.append(measured(judge, store, version + 1) | {"gate": sum(gates) / len(gates)})
        if drift and combined.measured is not None:
            figures[-1] |= {name: combined.measured.means[name] for name in DRIFT}
    return figures


def measured(judge, store, version):
    """Loss, accuracy, and how far the model moved in this version."""
    found = judge.measure(version, store.export(version))
    moved = 0.0
    if version:
        after, before = store.export(version), store.export(version - 1)
        moved = adapter_norm({name: stack([after[name], negative(before[name])]) for name in after})
    return {"loss": found.loss, "token_accuracy": found.token_accuracy, "update_norm": moved}


def negative(factors):
    return Factors(lora_a=factors.lora_a, lora_b=-factors.lora_b)


def budgets(prices):
    """A rich, a middling and a poor client, by download and by memory."""
    layers = len(prices.layers)

    def budget(total, trained):
        room = float(np.sum(prices.tail_memory)) * total + float(np.sum(prices.train_memory)) * trained
        base = prices.base_memory + float(prices.group_memory.sum())
        whole = prices.download_bytes([total] * layers) + prices.merged_bytes([64] * layers)
        return Budget(float(whole + 1), base + room, 1e12, 1e9, 1e9, 1e9)

    return [budget(12, 8), budget(12, 4), budget(12, 4)]
