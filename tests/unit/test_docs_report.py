"""What docs/read-a-report.md shows must work as it stands."""

import re
import subprocess
import sys
from pathlib import Path

from tests.records import write_record

PAGE = Path(__file__).parents[2] / "docs" / "read-a-report.md"


def test_the_python_example_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_record(tmp_path / "runs" / "skewed-edge-s0-001")
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    exec(compile(code, str(PAGE), "exec"), {})
    printed = capsys.readouterr().out
    assert "1 round is over" in printed
    assert "phone" in printed


def test_every_frame_is_told(tmp_path):
    import fedsim

    told = PAGE.read_text(encoding="utf-8")
    for name in fedsim.load_run(write_record(tmp_path / "run")).frames:
        assert f"`{name}`" in told


def test_reading_a_run_does_not_load_torch(tmp_path):
    directory = write_record(tmp_path / "run")
    code = f"import sys, fedsim; fedsim.load_run({str(directory)!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
