"""One run, from YAML to tables."""
