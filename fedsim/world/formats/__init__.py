"""Readers of trace files: one module per format, checks and provenance."""
