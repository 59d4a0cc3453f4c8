"""The roles: which there are, which service takes each, and what each may do."""

from __future__ import annotations

from pipelines.aws.policies import devices, functions, services, tasks
from pipelines.aws.policies.statement import Statement, traces, write_function_logs
from pipelines.deployment import Deployment

FUNCTIONS = {
    "dispatch": 60,
    "discover": 60,
    "conclude": 120,
    "enrol": 5,
    "watch": 60,
    "link": 120,
    "refuse": 120,
    "promote": 300,
    "start": 60,
    "rollout": 300,
}
"""The Lambda functions with their timeouts in seconds. AWS IoT gives a provisioning hook five:
https://docs.aws.amazon.com/iot/latest/developerguide/pre-provisioning-hook.html
"""
EVENT_FUNCTIONS = ("promote", "start", "watch")
"""Functions that EventBridge calls asynchronously: an event that fails for good goes to the
dead-letter queue.
"""
SAGEMAKER_FUNCTIONS = ("link", "refuse", "promote", "start", "rollout")
"""Functions of the SageMaker stack. The others belong to the data stack."""

SERVICE_OF_ROLE = {
    "server": "ecs-tasks",
    "proxy": "ecs-tasks",
    "execution": "ecs-tasks",
    "state-machine": "states",
    "iot-rule": "iot",
    "provisioning": "iot",
    "job-urls": "iot",
    "rollout-machine": "states",
    "scheduler": "scheduler",
    "pipeline": "sagemaker",
    "mlflow": "sagemaker",
    "mlflow-app": "sagemaker",
    "device": "credentials.iot",
}
"""The service that assumes each role. Lambda assumes those that are not listed."""

SAGEMAKER_ROLES = (
    *SAGEMAKER_FUNCTIONS,
    "scheduler",
    "pipeline",
    "mlflow",
    "job-urls",
    "rollout-machine",
)
DATA_ROLES = (
    *(name for name in FUNCTIONS if name not in SAGEMAKER_FUNCTIONS),
    *(r for r in SERVICE_OF_ROLE if r not in SAGEMAKER_ROLES),
)

_STATEMENTS = {
    **functions.STATEMENTS,
    **tasks.STATEMENTS,
    **devices.STATEMENTS,
    **services.STATEMENTS,
}


def statements(role: str, d: Deployment) -> list[Statement]:
    """What one role may do."""
    own = _STATEMENTS[role](d)
    if role in FUNCTIONS:
        return [*own, write_function_logs(d, role), traces()]
    return own
