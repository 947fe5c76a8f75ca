"""Pictures of traces. What is drawn is decided in `panels`; the two back ends only put it on paper."""
