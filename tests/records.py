"""A small record written by hand: four assignments with four ends, and names that try to break a page."""

import json
from pathlib import Path

NASTY = "<script>alert(1)</script>"
LAYERS = ("model.layers.0.q_proj", "model.layers.1.q_proj")
BUDGET = {
    "download_bytes": 1000.0,
    "memory_bytes": 2000.0,
    "seconds": 100.0,
    "download_bps": 800.0,
    "upload_bps": 800.0,
    "flops": 100.0,
}
MANIFEST = {
    "scenario": {"name": f"tiny {NASTY}", "description": NASTY, "server": {"pacing": "sync"}},
    "scenario_sha256": "ab" * 32,
    "seed": 3,
    "executor": "inline",
    "method": "fedhera",
    "versions": {"fedsim-lora": "0.1.0", "torch": "2.13.0"},
    "python": "3.11.7",
    "cpu_capability": "AVX2",
    "traces": {"devices.csv": "cd" * 32},
    "trace_notes": [NASTY],
    "trace_sources": {"devices.csv": {"source": NASTY, "licence": "Apache-2.0"}},
    "num_devices": 6,
    "devices_by_class": {"phone": 5, "laptop": 1},
    "shards": {
        "devices": 6,
        "sample": [
            {
                "device": f"phone-0 {NASTY}",
                "device_class": "phone",
                "examples": 10,
                "entropy_bits": 0.8,
                "groups": {f"a {NASTY}": 8, "": 2},
            },
            {
                "device": "laptop-2",
                "device_class": "laptop",
                "examples": 30,
                "entropy_bits": 0.0,
                "groups": {"": 30},
            },
        ],
    },
    "prices": {
        "down_bytes": [10, 20],
        "up_bytes": [10, 20],
        "tail_memory": [1.0, 2.0],
        "train_memory": [3.0, 4.0],
        "group": [0, 1],
        "group_memory": [5.0, 6.0],
        "base_memory": 100.0,
        "tail_flops": [7.0, 8.0],
        "train_flops": [9.0, 10.0],
        "base_flops": 1000.0,
    },
    "model": "tiny",
    "num_params": 10,
    "layers": list(LAYERS),
    "priced_as": "tiny standing for big",
    "priced_num_params": 1000,
    "caveats": ["Bytes are those of big."],
}


def _dispatched(at_s, number, client, device_class, plan, version=0):
    return {
        "time_s": at_s,
        "event": "dispatched",
        "assignment": number,
        "client": client,
        "device": f"{device_class}-{client} {NASTY}",
        "device_class": device_class,
        "version": version,
        "plan": plan,
        "budget": BUDGET,
        "gate": 0.5,
        "steps": 2,
        "learning_rate": 0.1,
        "deadline_at_s": at_s + 100.0,
    }


def _settled(at_s, number, client, device_class, outcome, plan, down, up, phase=None, reason=""):
    return {
        "time_s": at_s,
        "event": "settled",
        "assignment": number,
        "client": client,
        "device_class": device_class,
        "outcome": outcome,
        "phase": phase,
        "reason": reason,
        "plan": plan,
        "bytes_down": down,
        "bytes_up": up,
    }


def _phases(number, began_s, plan, down, train_s, up_s, up):
    """A download of 10 s, then training and upload of the given lengths."""
    trained_at_s = began_s + 10.0 + train_s
    return [
        {
            "time_s": began_s + 10.0,
            "event": "downloaded",
            "assignment": number,
            "bytes": down,
            "duration_s": 10.0,
        },
        {"time_s": began_s + 10.0, "event": "training_started", "assignment": number, "plan": plan},
        {"time_s": trained_at_s, "event": "trained", "assignment": number, "duration_s": train_s},
        {
            "time_s": trained_at_s + up_s,
            "event": "uploaded",
            "assignment": number,
            "bytes": up,
            "duration_s": up_s,
        },
    ]


