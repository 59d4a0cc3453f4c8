"""boto3 clients that a new account answers: no request leaves, and each is held against botocore's
model of its service, as is each answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.model import OperationModel
from botocore.validate import validate_parameters

from pipelines.aws.rehearsal.account import Account
from pipelines.aws.rehearsal.formation import Formation
from pipelines.aws.rehearsal.patterns import session, violations_of
from pipelines.errors import DeployError

Answer = Callable[[Mapping[str, Any]], dict[str, Any]]


class AccountClients:
    """AccountClients of one account, and what was called through them."""

    def __init__(self, account: Account, zones_of_services: Mapping[str, tuple[str, ...]]) -> None:
        self._account = account
        self._zones = zones_of_services
        self._made: dict[str, Any] = {}
        self._called: list[str] = []
        self._objects: dict[str, bytes] = {}
        self.formation = Formation(account, self._objects, lambda: frozenset(self._called))

    def client(self, service: str) -> Any:
        """The client of a service."""
        if service not in self._made:
            self._made[service] = self._make(service)
        return self._made[service]

    def _make(self, service: str) -> Any:
        made = session().create_client(
            service,
            region_name=self._account.place.region,
            aws_access_key_id="rehearsal",
            aws_secret_access_key="rehearsal",  # noqa: S106  # reaches nobody
            config=Config(ignore_configured_endpoint_urls=True),
        )
        # As botocore's Stubber does: https://botocore.amazonaws.com/v1/documentation/api/latest/reference/stubber.html
        made.meta.events.register_first("before-parameter-build.*.*", self._asked)
        made.meta.events.register("before-call.*.*", self._answered)
        return made

    def _asked(
        self, params: Mapping[str, Any], model: OperationModel, context: dict[str, Any], **_: Any
    ) -> None:
        wrong = violations_of(model, dict(params))
        if wrong:
            raise DeployError(f"{model.name} would be refused: {'; '.join(wrong)}.")
        context["rehearsed"] = dict(params)
        service = model.service_model.service_name
        self._called.append(f"{service}:{model.name} {params.get('AWSServiceName', '')}".strip())

    def _answered(
        self, model: OperationModel, context: dict[str, Any], **_: Any
    ) -> tuple[Any, dict[str, Any]]:
        try:
            parsed = self._answer(model)(context["rehearsed"])
        except ClientError as error:
            return SimpleNamespace(status_code=400), dict(error.response)
        if model.output_shape is not None:
            validate_parameters(parsed, model.output_shape)
        return SimpleNamespace(status_code=200), parsed

    def _answer(self, model: OperationModel) -> Answer:
        service = model.service_model.service_name
        if service == "cloudformation":
            snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in model.name).lstrip("_")
            found = getattr(self.formation, snake, None)
        else:
            found = {
                "s3:PutObject": self._put_object,
                "kms:DescribeKey": self._describe_key,
                "ec2:DescribeVpcEndpointServices": self._endpoint_services,
                "iam:CreateServiceLinkedRole": _nothing,
            }.get(f"{service}:{model.name}")
        if found is None:
            raise DeployError(f"The rehearsal has no answer to {service}:{model.name}.")
        answer: Answer = found
        return answer

    def _put_object(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        bucket = asked["Bucket"]
        if ("AWS::S3::Bucket", bucket) not in self._account.names:
            error = {"Code": "NoSuchBucket", "Message": f"There is no bucket {bucket}"}
            raise ClientError({"Error": error}, "PutObject")
        self._objects[f"{bucket}/{asked['Key']}"] = asked["Body"]
        return {}

    def _describe_key(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        arn = self._account.aliases.get(asked["KeyId"])
        if arn is None:
            error = {"Code": "NotFoundException", "Message": f"no {asked['KeyId']}"}
            raise ClientError({"Error": error}, "DescribeKey")
        return {"KeyMetadata": {"KeyId": arn[-36:], "Arn": arn, "KeyState": "Enabled"}}

    def _endpoint_services(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        wanted = [value for item in asked.get("Filters", []) for value in item["Values"]]
        return {
            "ServiceDetails": [
                {"ServiceName": name, "AvailabilityZones": list(zones)}
                for name, zones in sorted(self._zones.items())
                if name in wanted
            ]
        }


def _nothing(_: Mapping[str, Any]) -> dict[str, Any]:
    return {}
