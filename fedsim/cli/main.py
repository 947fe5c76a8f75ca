"""Which commands are there, and how does a mistake end?

What the user can mend is one line on stderr and exit code 2; a run that fails on purpose is one line and 1;
an interrupt is 130; a bug keeps its traceback. Commands import what they need when they run, so that help and
checks start without torch.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import typer

from fedsim.cli.adapters import evaluate, export
from fedsim.cli.calibrate import calibrate
from fedsim.cli.compare import compare
from fedsim.cli.deploy import join, serve
from fedsim.cli.doctor import doctor
from fedsim.cli.examples import exit_codes, shown
from fedsim.cli.inspect import runs, tail, trace_client
from fedsim.cli.methods import methods
from fedsim.cli.models import models
from fedsim.cli.new import new
from fedsim.cli.report import report
from fedsim.cli.run import run
from fedsim.cli.scenarios import check
from fedsim.cli.sensitivity import sensitivity
from fedsim.cli.shards import shards
from fedsim.cli.speech import tinted
from fedsim.cli.traces import traces_app
from fedsim.cli.tune_batch import tune_batch
from fedsim.cli.verify import verify
from fedsim.errors import FedsimError, InputError

INTERRUPTED = 130
MAX_LINE = 2000

SUMMARY = "Simulate federated LoRA fine-tuning on a fleet of real devices: one clock, real training."

COMMANDS: Mapping[str, Callable[..., None]] = {
    "run": run,
    "new": new,
    "check": check,
    "compare": compare,
    "methods": methods,
    "report": report,
    "runs": runs,
    "trace-client": trace_client,
    "tail": tail,
    "doctor": doctor,
    "verify": verify,
    "models": models,
    "shards": shards,
    "export": export,
    "eval": evaluate,
    "serve": serve,
    "join": join,
    "calibrate": calibrate,
    "sensitivity": sensitivity,
    "tune-batch": tune_batch,
}

app = typer.Typer(
    name="fedsim",
    help=SUMMARY,
    epilog=exit_codes(),
    no_args_is_help=True,
    context_settings={"max_content_width": 110},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help starts four times faster than rich panels
)
for name, command in COMMANDS.items():
    app.command(name, epilog=shown(name))(command)
app.add_typer(traces_app, name="traces", help="Make and inspect device traces.")


def _print_version(wanted: bool) -> bool:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - help does not need it

        typer.echo(f"fedsim {version('fedsim-lora')}")
        raise typer.Exit
    return wanted


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take what stands before the command."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: Words after the program's name; ``sys.argv`` by default.

    Raises:
        SystemExit: Always, with the exit code.
    """
    try:
        app(args=None if arguments is None else list(arguments), prog_name="fedsim")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except FedsimError as error:
        typer.echo(f"{tinted('error:', 'red')} {one_line(str(error))}", err=True)
        sys.exit(2 if isinstance(error, InputError) else 1)


def one_line(text: str) -> str:
    """Keep what a file or an option put into a message from breaking the line or steering the terminal."""
    shown = text if len(text) <= MAX_LINE else f"{text[:MAX_LINE]}..."
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in shown
    )
