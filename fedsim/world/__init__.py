"""The physical world: immutable, pure functions of time."""
