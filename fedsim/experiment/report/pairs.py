"""Is a difference between methods more than luck? Runs are paired by seed; cohorts may overlap or not."""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, stdev

import pandas as pd
from scipy.stats import t as student

from fedsim.experiment.load import Run
from fedsim.experiment.report.learning import metric_names

CONFIDENCE = 0.95


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
        shared = fmean(cohort_overlap(left, right) for left, right in pairs)
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
                        "cohort overlap": f"{100.0 * shared:.0f} %",
                    }
                )
    return pd.DataFrame(rows)


def cohort_overlap(left: Run, right: Run) -> float:
    """Mean over versions of the clients that both runs asked, as a share of those that either did."""
    one, two = (
        {version: set(group) for version, group in run.assignments.groupby("version")["client"]}
        for run in (left, right)
    )
    shared = [
        len(one[version] & two[version]) / len(one[version] | two[version])
        for version in one
        if version in two
    ]
    return fmean(shared) if shared else 0.0


def _gap(left: Run, right: Run, name: str) -> float | None:
    values = []
    for run in (left, right):
        known = (
            pd.to_numeric(run.evaluations[name]).dropna()
            if name in run.evaluations
            else pd.Series(dtype=float)
        )
        if known.empty:
            return None
        values.append(float(known.iloc[-1]))
    return values[1] - values[0]


def _interval(gaps: Sequence[float]) -> str:
    """Student's interval of a mean of pairs."""
    if len(gaps) < 2:
        return "needs two seeds"
    half = float(student.ppf(0.5 + CONFIDENCE / 2.0, len(gaps) - 1)) * stdev(gaps) / sqrt(len(gaps))
    return f"{fmean(gaps) - half:+.4g} to {fmean(gaps) + half:+.4g}"
