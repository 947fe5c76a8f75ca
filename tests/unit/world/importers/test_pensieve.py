import numpy as np
import pytest


def test_absolute_times_become_relative(convert, written_file, rates):
    written, tables = convert(
        "pensieve", written_file("180.0 0.46\n185.0 1.1\n185.0 1.2\n190.0 2.7\n", "a.log")
    )
    assert rates(tables["bandwidth"], "pensieve-a") == ([0, 5, 10], [0.46, 1.2, 2.7])
    assert written.counts["samples that repeat a time dropped"] == 1


def test_a_step_of_ten_times_the_usual_is_a_gap(convert, written_file):
    text = "".join(f"{t} 1.5\n" for t in [*range(0, 60, 5), *range(105, 150, 5), *range(200, 250, 5)])
    _, tables = convert("pensieve", written_file(text, "a"))
    assert [trace.trace_id for trace in tables["bandwidth"].traces] == ["pensieve-a", "pensieve-a.2"]


def test_the_published_recordings(convert, real, weighted):
    _, tables = convert("pensieve", real("confiwent_fcc_puffer"))
    values, lengths = weighted(tables["bandwidth"], "http")
    # A part of the FCC cut: mean 1.41, p5/50/95 .37/1.10/2.86, outages 0.7 % over 4.5 hours.
    assert np.average(values, weights=lengths) == pytest.approx(1.41, rel=0.1)
    assert np.quantile(values, [0.05, 0.5, 0.95]) == pytest.approx([0.37, 1.10, 2.86], rel=0.1)
    assert np.average(values < 0.1, weights=lengths) == pytest.approx(0.007, abs=0.001)
    # Puffer sends what the player asks for, so its rates are lower bounds: only the form is checked.
    assert sum("http" not in trace.trace_id for trace in tables["bandwidth"].traces) >= 9
