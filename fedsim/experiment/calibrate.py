"""How far off is the cost model on this machine? Measure a small design, fit, and say what the fit misses."""

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedsim.errors import ModelError, ScenarioError
from fedsim.experiment.record import write_json
from fedsim.learn.model import load_model, model_shape
from fedsim.learn.peft_bridge import AdapterSlot
from fedsim.learn.probe import Measured, Point, probe
from fedsim.world.cost import Workload
from fedsim.world.cost_calibrated import MEMORY_PARTS, TIME_PARTS, Calibration, memory_parts, time_parts
from fedsim.world.shape import ModelShape

DESIGN = (
    Point(4, 4, 4, 32),
    Point(16, 4, 8, 64),
    Point(16, 16, 4, 64),
    Point(32, 8, 8, 32),
    Point(8, 2, 2, 96),
    Point(32, 32, 2, 64),
    Point(64, 16, 4, 96),
    Point(4, 1, 8, 96),
    Point(64, 64, 8, 64),
    Point(24, 12, 6, 48),
    Point(8, 8, 2, 32),
    Point(48, 4, 4, 64),
)
SMALL_DESIGN = (
    Point(4, 4, 1, 32),
    Point(16, 4, 2, 64),
    Point(32, 32, 1, 64),
    Point(64, 8, 1, 96),
    Point(8, 2, 4, 32),
    Point(64, 64, 2, 32),
    Point(16, 16, 2, 96),
    Point(8, 8, 4, 64),
    Point(32, 8, 2, 48),
)
SMALL_FROM_PARAMS = 50_000_000
REPEATS = 5
FORMAT = 1
HUBER = 0.05


@dataclass(frozen=True, slots=True)
class Fit:
    """Coefficients, and their errors on points that were held out one at a time.

    Args:
        coefficients: Part -> units.
        errors: Relative error of each point, predicted from the others.
    """

    coefficients: dict[str, float]
    errors: tuple[float, ...]

    @property
    def median_error(self) -> float:
        """Half of the held-out points are closer."""
        return float(np.median(self.errors))


def fit(parts: np.ndarray, values: np.ndarray, names: Sequence[str]) -> Fit:
    """Fit non-negative coefficients to relative errors, robustly, and cross-validate.

    Least squares are reweighted by Huber's rule, so that one measurement that other work has disturbed does
    not bend the rest; each point is then predicted from a fit to all others.

    Args:
        parts: Units, points × parts.
        values: What was measured, positive.
        names: Of the parts.

    Source:
        Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35, 1964.
    """
    held_out = []
    for left_out in range(len(values)):
        kept = np.arange(len(values)) != left_out
        found = _robust(parts[kept], values[kept])
        held_out.append(abs(float(parts[left_out] @ found) / values[left_out] - 1.0))
    return Fit(dict(zip(names, _robust(parts, values).tolist(), strict=True)), tuple(held_out))


def _robust(parts: np.ndarray, values: np.ndarray) -> np.ndarray:
    from scipy.optimize import lsq_linear  # noqa: PLC0415 - takes long, and runs only read calibrations

    relative = parts / values[:, None]
    scale = np.abs(relative).max(axis=0)
    scale[scale == 0.0] = 1.0
    weights = np.ones(len(values))
    found = np.zeros(parts.shape[1])
    for _ in range(20):
        root = np.sqrt(weights)
        found = np.asarray(
            lsq_linear(relative / scale * root[:, None], root, bounds=(0.0, np.inf)).x, dtype=np.float64
        )
        missed = np.abs(relative / scale @ found - 1.0)
        weights = np.minimum(1.0, HUBER / np.maximum(missed, 1e-12))
    return np.asarray(found / scale, dtype=np.float64)


