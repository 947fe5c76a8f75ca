"""How does an adapter leave a run? As it is, with its card, or merged into its base."""

import shutil
import tempfile
from pathlib import Path

from fedsim.errors import InputError, ScenarioError
from fedsim.experiment.assess import scenario_of_run, subject
from fedsim.experiment.model_card import CARD
from fedsim.experiment.record import storing
from fedsim.learn.model import ModelOptions, load_model
from fedsim.learn.peft_bridge import merged_model


def export_run(directory: Path, out: Path, *, merge: bool) -> Path:
    """Write the adapter of a run, or its base with the adapter merged into it.

    Args:
        directory: Of the run.
        out: New folder; appears whole or not at all.
        merge: Whether a whole model is written, which needs no PEFT.

    Returns:
        The folder.

    Raises:
        InputError: If it is no run with an adapter, or the folder is there already.
        StorageError: If the folder cannot be written.
    """
    scenario = scenario_of_run(directory, {})
    asked = subject(directory, None, scenario)
    if out.exists():
        raise InputError(f"--out {out}: expected a new folder, found one; choose another")
    if merge and asked.options.quantize != "none":
        raise ScenarioError(
            f"model.quantize: {asked.options.quantize}: numbers cannot be added to packed weights; export "
            "without --merge, and merge into the unquantised base"
        )
    with storing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
            part = Path(scratch) / "part"
            shutil.copytree(asked.adapter, part)
            if merge:
                _merge(asked.base, part, ModelOptions(dtype=asked.options.dtype))
            part.replace(out)
    return out


def _merge(base: str, folder: Path, options: ModelOptions) -> None:
    """Replace an adapter by the merged model; its card stays."""
    loaded = load_model(base, "cpu", options)
    model = merged_model(loaded.model, folder)
    for path in folder.iterdir():
        if path.name != CARD:
            path.unlink()
    model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
