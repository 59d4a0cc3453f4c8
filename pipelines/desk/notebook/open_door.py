"""What leads other programs to a desk's cloud."""

from __future__ import annotations

from typing import Any

from pipelines.deployment import Deployment
from pipelines.desk.access import Door
from pipelines.desk.notebook.show import box


class OpenDoor:
    """A cloud with the names of its resources, and what reaches it."""

    def __init__(self, door: Door) -> None:
        self.door = door
        """To the cloud."""

    @property
    def deployment(self) -> Deployment:
        """The names of the deployed resources: bucket, roles, queue and more."""
        return self.door.open().cloud.deployment

    @property
    def environment(self) -> dict[str, str]:
        """Variables that lead other programs to this cloud: boto3, MLflow, the SageMaker SDK. They
        are not set here.
        """
        access = self.door.open()
        names = access.cloud.deployment.environment()
        own: dict[str, str] = getattr(access.cloud, "environment", dict)()
        return {**names, "MLFLOW_TRACKING_URI": access.mlflow_uri, **own}

    @property
    def session(self) -> Any:
        """A boto3 session that leads to this cloud: for ``FederatedStep`` and the SageMaker SDK."""
        return self.door.open().session

    def _repr_html_(self) -> str:
        access = self.door.open()
        deployment = access.cloud.deployment
        where = "local cloud" if access.is_local else "AWS"
        fields = {
            "account": deployment.account,
            "region": deployment.region,
            "home": self.door.home or "",
            "MLflow": access.mlflow_uri,
        }
        return box(where, "Running", fields)
