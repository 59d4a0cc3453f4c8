"""Names and ARNs of one deployment: what the stacks create, and what commands, the pipeline and the
tasks refer to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pipelines.errors import UsageError

PREFIX_PATTERN = "^[a-z][a-z0-9]{2,15}$"
"""No hyphens: every name begins with the prefix, and names of IoT rules have none. 16 characters,
so that role names stay below 64 and bucket names below 63.
"""


def check_prefix(prefix: str) -> str:
    """The prefix of a deployment's names. Raises UsageError for one that no name may begin with."""
    if not re.fullmatch(PREFIX_PATTERN, prefix):
        raise UsageError(
            f"The prefix {prefix!r} cannot begin the names of buckets and roles: set "
            "MLEDGEOPS_PREFIX to 3 to 16 lower-case letters and digits, beginning with a letter."
        )
    return prefix


def _name(pattern: str) -> dict[str, str]:
    """Metadata of a name that is derived from account, region and prefix."""
    return {"pattern": pattern}


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One installation in one account and region. ``prefix`` begins every name.

    The CDK app fills it with tokens, commands with values: both derive the same names.
    """

    account: str
    region: str
    prefix: str = "mledgeops"
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    key: str = ""
    """ARN of the data key. Only the stacks know it."""
    commands_key_arn: str = ""
    """ARN of the key that signs commands. Only the stacks know it; others use the alias."""
    models_key_arn: str = ""
    """ARN of the key that signs models. Only the stacks know it; others use the alias."""
    records_key_arn: str = ""
    """ARN of the key that signs provenance records. Only the stacks know it."""
    answered_executions: tuple[str, ...] = ()
    """ARN patterns of the pipeline executions whose callbacks may be answered. Only the stacks know
    those of further pipelines.
    """
    mlflow_resource: str = ""
    """ARN of managed MLflow, server or app, where only the stacks know it; else ``mlflow_arn``."""
    public_addresses: str = "DISABLED"
    """Whether tasks have public addresses: ECS's ``ENABLED`` or ``DISABLED``."""

    # Storage
    code_bucket: str = field(init=False, metadata=_name("{prefix}-code-{account}-{region}"))
    """S3 bucket of what is deployed: the functions' code and the devices' components."""
    bucket: str = field(init=False, metadata=_name("{prefix}-{account}-{region}"))
    """S3 bucket of runs, apps and models."""
    devices_table: str = field(init=False, metadata=_name("{prefix}-devices"))
    """DynamoDB table of heartbeats, by (fleet, device)."""
    replies_table: str = field(init=False, metadata=_name("{prefix}-replies"))
    """DynamoDB table of replies, by (reply_key, device)."""
    runs_table: str = field(init=False, metadata=_name("{prefix}-runs"))
    """DynamoDB table of runs' states, by run."""
    rollouts_table: str = field(init=False, metadata=_name("{prefix}-rollouts"))
    """DynamoDB table of rollouts, by (fleet, number); number 0 is what the fleet runs."""
    commands_key: str = field(init=False, metadata=_name("alias/{prefix}-commands"))
    """Alias of the KMS key that signs servers' commands."""
    models_key: str = field(init=False, metadata=_name("alias/{prefix}-models"))
    """Alias of the KMS key that signs models' manifests."""
    records_key: str = field(init=False, metadata=_name("alias/{prefix}-records"))
    """Alias of the KMS key that signs versions' provenance records, in the link function only."""

    # Runs and rollouts
    cluster: str = field(init=False, metadata=_name("{prefix}"))
    """ECS cluster of servers and proxies."""
    queue: str = field(init=False, metadata=_name("{prefix}-callbacks"))
    """SQS queue of the pipeline's callback step."""
    dead_queue: str = field(init=False, metadata=_name("{prefix}-dead"))
    """SQS queue of callbacks and events that failed for good."""
    queue_url: str = field(
        init=False,
        metadata=_name("https://sqs.{region}.amazonaws.com/{account}/{prefix}-callbacks"),
    )
    state_machine: str = field(
        init=False, metadata=_name("arn:aws:states:{region}:{account}:stateMachine:{prefix}-run")
    )
    """ARN of the state machine of a run."""
    rollout_machine: str = field(
        init=False,
        metadata=_name("arn:aws:states:{region}:{account}:stateMachine:{prefix}-rollout"),
    )
    """ARN of the state machine of a rollout."""
    schedule_group: str = field(init=False, metadata=_name("{prefix}"))
    """EventBridge Scheduler group of the retraining schedules."""
    mlflow_arn: str = field(
        init=False,
        metadata=_name("arn:aws:sagemaker:{region}:{account}:mlflow-tracking-server/{prefix}"),
    )
    """ARN of the managed MLflow server, which is also its tracking URI."""
    pipeline_role: str = field(
        init=False, metadata=_name("arn:aws:iam::{account}:role/{prefix}-pipeline")
    )
    """ARN of the role that SageMaker runs the pipeline with."""

    # Devices
    device_policy: str = field(init=False, metadata=_name("{prefix}-device"))
    """IoT policy that all devices share."""
    claim_policy: str = field(init=False, metadata=_name("{prefix}-claim"))
    """IoT policy of the claim certificate, good for enrolment only."""
    provisioning_template: str = field(init=False, metadata=_name("{prefix}-provisioning"))
    """IoT fleet provisioning template."""
    thing_group: str = field(init=False, metadata=_name("{prefix}-devices"))
    """All devices of the deployment."""
    thing_type: str = field(init=False, metadata=_name("{prefix}-device"))

    def __post_init__(self) -> None:
        """Derive the names."""
        values = {"account": self.account, "region": self.region, "prefix": self.prefix}
        for name, entry in self.__dataclass_fields__.items():
            if "pattern" in entry.metadata:
                # the class is frozen, so its own __setattr__ refuses
                object.__setattr__(self, name, entry.metadata["pattern"].format(**values))

    @property
    def stacks(self) -> tuple[str, str, str]:
        """The CloudFormation stacks, in the order in which they are created."""
        return f"{self.prefix}-base", f"{self.prefix}-data", f"{self.prefix}-sagemaker"

    def task_family(self, task: str) -> str:
        """ECS task definition of ``server`` or ``proxy``."""
        return f"{self.prefix}-{task}"

    def repository(self, task: str) -> str:
        """ECR repository of a task's image."""
        return f"{self.prefix}-{task}"

    def function(self, name: str) -> str:
        """Name of a Lambda function."""
        return f"{self.prefix}-{name}"

    def function_arn(self, name: str) -> str:
        """ARN of a Lambda function."""
        return f"arn:aws:lambda:{self.region}:{self.account}:function:{self.function(name)}"

    def role(self, name: str) -> str:
        """ARN of a role."""
        return f"arn:aws:iam::{self.account}:role/{self.prefix}-{name}"

    def log_group(self, task: str) -> str:
        """CloudWatch log group of an ECS task family, or of the IoT rules' errors."""
        return f"/{self.prefix}/{task}"

    def function_log_group(self, name: str) -> str:
        """CloudWatch log group of a Lambda function."""
        return f"/aws/lambda/{self.function(name)}"

    def environment(self) -> dict[str, str]:
        """Environment variables of tasks, functions and commands."""
        return {
            "MLEDGEOPS_BUCKET": self.bucket,
            "MLEDGEOPS_DEVICES_TABLE": self.devices_table,
            "MLEDGEOPS_REPLIES_TABLE": self.replies_table,
            "MLEDGEOPS_RUNS_TABLE": self.runs_table,
            "MLEDGEOPS_CLUSTER": self.cluster,
            "MLEDGEOPS_STATE_MACHINE": self.state_machine,
            "MLEDGEOPS_ROLLOUT_MACHINE": self.rollout_machine,
            "MLEDGEOPS_ROLLOUTS_TABLE": self.rollouts_table,
            "MLEDGEOPS_COMMANDS_KEY": self.commands_key,
            "MLEDGEOPS_MODELS_KEY": self.models_key,
            "MLEDGEOPS_RECORDS_KEY": self.records_key,
            "MLEDGEOPS_JOB_URLS_ROLE": self.role("job-urls"),
        }
