"""Metric filters, dashboard, alarms and the budget, as :mod:`pipelines.aws.metrics` lists them."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_budgets as budgets
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from aws_cdk import aws_stepfunctions as steps
from constructs import Construct

from fl_runtime.server.telemetry.log_events import NAMESPACE
from pipelines.aws.metrics import ALARMS, FILTERS, WIDGETS, Alarm, Filter, Widget, dimensions_of
from pipelines.aws.policies.roles import SAGEMAKER_FUNCTIONS
from pipelines.aws.stacks.stack import Stack
from pipelines.deployment import Deployment

GREATER = "GreaterThanOrEqualToThreshold"
BUDGET_PERCENT = 80


class Observability(Construct):
    """Dashboard, alarms, metric filters and the budget."""

    def __init__(
        self,
        scope: Stack,
        name: str,
        d: Deployment,
        key: kms.IKey,
        dead: sqs.Queue,
        machine: steps.CfnStateMachine,
    ) -> None:
        super().__init__(scope, name)
        self._d = d
        self._values = {"QueueName": dead.queue_name, "StateMachineArn": machine.ref}
        email = scope.parameter(
            "AlarmEmail", "Who is told of alarms; empty: nobody, they only show", default=""
        ).value_as_string
        budget = scope.parameter(
            "MonthlyBudget",
            "USD a month that a warning is sent for (at 80 percent, with AlarmEmail)",
            kind="Number",
            default=500,
        )
        told = cdk.CfnCondition(
            scope, "Told", expression=cdk.Fn.condition_not(cdk.Fn.condition_equals(email, ""))
        )
        topic = sns.Topic(
            self, "Topic", topic_name=f"{d.prefix}-alarms", master_key=key, enforce_ssl=True
        )
        # The policy that enforces TLS replaces the default, by which alarms could publish.
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="Alarms",
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": cdk.Aws.ACCOUNT_ID}},
            )
        )
        subscription = sns.CfnSubscription(
            self, "Subscription", topic_arn=topic.topic_arn, protocol="email", endpoint=email
        )
        subscription.cfn_options.condition = told
        add_filters(self, d, [f for f in FILTERS if f.group not in SAGEMAKER_FUNCTIONS])
        for alarm in ALARMS:
            self._alarm(alarm, topic)
        cloudwatch.CfnDashboard(
            self,
            "Dashboard",
            dashboard_name=d.prefix,
            dashboard_body=cdk.Stack.of(self).to_json_string(dashboard(d.region)),
        )
        self._budget(budget, email).cfn_options.condition = told

    def _alarm(self, alarm: Alarm, topic: sns.Topic) -> None:
        found = (
            [
                cloudwatch.CfnAlarm.DimensionProperty(
                    name=alarm.dimension, value=self._values[alarm.dimension]
                )
            ]
            if alarm.dimension
            else None
        )
        cloudwatch.CfnAlarm(
            self,
            f"Alarm-{alarm.name}",
            alarm_name=f"{self._d.prefix}-{alarm.name}",
            alarm_description=alarm.meaning,
            namespace=alarm.namespace,
            metric_name=alarm.metric,
            dimensions=found,
            statistic=alarm.statistic,
            period=alarm.minutes * 60,
            evaluation_periods=alarm.periods,
            threshold=alarm.threshold,
            comparison_operator=GREATER,
            treat_missing_data="notBreaching",
            alarm_actions=[topic.topic_arn],
            ok_actions=[topic.topic_arn],
        )

    def _budget(self, limit: cdk.CfnParameter, email: str) -> budgets.CfnBudget:
        return budgets.CfnBudget(
            self,
            "Budget",
            budget=budgets.CfnBudget.BudgetDataProperty(
                budget_name=self._d.prefix,
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=budgets.CfnBudget.SpendProperty(
                    amount=limit.value_as_number, unit="USD"
                ),
                cost_filters={"TagKeyValue": [f"user:mledgeops${self._d.prefix}"]},
            ),
            notifications_with_subscribers=[
                budgets.CfnBudget.NotificationWithSubscribersProperty(
                    notification=budgets.CfnBudget.NotificationProperty(
                        comparison_operator="GREATER_THAN",
                        notification_type="ACTUAL",
                        threshold=BUDGET_PERCENT,
                        threshold_type="PERCENTAGE",
                    ),
                    subscribers=[
                        budgets.CfnBudget.SubscriberProperty(
                            address=email, subscription_type="EMAIL"
                        )
                    ],
                )
            ],
        )


def add_filters(scope: Construct, d: Deployment, filters: list[Filter]) -> None:
    """The metric filters of one stack's log groups."""
    for item in filters:
        group = (
            d.log_group(item.group)
            if item.group in ("server", "proxy", "iot-errors")
            else d.function_log_group(item.group)
        )
        dimensions = [
            logs.CfnMetricFilter.DimensionProperty(key=key, value=value)
            for key, value in item.dimensions.items()
        ]
        made = logs.CfnMetricFilter(
            scope,
            f"Filter{item.metric}",
            log_group_name=group,
            filter_pattern=item.pattern,
            filter_name=item.metric,
            metric_transformations=[
                logs.CfnMetricFilter.MetricTransformationProperty(
                    metric_namespace=NAMESPACE,
                    metric_name=item.metric,
                    metric_value=item.value,
                    unit=item.unit,
                    dimensions=dimensions or None,
                )
            ],
        )
        made.node.add_dependency(
            *[
                child
                for child in cdk.Stack.of(scope).node.children
                if isinstance(child, logs.LogGroup)
            ]
        )


def dashboard(region: str) -> dict[str, Any]:
    """The dashboard's body, two graphs a row:
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
    """
    return {"widgets": [_graph(widget, index, region) for index, widget in enumerate(WIDGETS)]}


def _graph(widget: Widget, index: int, region: str) -> dict[str, Any]:
    metrics: list[Any] = []
    for position, (metric, statistic) in enumerate(widget.metrics):
        dimensions = dimensions_of(metric)
        if dimensions:
            schema = f"{{{NAMESPACE},{','.join(dimensions)}}}"
            search = f"SEARCH('{schema} MetricName=\"{metric}\"', '{statistic}', 300)"
            metrics.append(
                [
                    {
                        "expression": search,
                        "id": f"e{position}",
                        "label": f"{metric} ${{PROP('Dim.{dimensions[0]}')}}",
                    }
                ]
            )
        else:
            metrics.append([NAMESPACE, metric, {"stat": statistic}])
    properties = {
        "title": widget.title,
        "view": "timeSeries",
        "region": region,
        "period": 300,
        "metrics": metrics,
        "stacked": False,
    }
    if widget.unit:
        properties["yAxis"] = {"left": {"label": widget.unit, "showUnits": False}}
    return {
        "type": "metric",
        "x": 12 * (index % 2),
        "y": 6 * (index // 2),
        "width": 12,
        "height": 6,
        "properties": properties,
    }
