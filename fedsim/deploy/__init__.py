"""A real run: the same server, method, trainer and codec, with sockets and wall time instead of a clock."""
