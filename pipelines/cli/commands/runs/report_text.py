"""A run's rounds and its report as text."""

from __future__ import annotations

import collections

from fl_runtime.run.records import RoundRecord, format_metrics
from pipelines.cli.output import table
from pipelines.run.report import RunReport

REASONS = 2
"""Reasons of failures that are shown with a round; `mledgeops show` lists all."""


def round_text(record: RoundRecord) -> str:
    """A finished round in one line."""
    seconds = record.seconds
    took = f"{seconds.total:.1f} s, overhead {seconds.overhead:.2f} s"
    failures = f"  failures {dict(record.failures)}" if record.failures else ""
    metrics = format_metrics(record)
    text = f"round {record.round}: {metrics}  ({record.participants} devices, {took}){failures}"
    return "\n".join([text, *_reasons(record)])


def _reasons(record: RoundRecord) -> list[str]:
    """What devices said of the most frequent failures, each with how many said so."""
    failed = [(row.kind, row.reason) for row in record.devices if row.status == "error"]
    counted = collections.Counter(row for row in failed if row[1]).most_common(REASONS)
    return [f"  {kind}: {reason} ({count} devices)" for (kind, reason), count in counted]


def report_text(report: RunReport) -> str:
    """How a run ended: the app's tables, then the outcome and the names of what was made."""
    tables = [
        f"\n{name}\n{table(list(columns), list(zip(*columns.values(), strict=True)))}"
        for name, columns in report.tables.items()
    ]
    files = [f"\nfiles: {', '.join(report.files)}"] if report.files else []
    return "\n".join([*tables, *files, "", _outcome_text(report)])


def _outcome_text(report: RunReport) -> str:
    if report.status != "Succeeded":
        return _unmade_text(report)
    return _made_text(report) if report.model_version else _analysis_text(report)


def _analysis_text(report: RunReport) -> str:
    """Outcome of a run that sent its devices no model."""
    return "\n".join(
        [
            f"Succeeded in {report.seconds:.0f} s: an analysis of {len(report.rounds)} rounds",
            f"  run         {report.run_id}",
            f"  MLflow run  {report.mlflow_run_id}",
            "",
            f"look at it with: mledgeops show {report.run_id}",
        ]
    )


def _unmade_text(report: RunReport) -> str:
    """Outcome of a run without a registered model."""
    logs = f"\nlogs: mledgeops logs {report.run_id}" if report.run_id else ""
    return f"{report.status}: {report.reason}{logs}"


def _made_text(report: RunReport) -> str:
    judged = "not judged" if report.value is None else f"{report.metric} {report.value:.4g}"
    early = f"; {report.ended}" if report.ended else ""
    rows = {
        "run": report.run_id,
        "MLflow run": report.mlflow_run_id,
        "model version": report.model_version,
        "model package": report.model_package_arn,
        "approval": report.approval,
        "pipeline execution": report.pipeline_execution_arn,
        "state machine execution": report.execution_arn,
    }
    width = max(map(len, rows))
    return "\n".join(
        [
            f"Succeeded in {report.seconds:.0f} s: {judged}{early}",
            *(f"  {name.ljust(width)}  {text}" for name, text in rows.items()),
            "",
            f"look at it with: mledgeops card {report.model_version}",
            f'approve it with: mledgeops approve {report.model_version} --reason "..."',
        ]
    )
