"""``fedsim export`` and ``fedsim eval``: take an adapter out of a run, and measure one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.report import RunArgument
from fedsim.cli.scenarios import SetOption, overrides
from fedsim.errors import ScenarioError

if TYPE_CHECKING:
    from fedsim.experiment.assess import Exam
    from fedsim.experiment.scenario import Scenario
    from fedsim.method.messages import Evaluation

DEFAULT_EXAMPLES = 256
DEFAULT_LENGTH = 256


def export(
    run: RunArgument,
    *,
    merge: Annotated[
        bool, typer.Option("--merge", help="Add the adapter to its base: a whole model, without PEFT.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="New folder.", show_default="RUN-adapter or RUN-merged")
    ] = None,
) -> None:
    """Write the global adapter of a run, with its model card; or its base with the adapter merged into it."""
    from fedsim.experiment.export import export_run  # noqa: PLC0415 - imports torch

    target = out or run.with_name(f"{run.absolute().name}-{'merged' if merge else 'adapter'}")
    typer.echo(export_run(run, target, merge=merge))


def evaluate(
    source: Annotated[Path, typer.Argument(metavar="RUN|ADAPTER", help="A run, or a PEFT adapter.")],
    *,
    task: Annotated[
        str | None, typer.Option(help="Another task than the run's; needed for an adapter.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="File of that task, all of it held out.")] = None,
    base: Annotated[str | None, typer.Option(help="Another base model than the adapter names.")] = None,
    examples: Annotated[
        int | None, typer.Option(min=1, help=f"Most examples, with --task ({DEFAULT_EXAMPLES}).")
    ] = None,
    generate: Annotated[
        int | None, typer.Option(min=0, help="Prompts answered, for metrics of text.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=8, help="Tokens per example; longer ones are cut.")
    ] = None,
    with_base: Annotated[bool, typer.Option("--with-base", help="Measure the base alone too.")] = False,
    assignments: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure an adapter as its run did, or on another task: loss, token accuracy, the task's metrics."""
    from fedsim.experiment import assess  # noqa: PLC0415 - imports torch

    changes = overrides(assignments or [])
    scenario = assess.scenario_of_run(source, changes) if assess.is_run(source) else None
    if scenario is None and changes:
        raise ScenarioError("--set: an adapter has no scenario; only a run has")
    asked = assess.subject(source, base, scenario)
    exam = _exam(scenario, task, data, examples)
    exam = _adjusted(exam, generate, max_length)
    found = assess.assess(asked, exam, with_base=with_base)
    if as_json:
        about = {"base": asked.base, "adapter": str(asked.adapter), "task": exam.task}
        told = {name: _told(evaluation) for name, evaluation in found.items()}
        typer.echo(json.dumps({**about, "examples": len(exam.examples), "measured": told}, indent=2))
    else:
        _print(exam, found)


def _exam(scenario: "Scenario | None", task: str | None, data: Path | None, examples: int | None) -> "Exam":
    from fedsim.experiment.assess import exam_of_file, exam_of_run  # noqa: PLC0415 - imports torch
    from fedsim.experiment.tasks import evaluation_settings  # noqa: PLC0415 - imports torch
    from fedsim.learn.evaluate import EvaluationSettings  # noqa: PLC0415 - imports torch

    if task is None:
        if scenario is None:
            raise ScenarioError("--task: expected the name of a task: an adapter does not say what it is for")
        if data is not None or examples is not None:
            raise ScenarioError("--task: --data and --examples need it; or change the run's with --set")
        return exam_of_run(scenario)
    if scenario is None:
        settings = EvaluationSettings(max_length=DEFAULT_LENGTH)
    else:
        settings = evaluation_settings(scenario)
    return exam_of_file(task, data, examples or DEFAULT_EXAMPLES, settings)


def _adjusted(exam: "Exam", generate: int | None, max_length: int | None) -> "Exam":
    settings = exam.settings
    if generate is not None:
        settings = replace(settings, generated=generate)
    if max_length is not None:
        settings = replace(settings, max_length=max_length)
    return replace(exam, settings=settings)


def _told(evaluation: "Evaluation") -> dict[str, float | None]:
    return {
        "loss": evaluation.loss,
        "token_accuracy": evaluation.token_accuracy,
        **evaluation.metrics,
    }


def _print(exam: "Exam", found: "dict[str, Evaluation]") -> None:
    columns = {name: _told(evaluation) for name, evaluation in found.items()}
    typer.echo(f"{exam.task}, {len(exam.examples)} examples")
    typer.echo(f"{'':<22}{''.join(f'{name:>12}' for name in columns)}")
    for name in columns["adapter"]:
        cells = [
            f"{value:>12.4f}" if isinstance(value := column[name], float) else f"{'-':>12}"
            for column in columns.values()
        ]
        typer.echo(f"{name:<22}{''.join(cells)}")
