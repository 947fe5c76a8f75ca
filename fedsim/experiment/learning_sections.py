"""What may a scenario say about learning: model, task, shards, evaluation?"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from fedsim.experiment.explain import show
from fedsim.experiment.sections import Count, FilePath, Positive, Section, Word

EMBEDDED = "embedded"
FILE_TASKS = (
    "e2e_nlg",
    "alpaca",
    "hellaswag",
    "boolq",
    "piqa",
    "winogrande",
    "gsm8k",
    "text_classification",
    "instruction_jsonl",
)
METRICS = (
    "rouge_1",
    "rouge_2",
    "rouge_l",
    "bleu",
    "exact_match",
    "gsm8k_exact_match",
    "option_accuracy",
    "option_accuracy_norm",
)
TaskName = Literal[
    "embedded",
    "e2e_nlg",
    "alpaca",
    "hellaswag",
    "boolq",
    "piqa",
    "winogrande",
    "gsm8k",
    "text_classification",
    "instruction_jsonl",
]


def _read_targets(value: object) -> object:
    """Accept a preset or a list of module names; YAML has no tuples."""
    if isinstance(value, str):
        if value not in {"attention", "all-linear"}:
            raise ValueError(
                f'expected "attention", "all-linear" or a list of module names, got {show(value)}'
            )
        return value
    names = list(value) if isinstance(value, list | tuple) else []
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f'expected "attention", "all-linear" or a list of module names, got {show(value)}')
    return tuple(names)


def _read_metrics(value: object) -> object:
    """Accept a list of known metrics, each once; YAML has no tuples."""
    if value is None:
        return None
    names = list(value) if isinstance(value, list | tuple) else [""]
    if len(set(map(str, names))) < len(names) or any(name not in METRICS for name in names):
        raise ValueError(f"expected a list of {', '.join(METRICS)}, each once, got {show(value)}")
    return tuple(names)


class ModelSection(Section):
    """The base model that every client holds frozen, and where adapters sit.

    Args:
        base: ``embedded``, ``smollm2``, a folder or ``.gguf`` file (written with a leading ``.``, ``/`` or
            ``~``), or a hub id.
        targets: ``attention``, ``all-linear`` or the last parts of module names.
        stands_for: Catalogue model whose bytes, memory and seconds are charged in place of the base's.
        init_adapter: PEFT adapter folder that version 0 starts from; a zero adapter without it.
        device: Where training runs.
        dtype: Number format of the frozen base in real training.
        quantize: Holds the frozen base in 8 or 4 bit, by bitsandbytes on a GPU.
        gradient_checkpointing: Computes activations again instead of keeping them; the virtual clock and the
            virtual memory do not know of it.
        attention: Implementation of attention; chosen by Transformers where None.
    """

    base: Word = "embedded"
    targets: Annotated[str | tuple[str, ...], BeforeValidator(_read_targets)] = "attention"
    stands_for: Word | None = None
    init_adapter: FilePath | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    quantize: Literal["none", "8bit", "4bit"] = "none"
    gradient_checkpointing: bool = False
    attention: Literal["eager", "sdpa", "flash_attention_2"] | None = None


class ShardsSection(Section):
    """How training examples are spread over devices.

    Args:
        kind: ``dirichlet`` gives each device its own mixture of groups, ``iid`` the same to all, ``natural``
            gives whole groups, each to one device.
        alpha: Concentration of the mixtures, 0.1 by default; small is skewed. Only with ``dirichlet``.
        min_examples: Fewest examples a device may hold.
        column: Column of the data file whose values are the groups; the task's own labels where None.
        topics: Groups found in the texts (TF-IDF and k-means) where neither column nor labels make any; 10 by
            default. Only with ``dirichlet``.
        quantity_sigma: Standard deviation of the logarithm of a device's share; 0.6 for the embedded task and
            0 for files by default.
        follow: What groups of examples go with: ``device_class``, or ``online_hours``, the quarter of the day
            in which a device is mostly online.
        strength: From 0 to 1: how much they do, 0.8 by default. Only with ``follow``.
    """

    kind: Literal["iid", "dirichlet", "natural"] = "dirichlet"
    alpha: Positive | None = None
    min_examples: Count = 8
    column: Word | None = None
    topics: Annotated[int, Field(ge=2, le=1000)] | None = None
    quantity_sigma: Annotated[float, Field(ge=0, le=5)] | None = None
    follow: Literal["device_class", "online_hours"] | None = None
    strength: Annotated[float, Field(ge=0, le=1)] | None = None

    @property
    def concentration(self) -> float:
        """Concentration of the mixtures; so large under ``iid`` that all are alike."""
        return 1e6 if self.alpha is None else self.alpha

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        """Give defaults only where they have an effect."""
        if not isinstance(values, dict):
            return values
        alpha = {"alpha": 0.1} if values.get("kind", "dirichlet") == "dirichlet" else {}
        strength = {"strength": 0.8} if values.get("follow") is not None else {}
        return {**alpha, **strength, **values}


class TaskSection(Section):
    """What is learned.

    Args:
        name: ``embedded`` is generated; all others are read from files.
        train: Training file.
        held_out: Held-out file; where None, `held_out_share` of the training file.
        held_out_share: Share of distinct prompts held out, 0.2 by default; only without a held-out file.
        max_length: Tokens per sequence, padding included; longer examples are cut.
        prompt: Template with names of columns in braces; the task's own where None.
        answer_only: Whether training counts the loss of the answer alone, or of the prompt too.
        shards: How examples are spread.
        examples_per_client: Median number of examples on a device, 120 by default; only ``embedded``.
    """

    name: TaskName = "embedded"
    train: FilePath | None = None
    held_out: FilePath | None = None
    held_out_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    max_length: Annotated[int, Field(ge=8, le=32768)] = 64
    prompt: Annotated[str, Field(min_length=1)] | None = None
    answer_only: bool = True
    shards: ShardsSection = ShardsSection(alpha=0.1)
    examples_per_client: Count | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        """Generated data need a size, and a file without a held-out one a share."""
        if not isinstance(values, dict):
            return values
        if values.get("name", EMBEDDED) == EMBEDDED:
            return {"examples_per_client": 120, **values}
        return values if values.get("held_out") is not None else {"held_out_share": 0.2, **values}


class EvaluationSection(Section):
    """How the global adapter is measured.

    Args:
        every: Versions between two evaluations; the base and the last version are always measured.
        held_out_examples: Held-out examples measured.
        generate: Held-out prompts answered by greedy generation, for metrics of text; none where 0.
        max_new_tokens: Longest generated response.
        metrics: Beside loss and token accuracy; those of the task where None.
        clients: Clients whose losses on their own examples are measured one by one; none where 0.
        client_examples: Examples of each of them, 16 by default; only with `clients`.
    """

    every: Count = 1
    held_out_examples: Count = 128
    generate: Annotated[int, Field(ge=0)] = 0
    max_new_tokens: Count = 48
    metrics: Annotated[tuple[str, ...] | None, BeforeValidator(_read_metrics)] = None
    clients: Annotated[int, Field(ge=0)] = 0
    client_examples: Count | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        """Examples of clients count only where clients are measured."""
        if isinstance(values, dict) and values.get("clients"):
            return {"client_examples": 16, **values}
        return values


def learning_misfits(task: TaskSection, evaluation: EvaluationSection) -> Iterator[tuple[str, str]]:
    """Yield values that contradict each other: the key to change, and why."""
    yield from _shard_misfits(task.shards)
    yield from _embedded_misfits(task) if task.name == EMBEDDED else _file_misfits(task)
    if evaluation.client_examples is not None and not evaluation.clients:
        yield "evaluation.client_examples", "has no effect without evaluation.clients; leave it out"
    yield from _metric_misfits(task, evaluation)


def _metric_misfits(task: TaskSection, evaluation: EvaluationSection) -> Iterator[tuple[str, str]]:
    options = [name for name in evaluation.metrics or () if name.startswith("option_")]
    texts = [name for name in evaluation.metrics or () if not name.startswith("option_")]
    if texts and not evaluation.generate:
        yield "evaluation.metrics", f"{texts[0]} needs generated text; set evaluation.generate"
    if options and task.name in {EMBEDDED, "e2e_nlg", "alpaca", "gsm8k", "instruction_jsonl"}:
        yield "evaluation.metrics", f"{options[0]} needs a task with options; {task.name} has none"


def _embedded_misfits(task: TaskSection) -> Iterator[tuple[str, str]]:
    for key in ("train", "held_out", "held_out_share", "prompt"):
        if getattr(task, key) is not None:
            yield (
                f"task.{key}",
                "the embedded task makes its own data; leave it out or name another task",
            )
    for key in ("column", "topics"):
        if getattr(task.shards, key) is not None:
            yield f"task.shards.{key}", "has no effect on embedded; leave it out"
    if task.shards.kind == "natural":
        yield "task.shards.kind", "the embedded task has no owners; take dirichlet or iid"
    if not task.answer_only:
        yield "task.answer_only", "the embedded task learns answers only; leave it out"
    if task.examples_per_client is None:
        yield "task.examples_per_client", "required by the task embedded"


def _file_misfits(task: TaskSection) -> Iterator[tuple[str, str]]:
    if task.train is None:
        yield "task.train", f"required by the task {task.name}"
    if task.held_out is None and task.held_out_share is None:
        yield "task.held_out", f"required by the task {task.name}, or a held_out_share"
    if task.held_out is not None and task.held_out_share is not None:
        yield "task.held_out_share", "has no effect beside a file of held-out rows; leave it out"
    if task.examples_per_client is not None:
        yield "task.examples_per_client", f"has no effect on {task.name}; leave it out"


def _shard_misfits(shards: ShardsSection) -> Iterator[tuple[str, str]]:
    if shards.kind == "dirichlet" and shards.alpha is None:
        yield "task.shards.alpha", "required by dirichlet shards"
    for key in ("alpha", "topics") if shards.kind != "dirichlet" else ():
        if getattr(shards, key) is not None:
            yield f"task.shards.{key}", f"has no effect on {shards.kind} shards; leave it out"
    if shards.column is not None and shards.topics is not None:
        yield "task.shards.topics", "has no effect beside a column; leave it out"
    yield from _shard_rule_misfits(shards)


def _shard_rule_misfits(shards: ShardsSection) -> Iterator[tuple[str, str]]:
    """Yield what only some kinds of shards can carry."""
    if shards.kind == "natural":
        if shards.column is None:
            yield "task.shards.column", "required by natural shards: it names the owner of each example"
        for key in ("quantity_sigma", "follow"):
            if getattr(shards, key) is not None:
                yield f"task.shards.{key}", "has no effect on natural shards; leave it out"
    if shards.kind == "iid" and shards.column is not None and shards.follow is None:
        yield "task.shards.column", "has no effect on iid shards; leave it out"
    if shards.strength is not None and shards.follow is None:
        yield "task.shards.strength", "has no effect without task.shards.follow; leave it out"
    if shards.strength is None and shards.follow is not None:
        yield "task.shards.strength", "required by task.shards.follow"
