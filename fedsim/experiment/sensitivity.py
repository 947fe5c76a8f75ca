"""Does the ranking of methods survive if the world is a little different? One comparison per change.

Every comparison has the same methods and seeds. What is told is how far the order of the methods agrees with
that of the unchanged world, and the smallest change of each kind that turns the winner.
"""

import csv
import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from scipy.stats import ConstantInputWarning, kendalltau, spearmanr

from fedsim.errors import ScenarioError
from fedsim.experiment.compare import Comparison, Request, carry_out, plan
from fedsim.experiment.grid import CellEnd, slug
from fedsim.experiment.record import write_json
from fedsim.experiment.report.page import Section, list_html, page_html, table_html
from fedsim.experiment.report.write import replace_file
from fedsim.experiment.scenario import load_scenario
from fedsim.units import parse_quantity

TABLE, REPORT, PAGE = "sensitivity.csv", "sensitivity.json", "sensitivity.html"
HIGHER_IS_BETTER = ("accuracy", "rouge", "share", "rounds")
UNCHANGED = "unchanged"
STUB = '<div class="stub" role="alert"><strong>STUB</strong> Nothing was trained: there are no losses.</div>'
KINDS = "bandwidth=0.5,2, compute=0.5,2, availability=shift:6h or trace=resample"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the world.

    Args:
        kind: bandwidth, compute, availability or trace.
        value: As the user wrote it.
        size: How large, within its kind.
        overrides: Dotted key -> YAML text.
    """

    kind: str
    value: str
    size: float
    overrides: Mapping[str, str]

    @property
    def label(self) -> str:
        """For people and folders."""
        return f"{self.kind}={self.value}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one change does to the order of methods.

    Args:
        change: None for the unchanged world.
        means: Method -> mean of the figure over seeds.
        winners: Best method; several where they are equal.
        kendall: Rank correlation with the unchanged world; None where all methods are equal.
        spearman: The same.
    """

    change: Change | None
    means: Mapping[str, float]
    winners: tuple[str, ...]
    kendall: float | None
    spearman: float | None

    @property
    def winner(self) -> str:
        """For people."""
        return " = ".join(self.winners)

    @property
    def label(self) -> str:
        """Of the change."""
        return UNCHANGED if self.change is None else self.change.label


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What came of it.

    Args:
        figure: By which methods are ranked.
        outcomes: The unchanged world first.
        is_stub: Whether nothing was trained.
    """

    figure: str
    outcomes: tuple[Outcome, ...]
    is_stub: bool = False

    @property
    def turns(self) -> dict[str, str | None]:
        """Kind -> the smallest change of it that turns the winner; None where none did."""
        base = set(self.outcomes[0].winners)
        found: dict[str, str | None] = {}
        changed = [(one.change, one) for one in self.outcomes if one.change is not None]
        for change, outcome in sorted(changed, key=lambda pair: pair[0].size):
            found.setdefault(change.kind, None)
            if found[change.kind] is None and not base & set(outcome.winners):
                found[change.kind] = f"{change.value} -> {outcome.winner}"
        return found


def parse_changes(words: Sequence[str], bandwidth_scale: float) -> tuple[Change, ...]:
    """Read ``bandwidth=0.5,2`` and its kin.

    Args:
        words: Of ``--perturb``.
        bandwidth_scale: Of the scenario, which a factor multiplies.

    Raises:
        ScenarioError: If a word is none of them.
    """
    changes = []
    for word in (part for several in words for part in several.split()):
        kind, _, values = word.partition("=")
        changes += [
            _change(word, kind.strip(), value.strip(), bandwidth_scale) for value in values.split(",")
        ]
    labels = [change.label for change in changes]
    if not changes or len(set(labels)) < len(labels):
        raise ScenarioError(f"--perturb: expected changes, each once, for instance {KINDS}")
    return tuple(changes)


def _change(word: str, kind: str, value: str, bandwidth_scale: float) -> Change:
    try:
        if kind == "bandwidth":
            factor = _factor(value)
            scaled = {"fleet.bandwidth_scale": repr(bandwidth_scale * factor)}
            return Change(kind, value, abs(math.log(factor)), scaled)
        if kind == "compute":
            factor = _factor(value)
            return Change(kind, value, abs(math.log(factor)), {"fleet.perturb.compute": repr(factor)})
        if kind == "availability" and value.startswith("shift:"):
            shift_s = parse_quantity(value.removeprefix("shift:"), "seconds")
            return Change(kind, value, shift_s, {"fleet.perturb.availability_shift": repr(shift_s)})
        if kind == "trace" and value.partition(":")[0] == "resample":
            number = int(value.partition(":")[2] or "0")
            return Change(kind, value, 1.0 + number, {"fleet.perturb.resample": str(number)})
    except ValueError as error:
        raise ScenarioError(f"--perturb {word}: {error}") from error
    raise ScenarioError(f"--perturb {word}: expected {KINDS}")


def _factor(text: str) -> float:
    factor = float(text)
    if not 0.0 < factor < math.inf or factor == 1.0:
        raise ValueError(f"expected a factor above 0 other than 1, got {text}")
    return factor


def sensitivity(
    request: Request,
    perturb: Sequence[str],
    figure: str | None = None,
    tell: Callable[[str, CellEnd], None] = lambda *_: None,
) -> Sensitivity:
    """Compare under every change, and say what it does to the order.

    Args:
        request: The comparison; each change has a folder of its own below ``request.out``.
        perturb: Words of ``--perturb``.
        figure: A figure of the comparison to rank by; where None, the loss at equal time, and where nothing
            is trained, the virtual time.
        tell: Hears of each run's end.

    Raises:
        InputError: If any part of it is wrong.
    """
    base = load_scenario(request.scenario, request.overrides)
    changes = (None, *parse_changes(perturb, base.fleet.bandwidth_scale))
    plans = [plan(_changed(request, change)) for change in changes]
    means: list[Mapping[str, float]] = []
    chosen = figure
    for change, checked in zip(changes, plans, strict=True):
        label = UNCHANGED if change is None else change.label
        comparison = carry_out(checked, lambda end, label=label: tell(label, end))  # type: ignore[misc]
        chosen = chosen or _default_figure(comparison)
        means.append(_means(comparison, chosen))
    is_stub = base.executor.kind == "stub"
    found = Sensitivity(str(chosen), outcomes(changes, means, str(chosen)), is_stub)
    _write(request.out, found)
    return found


def _changed(request: Request, change: Change | None) -> Request:
    name = UNCHANGED if change is None else slug([change.label])
    overrides = dict(request.overrides or {}) | (dict(change.overrides) if change else {})
    return replace(request, out=request.out / name, overrides=overrides)


def _default_figure(comparison: Comparison) -> str:
    known = {row.figure for row in comparison.rows}
    return "loss_at_time" if "loss_at_time" in known else "virtual_s"


def _means(comparison: Comparison, figure: str) -> dict[str, float]:
    found = {row.method: row.mean for row in comparison.rows if row.figure == figure}
    if len(found) < 2:
        known = ", ".join(sorted({row.figure for row in comparison.rows}))
        raise ScenarioError(f"--figure {figure}: expected one that at least two methods have: {known}")
    return found


def outcomes(
    changes: Sequence[Change | None], means: Sequence[Mapping[str, float]], figure: str
) -> tuple[Outcome, ...]:
    """Rank methods under every change, and compare with the first."""
    best = max if any(word in figure for word in HIGHER_IS_BETTER) else min
    result = []
    for change, found in zip(changes, means, strict=True):
        both = [method for method in means[0] if method in found]
        kendall, spearman = correlations([means[0][m] for m in both], [found[m] for m in both])
        top = best(found.values())
        winners = tuple(method for method, mean in found.items() if math.isclose(mean, top, rel_tol=1e-9))
        result.append(Outcome(change, dict(found), winners, kendall, spearman))
    return tuple(result)


def correlations(left: Sequence[float], right: Sequence[float]) -> tuple[float | None, float | None]:
    """Kendall's and Spearman's rank correlation; None where one side has no order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        found = [float(kendalltau(left, right).statistic), float(spearmanr(left, right).statistic)]
    kendall, spearman = (None if math.isnan(value) else value for value in found)
    return kendall, spearman


