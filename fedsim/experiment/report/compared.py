"""Which method gives more for the same hours, bytes or joules, and does it hold under every seed?"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev

import pandas as pd

from fedsim.experiment.load import Run
from fedsim.experiment.report.budgets import SHARES, limits
from fedsim.experiment.report.page import Section, list_html, table_html
from fedsim.experiment.report.spent import Axis, axes_of, bought, measured, reached

Groups = Mapping[str, Sequence[Run]]
Tables = Mapping[str, Mapping[str, pd.DataFrame]]
TARGET_SHARES = (0.5, 1.0)


def compared_section(groups: Groups) -> Section:
    """Return quality under common budgets, cost to a common target, robustness, and limits of fidelity.

    Args:
        groups: Method -> its runs, one per seed.
    """
    tables = _tables(groups)
    body = "".join(
        table_html(table, caption)
        for table, caption in (
            (quality(tables), "Loss of the last measurement that a common budget pays for, mean over seeds"),
            (cost(tables), "Cost to target: mean until a loss that all methods reach under the same seed"),
            (
                robustness(tables),
                "Robustness: who is best under how many seeds, ties counted for all; worst and best seed",
            ),
        )
        if len(table)
    )
    if not body:
        body = "<p>No losses were measured, so there is no quality to pay for.</p>"
    said = dict.fromkeys(line for runs in groups.values() for run in runs for line in limits(run))
    return Section(
        "budgets", "Quality under a budget, robustness, and how far to trust it", body + list_html(list(said))
    )


def quality(tables: Tables) -> pd.DataFrame:
    """For shares of what the thriftiest run spent in all: the loss each method had by then."""
    rows = []
    for axis in _axes(tables):
        least = min(float(table[axis.name].iloc[-1]) for table in _each(tables))
        for share in SHARES:
            losses = {
                method: [float(last["loss"]) for table in of_seed.values()
                         if (last := bought(table, axis, share * least)) is not None]
                for method, of_seed in tables.items()
            }  # fmt: skip
            shown = {method: _spread(found) for method, found in losses.items()}
            rows.append({"budget": f"{axis.show(share * least)} of {axis.title}", **shown})
    return pd.DataFrame(rows)


def cost(tables: Tables) -> pd.DataFrame:
    """For half and all of the gain that the weakest method makes under a seed: what each spent until then."""
    targets = _targets(tables)
    rows = []
    for share in TARGET_SHARES if targets else ():
        for method, of_seed in tables.items():
            wanted = {seed: first - share * (first - last) for seed, (first, last) in targets.items()}
            found = [row for seed in wanted if (row := reached(of_seed[seed], wanted[seed])) is not None]
            spent = {
                axis.title: axis.show(fmean(float(row[axis.name]) for row in found)) for axis in _axes(tables)
            }
            target = fmean(wanted.values())
            rows.append({"target loss": target, "method": method, "seeds": len(found), **spent})
    return pd.DataFrame(rows)


def robustness(tables: Tables) -> pd.DataFrame:
    """Under how many seeds each method is best at its last measurement, and its worst seed."""
    if len(tables) < 2:
        return pd.DataFrame()
    last = {
        method: {seed: float(table["loss"].iloc[-1]) for seed, table in of_seed.items()}
        for method, of_seed in tables.items()
    }
    seeds = _shared_seeds(tables)
    rows = []
    for method, losses in last.items():
        best = sum(losses[seed] <= min(other[seed] for other in last.values()) for seed in seeds)
        won = f"{best} of {len(seeds)} seeds"
        rows.append(
            {
                "method": method,
                "best under": won,
                "worst loss": max(losses.values()),
                "best loss": min(losses.values()),
            }
        )
    return pd.DataFrame(rows)


def _tables(groups: Groups) -> Tables:
    """Method -> seed -> what was measured; methods without a loss are left out."""
    found = {
        method: {str(run.manifest.get("seed")): table for run in runs if len(table := measured(run))}
        for method, runs in groups.items()
    }
    return {method: of_seed for method, of_seed in found.items() if of_seed}


def _each(tables: Tables) -> Iterable[pd.DataFrame]:
    return (table for of_seed in tables.values() for table in of_seed.values())


def _axes(tables: Tables) -> list[Axis]:
    """Kinds of cost that all runs know."""
    known = [axes_of(table) for table in _each(tables)]
    return [axis for axis in known[0] if all(axis in others for others in known)] if known else []


def _shared_seeds(tables: Tables) -> list[str]:
    first, *others = tables.values()
    return [seed for seed in first if all(seed in other for other in others)]


def _targets(tables: Tables) -> dict[str, tuple[float, float]]:
    """Seed -> loss of the base model, and the highest of the methods' best losses where all have gained."""
    found = {}
    for seed in _shared_seeds(tables) if tables else ():
        runs = [of_seed[seed] for of_seed in tables.values()]
        first = min(float(table["loss"].iloc[0]) for table in runs)
        weakest = max(float(table["loss"].min()) for table in runs)
        if weakest < first:
            found[seed] = (first, weakest)
    return found


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{fmean(values):.4g}" if len(values) < 2 else f"{fmean(values):.4g} ± {stdev(values):.2g}"
