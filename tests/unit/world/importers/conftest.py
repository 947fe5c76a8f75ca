import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]


@pytest.fixture
def real():
    """Return a real sample by its path; the test is skipped where there is none."""
    folder = Path(os.environ.get("FEDSIM_REAL_TRACES", ROOT.parent / "shared" / "traces_real"))

    def find(name):
        path = folder / name
        if not path.exists():
            pytest.skip(f"real trace samples are not here: {path}")
        return path

    return find


@pytest.fixture
def convert(tmp_path):
    """Import files and return what was written, with the canonical tables by kind."""
    from fedsim.world.formats.read import read_trace
    from fedsim.world.importers.rows import Choices
    from fedsim.world.importers.run import import_published

    def run(name, *paths, **choices):
        out = tmp_path / "out"
        _, written = import_published(name, paths, out, Choices(**choices), force=True)
        tables = {file.removesuffix(".csv"): read_trace(out / file) for file in written.rows}
        return written, tables

    return run


@pytest.fixture
def refusal(tmp_path):
    """Import a file that is wrong; return the message, after a look that nothing is left behind."""
    from fedsim.errors import TraceError
    from fedsim.world.importers.rows import Choices
    from fedsim.world.importers.run import import_published

    def run(name, *paths, **choices):
        out = tmp_path / "refused" / "out"
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(TraceError) as caught:
            import_published(name, paths, out, Choices(**choices))
        assert sorted(tmp_path.rglob("*")) == before
        message = str(caught.value)
        assert "\n" not in message
        assert "; " in message
        return message

    return run


@pytest.fixture
def written_file(tmp_path):
    """Write an input file."""

    def write(content, name="input.txt"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def rates():
    """Return instants in seconds and rates in Mbit/s of one trace, as they stand in the file."""
    import csv

    def pick(table, trace_id, direction="down"):
        with Path(table.origin.path).open(newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row["trace_id"] == trace_id]
        cells = [row[f"{direction}_mbps"] for row in rows]
        return [float(row["time_s"]) for row in rows], [float(cell) if cell else None for cell in cells]

    return pick


@pytest.fixture
def weighted():
    """Return rates in Mbit/s and their durations over all traces whose name holds a word."""
    import numpy as np

    def pick(table, word="", direction="down"):
        steps = [getattr(entry, direction) for entry in table.traces if word in entry.trace_id]
        values = np.concatenate([step.values / 1e6 for step in steps])
        lengths = np.concatenate([np.diff(np.append(step.times_s, step.period_s)) for step in steps])
        return values, lengths

    return pick


@pytest.fixture
def stays():
    """Return the stays of one device of an availability table."""

    def pick(table, device_id):
        row = table.ids.index(device_id)
        part = slice(int(table.offsets[row]), int(table.offsets[row + 1]))
        return list(zip(table.starts_s[part].tolist(), table.ends_s[part].tolist(), strict=True))

    return pick
