"""How good is an adapter that lies on disk? The one of a run, or any in PEFT's format, on any task.

What a run measured at its end, `assess` measures again to the last bit, if data and model are the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from fedsim.errors import InputError, ModelError, ScenarioError
from fedsim.experiment.build import model_options
from fedsim.experiment.fleet import build_population
from fedsim.experiment.learning_sections import EMBEDDED
from fedsim.experiment.load import read_json
from fedsim.experiment.record import ADAPTER, MANIFEST
from fedsim.experiment.scenario import Scenario, restore_scenario
from fedsim.experiment.tasks import build_task, device_sets, evaluation_settings
from fedsim.experiment.yaml_source import Source, override
from fedsim.learn.data import EmbeddedTask
from fedsim.learn.evaluate import AdapterEvaluator, EvaluationSettings
from fedsim.learn.example import Example
from fedsim.learn.model import DEFAULT_OPTIONS, ModelOptions, check_length, load_model
from fedsim.learn.peft_bridge import CONFIG_FILE, AdapterSlot, import_adapter
from fedsim.learn.tasks.assemble import ReadSettings, read_examples
from fedsim.learn.tasks.catalogue import TASKS
from fedsim.method.messages import Evaluation


@dataclass(frozen=True, slots=True)
class Subject:
    """An adapter and the base it belongs to.

    Args:
        adapter: Folder in PEFT's format.
        base: Source of the base model.
        device: Where it is held.
        options: How it is held.
    """

    adapter: Path
    base: str
    device: str = "auto"
    options: ModelOptions = DEFAULT_OPTIONS


@dataclass(frozen=True, slots=True)
class Exam:
    """What an adapter is asked.

    Args:
        task: Its name.
        examples: Examples with answers.
        settings: How answers are measured.
    """

    task: str
    examples: tuple[Example, ...] = field(repr=False)
    settings: EvaluationSettings


def is_run(path: Path) -> bool:
    """Whether a folder is one of a run."""
    return (path / MANIFEST).is_file()


def scenario_of_run(directory: Path, changes: Mapping[str, str]) -> Scenario:
    """Return the scenario of a run with some values changed.

    Args:
        directory: Of the run.
        changes: Dotted key -> YAML text.

    Raises:
        InputError: If it is no run, or a change is wrong.
    """
    path = directory / MANIFEST
    manifest = read_json(path)
    try:
        source = Source(dict(manifest["scenario"]), {(): str(path)})
        folder = Path(str(manifest["scenario_directory"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected the manifest of a run, found no scenario ({error})") from error
    for dotted, text in changes.items():
        source = override(source, dotted, text)
    return restore_scenario(source, folder)


def subject(path: Path, base: str | None, scenario: Scenario | None) -> Subject:
    """Find the adapter and its base.

    Args:
        path: A run, or an adapter.
        base: Another base than the one the adapter names.
        scenario: Of the run, if it is one.

    Raises:
        ModelError: If there is no adapter, or it names no base.
    """
    if scenario is not None:
        adapter = path / ADAPTER
        if not adapter.is_dir():
            raise ModelError(f"{path}: expected a run with an adapter, found none; a stub trains nothing")
        model = scenario.model
        return Subject(adapter, base or model.base, model.device, model_options(scenario))
    if not (path / CONFIG_FILE).is_file():
        raise ModelError(f"{path}: expected the folder of a run or of a PEFT adapter, found neither")
    named = base or read_json(path / CONFIG_FILE).get("base_model_name_or_path")
    if not named:
        raise ModelError(f"{path / CONFIG_FILE}: names no base model; name it with --base")
    return Subject(path, str(named))


def exam_of_run(scenario: Scenario) -> Exam:
    """Return what the run itself asked: its held-out examples and its metrics."""
    population = build_population(scenario)
    task = build_task(scenario, population.num_devices, device_sets(scenario, population))
    return Exam(scenario.task.name, task.held_out, evaluation_settings(scenario))


def exam_of_file(name: str, data: Path | None, count: int, settings: EvaluationSettings) -> Exam:
    """Return an exam on another task, or on another file.

    Args:
        name: Of the task.
        data: Its file; None for the embedded task, which makes its own examples.
        count: Most examples; of a larger file a fixed sample is drawn.
        settings: How to measure; metrics that the task cannot have are replaced by its own.

    Raises:
        InputError: If there is no such task, or the file is wrong.
    """
    if name == EMBEDDED:
        if data is not None:
            raise ScenarioError("--data: the embedded task makes its own data; leave it out")
        made = EmbeddedTask(num_clients=1, seed=0, held_out_size=count).held_out
        return Exam(name, made, replace(settings, metrics=("rouge_l",), stop=()))
    form = TASKS.get(name)
    if form is None:
        raise ScenarioError(f"--task: expected one of {EMBEDDED}, {', '.join(TASKS)}, got {name!r}")
    if data is None:
        raise ScenarioError(f"--data: expected the file of the task {name}")
    rng = np.random.default_rng(0)
    examples = read_examples(form, data, data, ReadSettings(), rng)[1]
    chosen = sorted(rng.permutation(len(examples))[:count].tolist())
    fitting = replace(settings, metrics=form.metrics, stop=form.stop)
    return Exam(name, tuple(examples[index] for index in chosen), fitting)


def assess(asked: Subject, exam: Exam, *, with_base: bool = False) -> dict[str, Evaluation]:
    """Measure an adapter.

    Args:
        asked: Adapter and base.
        exam: Examples and metrics.
        with_base: Whether the base alone is measured too.

    Returns:
        ``adapter``, and ``base`` where it was asked for: loss, token accuracy, metrics.

    Raises:
        InputError: If adapter and base do not fit together, or texts are too long for the base.
    """
    torch.set_num_threads(1)  # as in a run, or the last bits would differ
    adapter = import_adapter(asked.adapter)
    loaded = load_model(asked.base, asked.device, asked.options)
    check_length(loaded, exam.settings.max_length)
    missing = sorted(set(adapter) - {name for name, _ in loaded.model.named_modules()})
    if missing:
        raise ModelError(
            f"{asked.adapter}: the base {asked.base!r} has no layer {missing[0]}; name another with --base"
        )
    evaluator = AdapterEvaluator(
        loaded, AdapterSlot(loaded.model, list(adapter)), exam.examples, exam.settings
    )
    found = {"adapter": evaluator.measure(0, adapter)}
    if with_base:
        found["base"] = evaluator.measure(0, {})
    return found
