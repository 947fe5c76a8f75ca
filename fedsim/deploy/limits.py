"""How much, and how long, does one side of a connection put up with?"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what arrives; nothing larger is read, nothing slower is waited for.

    Args:
        hello_bytes: Largest header before the other side has shown that it knows the token.
        header_bytes: Largest header after that.
        handshake_s: Until a new connection has said who it is.
        loading_s: From then on until it is ready to train.
        grace_s: A frame that has begun, or that is being sent, has this long, and longer with its size.
        slowest_bps: At least this many bits per second are expected of a frame.
        connections: Open connections at once.
    """

    hello_bytes: int = 4096
    header_bytes: int = 1 << 20
    handshake_s: float = 10.0
    loading_s: float = 600.0
    grace_s: float = 30.0
    slowest_bps: float = 8000.0
    connections: int = 1024

    def frame_s(self, size_bytes: int) -> float:
        """Longest time that a frame of this size may take."""
        return self.grace_s + 8.0 * size_bytes / self.slowest_bps
