"""What is known of a run that has ended: what ``mledgeops run --json`` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from edge.typed import from_json
from fl_runtime.run.aws import S3Objects
from fl_runtime.run.keys import model_key, rounds_prefix
from fl_runtime.run.mlflow_runs import NOT_BETTER
from fl_runtime.run.records import RoundRecord
from fl_runtime.run.scoring import NOT_JUDGED
from fl_runtime.run.state import RunState
from pipelines.run.executions import Snapshot
from pipelines.run.names import package_group
from pipelines.run.option import NOT_GIVEN


class RunReport(msgspec.Struct, kw_only=True):
    """How a run ended, and what came of it."""

    run_id: str = ""
    status: str = "Failed"
    """``Succeeded``, ``NotBetter``, ``Failed`` or ``Stopped``."""
    reason: str = ""
    """Why it did not succeed, in one sentence."""
    app: str = ""
    devices: int = 0
    outcome: str = ""
    """``model``, or ``analysis`` of a run without one. Empty: it did not end by itself."""
    rounds: list[RoundRecord] = []
    tables: dict[str, dict[str, list[Any]]] = {}
    """Tables that the app made, by name: columns of equal length."""
    files: dict[str, str] = {}
    """Files that the app's ServerApp wrote, by path: their keys in S3."""
    seconds: float = 0.0
    metric: str = ""
    value: float | None = None
    ended: str = ""
    """Why it ended before its last round."""
    mlflow_run_id: str = ""
    model_version: str = ""
    """NAME/NUMBER in MLflow."""
    model_package_arn: str = ""
    approval: str = ""
    execution_arn: str = ""
    pipeline_execution_arn: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain values. Empty reasons and the rounds' device rows, which MLflow has, are left
        out.
        """
        values: dict[str, Any] = msgspec.to_builtins(self)
        for record in values["rounds"]:
            del record["devices"]
        for name in ("reason", "ended"):
            if not values[name]:
                del values[name]
        return values


def finished_rounds(objects: S3Objects, run: str, after: int = 0) -> Iterator[RoundRecord]:
    """Records of a run's finished rounds above a number, in order."""
    for key in objects.keys(rounds_prefix(run)):  # not a dict
        if int(_stem(key)) > after:
            yield from_json(objects.get(key), type=RoundRecord)


def report_of(
    snapshot: Snapshot, app: str, devices: int, objects: S3Objects, state: RunState | None
) -> RunReport:
    """The report of an execution that has ended. ``state``: the run's item, if there is one."""
    run, outputs, version = snapshot.run, snapshot.outputs, snapshot.version
    metric = outputs.get("metric", NOT_JUDGED).removeprefix(NOT_JUDGED)
    return RunReport(
        run_id=run,
        status=_status(snapshot),
        reason=snapshot.reason,
        app=app,
        devices=devices,
        rounds=list(finished_rounds(objects, run)) if run else [],
        outcome=outputs.get("outcome", ""),
        tables=_tables(objects, run) if run else {},
        files=_files(objects, run) if run else {},
        metric=metric,
        value=float(outputs["value"]) if metric else None,
        ended=outputs.get("ended", NOT_GIVEN).removeprefix(NOT_GIVEN),
        mlflow_run_id=outputs.get("mlflow_run_id") or (state.mlflow_run_id if state else ""),
        model_version=f"{package_group(app)}/{version}" if version else "",
        model_package_arn=snapshot.model_package_arn,
        execution_arn=outputs.get("execution_arn") or (state.execution_arn if state else ""),
    )


def _status(snapshot: Snapshot) -> str:
    if snapshot.is_not_better:
        return NOT_BETTER
    return snapshot.status if snapshot.status in ("Succeeded", "Stopped") else "Failed"


def _tables(objects: S3Objects, run: str) -> dict[str, dict[str, list[Any]]]:
    return {
        _stem(key): msgspec.json.decode(objects.get(key))
        for key in objects.keys(model_key(run, "tables/"))  # not a dict
    }


def _files(objects: S3Objects, run: str) -> dict[str, str]:
    prefix = model_key(run, "files/")
    return {key.removeprefix(prefix): key for key in objects.keys(prefix)}  # not a dict


def _stem(key: str) -> str:
    return key.rsplit("/", 1)[1].removesuffix(".json")
