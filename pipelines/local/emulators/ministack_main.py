"""ministack, with what a run needs and it lacks. Pinned to 1.5.33; tests/test_local_cloud.py holds
each patch.

- a task token's ``HeartbeatSeconds`` is enforced (``States.HeartbeatTimeout``);
- ``ecs:runTask.sync`` fails with ``States.TaskFailed`` when a container's exit code is not 0, and
  waits as long as it takes;
- ``PutEvents`` takes the source ``aws.sagemaker``, for which the local SageMaker speaks;
- loopback counts as secure transport, and who takes a service's role acts for this account:
  policies stay as they deploy;
- every decision on a role's or a device's call is written down (``MLEDGEOPS_CALLS``), once each,
  for the audit of least privilege;
- fleet provisioning takes certificate signing requests.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from ministack.core import iam_evaluator
from ministack.services import eventbridge, iot, sqs, stepfunctions, sts

from pipelines.local.emulators.calls import CallLog

EXIT_CODE = re.compile(r"exited with code (-?\d+)")
"""How the local ECS agent says in ``stoppedReason`` what became of a container."""


def _enforce_heartbeats(original: Callable[..., Any]) -> Callable[..., Any]:
    def invoke(resource: str, input_data: Any, token: str, state: dict[str, Any]) -> Any:
        seconds = state.get("HeartbeatSeconds")
        if seconds:
            threading.Thread(target=_watch, args=(token, float(seconds)), daemon=True).start()
        return original(resource, input_data, token, state)

    return invoke


def _watch(token: str, seconds: float) -> None:
    """Fail the token when its last heartbeat, or its start, is too long ago."""
    started = time.time()
    while time.time() - started < 5 and _find(token) is None:
        time.sleep(0.05)
    while (info := _find(token)) is not None and not info["event"].is_set():
        last = max(started, _epoch(info.get("heartbeat")))
        if time.time() - last > seconds:
            info["error"] = {
                "Error": "States.HeartbeatTimeout",
                "Cause": f"no heartbeat for {seconds:.0f} s",
            }
            info["event"].set()
            return
        time.sleep(0.25)


def _find(token: str) -> dict[str, Any] | None:
    """A token's record, whatever account and region it belongs to."""
    return next(
        (info for key, info in list(stepfunctions._task_tokens._data.items()) if key[-1] == token),
        None,
    )


def _epoch(moment: Any) -> float:
    if isinstance(moment, int | float):
        return float(moment)
    return datetime.fromisoformat(str(moment).replace("Z", "+00:00")).timestamp() if moment else 0.0


def _wait_for_tasks(cluster: str, arns: list[str]) -> Any:
    from ministack.services import ecs

    while True:
        time.sleep(0.2)
        _, _, body = ecs._describe_tasks({"cluster": cluster, "tasks": arns})
        result = json.loads(body) if body else {}
        tasks = result.get("tasks", [])
        if not tasks or any(task.get("lastStatus") != "STOPPED" for task in tasks):
            continue
        for task in tasks:
            code = EXIT_CODE.search(task.get("stoppedReason", ""))
            if code and code.group(1) != "0":
                raise stepfunctions._ExecutionError("States.TaskFailed", task["stoppedReason"])
        return result


def _allow_sagemaker_events(original: Callable[..., Any]) -> Callable[..., Any]:
    def put_events(data: dict[str, Any], allow_aws_source: bool = False) -> Any:
        sources = {entry.get("Source") for entry in data.get("Entries", [])}
        return original(data, allow_aws_source=allow_aws_source or sources == {"aws.sagemaker"})

    return put_events


def _loopback_conditions(original: Callable[..., Any]) -> Callable[..., Any]:
    def resolve(key: str, ctx: Any) -> Any:
        if key.lower() == "aws:securetransport":
            return "true"
        if key.lower() == "aws:sourceaccount":
            return ctx.principal_account
        return original(key, ctx)

    return resolve


