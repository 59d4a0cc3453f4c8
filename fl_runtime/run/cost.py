"""What a round costs, estimated from list prices: good for a budget, no substitute for the bill.

Prices in USD for us-east-1, on demand, ARM, November 2026:
https://aws.amazon.com/fargate/pricing/, https://aws.amazon.com/iot-core/pricing/,
https://aws.amazon.com/s3/pricing/, https://aws.amazon.com/dynamodb/pricing/on-demand/.
"""

from __future__ import annotations

from dataclasses import dataclass

VCPU_HOUR = 0.03238
GB_HOUR = 0.00356
SPOT_SHARE = 0.3
"""Price of a Spot task as a share of the price on demand, roughly."""
SERVER = (2.0, 8.0)
PROXY = (0.25, 0.5)
"""vCPU and GB of a task. A test compares them with the task definitions."""
MESSAGE = 1.0e-6
"""A message of up to 5 KB through AWS IoT. The action of a rule costs as much."""
S3_PUT, S3_GET = 5.0e-6, 4.0e-7
DYNAMODB_WRITE, DYNAMODB_READ = 6.25e-7, 1.25e-7
POLLS_PER_SECOND = 2.0
"""Reads of the replies table by each cohort while it waits."""


@dataclass(frozen=True, kw_only=True)
class Topology:
    """The tasks of a run beside its server."""

    proxies: int
    """0: the server hosts the cohorts itself."""


def tasks_cost_per_second(topology: Topology) -> float:
    """USD per second for the server and its proxies, which run on Spot."""
    server = SERVER[0] * VCPU_HOUR + SERVER[1] * GB_HOUR
    proxy = (PROXY[0] * VCPU_HOUR + PROXY[1] * GB_HOUR) * SPOT_SHARE
    return (server + topology.proxies * proxy) / 3600


def round_cost(topology: Topology, seconds: float, phases: int) -> float:
    """USD for a round of ``seconds``. ``phases`` is the number of phases summed over all devices;
    each takes one command, one reply, one upload and two downloads.
    """
    # Command and reply, each a message and a rule's action or a publish through the API.
    messages = phases * (2 * MESSAGE + 2 * MESSAGE)
    storage = (
        phases * (S3_PUT + 2 * S3_GET + DYNAMODB_WRITE)
        + seconds * POLLS_PER_SECOND * max(1, topology.proxies) * DYNAMODB_READ
    )
    return seconds * tasks_cost_per_second(topology) + messages + storage
