"""The contract of a staged rollout's jobs, and of what it reads about the fleet."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass

import pytest
from fakes.keys import document
from fakes.rollouts import Plant
from support.devices import device

from edge.protocol.messages import ORDER_VERSION, Heartbeat, encode
from edge.protocol.signed import Manifest
from fl_runtime.run.aws import client
from fl_runtime.run.devices import DeviceTable
from pipelines.local.cloud import LocalCloud
from registry.errors import RegistryError
from registry.rollout.aws import HeartbeatFleet, IotJobs
from registry.rollout.model import Answer, DeviceState
from registry.rollout.ports import FleetStatus, RolloutJobs


@dataclass
class Site:
    """Jobs for two devices, neither of which is there to do them."""

    jobs: RolloutJobs
    devices: list[str]


def manifest(fleet: str) -> Manifest:
    return Manifest(
        fleet=fleet,
        model_version="wind/1",
        digest="a" * 64,
        size=9,
        app="b" * 64,
        metric="accuracy",
        goal="maximize",
        tolerance=0.0,
        sequence=1,
    )


class JobsContract:
    """What jobs promise. Subclasses give ``site``."""

    @pytest.fixture
    def job(self) -> str:
        return f"contract-{uuid.uuid4().hex[:8]}"

    def test_an_unknown_job_has_no_executions(self, site: Site, job: str) -> None:
        assert site.jobs.executions(job) == {}

    def test_a_job_waits_for_devices_that_are_away(self, site: Site, job: str) -> None:
        site.jobs.create(job, site.devices, document(manifest("f")))
        assert site.jobs.executions(job) == dict.fromkeys(site.devices, Answer("QUEUED"))

    def test_creating_a_job_again_changes_nothing(self, site: Site, job: str) -> None:
        site.jobs.create(job, site.devices[:1], document(manifest("f")))
        site.jobs.create(job, site.devices[:1], document(manifest("f")))
        assert site.jobs.executions(job) == {site.devices[0]: Answer("QUEUED")}

    def test_an_id_that_another_job_has_is_refused(self, site: Site, job: str) -> None:
        site.jobs.create(job, site.devices[:1], document(manifest("f")))
        for devices, fleet in ((site.devices, "f"), (site.devices[:1], "g")):
            with pytest.raises(RegistryError, match=job):
                site.jobs.create(job, devices, document(manifest(fleet)))

    def test_a_cancelled_job_waits_for_nobody(self, site: Site, job: str) -> None:
        site.jobs.create(job, site.devices, document(manifest("f")))
        for _ in range(2):
            site.jobs.cancel(job)
        statuses = {answer.status for answer in site.jobs.executions(job).values()}
        assert statuses <= {"CANCELED"}

    def test_cancelling_an_unknown_job_is_no_error(self, site: Site, job: str) -> None:
        site.jobs.cancel(job)


class TestPlantsJobs(JobsContract):
    @pytest.fixture
    def site(self) -> Site:
        plant = Plant(devices=2, away={0, 1})
        return Site(plant, list(plant.models))


class TestIotJobs(JobsContract):
    @pytest.fixture
    def site(self, reached: LocalCloud) -> Site:
        d, fleet = reached.deployment, f"contract-{uuid.uuid4().hex[:8]}"
        devices = [device(reached, index, fleet).device for index in range(2)]
        return Site(IotJobs(client("iot"), d.region, d.account, d.role("job-urls")), devices)


class FleetContract:
    """What the devices' last heartbeats tell. Subclasses give ``heard``: a fleet of one device that
    runs ``wind/1`` and one that is away and runs nothing.
    """

    def test_a_device_is_there_with_the_model_it_runs_or_away(
        self, heard: tuple[FleetStatus, str, str, str]
    ) -> None:
        fleet, name, here, away = heard
        assert dict(fleet.devices(name)) == {
            here: DeviceState("wind/1", True),
            away: DeviceState("", False),
        }


class TestPlantsFleet(FleetContract):
    @pytest.fixture
    def heard(self) -> tuple[FleetStatus, str, str, str]:
        plant = Plant(devices=2, away={1})
        plant.models["d000"] = "wind/1"
        return plant, "f", "d000", "d001"


class TestHeartbeatFleet(FleetContract):
    @pytest.fixture
    def heard(self, reached: LocalCloud) -> tuple[FleetStatus, str, str, str]:
        name, dynamodb = f"contract-{uuid.uuid4().hex[:8]}", client("dynamodb")
        table = reached.deployment.devices_table

        def put(device: str, heartbeat: Heartbeat) -> None:
            row = {
                "fleet": {"S": name},
                "device": {"S": device},
                "last_seen": {"N": str(int(time.time() * 1000))},
                "body": {"S": encode(heartbeat).decode()},
            }
            dynamodb.put_item(TableName=table, Item=row)

        put("here", Heartbeat(state="idle", model="wind/1", orders=ORDER_VERSION))
        put("away", Heartbeat(state="offline"))
        fleet = HeartbeatFleet(DeviceTable(dynamodb, table).fleet, time.time, 90.0)
        return fleet, name, "here", "away"
