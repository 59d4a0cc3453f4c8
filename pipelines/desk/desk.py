"""The data scientist's desk: runs, models and curves from a notebook, on the local cloud."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from edge.training.app_bundle import load_app
from fl_runtime.run.aws import S3Objects, client
from fl_runtime.run.keys import model_key
from fl_runtime.run.mlflow_runs import mlflow_client
from fl_runtime.run.records import RoundRecord, format_metrics
from pipelines.desk.decisions import decide_on
from pipelines.local.cloud import LocalCloud
from pipelines.local.federate import federate
from pipelines.local.home import Home, locked
from pipelines.run.option_table import RunOptions
from pipelines.run.plan import plan
from pipelines.run.report import RunReport
from registry.approval import find
from registry.evidence.collect import CARD
from registry.mlflow_registry import MlflowRegistry
from registry.rollout.model import Rollout

if TYPE_CHECKING:
    import pandas as pd


class Desk:
    """A local cloud to work on: the one that ``mledgeops local up`` started, or one of its own
    until :meth:`close`.

    While it is open, boto3, MLflow and the SageMaker SDK in this process reach that cloud.
    """

    def __init__(self, home: str | Path = "") -> None:
        # a notebook shows what libraries log
        logging.getLogger("botocore").setLevel(logging.WARNING)
        self._stack = contextlib.ExitStack()
        place = Home(Path(home).resolve()) if home else Home.default()
        self.cloud = self._stack.enter_context(LocalCloud.use(place))

    def run(self, app: str | Path, **options: Any) -> RunReport:
        """Federate an app; ``options`` are those of :class:`~pipelines.run.option_table.RunOptions`.
        Shows each round.
        """
        the_plan = plan(load_app(Path(app)), RunOptions(**options))
        with locked(
            self.cloud.home.root / "run.lock",
            "A run is under way on this local cloud: wait for it.",
        ):
            return federate(self.cloud, the_plan, lambda _: None, _print_round, lambda: None).report

    def rounds(self, report: RunReport) -> pd.DataFrame:
        """One row a round: metrics, participants, seconds, bytes."""
        import pandas as pd

        return (
            pd.json_normalize([msgspec.to_builtins(record) for record in report.rounds])
            .drop(columns="devices")
            .set_index("round")
        )

    def tables(self, report: RunReport) -> dict[str, pd.DataFrame]:
        """Tables that the app itself made."""
        import pandas as pd

        return {name: pd.DataFrame(columns) for name, columns in report.tables.items()}

    def models(self) -> pd.DataFrame:
        """All registered versions, newest first."""
        import pandas as pd

        return pd.DataFrame(
            [msgspec.to_builtins(version) for version in MlflowRegistry(mlflow_client()).versions()]
        )

    def card(self, version: str) -> Any:
        """The model card of a version (NAME/NUMBER), as a notebook shows it."""
        from html import escape

        from IPython.display import HTML

        found = find(MlflowRegistry(mlflow_client()).versions(), version)
        objects = S3Objects(client("s3"), self.cloud.deployment.bucket)
        html = objects.get(model_key(found.run, CARD)).decode()
        # A frame of its own: the page's style must not become the notebook's.
        return HTML(
            f'<iframe srcdoc="{escape(html)}" style="width:100%;height:700px;border:1px solid #ccc"></iframe>'
        )  # type: ignore[no-untyped-call]

    def approve(self, version: str, reason: str, *, override: bool = False) -> Rollout | None:
        """Approve a version; returns how its rollout to the devices ended. ``override``: although
        pre-checks fail.
        """
        return decide_on(self.cloud, version, "Approved", reason, override=override)[1]

    def reject(self, version: str, reason: str) -> None:
        """Reject a version; that stands."""
        decide_on(self.cloud, version, "Rejected", reason)

    def close(self) -> None:
        """End a cloud of its own, and give the environment back."""
        self._stack.close()

    def __enter__(self) -> Desk:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _print_round(record: RoundRecord) -> None:
    print(f"round {record.round}: {format_metrics(record)} ({record.participants} devices)")  # noqa: T201  # a notebook shows it
