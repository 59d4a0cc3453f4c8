"""The model card: the evidence as an HTML page, and as SageMaker's ModelCard JSON."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from registry.evidence import charts
from registry.evidence.model import Evidence, in_words
from registry.evidence.prechecks import Check, failed

MODEL_CARD_LIMIT = 100_000
"""Characters of a package's ModelCardContent
(https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ModelPackageModelCard.html).
"""
_GROUPS_SHOWN = 25
_CURVES_SHOWN = 20
"""In SageMaker's card; the page shows all curves."""
_POINTS_SHOWN = 100
_PARAMETERS_SHOWN = 100
_COUNTS_SHOWN = 20
_CURVES_FIRST = ("evaluate.", "robust.", "server.", "train.")


def page(evidence: Evidence, checks: list[Check]) -> str:
    """One HTML document without external references. Names given by apps and devices are
    escaped.
    """
    from jinja2 import Environment

    template = Environment(autoescape=True, trim_blocks=True).from_string(
        Path(__file__).with_name("card.html.j2").read_text()
    )
    return template.render(
        e=evidence,
        checks=checks,
        number=_number,
        better=in_words,
        size=_size,
        registered=_moment(evidence.registered_at),
        refused=sum(evidence.participation.rejected.values()),
        lineage=[(name, value) for name, value in _lineage(evidence) if value],
        **_charts(evidence),
    )


def _charts(evidence: Evidence) -> dict[str, Any]:
    """The page's charts, by their names in the template."""
    from markupsafe import Markup

    compared, part = evidence.compared, evidence.participation
    groups = [
        (f"{group.kind} {group.name}", group.candidate, group.champion)
        for group in compared.groups[:_GROUPS_SHOWN]
    ]
    shifts = [(feature.feature, feature.shift) for feature in evidence.drift.features]
    curves = [
        (name, charts.lines([(float(x), y) for x, y in evidence.curves[name]]))
        for name in sorted(evidence.curves, key=lambda name: _rank(name, evidence.metric))
    ]
    return {
        "groups": Markup(charts.pairs(groups)),
        "distribution": Markup(charts.histogram(compared.distribution)),
        "curves": [(name, Markup(chart)) for name, chart in curves],
        "participation": Markup(charts.columns(part.by_round, part.wanted_by_round)),
        "failures": Markup(charts.bars(_most_first(part.failures))),
        "rejected": Markup(charts.bars(_most_first(part.rejected))),
        "drift": Markup(charts.bars(shifts, limit=1.0)),
    }


def model_card(evidence: Evidence, checks: list[Check], page_uri: str) -> dict[str, Any]:
    """The model card document of a SageMaker model package, with the page's address. Texts are cut
    to the lengths that the schema allows. That of packages is the simpler one, whose overview has
    two properties:
    https://docs.aws.amazon.com/sagemaker/latest/dg/model-registry-details.html#model-card-schema
    """
    lineage = evidence.lineage
    details = [
        ("description", evidence.description or evidence.model_version),
        ("algorithm", f"Federated learning, {lineage.strategy}"),
        ("problem", f"{evidence.goal} {evidence.metric}"),
        *_lineage(evidence),
    ]
    return {
        "model_overview": {"model_artifact": [lineage.model_data]},
        "intended_uses": {
            "intended_uses": (evidence.intended_use or "Not stated by the app.")[:2048],
            "risk_rating": "Unknown",
        },
        "training_details": _training(evidence),
        "evaluation_details": [_evaluation(evidence, checks, page_uri)],
        "additional_information": {
            "caveats_and_recommendations": f"Licence: {evidence.licence or 'not stated'}."[:2048],
            "custom_details": {name: value[:255] for name, value in details if value},
        },
    }


def _training(evidence: Evidence) -> dict[str, Any]:
    part, lineage = evidence.participation, evidence.lineage
    parameters = sorted(lineage.parameters.items())[:_PARAMETERS_SHOWN]
    objective = {"function": evidence.goal.capitalize(), "condition": evidence.metric[:512]}
    return {
        "objective_function": {"function": objective},
        "training_observations": (
            f"{part.ever} of {part.devices} devices of fleet {evidence.fleet} took part; "
            "their data stayed on them."
        ),
        "training_job_details": {
            "training_arn": lineage.pipeline_execution_arn,
            "user_provided_hyper_parameters": [
                {"name": name[:255], "value": value[:255]} for name, value in parameters
            ],
        },
    }


