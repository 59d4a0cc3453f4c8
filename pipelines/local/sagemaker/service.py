"""SageMaker on one machine: moto's model registry, and pipelines that run.

moto answers with an instant success and keeps nothing: here executions run (pipeline_engine.py),
approvals emit their event, updates keep what they do not mention, and a journal of the changing
calls is played back at the next start.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.logs import event
from pipelines.local.emulators.authority import Authority, role_client, sagemaker_resource
from pipelines.local.emulators.calls import CallLog
from pipelines.local.home import ACCOUNT, REGION
from pipelines.local.sagemaker.engine import Engine, Execution

logger = logging.getLogger(__name__)

JOURNALLED = (
    "create_model_package_group",
    "create_model_package",
    "update_model_package",
    "delete_model_package",
    "create_pipeline",
    "update_pipeline",
    "delete_pipeline",
)
EVENT_TYPE = "SageMaker Model Package State Change"


class SageMaker:
    """The service, on a loopback port of its own. Made once a process: moto's classes are extended
    in place.
    """

    def __init__(self, folder: Path, port: int, pipeline_role: str, calls: CallLog) -> None:
        os.environ["MOTO_ACCOUNT_ID"] = ACCOUNT
        from moto.moto_server.threaded_moto_server import ThreadedMotoServer

        self._journal = folder / "journal.jsonl"
        self._folder = folder
        self._port = port
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        self._replaying = False
        self._events: Any = None
        self._authority: Authority | None = None
        self._pipeline_role = pipeline_role
        self._calls = calls
        self._lock = threading.Lock()
        self._cards: dict[str, Any] = {}
        self.engine: Engine | None = None

    def start(self, client: Callable[[str], Any]) -> None:
        """Serve, and bring back what earlier clouds registered. ``client`` makes boto3 clients of
        this cloud.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._extend()
        self._server.start()
        sagemaker = client("sagemaker")
        self._replay(sagemaker)
        self._events = client("events")
        self._authority = Authority(client("iam"), self._calls)
        act = role_client(client("sts"), self._pipeline_role)
        clients = {name: act(name) for name in ("sqs", "lambda", "sagemaker")}
        self.engine = Engine(
            self._folder / "executions", clients, f"arn:aws:sagemaker:{REGION}:{ACCOUNT}"
        )

    def stop(self) -> None:
        """Stop serving."""
        self._server.stop()

    def _extend(self) -> None:
        from moto.sagemaker.responses import SageMakerResponse

        for action in JOURNALLED:
            setattr(
                SageMakerResponse,
                action,
                self._journalled(action, getattr(SageMakerResponse, action, _absent(action))),
            )
        for action in ("start", "describe", "stop"):
            setattr(
                SageMakerResponse,
                f"{action}_pipeline_execution",
                self._bound(getattr(self, f"_{action}_execution")),
            )
        SageMakerResponse.describe_model_package = self._described(
            SageMakerResponse.describe_model_package
        )
        SageMakerResponse._authenticate_and_authorize_normal_action = self._check()
        SageMakerResponse.list_pipeline_executions = self._bound(self._list_executions)
        SageMakerResponse.list_pipeline_execution_steps = self._bound(self._list_steps)
        SageMakerResponse.list_pipeline_parameters_for_execution = self._bound(
            self._list_parameters
        )
        SageMakerResponse.send_pipeline_execution_step_success = self._bound(self._step_success)
        SageMakerResponse.send_pipeline_execution_step_failure = self._bound(self._step_failure)

    def _check(self) -> Callable[[Any, str], None]:
        """moto checks no policies: ours is asked instead."""
        from moto.core.exceptions import AccessDeniedError

        def check(response: Any, _resource: str) -> None:
            key, action = response.get_access_key(), f"sagemaker:{response._get_action()}"
            asked_by = (
                self.engine.asked_by(response.params.get("CallbackToken", ""))
                if self.engine is not None
                else None
            )
            if self._authority is not None and not self._authority.allows(
                key, action, asked_by or sagemaker_resource(response.params)
            ):
                raise AccessDeniedError(user_arn=str(self._calls.principal(key)), action=action)

        return check

    def _bound(self, function: Callable[[Any], dict[str, Any]]) -> Callable[[Any], Any]:
        """A moto action whose answer comes from ours."""
        from moto.core.responses import ActionResult

        return lambda response: ActionResult(function(response))

    def _journalled(self, action: str, original: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def act(response: Any) -> Any:
            before = ""
            if action == "update_model_package":
                before = self._keep_unmentioned(response)
                self._keep_card(response)
            answer = original(response)
            with self._lock:
                if not self._replaying:
                    line = json.dumps(
                        {"action": action, "params": response.params, "time": time.time()},
                        default=str,
                    )
                    with self._journal.open("a") as file:
                        file.write(line + "\n")
            if action in ("create_model_package", "update_model_package"):
                self._tell(response, before)
            return answer

        return act

    def _keep_unmentioned(self, response: Any) -> str:
        """moto overwrites with None what a call omits, SageMaker merges; returns the approval as it
        was.
        """
        package = response.sagemaker_backend.describe_model_package(
            response.params["ModelPackageArn"]
        )
        given = response.params
        given.setdefault("ModelApprovalStatus", package.model_approval_status)
        given.setdefault("ApprovalDescription", package.approval_description)
        given.setdefault("CustomerMetadataPropertiesToRemove", [])
        given["CustomerMetadataProperties"] = {
            **(package.customer_metadata_properties or {}),
            **given.get("CustomerMetadataProperties", {}),
        }
        return str(package.model_approval_status)

    def _keep_card(self, response: Any) -> None:
        """moto knows no model cards of packages. Their content must be a JSON object here too."""
        card = response.params.get("ModelCard")
        if card is None:
            return
        try:
            if not isinstance(json.loads(card["ModelCardContent"]), dict):
                raise ValueError("it is no object")
        except ValueError as error:
            raise _invalid(f"ModelCardContent is not a model card: {error}.") from error
        self._cards[response.params["ModelPackageArn"]] = card

    def _described(self, original: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def describe(response: Any) -> dict[str, Any]:
            answer: dict[str, Any] = original(response).result
            card = self._cards.get(answer["ModelPackageArn"])
            return answer | ({"ModelCard": card} if card is not None else {})

        return self._bound(describe)

    def _tell(self, response: Any, before: str) -> None:
        """The event that SageMaker emits when an approval changes."""
        if self._replaying or self._events is None:
            return
        arn = response.params.get("ModelPackageArn")
        if arn is None or response.params["ModelApprovalStatus"] == before:
            return
        package = response.sagemaker_backend.describe_model_package(arn)
        detail = {
            "ModelPackageArn": package.arn,
            "ModelPackageName": package.arn.rsplit(":model-package/", 1)[1],
            "ModelPackageGroupName": package.model_package_group_name,
            "ModelPackageVersion": package.model_package_version,
            "ModelApprovalStatus": package.model_approval_status,
            "ApprovalDescription": package.approval_description or "",
        }
        entry = {
            "Source": "aws.sagemaker",
            "DetailType": EVENT_TYPE,
            "Detail": json.dumps(detail),
            "Resources": [package.arn],
        }
        failed = self._events.put_events(Entries=[entry])["FailedEntryCount"]
        event(
            logger,
            "model-package-event",
            model_package_arn=package.arn,
            approval=package.model_approval_status,
            failed=failed,
        )

    def _replay(self, sagemaker: Any) -> None:
        """Make earlier calls again, in order; the registry numbers versions as it did then."""
        if not self._journal.is_file():
            return
        self._replaying = True
        for line in self._journal.read_text().splitlines():
            entry = json.loads(line)
            getattr(sagemaker, entry["action"])(
                **{key: value for key, value in entry["params"].items() if value is not None}
            )
        self._replaying = False

    def _start_execution(self, response: Any) -> dict[str, Any]:
        name = response.params["PipelineName"].rsplit("/", 1)[-1]
        pipeline = response.sagemaker_backend.describe_pipeline(name)
        given = {
            item["Name"]: item["Value"] for item in response.params.get("PipelineParameters") or []
        }
        try:
            execution = self._running().start(
                name, json.loads(pipeline["PipelineDefinition"]), given
            )
        except ValueError as error:
            raise _invalid(str(error)) from error
        return {"PipelineExecutionArn": execution.arn}

    def _describe_execution(self, response: Any) -> dict[str, Any]:
        execution = self._execution(response)
        described = {
            "PipelineArn": execution.arn.split("/execution/")[0],
            "PipelineExecutionArn": execution.arn,
            "PipelineExecutionDisplayName": execution.arn.rsplit("/", 1)[1],
            "PipelineExecutionStatus": execution.status,
            "CreationTime": execution.started_at,
            "LastModifiedTime": time.time(),
        }
        return described | ({"FailureReason": execution.reason} if execution.reason else {})

    def _stop_execution(self, response: Any) -> dict[str, Any]:
        execution = self._execution(response)
        self._running().stop(execution)
        return {"PipelineExecutionArn": execution.arn}

    def _list_executions(self, response: Any) -> dict[str, Any]:
        name = response.params["PipelineName"].rsplit("/", 1)[-1]
        return {
            "PipelineExecutionSummaries": [
                {
                    "PipelineExecutionArn": e.arn,
                    "StartTime": e.started_at,
                    "PipelineExecutionStatus": e.status,
                }
                for e in self._running().of_pipeline(name)
            ]
        }

    def _list_steps(self, response: Any) -> dict[str, Any]:
        return {"PipelineExecutionSteps": list(reversed(self._execution(response).steps.values()))}

    def _list_parameters(self, response: Any) -> dict[str, Any]:
        return {
            "PipelineParameters": [
                {"Name": k, "Value": str(v)}
                for k, v in self._execution(response).parameters.items()
            ]
        }

    def _step_success(self, response: Any) -> dict[str, Any]:
        outputs = {
            item["Name"]: item["Value"] for item in response.params.get("OutputParameters") or []
        }
        return self._answer(response, outputs, None)

    def _step_failure(self, response: Any) -> dict[str, Any]:
        return self._answer(
            response, None, response.params.get("FailureReason") or "no reason was given"
        )

    def _answer(
        self, response: Any, outputs: dict[str, str] | None, failure: str | None
    ) -> dict[str, Any]:
        if not self._running().answer(response.params["CallbackToken"], outputs, failure):
            raise _invalid("The callback token is unknown or has been answered.")
        return {}

    def _execution(self, response: Any) -> Execution:
        execution = self._running().get(response.params["PipelineExecutionArn"])
        if execution is None:
            raise _invalid(
                f"There is no pipeline execution {response.params['PipelineExecutionArn']}."
            )
        return execution

    def _running(self) -> Engine:
        if self.engine is None:
            raise _invalid("The local SageMaker is starting.")
        return self.engine


def _invalid(message: str) -> Exception:
    from moto.sagemaker.exceptions import AWSValidationException

    error: Exception = AWSValidationException(message)
    return error


def _absent(action: str) -> Callable[[Any], Any]:
    def refuse(_response: Any) -> Any:
        raise _invalid(f"The local SageMaker does not know {action}.")

    return refuse
