"""What does the user see while it runs? A live table in a terminal, plain lines elsewhere."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TextIO

from fedsim.experiment.record import Tally
from fedsim.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from rich.table import Table


class Progress(Protocol):
    """An observer that must be closed."""

    def observe(self, time_s: float, event: str, fields: Mapping[str, object]) -> None:
        """Take note of one line of the record."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


class _State:
    """What both displays show."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.time_s = 0.0
        self.version = 0
        self.online = 0
        self.in_flight = 0
        self.loss: float | None = None
        self.base_loss: float | None = None

    def observe(self, time_s: float, event: str, fields: Mapping[str, object]) -> None:
        self.time_s = time_s
        self.tally.observe(time_s, event, fields)
        if event == "fleet":
            self.online = int(str(fields["online"]))
        elif event == "dispatched":
            self.in_flight += 1
        elif event == "settled":
            self.in_flight -= 1
        elif event == "aggregated":
            self.version = int(str(fields["version"]))
        elif event == "evaluated":
            loss = fields["loss"]
            self.loss = loss if isinstance(loss, float) else None
            self.base_loss = self.loss if self.base_loss is None else self.base_loss

    def cells(self) -> dict[str, str]:
        """Name -> value, in the order in which they are shown."""
        loss = "-" if self.loss is None else f"{self.loss:.4f}"
        if self.loss is not None and self.base_loss is not None:
            loss += f" (base {self.base_loss:.4f})"
        return {
            "virtual time": format_seconds(self.time_s),
            "round": str(self.tally.rounds),
            "version": str(self.version),
            "online": str(self.online),
            "in flight": str(self.in_flight),
            "loss": loss,
            "down": format_bytes(self.tally.bytes_down),
            "up": format_bytes(self.tally.bytes_up),
        }


class PlainProgress:
    """One line per evaluation, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._state = _State()
        self._stream = stream

    def observe(self, time_s: float, event: str, fields: Mapping[str, object]) -> None:
        """Print a line whenever a version has been measured."""
        self._state.observe(time_s, event, fields)
        if event == "evaluated":
            text = "  ".join(f"{name} {value}" for name, value in self._state.cells().items())
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing to undo."""


class LiveProgress:
    """A table that is redrawn in place."""

    def __init__(self) -> None:
        from rich.live import Live  # noqa: PLC0415 - keeps help fast

        self._state = _State()
        # Drawn by the clock on the wall, not by the line: a fleet tells of hundreds of lines at each redraw.
        self._live = Live(get_renderable=self._table, refresh_per_second=4)
        self._live.start()

    def observe(self, time_s: float, event: str, fields: Mapping[str, object]) -> None:
        """Take note; the table is drawn a few times a second."""
        self._state.observe(time_s, event, fields)

    def _table(self) -> "Table":
        from rich.table import Table  # noqa: PLC0415 - keeps help fast

        table = Table.grid(padding=(0, 2))
        cells = self._state.cells()
        table.add_row(*(f"[dim]{name}[/dim]" for name in cells))
        table.add_row(*cells.values())
        return table

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()


def open_progress(stream: TextIO | None = None) -> Progress:
    """Choose the display that fits where the output goes."""
    stream = stream or sys.stderr
    return LiveProgress() if stream.isatty() else PlainProgress(stream)
