"""What should whoever finds an adapter know? Its model card: where it comes from, and what it measured."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedsim.experiment.load import read_json
from fedsim.experiment.record import ADAPTER, MANIFEST

CARD = "README.md"
_NOT_MEASURED = ("version", "time_s", "round", "num_updates", "bytes_down", "bytes_up")
_HEADLINE = """\
---
base_model: {base}
library_name: peft
pipeline_tag: text-generation
tags: [lora, federated-learning, fedsim]
---

# {name}: the global adapter of a simulated federation

{description}

A LoRA adapter of {base}, fine-tuned by {method} over {num_devices} simulated devices with fedsim.
`rank_pattern` of `adapter_config.json` holds the rank of each layer; PEFT's scaling is 1 at all of them.
"""
_USE = """\
```python
from peft import PeftModel
{imported}

model = PeftModel.from_pretrained({loaded}, "adapter")
```

The licences of the base model and of the training data apply to the adapter.
"""
_BY_NAME = ("embedded", "smollm2")
"""Bases that only fedsim knows by these names."""


def write_card(directory: Path, evaluations: Sequence[Mapping[str, object]], record_hash: str) -> None:
    """Write the card into the adapter's folder of a run; a run without an adapter gets none.

    Args:
        directory: Of the run, whose manifest is there.
        evaluations: Rows of the metrics, the base model first.
        record_hash: SHA-256 of the record.
    """
    folder = directory / ADAPTER
    if folder.is_dir():
        text = model_card(read_json(directory / MANIFEST), evaluations, record_hash)
        (folder / CARD).write_text(text, encoding="utf-8")


def model_card(
    manifest: Mapping[str, Any], evaluations: Sequence[Mapping[str, object]], record_hash: str
) -> str:
    """Word the card: nothing in it depends on where or when the run was carried out.

    Args:
        manifest: Of the run.
        evaluations: Rows of the metrics, the base model first.
        record_hash: SHA-256 of the record.
    """
    scenario = manifest["scenario"]
    base = json.dumps(scenario["model"]["base"])
    facts = {
        "Scenario": scenario["name"],
        "Scenario hash (sha256)": f"`{manifest['scenario_sha256']}`",
        "Seed": manifest["seed"],
        "Record hash (sha256 of events.jsonl)": f"`{record_hash}`",
        "Method": manifest["method"],
        "Task": scenario["task"]["name"],
        "Adapted layers": len(manifest["layers"]),
        "Versions": ", ".join(f"{name} {found}" for name, found in manifest["versions"].items() if found),
    }
    parts = [
        _HEADLINE.format(
            base=base,
            name=scenario["name"],
            description=scenario["description"],
            method=manifest["method"],
            num_devices=manifest["num_devices"],
        ),
        _table(("", ""), [(name, str(value)) for name, value in facts.items()]),
        _metrics(evaluations),
        *(f"Note: {caveat}\n" for caveat in manifest["caveats"]),
        _use(scenario["model"]["base"]),
    ]
    return "\n".join(parts)


def _use(base: str) -> str:
    """Show how the adapter is loaded."""
    if base in _BY_NAME:
        imported, loaded = (
            "from fedsim.learn.model import load_model",
            f"load_model({json.dumps(base)}).model",
        )
    else:
        imported = "from transformers import AutoModelForCausalLM"
        loaded = f"AutoModelForCausalLM.from_pretrained({json.dumps(base)})"
    return _USE.format(imported=imported, loaded=loaded)


def _metrics(evaluations: Sequence[Mapping[str, object]]) -> str:
    """Compare the last version with the base model."""
    if not evaluations:
        return "Nothing was measured.\n"
    first, last = evaluations[0], evaluations[-1]
    rows = [
        (name, f"{before:.4f}", f"{after:.4f}")
        for name in last
        if name not in _NOT_MEASURED
        and isinstance(before := first.get(name), float)
        and isinstance(after := last[name], float)
    ]
    return _table(("held-out", "base model", f"version {last['version']}"), rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
