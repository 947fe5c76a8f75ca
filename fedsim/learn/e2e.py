"""How is the E2E NLG data set read, and split over clients?

The files are the user's; nothing is downloaded and nothing is left in a cache.
"""

import re
import tempfile
from pathlib import Path
from typing import Literal

import datasets
import numpy as np

from fedsim.errors import ModelError, ScenarioError
from fedsim.learn.data import FixedTask, dirichlet_split
from fedsim.learn.example import Example
from fedsim.seeds import Seeds


def e2e_task(
    train_file: Path,
    held_out_file: Path,
    *,
    num_clients: int,
    seed: int,
    split: Literal["dirichlet", "iid"] = "dirichlet",
    concentration: float = 0.5,
    min_examples: int = 8,
    held_out_size: int = 256,
) -> FixedTask:
    """Read the E2E NLG data set in its official CSV form and split it over clients.

    Args:
        train_file: Columns ``mr`` and ``ref``; dealt to the clients.
        held_out_file: The same columns; `held_out_size` rows are drawn from it.
        num_clients: Number of shards.
        seed: Of split and held-out sample.
        split: ``dirichlet`` over the place's name, or ``iid``.
        concentration: Of the Dirichlet; small means more skew.
        min_examples: Smallest shard; clients below it get examples of the largest ones.
        held_out_size: Fewer where the file has fewer rows.

    Raises:
        ModelError: If a file or one of its columns is missing, or a cell is empty.
        ScenarioError: If there are too few rows for this many clients.
    """
    examples, held_out = read_pairs(train_file), read_pairs(held_out_file)
    if len(examples) < num_clients * min_examples:
        raise ScenarioError(
            f"{train_file}: {len(examples)} rows are too few for {num_clients} clients with at least "
            f"{min_examples} examples each; take fewer clients or a smaller minimum"
        )
    rng = Seeds(seed).generator("split")
    if split == "iid":
        members = [part.tolist() for part in np.array_split(rng.permutation(len(examples)), num_clients)]
    else:
        labels = [_label(example.mr) for example in examples]
        members = dirichlet_split(labels, num_clients, concentration, min_examples, rng)
    sample = Seeds(seed).generator("held_out").permutation(len(held_out))[:held_out_size]
    return FixedTask(
        examples=examples,
        members=tuple(tuple(sorted(part)) for part in members),
        held_out=tuple(held_out[index] for index in sorted(sample.tolist())),
    )


def read_pairs(path: Path) -> tuple[Example, ...]:
    """Read a CSV file with the columns ``mr`` and ``ref``.

    Raises:
        ModelError: If the file or a column is missing, or a cell is empty.
    """
    if not path.is_file():
        raise ModelError(f"{path}: expected a CSV file with the columns mr and ref, found no file")
    table = _load_csv(path)
    missing = [column for column in ("mr", "ref") if column not in table.column_names]
    if missing:
        raise ModelError(
            f"{path}:1: expected the columns mr and ref, found {', '.join(table.column_names)}; "
            f"missing: {', '.join(missing)}"
        )
    pairs = zip(table["mr"], table["ref"], strict=True)
    return tuple(_checked(path, row, mr, ref) for row, (mr, ref) in enumerate(pairs, start=1))


def _load_csv(path: Path) -> datasets.Dataset:
    """Read through `datasets`, which must leave nothing in the user's cache."""
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(prefix="fedsim-") as cache:
        try:
            return datasets.load_dataset(
                "csv",
                data_files=str(path),
                split="train",
                cache_dir=cache,
                keep_in_memory=True,
                keep_default_na=False,
                converters={"mr": str, "ref": str},
            )
        except (datasets.exceptions.DatasetGenerationError, ValueError, OSError) as error:
            cause = error.__cause__ or error
            raise ModelError(f"{path}: expected a CSV file with the columns mr and ref: {cause}") from error


def _checked(path: Path, row: int, mr: str | None, ref: str | None) -> Example:
    if not mr or not ref:
        column = "ref" if mr else "mr"
        raise ModelError(f"{path}: row {row}: expected text in column {column}, found nothing")
    return Example(mr, ref)


def _label(mr: str) -> str:
    """Return the place that an E2E meaning representation is about, or all of it where it names none."""
    match = re.search(r"\bname\[([^\]]*)\]", mr)
    return match[1] if match else mr
