"""The built-in task and base model: a restaurant language small enough to ship and to train on a laptop."""
