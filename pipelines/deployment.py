"""Names and ARNs of one deployment: what the pipeline, the state machine and the tasks refer to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One installation in one account and region. ``prefix`` begins every name."""

    account: str
    region: str
    prefix: str = "mledgeops"
    subnets: tuple[str, ...] = ("subnet-00000000000000000",)
    security_groups: tuple[str, ...] = ("sg-00000000000000000",)

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
    def queue(self) -> str:
        """Where the pipeline's callback step puts its messages."""
        return f"{self.prefix}-callbacks"

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
        """CloudWatch log group of an ECS task family."""
        return f"/{self.prefix}/{task}"

    def environment(self) -> dict[str, str]:
        """What tasks and functions find in their environment."""
        return {
            "MLEDGEOPS_BUCKET": self.bucket, "MLEDGEOPS_DEVICES_TABLE": self.devices_table,
            "MLEDGEOPS_REPLIES_TABLE": self.replies_table, "MLEDGEOPS_RUNS_TABLE": self.runs_table,
            "MLEDGEOPS_STATE_MACHINE": self.state_machine,
        }  # fmt: skip