def table(found: Sensitivity) -> pd.DataFrame:
    """One row per change."""
    return pd.DataFrame(
        [
            {
                "change": outcome.label,
                "winner": outcome.winner,
                "kendall": outcome.kendall,
                "spearman": outcome.spearman,
                **outcome.means,
            }
            for outcome in found.outcomes
        ]
    )


def sentences(found: Sensitivity) -> list[str]:
    """What a reader should take away."""
    base = found.outcomes[0]
    verdict = "is best" if len(base.winners) == 1 else "are equally good"
    told = [f"Unchanged, {base.winner} {verdict} by {found.figure}."]
    for kind, turn in found.turns.items():
        if turn is None:
            told.append(f"{kind}: no change that was tried turns the winner.")
        else:
            told.append(f"{kind}: the smallest change that turns the winner is {turn}.")
    lowest = [outcome.kendall for outcome in found.outcomes[1:] if outcome.kendall is not None]
    if lowest:
        told.append(f"The lowest Kendall correlation with the unchanged order is {min(lowest):.2f}.")
    told.append(
        "If a change within the error of traces and cost model (docs/fidelity.md) turns the winner, the "
        "order is not to be relied on."
    )
    told.append(
        "Few methods or seeds make rank correlations coarse: with two methods they are 1 or -1, and there is "
        "none where all are equal."
    )
    return told


def _write(out: Path, found: Sensitivity) -> None:
    rows = table(found)
    text = io.StringIO()
    rows.to_csv(text, index=False, quoting=csv.QUOTE_MINIMAL)
    replace_file(out / TABLE, text.getvalue())
    write_json(
        out / REPORT,
        {
            "figure": found.figure,
            "turns": found.turns,
            "outcomes": [
                {
                    "change": outcome.label,
                    "winner": outcome.winner,
                    "kendall": outcome.kendall,
                    "spearman": outcome.spearman,
                    "means": dict(outcome.means),
                }
                for outcome in found.outcomes
            ],
        },
    )
    body = list_html(sentences(found), "caveats")
    body += table_html(rows, f"Mean {found.figure} of each method over seeds, and rank correlations")
    section = Section("sensitivity", "Does the ranking survive?", body)
    banner = STUB if found.is_stub else ""
    replace_file(out / PAGE, page_html("Sensitivity", f"ranked by {found.figure}", banner, [section]))
