"""The state machines: closed, guarded, and with parameters that AWS takes."""

from __future__ import annotations

from typing import Any

import botocore.session
from botocore.validate import ParamValidator

from pipelines.aws import state_machine
from pipelines.deployment import Deployment

D = Deployment(
    account="123456789012",
    region="eu-central-1",
    subnets=("subnet-1",),
    security_groups=("sg-1",),
)


def states_of(document: dict) -> dict[str, dict]:
    found = dict(document["States"])
    for state in document["States"].values():
        for branch in (
            *state.get("Branches", []),
            *([state["Iterator"]] if "Iterator" in state else []),
        ):
            found |= states_of(branch)
    return found


def test_the_state_machine_is_closed_and_every_task_is_guarded() -> None:
    document = state_machine.definition(D)
    states = states_of(document)
    for name, state in states.items():
        targets = [
            state.get("Next"),
            state.get("Default"),
            *(c["Next"] for c in (*state.get("Catch", []), *state.get("Choices", []))),
        ]
        assert all(target in states for target in targets if target), name
        assert (
            "Next" in state or state.get("End") or state["Type"] in ("Choice", "Succeed", "Fail")
        ), name
        if state["Type"] == "Task":
            assert state.get("Retry"), f"{name} has no retry"
    assert states["Server"]["HeartbeatSeconds"] >= 300, "it covers Fargate's cold start"
    assert states["Server"]["Resource"].endswith("ecs:runTask.waitForTaskToken")
    assert states["Proxy"]["Resource"].endswith("ecs:runTask.sync")
    assert states["Proxy"]["ResultPath"] is states["ProxyOnDemand"]["ResultPath"] is None
    assert "RunFailed" not in states["Server"]["Retry"][0]["ErrorEquals"], (
        "an app's own failure is not tried again"
    )


def lower(value: Any) -> Any:
    """Step Functions' PascalCase parameters as the API has them; references stand for any text."""
    if isinstance(value, dict):
        return {
            (k[0].lower() + k[1:]).removesuffix(".$"): "x" if k.endswith(".$") else lower(v)
            for k, v in value.items()
        }
    return [lower(item) for item in value] if isinstance(value, list) else value


def test_the_state_machines_task_parameters_fit_the_ecs_api() -> None:
    shape = (
        botocore.session.get_session()
        .get_service_model("ecs")
        .operation_model("RunTask")
        .input_shape
    )
    branches = state_machine.definition(D)["States"]["RunFederation"]["Branches"]
    for task in (
        branches[0]["States"]["Server"],
        *proxies_of(branches),
    ):
        report = ParamValidator().validate(lower(task["Parameters"]), shape)
        assert not report.has_errors(), report.generate_report()


def proxies_of(branches: list[dict]) -> tuple[dict, dict]:
    states = branches[1]["States"]["Proxies"]["Iterator"]["States"]
    return states["Proxy"], states["ProxyOnDemand"]


def test_a_proxy_that_spot_has_no_room_for_is_started_on_demand() -> None:
    """A provider of weight 0 in the same request would get no task: each request names one."""
    spot, on_demand = proxies_of(state_machine.definition(D)["States"]["RunFederation"]["Branches"])
    assert spot["Catch"][0]["Next"] == "ProxyOnDemand"
    assert spot["Retry"][0]["ErrorEquals"] == ["States.TaskFailed", "ECS.AmazonECSException"]
    providers = [proxy["Parameters"].pop("CapacityProviderStrategy") for proxy in (spot, on_demand)]
    assert providers == [
        [{"CapacityProvider": "FARGATE_SPOT", "Weight": 1}],
        [{"CapacityProvider": "FARGATE", "Weight": 1}],
    ]
    assert spot["Parameters"] == on_demand["Parameters"]
