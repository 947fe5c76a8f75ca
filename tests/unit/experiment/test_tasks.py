"""From a scenario's words to examples on devices."""

import tempfile
from pathlib import Path

import pytest

from fedsim.errors import ScenarioError
from fedsim.experiment.fleet import build_population
from fedsim.experiment.learning_sections import FILE_TASKS, METRICS
from fedsim.experiment.scenario import load_scenario
from fedsim.experiment.tasks import build_task, device_sets, evaluation_settings, measured_clients
from fedsim.learn.metrics import METRIC_NAMES
from fedsim.learn.tasks.catalogue import TASKS

TRACES = Path(__file__).parents[3] / "traces" / "skewed_edge"


@pytest.fixture
def csv_file(tmp_path):
    rows = [f'"name[P{i % 12}], food[{"Thai" if i % 2 else "French"}]",text {i},u{i % 9}' for i in range(120)]
    (tmp_path / "train.csv").write_text("\n".join(["mr,ref,user", *rows]) + "\n")
    return tmp_path / "train.csv"


def scenario(task, evaluation="{}", seed=0, limit=200):
    fleet = ", ".join(f"{name}: {TRACES / name}.csv" for name in ("devices", "bandwidth", "availability"))
    text = (
        f"task: {task}\nevaluation: {evaluation}\nseed: {seed}\n"
        f"fleet: {{{fleet}, limit: {limit}}}\nstop: {{rounds: 1}}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.yaml"
        path.write_text(text)
        return load_scenario(path)


def e2e(csv_file, shards="{kind: iid}", extra=""):
    return f"{{name: e2e_nlg, train: {csv_file}, shards: {shards}{extra}}}"


def test_the_schema_knows_the_tasks_and_metrics_that_there_are():
    assert set(FILE_TASKS) == set(TASKS)
    assert set(METRICS) == set(METRIC_NAMES)


def test_files_become_shards(csv_file):
    task = build_task(scenario(e2e(csv_file)), 6)
    sizes = [task.num_examples(client) for client in range(6)]
    assert sum(sizes) == 100
    assert max(sizes) - min(sizes) <= 1
    assert len(task.held_out) == 20
    assert len(build_task(scenario(e2e(csv_file), "{held_out_examples: 7}"), 6).held_out) == 7
    assert task.shard(2) == build_task(scenario(e2e(csv_file)), 6).shard(2)
    assert task.shard(2) != build_task(scenario(e2e(csv_file), seed=1), 6).shard(2)


def test_too_few_rows_name_the_file(csv_file):
    with pytest.raises(ScenarioError, match=r"task.train: .*train.csv: 100 rows are too few for 30 clients"):
        build_task(scenario(e2e(csv_file)), 30)


def test_a_column_is_the_owner(csv_file):
    task = build_task(scenario(e2e(csv_file, "{kind: natural, column: user}")), 3)
    owners = [{example.group for example in task.shard(client)} for client in range(3)]
    assert len(set.union(*owners)) == sum(map(len, owners)) == 9


def test_texts_without_labels_are_grouped_by_topic(tmp_path):
    lines = [
        f'{{"instruction": "{"boil soup potatoes" if i % 2 else "score goal striker"} {i}", "output": "x"}}'
        for i in range(60)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    task = (
        f"{{name: instruction_jsonl, train: {tmp_path / 'a.jsonl'}, shards: {{topics: 2, min_examples: 1}}}}"
    )
    groups = {example.group for client in range(3) for example in build_task(scenario(task), 3).shard(client)}
    assert groups == {"topic 0", "topic 1"}


def test_quantity_skew_reaches_files_and_the_embedded_task(csv_file):
    def spread(text):
        task = build_task(scenario(text), 6)
        sizes = [task.num_examples(client) for client in range(6)]
        return max(sizes) - min(sizes)

    assert spread(e2e(csv_file, "{kind: iid, quantity_sigma: 1.0, min_examples: 1}")) > 10
    assert spread("{name: embedded, shards: {quantity_sigma: 0}}") == 0


def test_training_can_count_the_prompt_but_clients_are_measured_on_answers(csv_file):
    asked = scenario(e2e(csv_file, extra=", answer_only: false"), evaluation="{clients: 3}")
    task = build_task(asked, 6)
    assert all(example.learn_prompt for example in task.shard(0))
    measured = measured_clients(asked, task)
    assert [len(examples) for examples in measured] == [16, 16, 16]
    assert not any(example.learn_prompt for examples in measured for example in examples)
    assert measured_clients(scenario(e2e(csv_file)), task) == []


@pytest.mark.parametrize("follow", ["device_class", "online_hours"])
def test_data_follow_devices(follow):
    asked = scenario(f"{{shards: {{follow: {follow}, strength: 1}}}}", limit=40)
    population = build_population(asked)
    sets = device_sets(asked, population)
    assert len(sets) == 40
    assert len(set(sets)) > 1
    task = build_task(asked, 40, sets)
    known = {}
    for client, own in enumerate(sets):
        known.setdefault(own, set()).update(example.group for example in task.shard(client))
    assert sum(map(len, known.values())) == len(set.union(*known.values()))
    assert device_sets(scenario("{name: embedded}"), population) == ()


def test_metrics_are_those_of_the_task_unless_named(csv_file):
    assert evaluation_settings(scenario(e2e(csv_file))).metrics == ("rouge_l", "bleu")
    assert evaluation_settings(scenario("{name: embedded}")).metrics == ("rouge_l",)
    named = scenario(e2e(csv_file), "{metrics: [rouge_1], generate: 4}")
    assert evaluation_settings(named).metrics == ("rouge_1",)


@pytest.mark.parametrize(
    ("task", "match"),
    [
        ("{name: alpaca}", "task.train: required by the task alpaca"),
        ("{held_out_share: 0.1}", "task.held_out_share: the embedded task makes its own data"),
        ("{prompt: '{mr}'}", "task.prompt: the embedded task makes its own data"),
        ("{answer_only: false}", "task.answer_only: the embedded task learns answers only"),
        ("{shards: {kind: natural, column: a}}", "task.shards.column: has no effect on embedded"),
        ("{shards: {strength: 0.5}}", "task.shards.strength: has no effect without task.shards.follow"),
        ("{name: piqa, train: a, held_out: b, held_out_share: 0.1}", "has no effect beside a file"),
        ("{name: piqa, train: a, shards: {kind: natural}}", "task.shards.column: required by natural"),
        (
            "{name: piqa, train: a, shards: {kind: iid, topics: 4}}",
            "task.shards.topics: has no effect on iid",
        ),
        (
            "{name: piqa, train: a, shards: {kind: iid, column: c}}",
            "task.shards.column: has no effect on iid",
        ),
        (
            "{name: piqa, train: a, shards: {column: c, topics: 3}}",
            "task.shards.topics: has no effect beside",
        ),
        (
            "{name: piqa, train: a, shards: {kind: natural, column: c, follow: device_class}}",
            "task.shards.follow: has no effect on natural",
        ),
    ],
)
def test_words_without_effect_are_refused(task, match):
    with pytest.raises(ScenarioError, match=match):
        scenario(task)


@pytest.mark.parametrize(
    ("evaluation", "match"),
    [
        ("{metrics: [option_accuracy]}", "option_accuracy needs a task with options; embedded has none"),
        ("{metrics: [bleu]}", "bleu needs generated text; set evaluation.generate"),
        ("{metrics: [meteor]}", "evaluation.metrics: expected a list of rouge_1"),
        ("{client_examples: 4}", "evaluation.client_examples: has no effect without evaluation.clients"),
    ],
)
def test_metrics_that_cannot_be_measured_are_refused(evaluation, match):
    with pytest.raises(ScenarioError, match=match):
        scenario("{name: embedded}", evaluation)
