"""Commands with what they call replaced by small fakes: dashboard, components, decisions, lists."""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.paths import APPS

from edge.greengrass.recipe import NOBODY
from edge.training.app_bundle import load_app
from pipelines.cli.commands.operate import component, component_files, destroy, enrolment
from pipelines.cli.commands.operate.dashboard import read_graphs, resolve
from pipelines.cli.commands.operate.dashboard_page import Graph, draw, page_text
from pipelines.cli.commands.registry import audit, decisions, rollout
from pipelines.cli.commands.runs import run
from pipelines.cli.options import declare
from pipelines.deployment import Deployment
from pipelines.errors import UsageError

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
SEARCH = "SEARCH('{N,app} MetricName=\"Loss\"', 'Average', 60)"


class CloudWatch:
    """A dashboard with a plain metric and a search."""

    def get_dashboard(self, DashboardName: str) -> dict:
        widgets = [
            {"properties": {"title": "Rounds", "metrics": [["N", "Rounds", {"stat": "Sum"}]]}},
            {"properties": {"title": "Loss", "metrics": [[{"expression": SEARCH}]]}},
        ]
        return {"DashboardBody": json.dumps({"widgets": widgets, "name": DashboardName})}

    def get_metric_data(self, MetricDataQueries: list[dict], **_: Any) -> dict:
        stat = MetricDataQueries[0]["MetricStat"]["Stat"]
        values = {"Sum": [2.0, 1.0], "Average": []}[stat]
        times = [NOW, NOW - datetime.timedelta(minutes=1)][: len(values)]
        return {"MetricDataResults": [{"Timestamps": times, "Values": values}]}

    def get_paginator(self, _: str) -> CloudWatch:
        return self

    def paginate(self, **_: str) -> list[dict]:
        def metric(**dimensions: str) -> dict:
            named = [{"Name": name, "Value": value} for name, value in dimensions.items()]
            return {"Dimensions": named}

        return [{"Metrics": [metric(app="digits"), metric(other="x"), metric(app="a", x="b")]}]


def test_a_dashboard_is_read_with_its_searches_resolved() -> None:
    rounds, loss = read_graphs(CloudWatch(), "mledgeops", 3)
    assert [value for _, value in rounds.series[0][1]] == [1.0, 2.0], "in the order of time"
    assert [label for label, _ in loss.series] == ["Loss digits"]
    with pytest.raises(UsageError, match="cannot be drawn here"):
        list(resolve(CloudWatch(), [{"expression": "ABS(m1)"}]))


def test_the_page_has_raised_alarms_first_and_escapes_names() -> None:
    alarms = [
        {"AlarmName": "fine", "StateValue": "OK"},
        {"AlarmName": "<loud>", "StateValue": "ALARM", "AlarmDescription": "a & b"},
    ]
    text = page_text("mledgeops", alarms, [Graph(title="T", series=[("l", [])], unit="")])
    assert text.index("&lt;loud&gt;") < text.index("fine")
    assert "a &amp; b" in text
    assert "<script" not in text


def test_a_graph_is_drawn_as_svg() -> None:
    points = [(NOW, 1.0), (NOW + datetime.timedelta(minutes=1), 2.0)]
    svg = draw(Graph(title="Loss", series=[("a", points)], unit="s"), [at for at, _ in points])
    assert svg.startswith("<svg")


def test_an_apps_component_has_its_bundle_and_only_its_own_dependencies(tmp_path: Path) -> None:
    app = load_app(APPS / "digits")
    target = component_files.ComponentTarget(
        version="1.0.0", architecture="ARM64", place="s3://b/components", out=tmp_path / "out"
    )
    own = component_files.own_dependencies(app)
    assert not [text for text in own if text.startswith(("flwr", "numpy"))]
    if not own:
        written = component_files.write_app(target, app)
        assert written.artifacts == [tmp_path / "out" / f"{app.digest()}.zip"]
        assert json.loads(written.file.read_bytes())["ComponentVersion"] == "1.0.0"
    assert NOBODY.commands == []
    assert component.AGENT == "agent"


class Stacks:
    """CloudFormation with one stack left, a resource a page."""

    class exceptions:  # as boto3 names it
        class ClientError(Exception):
            pass

    def get_paginator(self, name: str) -> Stacks:
        assert name == "list_stack_resources"  # describe_stack_resources ends at a hundred
        return self

    def paginate(self, StackName: str) -> Iterator[dict]:
        if not StackName.endswith("-base"):
            raise self.exceptions.ClientError
        for name, kind in [("Topic", "AWS::SNS::Topic"), ("Bucket", "AWS::S3::Bucket")]:
            resource = {"LogicalResourceId": name, "ResourceType": kind, "PhysicalResourceId": "x"}
            yield {"StackResourceSummaries": [resource]}


def test_what_outlives_a_stack_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    resources = {"Bucket": {"DeletionPolicy": "Retain"}, "Topic": {}}
    spec = SimpleNamespace(template={"Resources": resources})
    monkeypatch.setattr(destroy, "specs", lambda *_: [spec] * 3)
    kept = destroy._retained(Deployment(account="1", region="r"), Stacks())
    assert kept == ["AWS::S3::Bucket x"]


def test_a_rollback_needs_a_name_where_several_models_have_a_champion() -> None:
    versions = [SimpleNamespace(name=name, champion=True) for name in ("a", "b")]
    with pytest.raises(UsageError, match=r"Several models have a champion \(a, b\)"):
        decisions._target(versions, "")  # type: ignore[arg-type]


def parsed(module: Any, *arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module.add_parser(parser.add_subparsers(dest="command"))
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        (audit, ["audit"]),
        (rollout, ["rollout"]),
        (decisions, ["approve", "1", "--reason", "x"]),
        (enrolment, ["devices", "retire"]),
        (run, ["run", "app"]),
    ],
)
def test_commands_take_a_cloud_and_json(module: Any, arguments: list[str]) -> None:
    given = parsed(module, *arguments, "--cloud", "aws", "--json")
    assert (given.cloud, given.json) == ("aws", True)
    assert callable(given.function)
    assert parsed(module, *arguments).cloud == ""


def test_a_command_without_a_cloud_of_choice_has_no_such_option() -> None:
    parser = argparse.ArgumentParser()
    declare(parser, lambda _: 0, cloud=False)
    with pytest.raises(SystemExit):
        parser.parse_args(["--cloud", "aws"])
