"""Creates a deployment's resources by API, each step safe to repeat. The local cloud starts with it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines import state_machine
from pipelines.deployment import Deployment
from pipelines.lambda_bundle import bundle
from pipelines.policies import ROLES, device_policy, document, statements, trust

ClientFactory = Callable[[str], Any]

FUNCTIONS = {"dispatch": 60, "discover": 60, "conclude": 120, "link": 120, "refuse": 120, "promote": 300, "start": 60}
"""Handlers and their time limits in seconds."""
TASKS = {"server": ("2048", "8192"), "proxy": ("256", "512")}
"""Fargate tasks with their CPU units and MiB."""
MODEL_EVENT = {"source": ["aws.sagemaker"], "detail-type": ["SageMaker Model Package State Change"]}

# The rules take who sent a message from its topic; the body is stored unread.
RULES = {
    "heartbeat": (
        "SELECT topic(2) AS fleet, topic(3) AS device, body, timestamp() AS last_seen, timestamp() / 1000 + 2592000 AS expires_at "
        "FROM 'fl/+/+/heartbeat'"
    ),
    "reply": (
        "SELECT key AS reply_key, topic(2) AS fleet, topic(3) AS device, body, timestamp() / 1000 + 604800 AS expires_at FROM 'fl/+/+/reply'"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A DynamoDB table: partition key, sort key."""

    name: str
    partition: str
    sort: str = ""


def provision(d: Deployment, client: ClientFactory, environment: Mapping[str, str]) -> None:
    """Create or update everything. ``environment`` is added to that of functions and tasks."""
    _roles(d, client("iam"))
    _bucket(d, client("s3"))
    _tables(d, client("dynamodb"))
    _rules(d, client("iot"))
    queue_arn = _queue(d, client("sqs"))
    _functions(d, client("lambda"), {**d.environment(), **environment}, queue_arn)
    _tasks(d, client("ecs"), client("logs"), {**d.environment(), **environment})
    _state_machine(d, client("stepfunctions"))
    _promotion_rule(d, client("events"), client("lambda"))


def _exists(api: Any, *codes: str) -> Callable[[Callable[[], Any]], bool]:
    """A runner that is True when the resource was there already."""

    def run(create: Callable[[], Any]) -> bool:
        try:
            create()
        except api.exceptions.ClientError as error:
            if error.response["Error"]["Code"] not in codes:
                raise
            return True
        return False

    return run


def _roles(d: Deployment, iam: Any) -> None:
    there = _exists(iam, "EntityAlreadyExists")
    for role in ROLES:
        name = f"{d.prefix}-{role}"
        there(functools.partial(iam.create_role, RoleName=name, AssumeRolePolicyDocument=json.dumps(trust(role))))
        iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=json.dumps(document(statements(role, d))))


def _bucket(d: Deployment, s3: Any) -> None:
    _exists(s3, "BucketAlreadyOwnedByYou", "BucketAlreadyExists")(lambda: s3.create_bucket(Bucket=d.bucket))


