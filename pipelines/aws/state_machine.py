"""The state machine that conducts one run, built with the Step Functions SDK.

DiscoverDevices -> EnoughDevices? -> Run (server beside one proxy a cohort) -> Conclude. The
callback
of the SageMaker pipeline is answered by Conclude, in success and in failure.
"""

from __future__ import annotations

import json
import logging
import warnings
from typing import Any

from pipelines.deployment import Deployment

# the SDK imports sagemaker, which writes to stdout
logging.getLogger("sagemaker.config").disabled = True
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the SDK imports pkg_resources, which warns
    from stepfunctions import steps
    from stepfunctions.steps.states import Graph

HEARTBEAT_SECONDS = 30
"""A server that says nothing for so long is taken for dead and started again."""
PROXIES_AT_ONCE = 40
"""An inline Map runs at most 40 iterations at once."""
SERVER_RETRIES = 5
PROXY_RETRIES = 5


def definition(deployment: Deployment) -> dict[str, Any]:
    """The Amazon States Language document (JSONPath), ready for CreateStateMachine."""
    conclude = _conclude(deployment, "Conclude", ok=True)
    conclude.next(steps.Succeed("Done"))
    failed = _conclude(deployment, "ConcludeFailure", ok=False)
    conclude.add_catch(
        steps.Catch(error_equals=["States.ALL"], next_step=failed, result_path="$.error")
    )
    failed.next(
        steps.Fail(
            "Failed",
            error="RunFailed",
            cause="The run failed; see the execution's input to ConcludeFailure.",
        )
    )
    discover = _lambda(
        "DiscoverDevices", deployment.function_arn("discover"), {"run.$": "$.run"}, "$.discovery"
    )
    discover.add_catch(
        steps.Catch(error_equals=["States.ALL"], next_step=failed, result_path="$.error")
    )
    enough = steps.Choice("EnoughDevices")
    wait = steps.Wait("WaitForFleet", seconds_path="$.discovery.Payload.wait_seconds")
    wait.next(discover)
    too_few = steps.Pass(
        "TooFewDevices",
        parameters={"Error": "TooFewDevices", "Cause.$": "$.discovery.Payload.reason"},
        result_path="$.error",
    )
    too_few.next(failed)
    run = steps.Parallel("RunFederation", result_path="$.results")
    run.add_branch(_server(deployment))
    run.add_branch(_proxies(deployment))
    run.add_catch(steps.Catch(error_equals=["States.ALL"], next_step=failed, result_path="$.error"))
    run.next(conclude)
    enough.add_choice(steps.ChoiceRule.BooleanEquals("$.discovery.Payload.enough", True), run)
    enough.add_choice(steps.ChoiceRule.BooleanEquals("$.discovery.Payload.expired", True), too_few)
    enough.default_choice(wait)
    discover.next(enough)
    graph: dict[str, Any] = json.loads(
        Graph(discover, comment="One federated run on a fleet of IoT devices.").to_json()
    )
    _discard_proxy_results(graph)
    return graph


def rollout_definition(deployment: Deployment) -> dict[str, Any]:
    """The state machine of a rollout: one step after the other, with a wait between, until it is
    over.
    """
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
    """``ResultPath: null``, which the SDK cannot say: task descriptions would fill the 256 KB of
    state.
    """
    proxies = graph["States"]["RunFederation"]["Branches"][1]["States"]["Proxies"]
    proxies["ResultPath"] = None
    proxies["Iterator"]["States"]["Proxy"]["ResultPath"] = None


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
    # Whatever keeps it from answering the pipeline, it may be over a moment later; it answers a
    # second time as it did the first.
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
        heartbeat_seconds=HEARTBEAT_SECONDS,
        parameters=_run_task(
            deployment,
            "server",
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
    """A cohort whose proxy is lost for good costs its devices, never the run."""
    proxy = steps.Task(
        "Proxy",
        resource="arn:aws:states:::ecs:runTask.sync",
        parameters=_run_task(
            deployment, "proxy", [("MLEDGEOPS_RUN", "$.run"), ("MLEDGEOPS_COHORT", "$.cohort")]
        ),
    )
    lost = ["States.TaskFailed", "ECS.AmazonECSException"]
    proxy.add_retry(
        steps.Retry(
            error_equals=lost, interval_seconds=1, max_attempts=PROXY_RETRIES, backoff_rate=2.0
        )
    )
    proxy.add_catch(
        steps.Catch(
            error_equals=["States.ALL"], next_step=steps.Pass("CohortLost"), result_path="$.error"
        )
    )
    return steps.Map(
        "Proxies",
        iterator=steps.Chain([proxy]),
        items_path="$.discovery.Payload.cohorts",
        max_concurrency=PROXIES_AT_ONCE,
        parameters={"run.$": "$.run", "cohort.$": "$$.Map.Item.Value"},
    )


def _run_task(
    deployment: Deployment, task: str, environment: list[tuple[str, str]]
) -> dict[str, Any]:
    # Proxies hold nothing that their server cannot ask for again: Spot, and where that is out, on
    # demand.
    capacity = ("FARGATE_SPOT", "FARGATE") if task == "proxy" else ("FARGATE",)
    return {
        "CapacityProviderStrategy": [
            {"CapacityProvider": provider, "Weight": 1 if at == 0 else 0}
            for at, provider in enumerate(capacity)
        ],
        "Cluster": deployment.cluster,
        "TaskDefinition": deployment.task_family(task),
        "NetworkConfiguration": {
            "AwsvpcConfiguration": {
                "Subnets": list(deployment.subnets),
                "SecurityGroups": list(deployment.security_groups),
                "AssignPublicIp": "DISABLED",
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
