"""How fast are fleets made and read, and do generators look like what they were fitted to?

    python -m benchmarks.traces                                  # seconds and memory
    python -m benchmarks.traces --real DIR --figure real_over_synthetic.png

DIR holds imported traces: `stunner/availability.csv` and `ghent/bandwidth.csv`, see docs/import-traces.md.
"""

import argparse
import io
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fedsim.cli.traces_stats import row_periods
from fedsim.experiment.recipe_source import load_recipe
from fedsim.seeds import Seeds
from fedsim.world.calibration import NETWORKS, PRESENCE
from fedsim.world.draw.panels import Line, Panel, Picture, availability_picture, bandwidth_picture
from fedsim.world.draw.png import to_png
from fedsim.world.formats.availability import read_availability
from fedsim.world.formats.bandwidth import read_bandwidth
from fedsim.world.formats.records import AvailabilityTable, BandwidthTable, BandwidthTrace, Origin
from fedsim.world.load import load_population
from fedsim.world.make import synth_fleet
from fedsim.world.resample import Growth
from fedsim.world.statistics import DAY_S, LAGS_S, availability_statistics, rate_statistics
from fedsim.world.synth import synth_presence, synth_rates
from fedsim.world.trace import StepTrace

ORIGIN = Origin("generated", "0")


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def report(what, begun):
    print(f"{what:<62}{time.perf_counter() - begun:8.1f} s   peak so far {peak_mb():6.0f} MB")


def speed():
    begun = time.perf_counter()
    stays = synth_presence(100_000, 7, PRESENCE["phone"], Seeds(0).generator("availability"))
    report(f"presence of 100,000 devices over 7 days, {len(stays.starts_s):,} stays", begun)
    begun = time.perf_counter()
    files = synth_fleet(load_recipe("phones"), 100_000, 7, 0)
    report(f"that as files, with devices and links, {sum(map(len, files.values())) / 1e6:.0f} MB", begun)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text)
        paths = [Path(folder) / f"{kind}.csv" for kind in ("devices", "bandwidth", "availability")]
        begun = time.perf_counter()
        small = load_population(*paths)
        report("that read, checked and assembled", begun)
        begun = time.perf_counter()
        grown = load_population(*paths, limit=1000, growth=Growth(1_000_000))
        report("1,000,000 devices drawn from its first 1,000 (reading included)", begun)
    for fleet in (small, grown):
        begun = time.perf_counter()
        online = len(fleet.online(3 * 3600.0))
        report(f"who of {fleet.num_devices:,} is online: {online:,}", begun)


def synthetic_phones(num=3000, days=7):
    """Absences of up to a minute are closed, as they are in measured traces."""
    stays = synth_presence(num, days, PRESENCE["phone"], Seeds(0).generator("t"))
    starts, ends = stays.starts_s.astype(float), stays.ends_s.astype(float)
    near = (stays.device[1:] == stays.device[:-1]) & (starts[1:] - ends[:-1] <= 60.0)
    first = np.flatnonzero(np.concatenate(([True], ~near)))
    offsets = np.searchsorted(stays.device[first], np.arange(num + 1))
    names, ends = tuple(f"d{k}" for k in range(num)), np.maximum.reduceat(ends, first)
    return AvailabilityTable(names, offsets, starts[first], ends, days * DAY_S, True, 0.0, ORIGIN)


def synthetic_links(family, num=200, seconds=900):
    rates = synth_rates(NETWORKS[family], num, seconds, 1.0, Seeds(0).generator(family)).down_mbps
    traces = [StepTrace(np.arange(float(seconds)), rates[:, k] * 1e6, float(seconds)) for k in range(num)]
    return BandwidthTable(tuple(BandwidthTrace(f"t{k}", t, None, None) for k, t in enumerate(traces)), ORIGIN)


def memory_line(name, table):
    found = rate_statistics([trace.down for trace in table.traces], 0.1).autocorrelation
    return Line(name, np.array(LAGS_S, dtype=float), np.array([found[lag] for lag in LAGS_S], dtype=float))


def figure(real, out):
    """Curves over all devices only, no single recording: the samples are not ours to pass on."""
    path = real / "stunner" / "availability.csv"
    phones, made = read_availability(path), synthetic_phones()
    found = availability_statistics(phones, row_periods(phones, None))
    measured = ("STUNner, measured", phones, found)
    presence = availability_picture(measured, ("generated", made, availability_statistics(made)))
    links, like = read_bandwidth(real / "ghent" / "bandwidth.csv"), synthetic_links("lte")
    rates = bandwidth_picture(("Ghent LTE, measured", links), ("generated", like))
    lags = Panel(
        "memory of the log rate",
        "lag, s",
        "autocorrelation",
        (memory_line("Ghent LTE, measured", links), memory_line("generated", like)),
    )
    picture = Picture("measured and generated", (*presence.panels[1:], rates.panels[1], lags))
    Path(out).write_bytes(io.BytesIO(to_png(picture)).getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", type=Path)
    parser.add_argument("--figure", type=Path)
    chosen = parser.parse_args()
    if (chosen.real is None) != (chosen.figure is None):
        sys.exit("--real and --figure go together")
    if chosen.real is None:
        speed()
    else:
        figure(chosen.real, chosen.figure)


if __name__ == "__main__":
    main()