def _evaluation(evidence: Evidence, checks: list[Check], page_uri: str) -> dict[str, Any]:
    compared = evidence.compared
    said = failed(checks) or f"All {len(checks)} prechecks pass."
    groups = [{"name": "devices", "metric_data": _numbers(evidence)}]
    if compared.groups:
        rows = [(f"{g.kind} {g.name}", g.candidate) for g in compared.groups[:_GROUPS_SHOWN]]
        chart = _bars(f"{evidence.metric} by group", rows)
        groups.append({"name": "groups", "metric_data": [chart]})
    curves = sorted(evidence.curves.items())[:_CURVES_SHOWN]
    groups.append(
        {"name": "rounds", "metric_data": [_graph(name, points) for name, points in curves]}
    )
    return {
        "name": "Federated evaluation on the devices",
        "evaluation_observation": said[:2096],
        "metric_groups": groups,
        "metadata": {"evidence": page_uri, "champion": compared.champion or "none"},
    }


def _numbers(evidence: Evidence) -> list[dict[str, Any]]:
    compared = evidence.compared
    values = [
        (evidence.metric, evidence.value),
        (f"{evidence.metric} (robust)", compared.candidate_robust),
        ("champion", compared.champion_value),
        ("champion (robust)", compared.champion_robust),
        ("devices better off", compared.better_on),
        ("drift", evidence.drift.score),
        ("participants", evidence.participation.ever),
    ]
    return [
        {"name": name[:255], "type": "number", "value": value}
        for name, value in values
        if value is not None
    ]


def _graph(name: str, points: list[tuple[int, float]]) -> dict[str, Any]:
    some = points[:: max(1, len(points) // _POINTS_SHOWN)]
    return {
        "name": name[:255],
        "type": "linear_graph",
        "value": [[x, y] for x, y in some],
        "x_axis_name": "round",
        "y_axis_name": name[:255],
    }


def _bars(name: str, rows: list[tuple[str, float]]) -> dict[str, Any]:
    return {
        "name": name[:255],
        "type": "bar_chart",
        "x_axis_name": [row for row, _ in rows],
        "value": [value for _, value in rows],
    }


def _lineage(evidence: Evidence) -> list[tuple[str, str]]:
    lineage = evidence.lineage
    return [
        ("model version", evidence.model_version),
        ("model package", lineage.model_package_arn),
        ("weights SHA-256", lineage.model_digest),
        ("model data", lineage.model_data),
        ("pipeline execution", lineage.pipeline_execution_arn),
        ("state machine", lineage.execution_arn),
        ("run", lineage.run),
        ("continues run", lineage.resumed_from),
        ("MLflow run", lineage.mlflow_run_id),
        ("app", f"{lineage.app} {lineage.app_version}"),
        ("app SHA-256", lineage.app_digest),
        ("strategy", lineage.strategy),
        ("seed", str(lineage.seed)),
        *((f"parameter {name}", value) for name, value in sorted(lineage.parameters.items())),
    ]


def _most_first(counts: dict[str, int]) -> list[tuple[str, float]]:
    return sorted(
        ((name, float(count)) for name, count in counts.items()), key=lambda row: -row[1]
    )[:_COUNTS_SHOWN]


def _rank(name: str, metric: str) -> tuple[bool, int, str]:
    """Sorts curves: those of the metric that the version is judged by first, then by group."""
    group = next(
        (index for index, prefix in enumerate(_CURVES_FIRST) if name.startswith(prefix)),
        len(_CURVES_FIRST),
    )
    return not name.endswith(f".{metric}"), group, name


def _number(value: float) -> str:
    whole = float(value).is_integer() or abs(value) >= 1000
    return f"{value:,.0f}" if whole and abs(value) < 1e15 else f"{value:.4g}"


def _size(count: int) -> str:
    value, units = float(count), iter(("B", "KiB", "MiB", "GiB"))
    unit = next(units)
    while value >= 1024 and (larger := next(units, "")):
        value, unit = value / 1024, larger
    return f"{value:.3g} {unit}"


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
