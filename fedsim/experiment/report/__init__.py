"""Record to tables and figures: one page per run, one per comparison, one trace for a timeline viewer.

`fedsim.experiment.report.write` is the way in.
"""
