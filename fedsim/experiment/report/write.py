"""What is written beside a record for people to look at? `report.html` and `timeline.json`."""

import json
import logging
from pathlib import Path

from fedsim.experiment.load import Run, load_run, reading, refuse_links
from fedsim.experiment.report.run_page import run_page
from fedsim.experiment.report.timeline import timeline

REPORT = "report.html"
TIMELINE = "timeline.json"


def write_report(directory: Path | str) -> Path:
    """Write the report and the timeline of a run; both are replaced whole.

    Args:
        directory: Of the run; it may still be running.

    Returns:
        The path of the report.

    Raises:
        InputError: If it is not the directory of a run, or a file of it is damaged.
    """
    run = load_run(directory)
    refuse_links(run.directory)
    with reading(run.directory):
        page = run_page(run)
        write_timeline(run)
    return replace_file(run.directory / REPORT, page)


def attempt_report(directory: Path | str) -> Path | None:
    """Write the report of a run that has ended; a failure is one line of warning and harms nothing.

    Whatever goes wrong here, the record is whole and ``fedsim report`` can be tried again.

    Returns:
        The path of the report, or None where it could not be written.
    """
    try:
        return write_report(directory)
    except Exception as error:  # noqa: BLE001 - a finished run must not fail for its picture
        kind, words = type(error).__name__, " ".join(str(error).split())
        logging.getLogger(__name__).warning(
            "no report was written (%s: %s); the record is whole, try: fedsim report %s",
            kind,
            words,
            directory,
        )
        return None


def write_timeline(run: Run) -> Path:
    """Write the timeline of a run, for Perfetto or chrome://tracing."""
    told = json.dumps(timeline(run), allow_nan=False, separators=(",", ":"))
    return replace_file(run.directory / TIMELINE, told)


def replace_file(path: Path, content: str) -> Path:
    """Write a file whole or not at all."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(content, encoding="utf-8")
    temporary.replace(path)
    return path
