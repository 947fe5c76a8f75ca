"""``fedsim doctor``: is everything here that a run needs?"""

import json
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import typer

from fedsim.cli.speech import JsonOption, tinted

REQUIRED = (
    "torch",
    "transformers",
    "peft",
    "datasets",
    "simpy",
    "numpy",
    "pandas",
    "scipy",
    "pydantic",
    "safetensors",
    "pyarrow",
    "plotly",
)
# Package -> extra that installs it, what it is for.
EXTRAS = {
    "gguf": ("gguf", "base models in .gguf files"),
    "bitsandbytes": ("quantize", "a base in 8 or 4 bit on a GPU"),
    "matplotlib": ("plot", "traces drawn as PNG"),
    "mkdocs": ("docs", "the documentation site"),
}
COLOURS = {"ok": "green", "note": "yellow", "missing": "red"}
MIN_DISK_BYTES = 2e9
GIGA = 1e9


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Args:
        what: Its name.
        state: ``missing`` fails the command; ``note`` does not.
        detail: What was found, and the way out.
    """

    what: str
    state: Literal["ok", "note", "missing"]
    detail: str


def doctor(
    *,
    as_json: JsonOption = False,
) -> None:
    """Check versions, PyTorch, GPU, optional extras and disk; exit code 1 if something needed is missing."""
    findings = examine(Path.cwd())
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            state = tinted(f"{finding.state:>7}", COLOURS[finding.state])
            typer.echo(f"{state}  {finding.what.ljust(width)}  {finding.detail}")
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)


def examine(directory: Path) -> list[Finding]:
    """Look at everything; nothing is changed.

    Args:
        directory: Where runs would be written.
    """
    return [_python(), *map(_package, REQUIRED), *_torch(), *_extras(), _cores(), _disk(directory)]


def _python() -> Finding:
    state: Literal["ok", "missing"] = "ok" if sys.version_info >= (3, 11) else "missing"
    return Finding(
        "python", state, f"{platform.python_version()} on {platform.machine()}; needs 3.11 or newer"
    )


def _package(name: str) -> Finding:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - keeps help fast

    try:
        return Finding(name, "ok", version(name))
    except PackageNotFoundError:
        return Finding(name, "missing", f"not installed; pip install {name}")


def _torch() -> list[Finding]:
    if find_spec("torch") is None:
        return []
    import torch  # noqa: PLC0415 - takes seconds to load

    capability = Finding("cpu capability", "ok", torch.backends.cpu.get_cpu_capability())
    if not torch.cuda.is_available():
        detail = "none that PyTorch can use; runs use the CPU, which is fine for small models"
        return [capability, Finding("gpu", "note", detail)]
    found = []
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        found.append(Finding(f"gpu {index}", "ok", f"{about.name}, {about.total_memory / GIGA:.0f} GB"))
    return [capability, *found]


def _extras() -> list[Finding]:
    from importlib.metadata import version  # noqa: PLC0415 - keeps help fast

    return [
        Finding(f"extra {extra}", "ok", f"{name} {version(name)}, for {purpose}")
        if find_spec(name) is not None
        else Finding(
            f"extra {extra}", "note", f"not installed; for {purpose}: pip install 'fedsim-lora[{extra}]'"
        )
        for name, (extra, purpose) in EXTRAS.items()
    ]


def _cores() -> Finding:
    return Finding("cpu cores", "ok", str(os.cpu_count()))


def _disk(directory: Path) -> Finding:
    free = shutil.disk_usage(directory).free
    if free < MIN_DISK_BYTES:
        detail = f"{free / GIGA:.1f} GB free in {directory}; long runs may need more"
        return Finding("disk", "note", detail)
    return Finding("disk", "ok", f"{free / GIGA:.0f} GB free")
