"""What does a trace file hold, in one line for people?"""

from functools import singledispatch

import numpy as np

from fedsim.units import format_seconds
from fedsim.world.formats.records import (
    AvailabilityTable,
    BandwidthTable,
    DeviceTable,
    Kind,
    Record,
    StateTable,
)


@singledispatch
def summarise(record: Record) -> str:
    """Say in one line what a table holds."""
    raise TypeError(f"no summary of {type(record).__name__}")


@summarise.register
def _availability(record: AvailabilityTable) -> str:
    share = float(np.sum(record.ends_s - record.starts_s)) / (len(record.ids) * record.period_s)
    return (
        f"availability of {len(record.ids)} devices, {len(record.starts_s)} intervals, online {share:.0%} of "
        f"{format_seconds(record.period_s)}"
    )


@summarise.register
def _bandwidth(record: BandwidthTable) -> str:
    means = [
        trace.down.integral(0, trace.down.period_s) / trace.down.period_s / 1e6
        for trace in record.traces
        if trace.down.period_s is not None
    ]
    measured_up = sum(trace.up is not None for trace in record.traces)
    text = f"{len(record.traces)} bandwidth traces, {measured_up} with an uplink"
    return f"{text}, mean down {min(means):.3g} to {max(means):.3g} Mbit/s" if means else text


@summarise.register
def _devices(record: DeviceTable) -> str:
    return f"{len(record.ids)} devices of {len(set(record.classes))} classes"


@summarise.register
def _state(record: StateTable) -> str:
    num_events = sum(len(events.times_s) for events in record.events.values())
    return f"{num_events} events of {len(record.ids)} devices: {', '.join(record.events)}"


def kind_of(record: Record) -> Kind:
    """Return which of the four kinds a table is."""
    kinds: dict[type, Kind] = {
        AvailabilityTable: "availability",
        BandwidthTable: "bandwidth",
        DeviceTable: "devices",
        StateTable: "state",
    }
    return kinds[type(record)]
