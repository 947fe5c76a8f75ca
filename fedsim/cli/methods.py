"""``fedsim methods``: which methods there are, a line each."""

import json
from dataclasses import asdict

import typer

from fedsim.cli.speech import JsonOption


def methods(
    as_json: JsonOption = False,
) -> None:
    """List the methods that a scenario can name, with a line and the source of each."""
    from fedsim.method.describe import describe_all  # noqa: PLC0415 - keeps help fast

    found = describe_all()
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], indent=2))
        return
    width = max(len(each.name) for each in found)
    for each in found:
        typer.echo(f"{each.name:<{width}}  {each.summary}")
        if each.source:
            typer.echo(f"{'':<{width}}  {each.source}")
