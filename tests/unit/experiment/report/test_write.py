import logging

import pytest

from fedsim.errors import InputError
from fedsim.experiment.report.write import attempt_report, write_report
from tests.records import write_record


def test_a_report_that_cannot_be_written_is_one_line_and_no_failure(tmp_path, caplog):
    directory = write_record(tmp_path / "run")
    (directory / "events.jsonl").write_text("damaged\n")
    with caplog.at_level(logging.WARNING):
        assert attempt_report(directory) is None
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert "fedsim report" in message
    assert "\n" not in message
    with pytest.raises(InputError, match=r"events\.jsonl:1"):
        write_report(directory)


def test_it_is_written_beside_the_record(tmp_path):
    directory = write_record(tmp_path / "run")
    assert attempt_report(directory) == directory / "report.html"