class Watch(CallLog):
    """Writes down what the emulator decides."""

    def watch_requests(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the decision on a request by HTTP."""

        def enforce(
            access_key_id: str,
            iam_action: str,
            service: str,
            region: str,
            resource_arn: str = "*",
            *rest: Any,
            **more: Any,
        ) -> Any:
            refused = original(
                access_key_id, iam_action, service, region, resource_arn, *rest, **more
            )
            caller = iam_evaluator.resolve_caller_identity(access_key_id)
            if caller is not None and caller["session"] is not None:
                self.write(
                    principal=caller["userArn"],
                    action=iam_action,
                    resource=resource_arn,
                    decision="Deny" if refused else "Allow",
                )
            return refused

        return enforce

    def watch_devices(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the decision on what a device's certificate, or the provisioning role, may do."""

        def evaluate(ctx: Any, *policies: Any) -> Any:
            result = original(ctx, *policies)
            self.write(
                principal=ctx.principal_arn,
                action=ctx.action,
                resource=ctx.resource_arn,
                decision=result.decision,
            )
            return result

        return evaluate

    def watch_provisioning(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the decision on the provisioning role."""

        def allowed(role: str, requests: list[tuple[str, str]]) -> Any:
            result = original(role, requests)
            for action, resource in requests:
                self.write(
                    principal=role,
                    action=action,
                    resource=resource,
                    decision="Allow" if result else "Deny",
                )
            return result

        return allowed

    def watch_sessions(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap what registers a role's session."""

        def register(access_key: str, session: dict[str, Any]) -> Any:
            self.write(session=access_key, principal=session["Arn"])
            return original(access_key, session)

        return register


QUEUE_PORT = "4566"
"""In the URLs of queues, which the emulator keeps by URL: they must outlive a change of its port.
"""
CSR_TOPIC = "$aws/certificates/create-from-csr/json"


def _parse_csr_topic(original: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda topic: ("create-from-csr", None) if topic == CSR_TOPIC else original(topic)


def _answer_csr(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def reply(
        account: str,
        region: str,
        operation: str,
        template: str | None,
        payload: bytes,
        connection: dict[str, Any],
    ) -> Any:
        if operation != "create-from-csr":
            return await original(account, region, operation, template, payload, connection)
        return _certificate_of(account, region, payload)

    return reply


def _certificate_of(account: str, region: str, payload: bytes) -> tuple[str, dict[str, Any]]:
    """Sign a request and hand out the token of ownership, as CreateCertificateFromCsr over MQTT
    does.
    """
    from ministack.core.responses import request_scope
    from ministack.core.x509_utils import sign_certificate_request

    try:
        request = json.loads(payload)["certificateSigningRequest"]
        pem = sign_certificate_request(*iot._ensure_ca(), request)
    except Exception as error:  # noqa: BLE001  # whatever a device sent: it is told, and the broker goes on
        return "rejected", {
            "statusCode": 400,
            "errorCode": "InvalidCertificateSigningRequest",
            "errorMessage": str(error),
        }
    identifier, token = iot.get_certificate_id(pem), secrets.token_urlsafe(48)
    with request_scope(account, region):
        iot._certificates[identifier] = iot._certificate_record(
            identifier, pem, "PENDING_ACTIVATION"
        )
        iot._ownership_tokens[token] = {
            "certificateId": identifier,
            "expiration": time.time() + iot._OWNERSHIP_TOKEN_SECONDS,
        }
    return "accepted", {
        "certificateId": identifier,
        "certificatePem": pem,
        "certificateOwnershipToken": token,
    }


def patch() -> None:
    """Apply all patches to the imported library."""
    calls = os.environ.get("MLEDGEOPS_CALLS")
    if calls:
        log = Watch(Path(calls))
        iam_evaluator.enforce = log.watch_requests(iam_evaluator.enforce)
        iot.evaluate = log.watch_devices(iot.evaluate)
        iot._provisioning_role_allows = log.watch_provisioning(iot._provisioning_role_allows)
        sts.register_session = log.watch_sessions(sts.register_session)
    sqs.DEFAULT_PORT = QUEUE_PORT
    iam_evaluator._resolve_condition_key = _loopback_conditions(
        iam_evaluator._resolve_condition_key
    )
    iot._parse_fleet_provisioning_topic = _parse_csr_topic(iot._parse_fleet_provisioning_topic)
    iot._fleet_provisioning_reply = _answer_csr(iot._fleet_provisioning_reply)
    stepfunctions._invoke_with_callback = _enforce_heartbeats(stepfunctions._invoke_with_callback)
    stepfunctions._poll_ecs_tasks = _wait_for_tasks
    eventbridge._put_events = _allow_sagemaker_events(eventbridge._put_events)


if __name__ == "__main__":
    from ministack.app import main

    patch()
    main()
