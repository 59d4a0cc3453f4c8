"""What a deployment costs a month while nothing runs: counted in the templates, at list prices.

Prices in USD for us-east-1, November 2026, without free tiers. Storage and what runs are paid by
use: :mod:`fl_runtime.run.cost` estimates rounds.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.aws.rehearsal.values import Place, Resource, Values
from pipelines.aws.stack_specs import StackSpec
from pipelines.deployment import Deployment

HOURS = 730.0
"""Of a month."""
MONTHLY = {
    "AWS::CloudWatch::Alarm": 0.10,  # https://aws.amazon.com/cloudwatch/pricing/
    "AWS::CloudWatch::Dashboard": 3.00,
    "AWS::KMS::Key": 1.00,  # https://aws.amazon.com/kms/pricing/
    "AWS::Route53::HostedZone": 0.50,  # https://aws.amazon.com/route53/pricing/
    "AWS::SageMaker::MlflowTrackingServer": 0.60
    * HOURS,  # Small: https://aws.amazon.com/sagemaker/pricing/
}
"""By resource type. A serverless MLflow app costs nothing by the hour."""
ENDPOINT_ZONE = 0.01 * HOURS
"""An interface endpoint in one zone: https://aws.amazon.com/privatelink/pricing/"""
DEVICE = 0.17
"""A device's heartbeats each 30 s, with their rule and table writes."""


@dataclass(frozen=True, kw_only=True)
class StandingCost:
    """What all resources of one type cost."""

    type: str
    count: int
    usd: float
    """A month."""


def standing_costs(
    d: Deployment, specs: Sequence[StackSpec], zones: tuple[str, ...] = ("a", "b")
) -> list[StandingCost]:
    """The types that cost by the hour or month, dearest first.

    Raises:
        DeployError: A template refers to something that no stack has.

    """
    place = Place(account=d.account, region=d.region, zones=zones)
    counts: Counter[str] = Counter()
    sums: defaultdict[str, float] = defaultdict(float)
    exports: dict[str, str] = {}
    for spec in specs:
        values = Values(spec.name, spec.template, spec.parameters, place, exports)
        for resource in values.resources():
            price = _price(resource)
            if price:
                counts[resource.type] += 1
                sums[resource.type] += price
        exports.update(values.exported())
    return [
        StandingCost(type=kind, count=counts[kind], usd=round(total, 2))
        for kind, total in sorted(sums.items(), key=lambda item: -item[1])
    ]


def costs_text(costs: Sequence[StandingCost]) -> str:
    """The sum, and what it consists of."""
    parts = [f"{item.count} {item.type.rpartition('::')[2]} {item.usd:.2f}" for item in costs]
    total = sum(item.usd for item in costs)
    return (
        f"about {total:.0f} USD a month at rest (list prices, us-east-1): {', '.join(parts)}; "
        f"{DEVICE} more for each device, and runs by use"
    )


def totals(costs: Sequence[StandingCost]) -> Mapping[str, float]:
    """The sum at rest, and what each device adds, for ``--json``."""
    return {"at_rest": round(sum(item.usd for item in costs), 2), "each_device": DEVICE}


def _price(resource: Resource) -> float:
    if resource.properties.get("VpcEndpointType") == "Interface":
        return ENDPOINT_ZONE * len(resource.properties["SubnetIds"])
    return MONTHLY.get(resource.type, 0.0)
