"""A registered model: its evidence, its checks, the decision on it, its predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.keys import model_key
from pipelines.desk.access import Door
from pipelines.desk.decisions import decide_on
from pipelines.desk.notebook.frames import structs_frame
from pipelines.desk.notebook.show import FramedPage, box
from pipelines.errors import UsageError
from registry.approval import find
from registry.evidence.collect import CARD
from registry.model_version import Approval, Version
from registry.rollout.model import Rollout

if TYPE_CHECKING:
    import pandas as pd


class RegisteredModel:
    """A version of a model in both registries. It is read anew each time: decisions change it."""

    def __init__(self, door: Door, name: str) -> None:
        """``name``: a version number, NAME/NUMBER, or the model package's ARN."""
        self._door = door
        self._name = name

    @property
    def info(self) -> Version:
        """Its fields: approval, metric, value, run, digest, package and more.

        Raises:
            RegistryError: There is no such version.

        """
        return find(self._door.open().registry.mlflow.versions(), self._name)

    @property
    def name(self) -> str:
        """NAME/NUMBER."""
        return self.info.model_version

    @property
    def approval(self) -> str:
        """``PendingManualApproval``, ``Approved`` or ``Rejected``."""
        return self.info.approval

    @property
    def checks(self) -> pd.DataFrame:
        """The prechecks by the policy in force now: ``name``, ``passed``, ``message``."""
        found = self._door.open().registry.candidates.checks(self.info)
        return structs_frame(found, ["name", "passed", "message"])

    def card(self) -> FramedPage:
        """The model card, which an approver judges it by.

        Raises:
            UsageError: It was registered without one.

        """
        version = self.info
        try:
            page = self._door.open().objects.get(model_key(version.run, CARD)).decode()
        except ObjectMissing as error:
            raise UsageError(f"{version.model_version} was registered without a card.") from error
        return FramedPage(page)

    def approve(self, reason: str, *, override: bool = False) -> Rollout | None:
        """Approve it, which rolls it out to its fleet, a canary first.

        Args:
            reason: Why; kept in both registries and in the audit trail.
            override: Approve although prechecks fail.

        Returns:
            On a local cloud the rollout as it ended, on AWS as it began; None when it waits for
            another one.

        Raises:
            UsageError: Prechecks fail, or the reason is empty. Nothing was changed.
            RegistryError: Its state forbids it. Nothing was changed.

        """
        return decided(self._door, self._name, "Approved", reason, override=override)

    def reject(self, reason: str) -> None:
        """Reject it, for good. Raises what :meth:`approve` raises."""
        decided(self._door, self._name, "Rejected", reason)

    @property
    def example(self) -> Any:
        """The input example that its app gave; None without one."""
        import mlflow.pyfunc

        where = address_of(self.info, self._door.open().mlflow)
        return mlflow.pyfunc.load_model(where).input_example

    def predict(self, table: pd.DataFrame) -> Any:
        """What the model says to each row of a table, by the app's own ``predict``.

        Raises:
            UsageError: The model is not there, or its app has no ``predict``.

        """
        import mlflow.pyfunc

        where = address_of(self.info, self._door.open().mlflow)
        return mlflow.pyfunc.load_model(where).predict(table)

    def __repr__(self) -> str:
        return f"<Model {self._name}: {self.approval}>"

    def _repr_html_(self) -> str:
        version = self.info
        fields = {
            "metric": "" if version.value is None else f"{version.metric} {version.value:.4g}",
            "prechecks": version.checks,
            "champion": "yes" if version.champion else "",
            "rollout": version.rollout,
            "run": version.run,
            "model package": version.model_package_arn,
        }
        return box(version.model_version, version.approval, fields)


def decided(
    door: Door, name: str, approval: Approval, reason: str, *, override: bool = False
) -> Rollout | None:
    """Approve or reject a version: see :func:`pipelines.desk.decisions.decide_on`."""
    access = door.stay() if approval == "Approved" else door.open()
    return decide_on(
        access.cloud,
        access.fleet_clients,
        access.registry,
        name,
        approval,
        reason,
        override=override,
    )[1]


def address_of(version: Version, client: Any) -> str:
    """Where a version's MLflow model lies. Not ``models:/...``, which the environment would
    resolve. ``client``: an MlflowClient. Raises UsageError.
    """
    source = str(client.get_model_version(version.name, version.version).source or "")
    if source.startswith("models:/m-"):
        source = str(client.get_logged_model(source.removeprefix("models:/")).artifact_location)
    if not source:
        raise UsageError(f"{version.model_version} has no model in MLflow.")
    return source