def _tables(d: Deployment, dynamodb: Any) -> None:
    for table in (
        Table(name=d.devices_table, partition="fleet", sort="device"),
        Table(name=d.replies_table, partition="reply_key", sort="device"),
        Table(name=d.runs_table, partition="run"),
    ):
        keys = [(table.partition, "HASH")] + ([(table.sort, "RANGE")] if table.sort else [])

        def create(table: Table = table, keys: list[tuple[str, str]] = keys) -> None:
            dynamodb.create_table(
                TableName=table.name, BillingMode="PAY_PER_REQUEST",
                KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in keys],
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name, _ in keys],
            )  # fmt: skip
            dynamodb.update_time_to_live(TableName=table.name, TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires_at"})

        _exists(dynamodb, "ResourceInUseException")(create)


def _rules(d: Deployment, iot: Any) -> None:
    _exists(iot, "ResourceAlreadyExistsException")(
        lambda: iot.create_policy(policyName=d.device_policy, policyDocument=json.dumps(device_policy(d)))
    )
    for name, sql in RULES.items():
        table = d.devices_table if name == "heartbeat" else d.replies_table
        payload = {
            "sql": sql, "awsIotSqlVersion": "2016-03-23", "ruleDisabled": False,
            "actions": [{"dynamoDBv2": {"roleArn": d.role("iot-rule"), "putItem": {"tableName": table}}}],
        }  # fmt: skip
        rule = f"{d.prefix}_{name}"
        create = functools.partial(iot.create_topic_rule, ruleName=rule, topicRulePayload=payload)
        if _exists(iot, "ResourceAlreadyExistsException")(create):
            iot.replace_topic_rule(ruleName=rule, topicRulePayload=payload)


def _queue(d: Deployment, sqs: Any) -> str:
    """Six minutes of visibility: six times the dispatch function's limit, as AWS advises."""
    url = sqs.create_queue(QueueName=d.queue, Attributes={"VisibilityTimeout": str(6 * FUNCTIONS["dispatch"])})["QueueUrl"]
    arn: str = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    return arn


def _functions(d: Deployment, api: Any, environment: Mapping[str, str], queue_arn: str) -> None:
    code = bundle()
    for name, seconds in FUNCTIONS.items():
        configuration = {
            "FunctionName": d.function(name), "Role": d.role(name), "Handler": f"pipelines.handlers.{name}.handler", "Runtime": "python3.11",
            "Timeout": seconds, "MemorySize": 1024, "Environment": {"Variables": dict(environment)},
        }  # fmt: skip
        if _exists(api, "ResourceConflictException")(functools.partial(api.create_function, **configuration, Code={"ZipFile": code})):
            api.update_function_configuration(**configuration)
            api.update_function_code(FunctionName=d.function(name), ZipFile=code)
    if not api.list_event_source_mappings(FunctionName=d.function("dispatch"))["EventSourceMappings"]:
        api.create_event_source_mapping(EventSourceArn=queue_arn, FunctionName=d.function("dispatch"), BatchSize=1)


def _tasks(d: Deployment, ecs: Any, logs: Any, environment: Mapping[str, str]) -> None:
    ecs.create_cluster(clusterName=d.cluster)
    for task, (cpu, memory) in TASKS.items():
        _exists(logs, "ResourceAlreadyExistsException")(functools.partial(logs.create_log_group, logGroupName=d.log_group(task)))
        container = {
            "name": task, "image": f"{d.prefix}-{task}", "essential": True, "command": ["python", "-m", f"fl_runtime.{task}"],
            "environment": [{"name": key, "value": value} for key, value in environment.items()],
            "logConfiguration": {
                "logDriver": "awslogs",
                "options": {"awslogs-group": d.log_group(task), "awslogs-region": d.region, "awslogs-stream-prefix": task},
            },
        }  # fmt: skip
        ecs.register_task_definition(
            family=d.task_family(task), requiresCompatibilities=["FARGATE"], networkMode="awsvpc", cpu=cpu, memory=memory,
            taskRoleArn=d.role(task), containerDefinitions=[container],
        )  # fmt: skip


def _state_machine(d: Deployment, steps: Any) -> None:
    """Workflow.create() of the SDK keeps the old definition under an existing name: update it ourselves."""
    text = json.dumps(state_machine.definition(d))
    name = d.state_machine.rsplit(":", 1)[1]
    found = [m for m in steps.list_state_machines()["stateMachines"] if m["stateMachineArn"] == d.state_machine]
    if found:
        steps.update_state_machine(stateMachineArn=d.state_machine, definition=text, roleArn=d.role("state-machine"))
    else:
        steps.create_state_machine(name=name, definition=text, roleArn=d.role("state-machine"))


def _promotion_rule(d: Deployment, events: Any, functions: Any) -> None:
    rule = f"{d.prefix}-promote"
    events.put_rule(Name=rule, EventPattern=json.dumps(MODEL_EVENT), State="ENABLED")
    events.put_targets(Rule=rule, Targets=[{"Id": "promote", "Arn": d.function_arn("promote")}])
    _exists(functions, "ResourceConflictException")(lambda: functions.add_permission(
        FunctionName=d.function("promote"), StatementId="events", Action="lambda:InvokeFunction", Principal="events.amazonaws.com",
        SourceArn=f"arn:aws:events:{d.region}:{d.account}:rule/{rule}",
    ))  # fmt: skip
