"""The state machines of a run and of a rollout, built with the Step Functions SDK.

::

    DiscoverDevices -> EnoughDevices? -> RunFederation (a server, and a proxy a cohort) -> Conclude

Conclude answers the callback of the SageMaker pipeline, in success and in failure.
"""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

from fl_runtime.run.cohorts import MAX_COHORTS
from fl_runtime.run.state import START_SECONDS
from pipelines.deployment import Deployment


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The SDK imports sagemaker, whose configuration logger writes to stdout, and pkg_resources,
    which warns.
    """
    logger = logging.getLogger("sagemaker.config")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


with _quietly():
    from stepfunctions import steps
    from stepfunctions.steps.states import Graph

SERVER_RETRIES = 5
SPOT_RETRIES = 2
PROXY_RETRIES = 5


def definition(deployment: Deployment) -> dict[str, Any]:
    """The state machine of a run, in the Amazon States Language (JSONPath)."""
    conclude = _conclude(deployment, "Conclude", ok=True)
    conclude.next(steps.Succeed("Done"))
    failed = _failed(deployment)
    conclude.add_catch(_catch_all(failed))
    discover = _lambda(
        "DiscoverDevices", deployment.function_arn("discover"), {"run.$": "$.run"}, "$.discovery"
    )
    discover.add_catch(_catch_all(failed))
    run = steps.Parallel("RunFederation", result_path="$.results")
    run.add_branch(_server(deployment))
    run.add_branch(_proxies(deployment))
    run.add_catch(_catch_all(failed))
    run.next(conclude)
    discover.next(_enough(discover, run, failed))
    graph: dict[str, Any] = json.loads(
        Graph(discover, comment="One federated run on a fleet of IoT devices.").to_json()
    )
    _discard_proxy_results(graph)
    return graph


def _failed(deployment: Deployment) -> Any:
    failed = _conclude(deployment, "ConcludeFailure", ok=False)
    failed.next(
        steps.Fail(
            "Failed",
            error="RunFailed",
            cause="The run failed; see the execution's input to ConcludeFailure.",
        )
    )
    return failed


def _catch_all(next_step: Any) -> Any:
    return steps.Catch(error_equals=["States.ALL"], next_step=next_step, result_path="$.error")


def _enough(discover: Any, run: Any, failed: Any) -> Any:
    """Whether to run, to give up, or to wait and discover again."""
    wait = steps.Wait("WaitForFleet", seconds_path="$.discovery.Payload.wait_seconds")
    wait.next(discover)
    too_few = steps.Pass(
        "TooFewDevices",
        parameters={"Error": "TooFewDevices", "Cause.$": "$.discovery.Payload.reason"},
        result_path="$.error",
    )
    too_few.next(failed)
    enough = steps.Choice("EnoughDevices")
    enough.add_choice(steps.ChoiceRule.BooleanEquals("$.discovery.Payload.enough", True), run)
    enough.add_choice(steps.ChoiceRule.BooleanEquals("$.discovery.Payload.expired", True), too_few)
    enough.default_choice(wait)
    return enough


def rollout_definition(deployment: Deployment) -> dict[str, Any]:
    """The state machine of a rollout: advance and wait, until it is over."""
    over = steps.Choice("Over")
    advance = _lambda(
        "Advance",
        deployment.function_arn("rollout"),
        {"fleet.$": "$.fleet", "number.$": "$.number"},
        "$.step",
        also=("States.TaskFailed",),
    )
    wait = steps.Wait("WaitForDevices", seconds_path="$.step.Payload.wait_seconds")
    wait.next(advance)
    over.add_choice(
        steps.ChoiceRule.BooleanEquals("$.step.Payload.over", True), steps.Succeed("Ended")
    )
    over.default_choice(wait)
    advance.next(over)
    graph: dict[str, Any] = json.loads(
        Graph(advance, comment="One rollout of a model to a fleet.").to_json()
    )
    return graph


def _discard_proxy_results(graph: dict[str, Any]) -> None:
    """Set ``ResultPath: null``, which the SDK cannot express. Otherwise the descriptions of proxy
    tasks would fill the 256 KB of state.
    """
    proxies = graph["States"]["RunFederation"]["Branches"][1]["States"]["Proxies"]
    proxies["ResultPath"] = None
    for state in ("Proxy", "ProxyOnDemand"):
        proxies["Iterator"]["States"][state]["ResultPath"] = None


def _lambda(
    state: str, arn: str, payload: dict[str, Any], result_path: str, also: tuple[str, ...] = ()
) -> Any:
    task = steps.LambdaStep(
        state, parameters={"FunctionName": arn, "Payload": payload}, result_path=result_path
    )
    task.add_retry(
        steps.Retry(
            error_equals=[
                "Lambda.ServiceException",
                "Lambda.AWSLambdaException",
                "Lambda.SdkClientException",
                "Lambda.TooManyRequestsException",
                *also,
            ],
            interval_seconds=2,
            max_attempts=6,
            backoff_rate=2.0,
        )
    )
    return task


def _conclude(deployment: Deployment, state: str, *, ok: bool) -> Any:
    payload = {"run.$": "$.run", "token.$": "$.token", "ok": ok}
    payload.update({"outcome.$": "$.results[0]"} if ok else {"error.$": "$.error"})
    # Concluding is idempotent, so it is retried whatever went wrong: the pipeline waits for it.
    return _lambda(
        state,
        deployment.function_arn("conclude"),
        payload,
        "$.conclusion",
        also=("States.TaskFailed",),
    )


def _server(deployment: Deployment) -> Any:
    server = steps.Task(
        "Server",
        resource="arn:aws:states:::ecs:runTask.waitForTaskToken",
        # It counts from the task's start, so it covers Fargate's. The function ``watch`` notices
        # sooner that a server has ended, or hangs after its first beat.
        heartbeat_seconds=START_SECONDS,
        parameters=_run_task(
            deployment,
            "server",
            "FARGATE",
            [("MLEDGEOPS_RUN", "$.run"), ("MLEDGEOPS_TASK_TOKEN", "$$.Task.Token")],
        ),
    )
    server.add_retry(
        steps.Retry(
            error_equals=[
                "ServerCrashed",
                "States.HeartbeatTimeout",
                "States.Timeout",
                "ECS.AmazonECSException",
            ],
            interval_seconds=1,
            max_attempts=SERVER_RETRIES,
            backoff_rate=2.0,
        )
    )
    return server


def _proxies(deployment: Deployment) -> Any:
    """One proxy for each cohort. When one fails for good, the run goes on without its devices.

    A proxy keeps nothing that its server cannot request again, so it runs on Spot first; where that
    has no capacity, or is taken away, on demand.
    """
    on_demand = _proxy(deployment, "ProxyOnDemand", "FARGATE", PROXY_RETRIES)
    on_demand.add_catch(_catch_all(steps.Pass("CohortLost")))
    spot = _proxy(deployment, "Proxy", "FARGATE_SPOT", SPOT_RETRIES)
    spot.add_catch(_catch_all(on_demand))
    return steps.Map(
        "Proxies",
        iterator=steps.Chain([spot]),
        items_path="$.discovery.Payload.cohorts",
        max_concurrency=MAX_COHORTS,
        parameters={"run.$": "$.run", "cohort.$": "$$.Map.Item.Value"},
    )


def _proxy(deployment: Deployment, state: str, capacity: str, attempts: int) -> Any:
    proxy = steps.Task(
        state,
        resource="arn:aws:states:::ecs:runTask.sync",
        parameters=_run_task(
            deployment,
            "proxy",
            capacity,
            [("MLEDGEOPS_RUN", "$.run"), ("MLEDGEOPS_COHORT", "$.cohort")],
        ),
    )
    lost = ["States.TaskFailed", "ECS.AmazonECSException"]
    proxy.add_retry(
        steps.Retry(error_equals=lost, interval_seconds=1, max_attempts=attempts, backoff_rate=2.0)
    )
    return proxy


def _run_task(
    deployment: Deployment, task: str, capacity: str, environment: list[tuple[str, str]]
) -> dict[str, Any]:
    return {
        # One provider: a second of weight 0 would get no task either when the first has no room.
        "CapacityProviderStrategy": [{"CapacityProvider": capacity, "Weight": 1}],
        "Cluster": deployment.cluster,
        "TaskDefinition": deployment.task_family(task),
        "NetworkConfiguration": {
            "AwsvpcConfiguration": {
                "Subnets": list(deployment.subnets),
                "SecurityGroups": list(deployment.security_groups),
                "AssignPublicIp": deployment.public_addresses,
            }
        },
        "Overrides": {
            "ContainerOverrides": [
                {
                    "Name": task,
                    "Environment": [{"Name": name, "Value.$": path} for name, path in environment],
                }
            ]
        },
    }
