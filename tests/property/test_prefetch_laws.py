"""What is trained ahead as certain does arrive, and what arrives without a break was certain."""

import tempfile
from pathlib import Path
from unittest import mock

from hypothesis import HealthCheck, given, settings

from fedsim.sim import workshop
from fedsim.sim.foresight import surely_arrives
from tests import audit
from tests.property.test_simulation_laws import RUNS, simulate, write_world


@given(**RUNS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_certain_arrives_unless_it_is_recalled(world, pause, surplus, deadline_s, seed, way, dips):
    foreseen = {}

    def note(trip, *arguments, **told):
        sure = surely_arrives(trip, *arguments, **told)
        foreseen[trip.assignment.id] = sure
        return sure

    with tempfile.TemporaryDirectory() as name, mock.patch.object(workshop, "surely_arrives", note):
        folder = Path(name)
        write_world(folder, world, dips)
        state = folder / "state.csv" if dips else None
        rules = {"pause": pause, "surplus": surplus, "deadline_s": deadline_s, "seed": seed}
        lines, _ = simulate(folder, jitter=0, prefetch="certain", way=way, state=state, **rules)
    whole = {
        line["assignment"]: line["time_s"] for line in audit.of(lines.events, "uploaded") if "cut" not in line
    }
    began_s = {line["assignment"]: line["time_s"] for line in audit.of(lines.events, "dispatched")}
    paused = {line["assignment"] for line in audit.of(lines.events, "paused")}
    for line in audit.of(lines.events, "settled"):
        number = line["assignment"]
        if foreseen.get(number):
            assert number in whole or line["outcome"] == "cancelled"
        elif number in foreseen and number in whole and number not in paused:
            assert whole[number] > began_s[number] + deadline_s