def calibrate(
    model: str,
    *,
    device: str = "cpu",
    repeats: int = REPEATS,
    tell: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure a model on this machine, and fit the cost model to it.

    Args:
        model: A base model as in a scenario.
        device: Where it runs.
        repeats: How often each point is measured; the least counts.
        tell: Told how many rounds over all points are done.

    Returns:
        What a calibration file holds.
    """
    torch.set_num_threads(1)
    loaded = load_model(model, device)
    shape = model_shape(loaded, "all-linear")
    slot = AdapterSlot(loaded.model, tuple(layer.name for layer in shape.layers))
    weights = sum(weight.numel() * weight.element_size() for weight in loaded.model.parameters())
    base_bytes = weights / shape.num_params
    design = SMALL_DESIGN if shape.num_params >= SMALL_FROM_PARAMS and device == "cpu" else DESIGN
    points = probe(loaded, slot, shape.layers, design, repeats=repeats, tell=tell)
    time_fit, memory_fit = fit_points(shape, points, base_bytes, float(weights))
    return {
        "format": FORMAT,
        "model": shape.name,
        "base_bytes": base_bytes,
        "machine": machine(device),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "numpy")},
        "repeats": repeats,
        "clock": "wall" if device.startswith("cuda") else "process CPU time, least of repeats, one thread",
        "time": time_fit.coefficients,
        "memory": memory_fit.coefficients,
        "time_error": time_fit.median_error,
        "time_worst": max(time_fit.errors),
        "memory_error": memory_fit.median_error,
        "memory_worst": max(memory_fit.errors),
        "points": [
            {**asdict(one.point), "step_s": one.step_s, "peak_bytes": one.peak_bytes} for one in points
        ],
    }


def fit_points(
    shape: ModelShape, points: Sequence[Measured], base_bytes: float, weights: float
) -> tuple[Fit, Fit]:
    """Fit time, and memory beyond the base weights; errors of memory are relative to the whole peak."""
    times, memories = [], []
    for one in points:
        ranks = [[rank] * len(shape.layers) for rank in (one.point.total, one.point.trained)]
        work = Workload(
            one.point.batch_size, one.point.max_length, 1, "float32", base_bytes, activation_bytes=4.0
        )
        times.append(time_parts(shape, work, *ranks))
        memories.append(memory_parts(shape, work, *ranks))
    peaks = np.array([one.peak_bytes for one in points])
    memory = fit(np.array(memories), peaks - weights, MEMORY_PARTS)
    share = (peaks - weights) / peaks
    whole = Fit(memory.coefficients, tuple((np.array(memory.errors) * share).tolist()))
    return fit(np.array(times), np.array([one.step_s for one in points]), TIME_PARTS), whole


def machine(device: str) -> str:
    """Name what was measured."""
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(torch.device(device)))
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}, one thread"


def write_calibration(found: dict[str, Any], path: Path) -> None:
    """Write a calibration file."""
    write_json(path, found)


def read_calibration(path: Path) -> Calibration:
    """Read a calibration file.

    Raises:
        ScenarioError: If it is none.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        fitted = Calibration(
            time={name: float(told["time"][name]) for name in TIME_PARTS},
            memory={name: float(told["memory"][name]) for name in MEMORY_PARTS},
            time_error=float(told["time_error"]),
            memory_error=float(told["memory_error"]),
            model=str(told["model"]),
            machine=str(told["machine"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ScenarioError(
            f"cost.calibration: {path}: expected a file that fedsim calibrate wrote: {error!r}"
        ) from error
    if told.get("format") != FORMAT or not fitted.time["base"] > 0:
        raise ScenarioError(
            f"cost.calibration: {path}: expected format {FORMAT} and a cost of the base above 0"
        )
    if any(not 0 <= value < np.inf for value in (*fitted.time.values(), *fitted.memory.values())):
        raise ScenarioError(f"cost.calibration: {path}: expected coefficients of at least 0; calibrate anew")
    return fitted


def check_machine(device: str) -> None:
    """Refuse a device that is not there.

    Raises:
        ModelError: With what to choose.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"--device {device}: there is no such GPU here; choose cpu")
