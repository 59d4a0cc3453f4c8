"""IAM for the services that moto serves: a role's call is decided by its policy, which lives in
ministack, and written down.
"""

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
"""Request parameters that name the resource of a SageMaker call, and its kind."""


class Authority:
    """Decides on calls of role sessions. The account's own key may do anything, as the root user
    may.
    """

    def __init__(self, iam: Any, calls: CallLog) -> None:
        self._iam = iam
        self._calls = calls

    def allows(self, access_key: str, action: str, resource: str) -> bool:
        """Whether the session's role may."""
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
    """ARN of what a SageMaker request is about, ``*`` for one that names nothing."""
    for name, kind in NAMED_BY.items():
        value = params.get(name)
        if value:
            return (
                str(value)
                if str(value).startswith("arn:")
                else f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{kind}/{value}"
            )
    return "*"


def role_client(sts: Any, role: str) -> Callable[[str], Any]:
    """Makes boto3 clients that act as a role, and take it again before its session ends."""
    import boto3
    from botocore.credentials import RefreshableCredentials
    from botocore.session import get_session

    def take() -> dict[str, str]:
        given = sts.assume_role(RoleArn=role, RoleSessionName="service")["Credentials"]
        return {
            "access_key": given["AccessKeyId"],
            "secret_key": given["SecretAccessKey"],
            "token": given["SessionToken"],
            "expiry_time": given["Expiration"].isoformat(),
        }

    session = get_session()
    session._credentials = RefreshableCredentials.create_from_metadata(take(), take, "assume-role")
    boto_session = boto3.Session(botocore_session=session, region_name=REGION)
    client: Callable[[str], Any] = boto_session.client
    return client
