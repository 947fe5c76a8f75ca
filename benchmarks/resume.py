"""How long does a killed run take to come back to where it was? Against the time it took to get there.

python -m benchmarks.resume            # the figure: killed after at least 100 s, five times
python -m benchmarks.resume --quick    # a look in half a minute, not a figure

"Where it was" is the last line that the killed run wrote; "come back" counts from the start of the process to
the instant at which the resumed run has gone through the old record. The base model is loaded after that, for
what was not trained before; how long it takes until such training begins is told beside it.
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


class Watch:
    """Notes when each line of the record comes."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def note(self, instant: float) -> None:
        with self.path.open("a") as file:
            file.write(f"{instant!r}\n")

    def observe(self, *_: object) -> None:
        self.note(time.time())


def carry_out(directory: str, began: float, watched: str, *, resume: bool) -> None:
    import fedsim

    watch = Watch(watched)
    watch.note(began)
    if resume:
        note_first_training(Path(watched).with_suffix(".work"))
        fedsim.resume(directory, instruments=[watch])
    else:
        changes = {"stop.rounds": "100000", "stop.hours": "100000", "evaluation.every": "10"}
        fedsim.run(fedsim.load_scenario(SCENARIO, changes), directory, instruments=[watch])


def note_first_training(path: Path) -> None:
    """Say when real work begins again."""
    from fedsim.learn.trainer import ClientTrainer

    original = ClientTrainer.train

    def train(self, *arguments: object) -> object:
        if not path.exists():
            path.write_text(repr(time.time()))
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


def instants(watched: Path) -> list[float]:
    return [float(line) for line in watched.read_text().splitlines()[:-1]] if watched.exists() else []


def one(seconds: float) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        directory, there, back = Path(folder) / "run", Path(folder) / "there", Path(folder) / "back"
        process = timed(directory, there, resume=False)
        time.sleep(seconds)
        stop(process)
        lines = len((directory / "events.jsonl").read_bytes().split(b"\n")) - 1
        size = sum(path.stat().st_size for path in (directory / "journal").rglob("*") if path.is_file())
        process = timed(directory, back, resume=True)
        work = back.with_suffix(".work")
        while len(instants(back)) <= lines or not (work.exists() and work.read_text()):
            time.sleep(0.05)
        stop(process)
        out, again = instants(there), instants(back)
        return {
            "lines": lines,
            "there_s": out[lines] - out[0],
            "back_s": again[lines] - again[0],
            "replay_s": again[lines] - again[1],
            "work_s": float(work.read_text()) - again[0],
            "journal_mb": size / 1e6,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=110.0)
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.seconds = 1, 30.0
    runs = []
    for _ in range(options.repeats):
        runs.append(one(options.seconds))
        shown = runs[-1]
        print(
            f"{shown['lines']} lines in {shown['there_s']:.1f} s; back in {shown['back_s']:.1f} s, "
            f"of which replay {shown['replay_s']:.2f} s; at work in {shown['work_s']:.1f} s; "
            f"journal {shown['journal_mb']:.1f} MB"
        )
    ratio = statistics.median(run["back_s"] / run["there_s"] for run in runs)
    replay = statistics.median(run["replay_s"] / run["there_s"] for run in runs)
    work = statistics.median(run["work_s"] / run["there_s"] for run in runs)
    print(f"ratio {ratio:.3f} (aim {AIM}); replay alone {replay:.3f}; until something is trained {work:.3f}")
    print(
        json.dumps(
            {
                "figure": "resume",
                "ratio": ratio,
                "replay_ratio": replay,
                "work_ratio": work,
                "aim": AIM,
                "there_s": statistics.median(run["there_s"] for run in runs),
                "repeats": options.repeats,
            }
        )
    )


if __name__ == "__main__":
    main()
