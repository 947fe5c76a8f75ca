"""Which examples does the help of each command show? One table, for the documentation and the tests too."""

from collections.abc import Mapping, Sequence

Example = tuple[str, str]

EXIT_CODES: Mapping[int, str] = {
    0: "done",
    1: "a run failed, or what was checked is not as it should be; the message says what",
    2: "what was handed in is wrong: scenario, trace, model, option; one line says where and the way out",
    130: "interrupted with Ctrl-C; the last line says how to go on",
}

# Command -> what to type, what it is for. Runs are those of the quick start.
EXAMPLES: Mapping[str, Sequence[Example]] = {
    "serve": (
        (
            "fedsim serve scenarios/skewed_edge.yaml --set model.stands_for=null --token-file token",
            "be the server of a real run; makes the token",
        ),
    ),
    "join": (
        (
            "fedsim join 127.0.0.1:7117 --device phone-mid-040 --token-file token",
            "be one client of it, in another terminal",
        ),
    ),
    "calibrate": (
        ("fedsim calibrate --out calibration.json", "the model in the package, a minute"),
        ("fedsim calibrate --model ./my-model --device cuda", "another one, on a GPU"),
    ),
    "sensitivity": (
        (
            "fedsim sensitivity scenarios/skewed_edge.yaml --methods fedhera,flexlora --perturb compute=2",
            "which change turns the winner?",
        ),
    ),
    "tune-batch": (
        ("fedsim tune-batch scenarios/skewed_edge.yaml", "how many clients in one pass? a minute"),
        ("fedsim tune-batch scenarios/skewed_edge.yaml --set model.device=cuda --json", "on a GPU"),
    ),
    "run": (
        ("fedsim run scenarios/skewed_edge.yaml", "the default run, a few minutes"),
        ("fedsim run scenarios/skewed_edge.yaml --seed 1 --set stop.rounds=4", "another seed, shorter"),
        ("fedsim run scenarios/skewed_edge.yaml --executor stub", "seconds: all but the training"),
        ("fedsim run --resume runs/skewed-edge-s0-001", "go on after Ctrl-C or a crash"),
    ),
    "new": (
        ("fedsim new night-shift", "asks, then writes night-shift.yaml"),
        (
            "fedsim new evening --recipe skewed_edge --devices 80 --method flexlora --rounds 6 --yes",
            "asks nothing",
        ),
        ("fedsim new mine --traces traces/skewed_edge --yes", "with trace files in place of a recipe"),
    ),
    "check": (
        ("fedsim check scenarios/skewed_edge.yaml", "every default filled in"),
        ("fedsim check scenarios/skewed_edge.yaml --quiet", "only what is wrong"),
        ("fedsim check scenarios/skewed_edge.yaml --preview", "what the fleet will do, how long it takes"),
    ),
    "compare": (
        (
            "fedsim compare scenarios/skewed_edge.yaml --methods fedhera,flexlora --seeds 0-2",
            "two methods, three paired seeds",
        ),
        (
            "fedsim compare scenarios/skewed_edge.yaml --methods fedhera,fedhera:coupled=true --json",
            "an ablation, for programs",
        ),
    ),
    "methods": (
        ("fedsim methods", "a line and the source of each"),
        ("fedsim methods --json", "for programs"),
    ),
    "report": (
        ("fedsim report runs/skewed-edge-s0-001", "report.html and timeline.json"),
        ("fedsim report runs/skewed-edge-s0-001 --tables", "every table as CSV and Parquet too"),
    ),
    "runs": (
        ("fedsim runs", "what lies below runs/"),
        ("fedsim runs --json", "for programs"),
    ),
    "trace-client": (("fedsim trace-client runs/skewed-edge-s0-001 phone-mid-040", "one device, in words"),),
    "tail": (
        ("fedsim tail runs/skewed-edge-s0-001", "follow it from another terminal"),
        ("fedsim tail runs/skewed-edge-s0-001 --once --clients", "what is there now, every device"),
    ),
    "doctor": (("fedsim doctor", "is all here that a run needs?"),),
    "verify": (
        ("fedsim verify runs/skewed-edge-s0-001", "hashes, laws, budgets"),
        ("fedsim verify runs/skewed-edge-s0-001 --json", "for programs"),
    ),
    "models": (
        ("fedsim models", "the shapes that are known"),
        ("fedsim models llama-3.2-1b --rank 16", "bytes and memory of one"),
    ),
    "shards": (("fedsim shards scenarios/skewed_edge.yaml", "who holds what"),),
    "export": (
        ("fedsim export runs/skewed-edge-s0-001 --out my-adapter", "the adapter, with its model card"),
        ("fedsim export runs/skewed-edge-s0-001 --merge --out my-model", "a whole model, without PEFT"),
    ),
    "eval": (
        ("fedsim eval runs/skewed-edge-s0-001 --with-base", "as the run measured, and its base beside it"),
        (
            "fedsim eval runs/skewed-edge-s0-001/adapter --task embedded --examples 32 --json",
            "any PEFT adapter, for programs",
        ),
    ),
    "traces import": (
        (
            "fedsim traces import mahimahi my-uplink.mahi --out traces/mine",
            "one of eleven published formats; auto decides by content",
        ),
    ),
    "traces check": (
        ("fedsim traces check traces/skewed_edge", "every file, and their references"),
        ("fedsim traces check traces/skewed_edge/devices.csv --json", "for programs"),
    ),
    "traces stats": (
        ("fedsim traces stats traces/skewed_edge/availability.csv", "who is online when, for how long"),
        ("fedsim traces stats traces/skewed_edge/bandwidth.csv --json", "for programs"),
    ),
    "traces plot": (
        ("fedsim traces plot traces/skewed_edge/availability.csv --out presence.html", "a page to look at"),
    ),
    "traces list": (
        ("fedsim traces list", "recipes, and files below traces/"),
        ("fedsim traces list --json", "for programs"),
    ),
    "traces synth": (
        (
            "fedsim traces synth --recipe skewed_edge --devices 50 --days 2 --out traces/small",
            "the same seed gives the same bytes",
        ),
    ),
}


def shown(command: str) -> str:
    """Return what stands below the help of a command; a form feed's neighbour keeps lines as they are.

    Args:
        command: Words after ``fedsim``.
    """
    lines = [f"  {words}\n      {purpose}" for words, purpose in EXAMPLES[command]]
    return "\n".join(["\b", "Examples:", *lines])


def exit_codes() -> str:
    """Return the exit codes, for the help of the program itself."""
    return "\n".join(["\b", "Exit codes:", *(f"  {code:<4} {words}" for code, words in EXIT_CODES.items())])
