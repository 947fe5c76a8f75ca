"""Links that follow a trace: namespaces, veth pairs, and a token bucket at each end that changes its rate.

What makes a bucket's payload differ from the trace, and what is done about each:

* headers: a full frame of 1514 bytes carries 1448 of a stream, so the rate is higher by that ratio;
* a change of a `tbf` fills its bucket anew, a burst for nothing each second; a change of an `htb` class does
  not, so that is used;
* losses: the queue is longer than any window, so that none is sent twice;
* late changes: one thread of real-time priority feeds one `tc` per namespace that is kept open, on a clock
  that does not drift, and waits until the kernel has taken the change.
"""

import math
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self

HEADERS = 1514 / 1448  # Ethernet, IP and TCP with time stamps around a full segment
BURST_BYTES = 3200
PRIORITY = 10


@dataclass(frozen=True)
class Line:
    """One client's line; rates in Mbit/s of payload, one per second."""

    down: Sequence[float]
    up: Sequence[float]


@dataclass(frozen=True)
class _End:
    """One end of a veth pair: what leaves here follows these rates."""

    space: str
    link: str
    rates: Sequence[float]

    def class_at(self, at_s: int, verb: str) -> str:
        rate = f"{round(self.rates[at_s % len(self.rates)] * HEADERS * 1e6)}bit"
        sizes = f"burst {BURST_BYTES} cburst {BURST_BYTES} quantum 1514"
        return f"class {verb} dev {self.link} parent 1: classid 1:1 htb rate {rate} ceil {rate} {sizes}\n"


def missing() -> str | None:
    """Why this cannot run here; None if it can."""
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    name = f"fsim{os.getpid()}probe"
    for words, what in (
        (f"ip netns add {name}", "cannot make network namespaces"),
        (f"tc -n {name} qdisc add dev lo root handle 1: htb default 1", "cannot shape links"),
    ):
        try:
            done = subprocess.run(words.split(), capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return f"needs the command {words.split()[0]} (iproute2)"
        if done.returncode:
            _do_not_mind("ip", "netns", "del", name)
            return f"{what}: {done.stderr.strip()}"
    _do_not_mind("ip", "netns", "del", name)
    return None


class Net:
    """A star of namespaces: one for the server, one for each client."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.server = f"fsim{os.getpid()}s"
        self.clients = [f"fsim{os.getpid()}c{k}" for k in range(len(lines))]
        self.ends = [
            end
            for k, line in enumerate(lines)
            for end in (_End(self.server, f"v{k}", line.down), _End(self.clients[k], "w0", line.up))
        ]

    def address(self, k: int) -> str:
        """Of the server, as client k sees it."""
        return f"10.77.{k}.1"

    def build(self) -> None:
        for space in (self.server, *self.clients):
            _do("ip", "netns", "add", space)
        for k, own in enumerate(self.clients):
            pair = f"add v{k} type veth peer name w0 netns {own}".split()
            _do("ip", "-n", self.server, "link", *pair)
            for end, address in (
                (self.ends[2 * k], f"10.77.{k}.1/30"),
                (self.ends[2 * k + 1], f"10.77.{k}.2/30"),
            ):
                _do("ip", "-n", end.space, "link", "set", "dev", end.link, "gso_max_segs", "1", "up")
                _do("ip", "-n", end.space, "address", "add", address, "dev", end.link)
                _tc(end.space, f"qdisc add dev {end.link} root handle 1: htb default 1\n")
                _tc(end.space, end.class_at(0, "add"))
                _tc(end.space, f"qdisc add dev {end.link} parent 1:1 pfifo limit 10000\n")

    def remove(self) -> None:
        for space in (self.server, *self.clients):
            _do_not_mind("ip", "netns", "del", space)


@contextmanager
def network(lines: Sequence[Line]):
    net = Net(lines)
    try:
        net.build()
        yield net
    finally:
        net.remove()


class Shaper(threading.Thread):
    """Moves all links along their traces, from the instant at which a round begins.

    Args:
        net: Whose links.
        starts_s: Where in the traces each round begins.
    """

    def __init__(self, net: Net, starts_s: Sequence[float]) -> None:
        super().__init__(daemon=True)
        self.net, self.starts_s = net, starts_s
        self.began = 0.0
        self.round = -1
        self.over = threading.Event()
        self.changed = threading.Event()
        self.late_s: list[float] = []
        self.failure: Exception | None = None

    def begin(self) -> None:
        """A round begins now; its traces are where the simulation says they are."""
        now = time.monotonic()
        self.round += 1
        self.began = now - self.starts_s[min(self.round, len(self.starts_s) - 1)]
        self.changed.set()

    def end(self) -> None:
        self.over.set()
        self.changed.set()
        self.join(5)
        if self.failure is not None:
            raise self.failure

    def run(self) -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))  # this thread, what it starts
            with _Setters(self.net) as setters:
                self._follow(setters)
        except (OSError, RuntimeError) as error:
            self.failure = error

    def _follow(self, setters: "_Setters") -> None:
        self.changed.wait()
        while not self.over.is_set():
            self.changed.clear()
            began, due = self.began, time.monotonic()
            second = math.floor(due - began)
            while not self.over.is_set() and not self.changed.is_set():
                setters.set(second)
                self.late_s.append(time.monotonic() - due)
                second += 1
                due = began + second
                self.changed.wait(max(0.0, due - time.monotonic()))


class _Setters:
    """One open `tc` per namespace."""

    def __init__(self, net: Net) -> None:
        self.ends: dict[str, list[_End]] = {}
        for end in net.ends:
            self.ends.setdefault(end.space, []).append(end)
        self.open: Mapping[str, subprocess.Popen] = {}

    def __enter__(self) -> Self:
        self.open = {
            space: subprocess.Popen(
                ["tc", "-n", space, "-batch", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for space in self.ends
        }
        return self

    def set(self, at_s: int) -> None:
        """Give every link the rate of this second; returns when it has it."""
        for space, setter in self.open.items():
            changes = "".join(end.class_at(at_s, "change") for end in self.ends[space])
            setter.stdin.write(
                f"{changes}class show dev {self.ends[space][0].link}\n"
            )  # its answer says that the changes are made
            setter.stdin.flush()
        for space, setter in self.open.items():
            if not setter.stdout.readline():
                raise RuntimeError(f"tc in {space} has ended")

    def __exit__(self, *_: object) -> None:
        for setter in self.open.values():
            with suppress(BrokenPipeError):
                setter.stdin.close()
            setter.wait(5)


def _do(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)


def _tc(space: str, line: str) -> None:
    _do("tc", "-n", space, *line.split())


def _do_not_mind(*words: str) -> None:
    subprocess.run(words, check=False, capture_output=True)
