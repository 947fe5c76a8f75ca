from dataclasses import dataclass

from fedsim.experiment.shard_facts import GROUPS, SAMPLE, shard_facts


@dataclass
class Fleet:
    num_devices: int

    @property
    def device_ids(self):
        return [f"d{k}" for k in range(self.num_devices)]

    @property
    def device_classes(self):
        return ["phone"] * self.num_devices


@dataclass
class Dealt:
    made: list
    num_clients: int = 5000
    held_out: tuple = ()

    def num_examples(self, client):
        return 60

    def groups(self, client):
        self.made.append(client)
        return tuple(f"g{k % 30}" for k in range(60))


def test_only_a_sample_of_a_large_fleet_is_made():
    task = Dealt([])
    told = shard_facts(task, Fleet(5000))
    assert told["devices"] == 5000
    assert len(task.made) == len(told["sample"]) == SAMPLE
    assert task.made[0] == 0
    assert task.made[-1] > 4700
    first = told["sample"][0]
    assert (first["device"], first["examples"], len(first["groups"])) == ("d0", 60, GROUPS)
    assert first["entropy_bits"] == 4.9069  # of thirty equal groups


def test_a_small_fleet_is_told_whole():
    assert [row["device"] for row in shard_facts(Dealt([]), Fleet(3))["sample"]] == ["d0", "d1", "d2"]
