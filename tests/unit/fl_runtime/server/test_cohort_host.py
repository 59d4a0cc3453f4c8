"""Cohorts are served in the server's process, or by proxies that find it by the run's item."""

from __future__ import annotations

import pytest
from fakes.clock import Clock
from fakes.fleet import MemoryFleet
from fakes.objects import MemoryObjects
from fakes.run_table import MemoryRunTable
from fakes.runs import spec
from fakes.secrets import MemorySecrets

from fl_runtime.cohort.hub import ProxyHub
from fl_runtime.cohort.mtls import secret_name
from fl_runtime.cohort.runner import CohortRunner
from fl_runtime.run.cohorts import form_cohorts
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.state import RunState
from fl_runtime.server.cohort_host import CohortHost

COHORTS = form_cohorts("f", ["d0", "d1"], 1)


def names(epoch: int) -> list[str]:
    """The secrets of one server: one for each cohort."""
    return [secret_name("plant", "run-1", epoch, cohort.cohort) for cohort in COHORTS]


@pytest.fixture
def host() -> CohortHost:
    objects, clock = MemoryObjects(), Clock()
    fleet = MemoryFleet(objects, {})
    return CohortHost(
        runner=CohortRunner(fleet, fleet, objects, clock=clock, sleep=clock.sleep),
        runs=MemoryRunTable(RunState(run="run-1", state="Running", epoch=1)),
        secrets=MemorySecrets(),
        address=lambda: "127.0.0.1",
        prefix="plant",
    )


def test_a_small_fleet_is_served_in_process(host: CohortHost) -> None:
    with host.serve(spec(devices_per_proxy=0), COHORTS, 1) as backend:
        assert backend is host.runner
    assert host.secrets.values == {}


def test_proxies_find_address_and_certificates_while_the_run_lasts(host: CohortHost) -> None:
    with host.serve(spec(devices_per_proxy=1), COHORTS, 1) as backend:
        assert isinstance(backend, ProxyHub)
        assert host.runs.get("run-1").server == f"127.0.0.1:{backend.port}"
        assert sorted(host.secrets.values) == names(1)
    assert host.secrets.values == {}


def test_a_server_removes_the_certificates_of_one_that_was_killed(host: CohortHost) -> None:
    for name in names(1):
        host.secrets.create_secret(name, "left behind")
    with host.serve(spec(devices_per_proxy=1), COHORTS, 2):
        assert sorted(host.secrets.values) == names(2)


def test_a_server_that_was_replaced_while_it_started_leaves_the_address_as_it_is(
    host: CohortHost,
) -> None:
    host.runs.take_over("run-1")
    host.runs.update("run-1", server="successor:1")
    with host.serve(spec(devices_per_proxy=1), COHORTS, 1):
        assert host.runs.get("run-1").server == "successor:1"


@pytest.mark.parametrize(
    ("code", "epoch", "goodbye"), [("fenced", 1, False), ("quorum", 1, True), ("quorum", 2, False)]
)
def test_proxies_of_a_run_that_another_server_goes_on_with_stay(
    host: CohortHost, code: str, epoch: int, goodbye: bool
) -> None:
    said: list[bool] = []
    with (
        pytest.raises(RunFailed),
        host.serve(spec(devices_per_proxy=1), COHORTS, 1) as hub,
    ):
        close = hub.close
        hub.close = lambda goodbye: (said.append(goodbye), close(goodbye=goodbye))
        while host.runs.get("run-1").epoch < epoch:
            host.runs.take_over("run-1")
        raise RunFailed(code, "over")
    assert said == [goodbye]
    assert host.secrets.values == {}