def lines():
    """The record, in order."""
    flow = [
        {
            "time_s": 0.0,
            "event": "evaluated",
            "version": 0,
            "loss": 2.0,
            "token_accuracy": 0.25,
            "rouge_l": 0.1,
        },
        {"time_s": 0.0, "event": "fleet", "online": 4, "busy": 0},
        {
            "time_s": 0.0,
            "event": "declined",
            "client": 5,
            "device": "phone-5",
            "device_class": "phone",
            "reason": "infeasible: base",
        },
        {"time_s": 0.0, "event": "plan", "plan": 0, "total": [2, 2], "trained": [2, 1]},
        _dispatched(0.0, 0, 0, "phone", 0),
        _dispatched(0.0, 1, 1, "phone", 0),
        _dispatched(0.0, 2, 2, "laptop", 0),
        {"time_s": 2.0, "event": "plan", "plan": 1, "total": [1, 1], "trained": [1, 1]},
        {
            "time_s": 2.0,
            "event": "replanned",
            "assignment": 0,
            "reason": "bandwidth",
            "old_plan": 0,
            "new_plan": 1,
            "budget": BUDGET,
            "received": [0, 0],
            "received_bytes": 0,
            "ahead": {"download_bytes": BUDGET["download_bytes"], "seconds": BUDGET["seconds"]},
        },
        *_phases(0, 0.0, 1, 30, 20.0, 5.0, 30),
        {"time_s": 36.0, "event": "departed", "client": 1, "device": "phone-1"},
        _settled(36.0, 1, 1, "phone", "dropped", 0, 60, 0, "train", "the device left"),
        {"time_s": 40.0, "event": "aggregating", "version": 0, "assignments": [0], "weights": [1.0]},
        {
            "time_s": 40.0,
            "event": "aggregated",
            "version": 1,
            "ranks": dict.fromkeys(LAYERS, 2),
            "energy": dict.fromkeys(LAYERS, 1.5),
            "alignments": {"0": 0.9},
            "losses": {"0": 1.75},
            "failed": {},
        },
        _settled(40.0, 0, 0, "phone", "aggregated", 1, 30, 30),
        {"time_s": 40.0, "event": "round_closed", "round": 0, "version": 1, "result": "aggregated"},
        _settled(50.0, 2, 2, "laptop", "late", 0, 60, 40, None, "its round had closed"),
        {
            "time_s": 50.0,
            "event": "evaluated",
            "version": 1,
            "loss": 1.5,
            "token_accuracy": 0.5,
            "rouge_l": 0.3,
        },
        _dispatched(50.0, 3, 1, "phone", 1, version=1),
        _settled(60.0, 3, 1, "phone", "cancelled", 1, 12, 0, None, "the run ended"),
        {"time_s": 60.0, "event": "stopped", "reason": "1 round is over"},
    ]
    # the laptop trains on while the phones come and go
    laptop = _phases(2, 0.0, 0, 60, 30.0, 6.0, 40)
    return sorted(flow + laptop, key=lambda line: line["time_s"])


def write_record(directory: Path, *, stub: bool = False) -> Path:
    """Write the record as a run would have; a stub has no losses."""
    directory.mkdir(parents=True, exist_ok=True)
    manifest = {**MANIFEST, "executor": "stub" if stub else "inline"}
    (directory / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    told = lines()
    if stub:
        told = [{**line, "loss": None, "token_accuracy": None} if "loss" in line else line for line in told]
    text = "".join(json.dumps(line) + "\n" for line in told)
    (directory / "events.jsonl").write_text(text, encoding="utf-8")
    loss = ("", "") if stub else ("2.0", "1.5")
    (directory / "metrics.csv").write_text(
        "version,time_s,round,num_updates,bytes_down,bytes_up,loss,token_accuracy,rouge_l\n"
        f"0,0.0,0,0,0,0,{loss[0]},0.25,0.1\n1,50.0,1,1,150,70,{loss[1]},0.5,0.3\n",
        encoding="utf-8",
    )
    (directory / "summary.json").write_text(
        json.dumps({"reason": "1 round is over", "virtual_s": 60.0, "wall_s": 4.0}), encoding="utf-8"
    )
    return directory
