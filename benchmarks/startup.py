"""How long until the command line answers? `--help` and `check` against a bare interpreter, interleaved."""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
REPEATS = 7
COMMANDS = {
    "bare interpreter": ["-c", "pass"],
    "--help": ["-m", "fedsim", "--help"],
    "check": ["-m", "fedsim", "check", "scenarios/skewed_edge.yaml"],
}
AIMS_S = {"--help": 0.5, "check": 1.0}


def seconds(arguments: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - began


def loads_torch(arguments: list[str]) -> bool:
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return any(line.rsplit("|", 1)[-1].strip() == "torch" for line in shown.stderr.splitlines())


def main() -> None:
    for arguments in COMMANDS.values():
        seconds(arguments)  # byte code and file cache
    runs: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(REPEATS):
        for name, arguments in COMMANDS.items():
            runs[name].append(seconds(arguments))
    medians = {name: statistics.median(values) for name, values in runs.items()}
    bare = medians["bare interpreter"]
    print(f"{'command':<18}{'median s':>10}{'min s':>8}{'x bare':>8}{'aim s':>8}  torch")
    for name, median in medians.items():
        torch = "loaded" if loads_torch(COMMANDS[name]) else "no"
        measured = f"{median:>10.3f}{min(runs[name]):>8.3f}{median / bare:>8.1f}"
        print(f"{name:<18}{measured}{AIMS_S.get(name, ''):>8}  {torch}")
    print(json.dumps({"figure": "startup", "seconds": medians, "aims_s": AIMS_S, "repeats": REPEATS}))


if __name__ == "__main__":
    main()
