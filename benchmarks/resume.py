"""How long does a killed run take to come back to where it was? Against the time it took to get there.

python -m benchmarks.resume            # the figure: killed after at least 100 s of work, five times
python -m benchmarks.resume --quick    # a look in half a minute, not a figure

"Where it was" is the last line that the killed run wrote; "come back" counts from the start of the process to
the instant at which the resumed run has gone through the old record. The base model is loaded after that, for
what was not trained before; how long it takes until such training begins is told beside it. Seconds are those
of the clock and, as *cpu*, of the processor: one process does all the work of either side.
"""

import argparse
import json
import multiprocessing
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path

AIM = 0.05
SCENARIO = Path(__file__).parents[1] / "scenarios" / "skewed_edge.yaml"


Instant = tuple[float, float]
"""On the clock, and in seconds of the processor."""


class Watch:
    """Notes when each line of the record comes."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def note(self, on_clock_s: float, cpu_s: float) -> None:
        with self.path.open("a") as file:
            file.write(f"{on_clock_s!r} {cpu_s!r}\n")

    def observe(self, *_: object) -> None:
        self.note(time.time(), time.process_time())


def carry_out(directory: str, began: float, watched: str, *, resume: bool) -> None:
    import fedsim

    watch = Watch(watched)
    watch.note(began, 0.0)
    if resume:
        note_first_training(Path(watched).with_suffix(".work"))
        fedsim.resume(directory, instruments=[watch])
    else:
        changes = {"executor.kind": "inline", "stop.rounds": "100000", "stop.hours": "100000"}
        changes |= {"evaluation.every": "10"}
        fedsim.run(fedsim.load_scenario(SCENARIO, changes), directory, instruments=[watch])


def note_first_training(path: Path) -> None:
    """Say when real work begins again."""
    from fedsim.learn.trainer import ClientTrainer

    original = ClientTrainer.train

    def train(self, *arguments: object) -> object:
        if not path.exists():
            path.write_text(f"{time.time()!r} {time.process_time()!r}\n")
        return original(self, *arguments)

    ClientTrainer.train = train


def timed(directory: Path, watched: Path, *, resume: bool) -> "multiprocessing.Process":
    process = multiprocessing.get_context("spawn").Process(
        target=carry_out, args=(str(directory), time.time(), str(watched)), kwargs={"resume": resume}
    )
    process.start()
    return process


def stop(process) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def instants(watched: Path) -> list[Instant]:
    """What was noted; a line that is being written is left out."""
    if not watched.exists():
        return []
    lines = watched.read_text().split("\n")[:-1]
    return [(float(clock), float(cpu)) for clock, _, cpu in (line.partition(" ") for line in lines)]


def since(instant: Instant, began: Instant) -> Instant:
    return instant[0] - began[0], instant[1] - began[1]


def written(directory: Path, watched: Path) -> int:
    """How many lines are in the record, of those that were noted."""
    record = directory / "events.jsonl"
    lines = record.read_bytes().count(b"\n") if record.exists() else 0
    return max(0, min(lines, len(instants(watched)) - 1))


def killed(directory: Path, there: Path, seconds: float) -> int:
    """Run until a line is written that came after so much work, then kill; how many there are."""
    process = timed(directory, there, resume=False)
    while True:
        time.sleep(0.2)
        lines, found = written(directory, there), instants(there)
        if lines and found[lines][1] - found[0][1] >= seconds:
            stop(process)
            return written(directory, there)


def come_back(directory: Path, back: Path, lines: int) -> Instant:
    """Resume until something new is trained; returns when that was."""
    process = timed(directory, back, resume=True)
    work = back.with_suffix(".work")
    while len(instants(back)) <= lines or not instants(work):
        time.sleep(0.05)
    stop(process)
    return instants(work)[0]


def one(seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        directory, there, back = Path(folder) / "run", Path(folder) / "there", Path(folder) / "back"
        lines = killed(directory, there, seconds)
        size = sum(path.stat().st_size for path in (directory / "journal").rglob("*") if path.is_file())
        work = come_back(directory, back, lines)
        out, again = instants(there), instants(back)
        sides = {
            "there": since(out[lines], out[0]),
            "back": since(again[lines], again[0]),
            "replay": since(again[lines], again[1]),
            "work": since(work, again[0]),
        }
        told = {f"{name}_s": clock for name, (clock, _) in sides.items()}
        told |= {f"{name}_cpu_s": cpu for name, (_, cpu) in sides.items()}
        return {"lines": lines, "journal_mb": size / 1e6, **told}


def ratios(runs: list[dict[str, float]], unit: str) -> dict[str, float]:
    """Medians over the time it took to get there."""
    return {
        f"{name}{unit}": statistics.median(run[f"{name}{unit}_s"] / run[f"there{unit}_s"] for run in runs)
        for name in ("back", "replay", "work")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=100.0)
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.seconds = 1, 20.0
    runs = []
    for _ in range(options.repeats):
        runs.append(one(options.seconds))
        print("; ".join(f"{name} {value:.2f}" for name, value in runs[-1].items()), flush=True)
    found = ratios(runs, "") | ratios(runs, "_cpu")
    print(
        f"ratio {found['back']:.3f}, cpu {found['back_cpu']:.3f} (aim {AIM}); replay alone "
        f"{found['replay']:.3f}; until something is trained {found['work']:.3f}, cpu {found['work_cpu']:.3f}"
    )
    there_s = statistics.median(run["there_s"] for run in runs)
    print(
        json.dumps({"figure": "resume", **found, "aim": AIM, "there_s": there_s, "repeats": options.repeats})
    )


if __name__ == "__main__":
    main()
