"""Options against lm-evaluation-harness: the same files, the same model, example by example.

The harness reads its own task files, with nothing changed but where the data lie. Skipped where `lm_eval` is
not installed (``pip install 'fedsim-lora[dev-eval]'``) or the real samples are not there.
"""

import bz2
import csv
import gzip
import json
import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsim.learn.choices import score_options
from fedsim.learn.model import load_model
from fedsim.learn.model_files import SMOLLM2, cache_folder
from fedsim.learn.tasks.assemble import ReadSettings, read_examples
from fedsim.learn.tasks.catalogue import TASKS

lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: extra dev-eval")

REAL = Path(os.environ.get("FEDSIM_REAL_DATA", Path(__file__).parents[3] / "shared" / "data_real"))
HARNESS = Path(lm_eval.__file__).parent / "tasks"
THEIRS = {
    "hellaswag": "hellaswag/hellaswag.yaml",
    "piqa": "piqa/piqa.yaml",
    "boolq": "super_glue/boolq/default.yaml",
}
HAS_SMOLLM2 = (cache_folder() / "models" / SMOLLM2 / "config.json").is_file()
COUNT, LONGEST = 24, 420

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real data in {REAL}; set FEDSIM_REAL_DATA")


def hellaswag():
    with bz2.open(REAL / "hellaswag" / "hellaswag_val_full.txt.bz2", "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()
    for start in range(0, len(lines) - 5, 6):
        activity, _, context = lines[start].partition(": ")
        yield {
            "activity_label": activity,
            "ctx_a": context,
            "ctx_b": "",
            "endings": lines[start + 2 : start + 6],
            "label": lines[start + 1],
        }


def piqa():
    labels = (REAL / "piqa" / "valid-labels.lst").read_text().split()
    with (REAL / "piqa" / "valid.jsonl").open(encoding="utf-8") as file:
        for line, label in zip(file, labels, strict=True):
            yield {**json.loads(line), "label": int(label)}


def boolq():
    """Real questions; the sample has no passages, so real sentences of another data set stand for them."""
    with (REAL / "e2e" / "devset.csv").open(encoding="utf-8", newline="") as file:
        passages = [row["ref"] for row in islice(csv.DictReader(file), 200)]
    with gzip.open(REAL / "boolq" / "test.json.gz", "rt", encoding="utf-8") as file:
        rows = json.load(file)
    for number, row in enumerate(rows):
        question = row["instruction"].split("question: ")[1].split("\n")[0].rstrip("?")
        passage = passages[number % len(passages)]
        yield {"question": question, "passage": passage, "label": int(row["answer"] == "true")}


def rows_of(name):
    """Rows that fit into the small model's positions, spread over the file."""
    rows = [
        row
        for row in {"hellaswag": hellaswag, "piqa": piqa, "boolq": boolq}[name]()
        if len(str(row)) < LONGEST
    ]
    return [rows[index] for index in np.linspace(0, len(rows) - 1, COUNT).astype(int)]


def harness(name, path, loaded):
    """Log-likelihoods and what counts as right, by the harness."""
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    folder = path.parent / "tasks"
    folder.mkdir()
    (folder / "task.yaml").write_text(
        f"include: {HARNESS / THEIRS[name]}\n"
        f"task: ours_{name}\ntag: []\ndataset_path: json\ndataset_name: null\n"
        f"dataset_kwargs:\n  data_files: {{train: {path}, validation: {path}}}\n"
        f"  cache_dir: {path.parent / 'cache'}\n"
    )
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=8, device="cpu"),
        tasks=[f"ours_{name}"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        num_fewshot=0,
        log_samples=True,
        bootstrap_iters=0,
    )
    samples = sorted(found["samples"][f"ours_{name}"], key=lambda sample: sample["doc_id"])
    return [
        ([float(response[0]) for response in sample["filtered_resps"]], sample["acc"], sample.get("acc_norm"))
        for sample in samples
    ]


@pytest.fixture(
    params=[
        "embedded",
        pytest.param(
            SMOLLM2,
            marks=[pytest.mark.slow, pytest.mark.skipif(not HAS_SMOLLM2, reason="smollm2 was not fetched")],
        ),
    ]
)
def model(request):
    return load_model(request.param, "cpu")


@pytest.mark.parametrize("name", THEIRS)
def test_every_log_likelihood_and_every_pick_is_that_of_the_harness(name, model, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(name)), encoding="utf-8")
    examples = read_examples(TASKS[name], path, path, ReadSettings(), np.random.default_rng(0))[1]
    with torch.inference_mode():
        ours = score_options(
            model.model,
            model.tokenizer,
            examples,
            max_length=model.model.config.max_position_embeddings,
            batch_size=8,
            device=model.device,
        )
    theirs = harness(name, path, model)
    assert len(ours) == len(theirs) == COUNT
    for mine, (log_likelihoods, is_right, is_right_by_length) in zip(ours, theirs, strict=True):
        assert mine.log_likelihoods == pytest.approx(log_likelihoods, abs=1e-3)
        assert mine.preferred == int(np.argmax(log_likelihoods))
        assert (mine.preferred == mine.answer) == bool(is_right)
        if is_right_by_length is not None:
            assert (mine.preferred_by_length == mine.answer) == bool(is_right_by_length)
    assert len({mine.log_likelihoods for mine in ours}) == COUNT  # or agreeing would be easy
