"""Names and ARNs of one deployment: what the stacks create, and the pipeline, the state machine and
the tasks refer to.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One installation in one account and region. ``prefix`` begins every name.

    The CDK app fills it with tokens, commands with values: both get the same names.
    """

    account: str
    region: str
    prefix: str = "mledgeops"
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    key: str = ""
    """ARN of the KMS key; known to the stacks only."""
    commands_key_arn: str = ""
    models_key_arn: str = ""
    """ARNs of the keys that sign commands and models; known to the stacks only, others go by the
    alias.
    """

    @property
    def stacks(self) -> tuple[str, str, str]:
        """The CloudFormation stacks, in the order they are created."""
        return f"{self.prefix}-base", f"{self.prefix}-data", f"{self.prefix}-sagemaker"

    @property
    def code_bucket(self) -> str:
        """What is deployed: the functions' code and the devices' components."""
        return f"{self.prefix}-code-{self.account}-{self.region}"

    @property
    def bucket(self) -> str:
        """Runs, apps and models."""
        return f"{self.prefix}-{self.account}-{self.region}"

    @property
    def devices_table(self) -> str:
        """Heartbeats, by (fleet, device)."""
        return f"{self.prefix}-devices"

    @property
    def replies_table(self) -> str:
        """Replies, by (reply_key, device)."""
        return f"{self.prefix}-replies"

    @property
    def runs_table(self) -> str:
        """Run state, by run."""
        return f"{self.prefix}-runs"

    @property
    def rollouts_table(self) -> str:
        """Rollouts, by (fleet, number); number 0 is what the fleet runs."""
        return f"{self.prefix}-rollouts"

    @property
    def commands_key(self) -> str:
        """Alias of the KMS key that signs servers' commands."""
        return f"alias/{self.prefix}-commands"

    @property
    def models_key(self) -> str:
        """Alias of the KMS key that signs the manifests of models."""
        return f"alias/{self.prefix}-models"

    @property
    def rollout_machine(self) -> str:
        """ARN of the state machine that conducts a rollout."""
        return f"arn:aws:states:{self.region}:{self.account}:stateMachine:{self.prefix}-rollout"

    @property
    def queue(self) -> str:
        """Where the pipeline's callback step puts its messages."""
        return f"{self.prefix}-callbacks"

    @property
    def dead_queue(self) -> str:
        """Where callbacks and events end that could not be handled."""
        return f"{self.prefix}-dead"

    @property
    def queue_url(self) -> str:
        """The queue's URL, as AWS forms it."""
        return f"https://sqs.{self.region}.amazonaws.com/{self.account}/{self.queue}"

    @property
    def cluster(self) -> str:
        """ECS cluster of servers and proxies."""
        return self.prefix

    @property
    def state_machine(self) -> str:
        """ARN of the state machine that conducts a run."""
        return f"arn:aws:states:{self.region}:{self.account}:stateMachine:{self.prefix}-run"

    @property
    def device_policy(self) -> str:
        """Name of the IoT policy that every device carries."""
        return f"{self.prefix}-device"

    @property
    def provisioning_template(self) -> str:
        """Name of the IoT fleet provisioning template."""
        return f"{self.prefix}-provisioning"

    @property
    def claim_policy(self) -> str:
        """Name of the IoT policy of the claim certificate: good for enrolment only."""
        return f"{self.prefix}-claim"

    @property
    def thing_group(self) -> str:
        """All devices of this deployment."""
        return f"{self.prefix}-devices"

    @property
    def thing_type(self) -> str:
        """The type of all devices."""
        return f"{self.prefix}-device"

    @property
    def schedule_group(self) -> str:
        """EventBridge Scheduler group of the retraining schedules."""
        return self.prefix

    @property
    def mlflow_arn(self) -> str:
        """ARN of the managed MLflow server, which is also its tracking URI."""
        return (
            f"arn:aws:sagemaker:{self.region}:{self.account}:mlflow-tracking-server/{self.prefix}"
        )

    @property
    def pipeline_role(self) -> str:
        """ARN of the role that SageMaker runs the pipeline with."""
        return self.role("pipeline")

    def task_family(self, task: str) -> str:
        """ECS task definition of ``server`` or ``proxy``."""
        return f"{self.prefix}-{task}"

    def function(self, name: str) -> str:
        """A Lambda function's name."""
        return f"{self.prefix}-{name}"

    def function_arn(self, name: str) -> str:
        """A Lambda function's ARN."""
        return f"arn:aws:lambda:{self.region}:{self.account}:function:{self.function(name)}"

    def role(self, name: str) -> str:
        """A role's ARN."""
        return f"arn:aws:iam::{self.account}:role/{self.prefix}-{name}"

    def log_group(self, task: str) -> str:
        """CloudWatch log group of an ECS task family, or of the IoT rules' errors."""
        return f"/{self.prefix}/{task}"

    def function_log_group(self, name: str) -> str:
        """CloudWatch log group of a Lambda function."""
        return f"/aws/lambda/{self.function(name)}"

    def repository(self, task: str) -> str:
        """ECR repository of an ECS task's image."""
        return f"{self.prefix}-{task}"

    def environment(self) -> dict[str, str]:
        """What tasks and functions find in their environment."""
        return {
            "MLEDGEOPS_BUCKET": self.bucket,
            "MLEDGEOPS_DEVICES_TABLE": self.devices_table,
            "MLEDGEOPS_REPLIES_TABLE": self.replies_table,
            "MLEDGEOPS_RUNS_TABLE": self.runs_table,
            "MLEDGEOPS_STATE_MACHINE": self.state_machine,
            "MLEDGEOPS_ROLLOUT_MACHINE": self.rollout_machine,
            "MLEDGEOPS_ROLLOUTS_TABLE": self.rollouts_table,
            "MLEDGEOPS_COMMANDS_KEY": self.commands_key,
            "MLEDGEOPS_MODELS_KEY": self.models_key,
            "MLEDGEOPS_JOB_URLS_ROLE": self.role("job-urls"),
        }
