"""Patches of ministack's IAM: decisions are recorded, some conditions always hold.

Loopback has no TLS and service roles have no source account here, so ``aws:SecureTransport`` and
``aws:SourceAccount`` count as met. ``aws:PrincipalArn`` of a role's session is the role's ARN, as
on AWS. That keeps the policies the ones that deploy to AWS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ministack.core import iam_evaluator
from ministack.services import iot, sts

from pipelines.local.emulators.calls import CallLog, role_of


def record_decisions(calls: CallLog) -> None:
    """Write every decision on a role's or a device's call to the log."""
    iam_evaluator.enforce = _record_requests(iam_evaluator.enforce, calls)
    iot.evaluate = _record_devices(iot.evaluate, calls)
    iot._provisioning_role_allows = _record_provisioning(iot._provisioning_role_allows, calls)
    sts.register_session = _record_sessions(sts.register_session, calls)


def meet_conditions() -> None:
    """Resolve the condition keys above so that they hold."""
    iam_evaluator._resolve_condition_key = _resolve_loopback(iam_evaluator._resolve_condition_key)


def _record_requests(original: Callable[..., Any], calls: CallLog) -> Callable[..., Any]:
    """Record the decision on an HTTP request, if a role session made it."""

    def enforce(
        access_key_id: str,
        iam_action: str,
        service: str,
        region: str,
        resource_arn: str = "*",
        *rest: Any,
        **more: Any,
    ) -> Any:
        refused = original(access_key_id, iam_action, service, region, resource_arn, *rest, **more)
        caller = iam_evaluator.resolve_caller_identity(access_key_id)
        if caller is not None and caller["session"] is not None:
            calls.write(
                principal=caller["userArn"],
                action=iam_action,
                resource=resource_arn,
                decision="Deny" if refused else "Allow",
            )
        return refused

    return enforce


def _record_devices(original: Callable[..., Any], calls: CallLog) -> Callable[..., Any]:
    """Record the decision on an MQTT action of a device's certificate."""

    def evaluate(ctx: Any, *policies: Any) -> Any:
        result = original(ctx, *policies)
        calls.write(
            principal=ctx.principal_arn,
            action=ctx.action,
            resource=ctx.resource_arn,
            decision=result.decision,
        )
        return result

    return evaluate


def _record_provisioning(original: Callable[..., Any], calls: CallLog) -> Callable[..., Any]:
    """Record the decision on what fleet provisioning does by its role."""

    def allowed(role: str, requests: list[tuple[str, str]]) -> Any:
        result = original(role, requests)
        decision = "Allow" if result else "Deny"
        for action, resource in requests:
            calls.write(principal=role, action=action, resource=resource, decision=decision)
        return result

    return allowed


def _record_sessions(original: Callable[..., Any], calls: CallLog) -> Callable[..., Any]:
    """Record whose session an access key is."""

    def register(access_key: str, session: dict[str, Any]) -> Any:
        calls.write(session=access_key, principal=session["Arn"])
        return original(access_key, session)

    return register


def _resolve_loopback(original: Callable[..., Any]) -> Callable[..., Any]:
    def resolve(key: str, ctx: Any) -> Any:
        if key.lower() == "aws:securetransport":
            return "true"
        if key.lower() == "aws:sourceaccount":
            return ctx.principal_account
        if key.lower() == "aws:principalarn" and (role := role_of(ctx.principal_arn)):
            return f"arn:aws:iam::{ctx.principal_account}:role/{role}"
        return original(key, ctx)

    return resolve
