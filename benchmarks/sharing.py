"""What does a transfer over shared links cost when many are under way at once?

python -m benchmarks.sharing [--sizes 1000,10000] [--repeats N]

Transfers of different sizes keep a link busy: whoever is done begins again, until each has been done twice on
average. `cells` has a hundred devices behind each cell, `common` all of them behind one link, `both` the two
together. Every begin and every end changes everybody's rate. Quadratic would be ten times the cost of one
transfer at ten times the number.
"""

import argparse
import json
import statistics
import time

import numpy as np

from fedsim.sim.sharing import SharedCapacity, SharedLinks
from fedsim.sim.timeline import Clock
from fedsim.world.link import Link
from fedsim.world.trace import StepTrace

PER_CELL, DEVICE_BPS, CELL_BPS = 100, 1e6, 2e7


def transfer(clock, links, device, sizes, done):
    """Send one transfer after the other."""
    link = Link(StepTrace.constant(DEVICE_BPS * (0.2 + 1.6 * (device % 97) / 97)), 0.0)
    for size in sizes:
        begun_s = clock.now
        flow = links.join(device, "download", link)
        while flow.end_s(begun_s, size) > clock.now:
            yield flow.wake(float("inf"))
        flow.leave()
        done.append(size)


def one(kind: str, size: int) -> dict:
    """Run one crowd to its end."""
    cells = (StepTrace.constant(CELL_BPS),) * (size // PER_CELL) if kind in ("cells", "both") else ()
    common = StepTrace.constant(CELL_BPS * size / PER_CELL / 2) if kind in ("common", "both") else None
    clock = Clock()
    links = SharedLinks(clock, {"download": SharedCapacity(cells, common)}, np.arange(size) // PER_CELL)
    sizes = np.random.default_rng(0).uniform(1e6, 9e6, (size, 2)).tolist()
    done: list[float] = []
    for device in range(size):
        clock.process(transfer(clock, links, device, sizes[device], done))
    began = time.process_time()
    clock.run()
    cpu_s = time.process_time() - began
    assert len(done) == 2 * size
    solves = sum(group.solves for group in links.groups.values())
    return {"kind": kind, "concurrent": size, "transfers": len(done), "solves": solves, "cpu_s": cpu_s}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="1000,10000")
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    rows = []
    print("    kind  at once  transfers   solves   cpu s  us per transfer")
    for kind in ("cells", "common", "both"):
        for size in map(int, options.sizes.split(",")):
            runs = [one(kind, size) for _ in range(options.repeats)]
            row = runs[0] | {"cpu_s": statistics.median(run["cpu_s"] for run in runs)}
            rows.append(row)
            each = 1e6 * row["cpu_s"] / row["transfers"]
            print(
                f"{kind:>8}{size:>9}{row['transfers']:>11}{row['solves']:>9}{row['cpu_s']:>8.1f}{each:>17.0f}",
                flush=True,
            )
    print(json.dumps({"figure": "sharing", "rows": rows, "repeats": options.repeats}))


if __name__ == "__main__":
    main()
