"""An independent look at a record: budgets, outcomes and bytes, recomputed from shapes and traces."""

import json
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

OUTCOMES = {"aggregated", "late", "timed_out", "stale", "dropped", "failed", "discarded", "cancelled"}
WIRE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}

# Llama-3.2-1B by its published configuration, written down here once more on purpose.
LLAMA_1B = {
    "hidden": 2048,
    "blocks": 16,
    "heads": 32,
    "vocab": 128_256,
    "params": 1_235_814_400,
    "modules": {
        "q_proj": (2048, 2048),
        "k_proj": (2048, 512),
        "v_proj": (2048, 512),
        "o_proj": (2048, 2048),
        "gate_proj": (2048, 8192),
        "up_proj": (2048, 8192),
        "down_proj": (8192, 2048),
    },
}
INPUT_OF = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "mlp", "up_proj": "mlp"}


def read_events(directory):
    """All lines of a record, each beginning with time and event."""
    lines = (Path(directory) / "events.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(
        line.startswith('{"time_s": ') and line.split(", ")[1].startswith('"event": ') for line in lines
    )
    return [json.loads(line) for line in lines]


def of(events, name):
    return [event for event in events if event["event"] == name]


def check_order(events):
    """Time never falls, every phase takes time, and an assignment's phases come in order."""
    times = [event["time_s"] for event in events]
    assert times == sorted(times)
    assert all(event["duration_s"] > 0 for event in events if "duration_s" in event)
    rank = {
        "dispatched": 0,
        "replanned": 1,
        "downloaded": 2,
        "training_started": 3,
        "trained": 4,
        "uploaded": 5,
    }
    seen = {}
    for event in events:
        if event["event"] in rank:
            number = event["assignment"]
            assert rank[event["event"]] >= seen.get(number, 0) or event["event"] == "replanned"
            seen[number] = rank[event["event"]]


def check_outcomes(events):
    """Each assignment ends exactly once, in one of the known ways; aggregation settles what it names."""
    dispatched = [event["assignment"] for event in of(events, "dispatched")]
    settled = Counter(event["assignment"] for event in of(events, "settled"))
    assert len(dispatched) == len(set(dispatched))
    assert settled == Counter(dispatched)
    assert {event["outcome"] for event in of(events, "settled")} <= OUTCOMES
    aggregated = {event["assignment"] for event in of(events, "settled") if event["outcome"] == "aggregated"}
    combined = {number for event in of(events, "aggregating") for number in event["assignments"]}
    assert aggregated <= combined
    drops = [event for event in of(events, "settled") if event["outcome"] == "dropped"]
    assert all(event["phase"] in {"download", "train", "upload"} for event in drops)


def check_bytes(events, summary):
    """Bytes of phases, of outcomes and of the summary are the same bytes."""
    down = {event["assignment"]: event["bytes"] for event in of(events, "downloaded")}
    up = {event["assignment"]: event["bytes"] for event in of(events, "uploaded")}
    for event in of(events, "settled"):
        number = event["assignment"]
        if number in down:
            assert event["bytes_down"] == down[number]
        if number in up:
            assert event["bytes_up"] == up[number]
        else:
            assert event["outcome"] != "aggregated"
    assert summary["bytes_down"] == sum(event["bytes_down"] for event in of(events, "settled"))
    assert summary["bytes_up"] == sum(event["bytes_up"] for event in of(events, "settled"))


class Costs:
    """Bytes, memory and FLOP of a plan, straight from the published formulas, layer by layer."""

    def __init__(self, manifest):
        scenario = manifest["scenario"]
        assert scenario["model"]["stands_for"] == "llama-3.2-1b"
        self.layers = manifest["layers"]
        blocks = 1 + max(int(name.split(".")[2]) for name in self.layers)
        self.copies = LLAMA_1B["blocks"] // blocks
        assert LLAMA_1B["blocks"] % blocks == 0
        training, cost = scenario["training"], scenario["cost"]
        self.tokens = training["batch_size"] * scenario["task"]["max_length"]
        self.length = scenario["task"]["max_length"]
        self.steps = training["local_steps"]
        self.wire = WIRE_BYTES[training["wire_dtype"]]
        self.cost = cost

    def _sizes(self):
        return [LLAMA_1B["modules"][name.rsplit(".", 1)[1]] for name in self.layers]

    def download(self, plan):
        return sum(
            self.copies * (d_in + d_out) * self.wire * rank
            for (d_in, d_out), rank in zip(self._sizes(), plan["total"], strict=True)
        )

    def upload(self, plan):
        return self.download({"total": plan["trained"]})

    def memory(self, plan):
        cost, wide = self.cost, LLAMA_1B
        per_token = 17.0 * wide["hidden"] + 2.5 * wide["heads"] * self.length
        total = wide["params"] * cost["base_bytes"]
        total += self.tokens * wide["blocks"] * per_token * cost["activation_bytes"]
        total += 2.0 * self.tokens * wide["vocab"] * 4.0
        inputs = set()
        for name, (d_in, d_out), rank, trained in zip(
            self.layers, self._sizes(), plan["total"], plan["trained"], strict=True
        ):
            u = d_in + d_out
            total += self.copies * u * cost["factor_bytes"] * rank
            own = u * (cost["grad_bytes"] + cost["optimizer_bytes"]) + self.tokens * cost["activation_bytes"]
            total += self.copies * own * trained
            if trained:
                parent, suffix = name.rsplit(".", 1)
                inputs.add((parent, INPUT_OF.get(suffix, suffix), d_in))
        total += sum(self.copies * self.tokens * d_in * cost["activation_bytes"] for _, _, d_in in inputs)
        return total

    def flops(self, plan):
        wide = LLAMA_1B
        matmul = wide["vocab"] * wide["hidden"] + wide["blocks"] * sum(
            d_in * d_out for d_in, d_out in wide["modules"].values()
        )
        base = 4.0 * matmul + 12.0 * self.length * wide["hidden"] * wide["blocks"]
        low_rank = sum(
            self.copies * (d_in + d_out) * (4.0 * rank + 2.0 * trained)
            for (d_in, d_out), rank, trained in zip(
                self._sizes(), plan["total"], plan["trained"], strict=True
            )
        )
        return self.tokens * self.steps * (base + low_rank)


