"""When does a transfer end? One direction of a device's connection: a bandwidth trace and a latency."""

from dataclasses import dataclass

from fedsim.world.trace import StepTrace

_BITS_PER_BYTE = 8.0


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """One direction of a connection.

    Args:
        trace: Bandwidth in bits per second; zero is an outage.
        latency_s: Time from the start of a transfer until its first bit moves, once per transfer.
    """

    trace: StepTrace
    latency_s: float = 0.0

    def rate_bps(self, t_s: float) -> float:
        """Return the bandwidth at this instant."""
        return self.trace.value(t_s)

    def next_rate_change_s(self, t_s: float) -> float:
        """Return the earliest instant after `t_s` with another bandwidth; infinity if there is none."""
        return self.trace.next_change_s(t_s)

    def transfer_end_s(self, start_s: float, size_bytes: float) -> float:
        """Return when a transfer of this size that starts now ends; infinity if it never does.

        The latency counts once, at the start; the rest is the exact root of the integral of the bandwidth.
        """
        return self.trace.inverse_integral(start_s + self.latency_s, size_bytes * _BITS_PER_BYTE)

    def bytes_between(self, start_s: float, end_s: float) -> float:
        """Return the payload bytes that a transfer started at `start_s` has moved by `end_s`."""
        return self.trace.integral(start_s + self.latency_s, end_s) / _BITS_PER_BYTE
