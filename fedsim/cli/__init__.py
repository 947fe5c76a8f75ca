"""The command line: one thin module per command group."""

from fedsim.cli.main import main

__all__ = ["main"]
