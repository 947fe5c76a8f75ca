"""What do runs under one seed say about the difference between methods? A table, metric by metric."""

from collections.abc import Mapping, Sequence
from statistics import fmean

import pandas as pd

from fedsim.experiment.load import Run
from fedsim.experiment.paired import cohort_overlap, interval
from fedsim.experiment.report.learning import last_value, metric_names


def paired_table(base: Sequence[Run], others: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Compare runs under one seed, metric by metric.

    Args:
        base: Runs that the others are compared with.
        others: Label -> runs.

    Returns:
        One row per method and metric: pairs, mean difference, its interval, and how much cohorts overlap.
    """
    of_seed = {run.manifest.get("seed"): run for run in base}
    rows = []
    for label, runs in others.items():
        pairs = [(of_seed[seed], run) for run in runs if (seed := run.manifest.get("seed")) in of_seed]
        if not pairs:
            continue
        overlaps = [cohort_overlap(asked(left), asked(right)) for left, right in pairs]
        for name in metric_names(pairs[0][0]):
            gaps = [gap for left, right in pairs if (gap := _gap(left, right, name)) is not None]
            if gaps:
                rows.append(
                    {
                        "method": label,
                        "metric": name.replace("_", " "),
                        "pairs": len(gaps),
                        "mean difference": f"{fmean(gaps):+.4g}",
                        "95 % interval": _interval(gaps),
                        "cohort overlap": _share([share for share in overlaps if share is not None]),
                    }
                )
    return pd.DataFrame(rows)


def asked(run: Run) -> set[tuple[int, int]]:
    """Pairs of version and client, one per assignment."""
    return set(zip(run.assignments["version"].tolist(), run.assignments["client"].tolist(), strict=True))


def _gap(left: Run, right: Run, name: str) -> float | None:
    before, after = last_value(left, name), last_value(right, name)
    return None if before is None or after is None else after - before


def _share(shares: Sequence[float]) -> str:
    return f"{100.0 * fmean(shares):.0f} %" if shares else "no common version"


def _interval(gaps: Sequence[float]) -> str:
    """Student's interval of a mean of pairs."""
    mean, half = interval(gaps)
    if mean is None or half is None:
        return "needs two seeds"
    return f"{mean - half:+.4g} to {mean + half:+.4g}"
