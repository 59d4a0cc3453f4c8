"""The desk: what one runs, looks at and decides on one cloud."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.training.app_bundle import load_app
from pipelines.desk.fleet_rows import fleet_rows
from pipelines.desk.notebook.compare import compared
from pipelines.desk.notebook.execution import Execution, executed
from pipelines.desk.notebook.frames import structs_frame
from pipelines.desk.notebook.model import RegisteredModel
from pipelines.desk.notebook.open_door import OpenDoor
from pipelines.desk.notebook.run import Run, attached
from pipelines.desk.notebook.start import start
from pipelines.desk.runs import RunArchive, RunSummary, check_run_id
from pipelines.errors import UsageError
from pipelines.run.option import unknown_option
from pipelines.run.option_table import TABLE, RunOptions, defaults_on_aws
from pipelines.run.plan import RunPlan, plan
from registry.model_version import Version

if TYPE_CHECKING:
    import pandas as pd


class CloudDesk(OpenDoor):
    """Made by :func:`pipelines.connect`. The local cloud goes on when the desk is closed."""

    def run(
        self, app: str | Path, *, wait: bool = True, queue: bool = False, **options: Any
    ) -> Run:
        """Federate a Flower app.

        Args:
            app: Its folder.
            wait: Return when it has ended, and print each round until then. Otherwise return as
                soon as it has its id; it goes on without this process.
            queue: On a local cloud, when a run is under way on its fleet: wait for its turn.
                Otherwise such a run is refused.
            **options: Those of :class:`~pipelines.run.option_table.RunOptions`: ``devices``,
                ``rounds``, ``strategy``, ``settings={"learning-rate": 0.1}``, ``fleet`` and more.

        Raises:
            UsageError: An option is unknown or out of bounds.
            AppError: The app cannot be used.
            LocalCloudError: A run is under way on its fleet.

        """
        on_aws = not self.door.open().is_local
        run = start(self.door, planned(app, options, on_aws=on_aws), queue=queue, how="queue=True")
        return run.wait() if wait else run

    def attach(self, run: str) -> Run:
        """The run of an id, whoever started it: after a restart of the kernel, or from another one.

        Raises:
            UsageError: There is no such run.

        """
        return attached(self.door, check_run_id(run))

    def execute(
        self,
        pipeline: Any,
        *,
        name: str = "",
        parameters: Mapping[str, Any] | None = None,
        role: str = "",
    ) -> Execution:
        """Create or update a SageMaker pipeline and start it; see
        :func:`pipelines.desk.notebook.execution.executed`.

        Args:
            pipeline: The SDK's ``Pipeline`` (v2 or v3), or a definition as a dict or JSON text.
            name: The pipeline's name; for an SDK's ``Pipeline`` its own.
            parameters: The pipeline's parameters that differ from their defaults.
            role: ARN of the role that the pipeline runs with; empty: the deployment's own, which
                may do no more than a run needs.

        Raises:
            UsageError: It has no name, or SageMaker refuses it, with its reason.

        """
        return executed(self.door, pipeline, name, parameters or {}, role)

    def runs(self) -> pd.DataFrame:
        """All runs, newest first: app, status, rounds, metric and value."""
        found = RunArchive(self.door.open().mlflow).runs()
        return structs_frame(found, RunSummary.__struct_fields__)

    def models(self) -> pd.DataFrame:
        """All registered versions, newest first."""
        versions = self.door.open().registry.mlflow.versions()
        return structs_frame(versions, ["model_version", *Version.__struct_fields__])

    def model(self, version: str) -> RegisteredModel:
        """A registered version.

        Args:
            version: Its number, NAME/NUMBER, or its model package's ARN.

        Raises:
            RegistryError: There is none.

        """
        found = RegisteredModel(self.door, version)
        return RegisteredModel(self.door, found.name)

    def fleet(self) -> pd.DataFrame:
        """All devices: state, model, drift, when they were last heard of."""
        import pandas as pd

        access = self.door.open()
        table = access.cloud.deployment.devices_table
        return pd.DataFrame(fleet_rows(access.client("dynamodb"), access.client("iot-data"), table))

    def compare(self, *runs: str | Run) -> pd.DataFrame:
        """Runs side by side, one a column: the settings that differ, and their last metrics.

        Raises:
            UsageError: There is no such run, or less than two are given.

        """
        return compared(
            self.door.open().mlflow, [run.id if isinstance(run, Run) else run for run in runs]
        )


def planned(app: str | Path, options: Mapping[str, Any], *, on_aws: bool) -> RunPlan:
    """An app and options as a plan.

    Raises:
        UsageError: An option is unknown (the nearest one is named) or out of bounds.
        AppError: The app cannot be used.

    """
    known = [entry.name for entry in TABLE]
    for name in options:
        if name not in known:
            raise UsageError(unknown_option(name, known))
    given = {**(defaults_on_aws() if on_aws else {}), **options}
    return plan(load_app(Path(app)), RunOptions(**given))
