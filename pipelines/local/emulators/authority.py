"""IAM for the services that moto serves: ministack's policies decide, and the call log records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipelines.local.emulators.calls import CallLog, role_of
from pipelines.local.home import ACCOUNT, REGION

NAMED_BY = {
    "ModelPackageName": "model-package",
    "ModelPackageArn": "model-package",
    "ModelPackageGroupName": "model-package-group",
    "PipelineName": "pipeline",
    "PipelineExecutionArn": "pipeline",
}
"""SageMaker request parameters that name a call's resource, and the resource's kind in its ARN."""


class Authority:
    """Decides on calls of role sessions. The account's own key may do anything, like root."""

    def __init__(self, iam: Any, calls: CallLog) -> None:
        self._iam = iam
        self._calls = calls

    def allows(self, access_key: str, action: str, resource: str) -> bool:
        """Whether the policies of the session's role allow an action on a resource."""
        principal = self._calls.principal(access_key)
        if principal is None:
            return True
        role = f"arn:aws:iam::{ACCOUNT}:role/{role_of(principal)}"
        answer = self._iam.simulate_principal_policy(
            PolicySourceArn=role, ActionNames=[action], ResourceArns=[resource]
        )
        allowed = bool(answer["EvaluationResults"][0]["EvalDecision"] == "allowed")
        self._calls.write(
            principal=principal,
            action=action,
            resource=resource,
            decision="Allow" if allowed else "Deny",
        )
        return allowed


def sagemaker_resource(params: dict[str, Any]) -> str:
    """ARN of a SageMaker request's resource; ``*`` for a request that names none."""
    for name, kind in NAMED_BY.items():
        value = str(params.get(name) or "")
        if value:
            is_arn = value.startswith("arn:")
            return value if is_arn else f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{kind}/{value}"
    return "*"


def role_clients(sts: Any, role: str) -> Callable[[str], Any]:
    """A factory of boto3 clients that act as a role and renew its session before it ends."""
    import boto3
    from botocore.credentials import RefreshableCredentials
    from botocore.session import get_session

    def assume() -> dict[str, str]:
        given = sts.assume_role(RoleArn=role, RoleSessionName="service")["Credentials"]
        return {
            "access_key": given["AccessKeyId"],
            "secret_key": given["SecretAccessKey"],
            "token": given["SessionToken"],
            "expiry_time": given["Expiration"].isoformat(),
        }

    session = get_session()
    # botocore has no public way to set refreshable credentials:
    # https://github.com/boto/botocore/issues/1390
    session._credentials = RefreshableCredentials.create_from_metadata(
        assume(), assume, "assume-role"
    )
    boto_session = boto3.Session(botocore_session=session, region_name=REGION)
    client: Callable[[str], Any] = boto_session.client
    return client
