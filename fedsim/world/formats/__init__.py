"""Readers of trace files. All input is checked; an error names file, line and the way out."""
