"""One script per figure: ``python -m benchmarks.NAME`` prints a table and one JSON line."""
