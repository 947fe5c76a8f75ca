"""Who holds what? The shares of groups in the shards of some devices, as the manifest tells them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fedsim.experiment.load import Run
from fedsim.experiment.report.figure import Figure, Trace, axis, label, numbers

MAX_GROUPS = 24
TITLE = "Who holds what: shards of some devices"


def shard_figure(run: Run) -> Figure:
    """Draw devices against groups: the share that each group has of a device's examples."""
    told: Mapping[str, Any] = run.manifest.get("shards", {})
    sample: Sequence[Mapping[str, Any]] = sorted(
        told.get("sample", ()), key=lambda row: (row["device_class"], row["device"])
    )
    if not sample:
        return Figure("shards", TITLE, empty="This record does not tell what its devices hold.")
    groups = _groups(sample)
    if len(groups) < 2:
        return Figure("shards", TITLE, empty="All examples of the sampled devices are of one group.")
    shares = [[100.0 * row["groups"].get(name, 0) / row["examples"] for name in groups] for row in sample]
    trace: Trace = {
        "type": "heatmap",
        "x": [label(name or "no group") for name in groups],
        "y": [label(row["device"]) for row in sample],
        "z": [numbers(row) for row in shares],
        "customdata": [[row["examples"]] * len(groups) for row in sample],
        "colorscale": "Cividis",
        "zmin": 0,
        "zmax": 100,
        "colorbar": {"title": {"text": "% of shard"}, "thickness": 12},
        "hovertemplate": "%{y}: %{z:.0f} % of %{customdata} examples are %{x}<extra></extra>",
    }
    sizes = sorted(int(row["examples"]) for row in sample)
    spread = sorted(float(row["entropy_bits"]) for row in sample)
    note = (
        f"{len(sample)} of {told['devices']} devices: {sizes[0]} to {sizes[-1]} examples, median "
        f"{sizes[len(sizes) // 2]}; entropy of the groups {spread[0]:.1f} to {spread[-1]:.1f} bits. "
        "A row with one bright cell knows one group only."
    )
    layout = {
        "xaxis": axis("group of examples", type="category"),
        "yaxis": axis("", autorange="reversed", type="category"),
    }
    return Figure("shards", TITLE, note, [trace], layout, height_px=160 + 14 * len(sample))


def _groups(sample: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the largest groups over all sampled devices, in the order of their names' numbers."""
    counts: Counter[str] = Counter()
    for row in sample:
        counts.update(row["groups"])
    largest = [name for name, _ in counts.most_common(MAX_GROUPS)]
    return sorted(largest, key=lambda name: (len(name), name))
