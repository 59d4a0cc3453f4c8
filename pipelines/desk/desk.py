"""The notebook's API of 0.4, kept for notebooks that use it: new ones begin with
``pipelines.connect``.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from edge.training.app_bundle import load_app
from fl_runtime.run.keys import model_key
from fl_runtime.run.records import RoundRecord, format_metrics
from pipelines.desk import wiring
from pipelines.desk.decisions import decide_on
from pipelines.desk.turns import turn
from pipelines.local.cloud import LocalCloud, local_cloud
from pipelines.local.federate import Progress, federate
from pipelines.local.home import Home
from pipelines.run.option_table import RunOptions
from pipelines.run.plan import plan
from pipelines.run.report import RunReport
from registry.approval import find
from registry.evidence.collect import CARD
from registry.model_version import Approval
from registry.rollout.model import Rollout

if TYPE_CHECKING:
    import pandas as pd


class Desk(contextlib.AbstractContextManager["Desk"]):
    """A local cloud to work on, and what one does with it.

    Uses the cloud that ``mledgeops local up`` started, else one of its own until :meth:`close`.
    While the desk is open, boto3, MLflow and the SageMaker SDK in this process reach that cloud.
    """

    def __init__(self, home: str | Path = "") -> None:
        """``home``: the cloud's folder (default: ``MLEDGEOPS_HOME``, else ``.mledgeops``)."""
        # A notebook shows what libraries log.
        logging.getLogger("botocore").setLevel(logging.WARNING)
        self._stack = contextlib.ExitStack()
        folder = Home(Path(home).resolve()) if home else Home.default()
        self.cloud = self._stack.enter_context(local_cloud(folder))

    def run(self, app: str | Path, **options: Any) -> RunReport:
        """Federate a Flower app and print each round.

        ``options`` are those of :class:`~pipelines.run.options.RunOptions`.
        """
        wanted = plan(load_app(Path(app)), RunOptions(**options))
        fleet = wanted.fleet
        with turn(self.cloud.home.fleet_turn(fleet), fleet, "pipelines.connect"):
            return federate(
                self.cloud,
                wiring.fleet_clients(),
                wiring.runner(self.cloud.deployment),
                wanted,
                Progress(on_round=_print_round, on_notice=print),
            ).report

    def rounds(self, report: RunReport) -> pd.DataFrame:
        """One row for each round: metrics, participants, seconds, bytes."""
        import pandas as pd

        rows = [msgspec.to_builtins(record) for record in report.rounds]
        if not rows:  # an app need not send anything
            return pd.DataFrame()
        return pd.json_normalize(rows).drop(columns="devices").set_index("round")

    def tables(self, report: RunReport) -> dict[str, pd.DataFrame]:
        """The tables that the app itself made, by name."""
        import pandas as pd

        return {name: pd.DataFrame(columns) for name, columns in report.tables.items()}

    def models(self) -> pd.DataFrame:
        """One row for each registered version, newest first."""
        import pandas as pd

        versions = wiring.registry().mlflow.versions()
        return pd.DataFrame([msgspec.to_builtins(version) for version in versions])

    def card(self, version: str) -> Any:
        """The model card of a version (NAME/NUMBER), as a notebook shows it."""
        from html import escape

        from IPython.display import HTML

        found = find(wiring.registry().mlflow.versions(), version)
        objects = wiring.objects(self.cloud.deployment)
        page = escape(objects.get(model_key(found.run, CARD)).decode())
        # In a frame, so that the page's style does not change the notebook's.
        style = "width:100%;height:700px;border:1px solid #ccc"
        return HTML(f'<iframe srcdoc="{page}" style="{style}"></iframe>')  # type: ignore[no-untyped-call]

    def approve(self, version: str, reason: str, *, override: bool = False) -> Rollout | None:
        """Approve a version; returns how its rollout ended. ``override``: though prechecks fail."""
        return _decide(self.cloud, version, "Approved", reason, override=override)

    def reject(self, version: str, reason: str) -> None:
        """Reject a version, for good."""
        _decide(self.cloud, version, "Rejected", reason)

    def close(self) -> None:
        """End the desk's own cloud, and restore the environment."""
        self._stack.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _decide(
    cloud: LocalCloud, version: str, approval: Approval, reason: str, *, override: bool = False
) -> Rollout | None:
    clients, registry = wiring.fleet_clients(), wiring.registry()
    return decide_on(cloud, clients, registry, version, approval, reason, override=override)[1]


def _print_round(record: RoundRecord) -> None:
    text = f"round {record.round}: {format_metrics(record)} ({record.participants} devices)"
    print(text)  # noqa: T201  # a notebook shows it
