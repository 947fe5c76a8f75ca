"""Who holds what? A sample of the devices' shards in numbers, for the manifest and the report."""

from collections.abc import Mapping

from fedsim.learn.data import Task
from fedsim.learn.shards import statistics_of
from fedsim.world.population import Population

SAMPLE = 24
GROUPS = 20


def shard_facts(task: Task, population: Population) -> Mapping[str, object]:
    """Describe the shards of some devices, evenly over the fleet as its file orders them.

    Only the sample is made: a fleet may have millions of shards.

    Args:
        task: Deals the examples.
        population: Whose devices hold them.

    Returns:
        JSON values: number of devices, and for each of the sample its size, its `GROUPS` largest groups and
        the entropy of all of them.
    """
    many = population.num_devices
    chosen = sorted({many * place // SAMPLE for place in range(SAMPLE)})
    rows = []
    for client in chosen:
        found = statistics_of(client, task)
        rows.append(
            {
                "device": population.device_ids[client],
                "device_class": population.device_classes[client],
                "examples": found.num_examples,
                "entropy_bits": round(found.entropy_bits, 4),
                "groups": dict(list(found.counts.items())[:GROUPS]),
            }
        )
    return {"devices": many, "sample": rows}
