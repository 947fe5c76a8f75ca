"""Is a difference between methods more than luck? Intervals over pairs of runs, and how alike they are."""

from collections.abc import Collection, Sequence
from math import sqrt
from statistics import fmean, stdev

from scipy.stats import t as student

LEVEL = 0.95


def interval(differences: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the mean of paired differences and the half width of its 95 % interval.

    Student's t with n - 1 degrees of freedom; it takes the differences as independent and roughly normal, and
    nothing is corrected for the number of figures in a table.
    """
    count = len(differences)
    if count == 0:
        return None, None
    if count == 1:
        return differences[0], None
    quantile = float(student.ppf(0.5 + LEVEL / 2.0, count - 1))
    return fmean(differences), quantile * stdev(differences) / sqrt(count)


def cohort_overlap(left: Collection[tuple[int, int]], right: Collection[tuple[int, int]]) -> float | None:
    """Share of clients that both runs asked at the same version, over the versions that both made.

    Args:
        left: Pairs of version and client, one per assignment of a run.
        right: The same of another run.

    Returns:
        Mean over versions of intersection over union; None where no version is in both.
    """
    shares = []
    for version in sorted({version for version, _ in left} & {version for version, _ in right}):
        one, two = ({client for at, client in asked if at == version} for asked in (left, right))
        shares.append(len(one & two) / len(one | two))
    return fmean(shares) if shares else None
