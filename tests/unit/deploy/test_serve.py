"""A real run over loopback, clients in this process: what a simulation says, without its clock."""

import asyncio

import pytest
import torch
from safetensors.torch import load_file

import fedsim
from fedsim.deploy.client import Membership, join
from fedsim.deploy.secret import Token
from fedsim.deploy.serve import Service, serve
from fedsim.errors import InputError, PeerError, ScenarioError, StorageError
from fedsim.experiment.load import load_run
from fedsim.experiment.verify import verify
from tests.deploy_world import DEVICES, TOKEN, deploy, scenario_of


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deploy")
    scenario = scenario_of(folder)
    simulated = fedsim.run(scenario, folder / "simulated", report=False)
    real, reports = asyncio.run(deploy(scenario, folder / "real"))
    return simulated, real, reports


def test_the_adapter_is_the_simulated_one(both):
    simulated, real, _ = both
    ours, theirs = (
        load_file(run.directory / "adapter/adapter_model.safetensors") for run in (real, simulated)
    )
    assert set(ours) == set(theirs)
    assert any(tensor.abs().max() > 1e-3 for tensor in ours.values())
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-6, atol=1e-7)


def test_the_same_clients_count_in_the_same_order_with_the_same_plans(both):
    def told(result, event, *keys):
        lines = [line for line in events(result.directory) if line["event"] == event]
        return [tuple(line[key] for key in keys) for line in lines]

    simulated, real, reports = both
    for event, keys in (
        ("dispatched", ("assignment", "client", "version", "plan")),
        ("aggregating", ("version", "assignments", "weights")),
        ("round_closed", ("round", "version", "result")),
    ):
        assert told(real, event, *keys) == told(simulated, event, *keys)
    assert [report.trained for report in reports] == [2, 2, 2, 2]
    assert real.evaluations[-1]["loss"] == pytest.approx(simulated.evaluations[-1]["loss"], abs=1e-6)


def events(directory):
    from fedsim.experiment.load import read_events

    return list(read_events(directory / "events.jsonl"))


def test_readers_of_records_work_on_it(both):
    _, real, _ = both
    assert not verify(real.directory).findings
    assert load_run(real.directory).summary["rounds"] == 2
    phases = [
        line for line in events(real.directory) if line["event"] in ("downloaded", "trained", "uploaded")
    ]
    assert len(phases) == 3 * 8
    assert all(line["duration_s"] > 0 for line in phases)


def test_it_cannot_be_resumed_as_a_simulation(both):
    _, real, _ = both
    with pytest.raises(InputError, match="runtime: began as deployed"):
        fedsim.resume(real.directory)


def test_a_client_that_goes_is_dropped_and_the_round_goes_on(tmp_path):
    async def run():
        limit = 60
        scenario = scenario_of(tmp_path, server__over_selection="1.0", stop__rounds="1")
        address = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(
            serve(
                scenario,
                Service(TOKEN, clients=2),
                tmp_path / "out",
                report=False,
                listening=lambda host, port, _: address.set_result((host, port)),
            )
        )
        host, port = await address
        lost = asyncio.create_task(stay_silent(host, port, "d1"))
        kept = asyncio.create_task(join(host, port, Membership("d0", TOKEN)))
        async with asyncio.timeout(limit):
            result = await serving
            await asyncio.gather(lost, kept)
        return result

    result = asyncio.run(run())
    assert dict(result.tally.outcomes) == {"aggregated": 1, "dropped: download": 1}


async def stay_silent(host, port, device):
    """Join, take an assignment, and go away."""
    from fedsim.deploy import client as module

    reader, writer = await asyncio.open_connection(host, port)
    from fedsim.deploy.channel import Channel
    from fedsim.deploy.limits import Limits
    from fedsim.deploy.messages import Ready

    opening = TOKEN.key("open")
    channel = Channel(reader, writer, Limits(), opening, opening, 4096)
    await module._greet(channel, Membership(device, TOKEN))
    await channel.send(Ready(num_examples=10).model_dump())
    channel.max_body = 1 << 24
    await channel.receive()
    await channel.close()


@pytest.mark.parametrize(
    ("device", "token", "message"),
    [
        ("d9", TOKEN, "no such device"),
        ("d0", Token(b"another token altogether"), "no fedsim server with this token"),
    ],
)
def test_who_is_not_wanted_is_told_why(tmp_path, device, token, message):
    async def run():
        address = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(
            serve(
                scenario_of(tmp_path),
                Service(TOKEN, clients=len(DEVICES)),
                tmp_path / "out",
                listening=lambda host, port, _: address.set_result((host, port)),
            )
        )
        host, port = await address
        try:
            with pytest.raises(PeerError, match=message):
                await join(host, port, Membership(device, token))
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(run())


def test_a_record_that_cannot_be_written_ends_the_run(tmp_path):
    class Full:
        def observe(self, time_s, event, fields):
            if event == "downloaded":
                raise StorageError("the disk is full")

    with pytest.raises((StorageError, PeerError), match=r"the disk is full|server has failed|closed"):
        asyncio.run(deploy(scenario_of(tmp_path), tmp_path / "out", instruments=[Full()]))


def test_a_server_that_is_not_there(tmp_path):
    with pytest.raises(PeerError, match="no server answers"):
        asyncio.run(join("127.0.0.1", 1, Membership("d0", TOKEN, wait_s=0.0)))


@pytest.mark.parametrize(
    ("key", "value"),
    [("executor__kind", "stub"), ("model__stands_for", "llama-3.2-1b"), ("cost__model", "paper")],
)
def test_what_cannot_be_deployed_is_refused_by_its_key(tmp_path, key, value):
    scenario = scenario_of(tmp_path, **{key: value})
    with pytest.raises(ScenarioError, match=key.replace("__", ".")):
        asyncio.run(serve(scenario, Service(TOKEN), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_client_opens_nothing_that_a_server_names(tmp_path):
    from fedsim.deploy.job import scenario_told
    from fedsim.deploy.messages import Welcome

    scenario = scenario_of(tmp_path, model__base="/etc")
    welcome = Welcome(
        client=0,
        num_clients=4,
        scenario=scenario.model_dump(mode="json", by_alias=True),
        scenario_sha256=scenario.scenario_hash,
    )
    with pytest.raises(PeerError, match="opens nothing that a server names"):
        scenario_told(welcome, None)
    with pytest.raises(PeerError, match="runs another one"):
        scenario_told(welcome, scenario_of(tmp_path))
    assert scenario_told(welcome, scenario) is scenario