def check_budgets(events, manifest, fleet):
    """Every plan that began to train fits the three budgets it was made for, and the memory of that moment.

    A plan that was made again keeps the columns that were there, and fits what was still to come, which
    follows from the bytes received, the instant and the deadline.

    Args:
        events: The record.
        manifest: Its manifest.
        fleet: The trace files.
    """
    costs = Costs(manifest)
    plans = {event["plan"]: event for event in of(events, "plan")}
    dispatched = {event["assignment"]: event for event in of(events, "dispatched")}
    budgets = {number: event["budget"] for number, event in dispatched.items()}
    there = dict.fromkeys(dispatched, 0)
    for event in of(events, "replanned"):
        number = event["assignment"]
        there[number] = costs.download({"total": event["received"]})
        budgets[number] = still_to_come(event, dispatched[number]["deadline_at_s"], there[number])
    started = of(events, "training_started")
    assert started
    for event in started:
        number = event["assignment"]
        plan, budget, sent = plans[event["plan"]], budgets[number], dispatched[number]
        assert costs.memory(plan) <= fleet.memory_bytes(sent["device"], event["time_s"]) * (1 + 1e-9)
        assert costs.memory(plan) <= budget["memory_bytes"] * (1 + 1e-9)
        download = costs.download(plan) - there[number]
        assert download >= 0
        assert download <= budget["download_bytes"] * (1 + 1e-9)
        seconds = (
            8 * download / budget["download_bps"]
            + costs.flops(plan) / budget["flops"]
            + 8 * costs.upload(plan) / budget["upload_bps"]
        )
        assert seconds <= budget["seconds"] * (1 + 1e-9)
    for event in of(events, "downloaded"):
        final = [line for line in started if line["assignment"] == event["assignment"]]
        if final:
            used = event["bytes"] - event.get("unused_bytes", 0)
            assert used == costs.download(plans[final[-1]["plan"]])
    for event in of(events, "uploaded"):
        final = [line for line in started if line["assignment"] == event["assignment"]][-1]
        whole = costs.upload(plans[final["plan"]])
        assert 0 < event["bytes"] <= whole if "cut" in event else event["bytes"] == whole


def still_to_come(event, deadline_at_s, column_bytes):
    """The budget of a re-plan without what had arrived or was under way; latency can only make it smaller."""
    whole, ahead = event["budget"], event["ahead"]
    assert 0 <= event["received_bytes"] <= column_bytes
    left_bytes = max(whole["download_bytes"] - column_bytes, 0.0)
    assert ahead["download_bytes"] <= left_bytes * (1 + 1e-9)
    if deadline_at_s is not None and event["time_s"] <= deadline_at_s:
        under_way_s = 8 * (column_bytes - event["received_bytes"]) / whole["download_bps"]
        left_s = max(deadline_at_s - event["time_s"] - under_way_s, 0.0)
        assert ahead["seconds"] <= left_s * (1 + 1e-9)
    return {**whole, **ahead}


class Fleet:
    """What the trace files say of a device at a virtual instant, read without fedsim's readers."""

    def __init__(self, folder, start_s):
        self.start_s = start_s
        self.devices = pd.read_csv(folder / "devices.csv", comment="#").set_index("device_id")
        table = pd.read_csv(folder / "availability.csv", comment="#")
        self.intervals = {
            name: part[["start_s", "end_s"]].to_numpy() for name, part in table.groupby("device_id")
        }
        self.periods = {}
        if (folder / "availability.csv.toml").exists():
            sidecar = tomllib.loads((folder / "availability.csv.toml").read_text())
            self.periods = dict.fromkeys(self.devices.index, float(sidecar["period_s"]))
        self.events = {}
        if (folder / "state.csv").exists():
            state = pd.read_csv(folder / "state.csv", comment="#")
            memory = state[state["key"] == "mem_available_mib"]
            self.events = {
                name: part.sort_values("time_s")[["time_s", "value"]].to_numpy(dtype=float)
                for name, part in memory.groupby("device_id")
            }

    def memory_bytes(self, device, time_s):
        events = self.events.get(device)
        value = float(self.devices.loc[device, "mem_available_mib"])
        if events is not None:
            position = (time_s + self.start_s) % self.periods[device]
            before = events[events[:, 0] <= position]
            value = before[-1, 1] if len(before) else value
        return value * 2**20

    def is_online(self, device, time_s):
        row = self.devices.loc[device]
        period = self.periods.get(device) or float(row["availability_period_s"])
        name = row["availability_id"] if isinstance(row.get("availability_id"), str) else device
        offset = row.get("tz_offset_s", 0.0)
        position = (time_s + self.start_s + (0.0 if pd.isna(offset) else offset)) % period
        part = self.intervals.get(name, np.empty((0, 2)))
        return bool(((part[:, 0] <= position + 1e-6) & (position <= part[:, 1] + 1e-6)).any())


def check_presence(events, fleet):
    """Nobody works outside its trace: online when asked, and at the end of each phase."""
    device_of = {event["assignment"]: event["device"] for event in of(events, "dispatched")}
    for event in events:
        if event["event"] in {"dispatched", "downloaded", "trained", "uploaded"}:
            assert fleet.is_online(device_of[event["assignment"]], event["time_s"]), event
