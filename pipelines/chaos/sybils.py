"""What share of Sybils each rule withstands: ``python -m pipelines.chaos.sybils``.

Prints the table of ``docs/reliability.md``. Fleets of 100 devices are made from seeds, and judged
by the rules that a run applies.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from fl_runtime.run.messages import DeviceResult
from fl_runtime.run.robust import robust_mean
from fl_runtime.server.grid.phase_policy import PhasePolicy
from fl_runtime.server.grid.review import Reviewer

DEVICES = 100
SEEDS = range(5)
ACCURACY, SPREAD = 0.6, 0.05
"""Mean and standard deviation of the honest devices' accuracies."""
LIES = [0.62 + step / 50 for step in range(25)]
"""Accuracies that Sybils agree on, when they stay near enough to be believed."""

Withstands = Callable[[int, int], bool]
"""Whether a rule withstands a number of Sybils, in the fleet of a seed."""


def metric_keys(sybils: int, seed: int) -> bool:
    """All Sybils report one metric more."""
    return _refuses_sybils(sybils, seed, metrics={"accuracy": 1.0, "mine": 1.0})


def weight_limit(sybils: int, seed: int) -> bool:
    """All Sybils report 1e12 examples."""
    return _refuses_sybils(sybils, seed, examples=1e12)


def norm_limit(sybils: int, seed: int) -> bool:
    """The updates of all Sybils change the model a million times as much."""
    return _refuses_sybils(sybils, seed, norm=1e6)


def large_lie(sybils: int, seed: int) -> bool:
    """All Sybils report an accuracy of 1e9."""
    return _moved(sybils, seed, 1e9) <= SPREAD


def best_lie(sybils: int, seed: int) -> bool:
    """All Sybils report the accuracy that moves the decision most."""
    return max(_moved(sybils, seed, lie) for lie in LIES) <= SPREAD


RULES: dict[str, Withstands] = {
    "metrics of the majority: Sybils report one more": metric_keys,
    "`--weight-limit`: Sybils report 1e12 examples": weight_limit,
    "norm of the change: Sybils change 1e6 times as much": norm_limit,
    "robust mean: Sybils report an accuracy of 1e9": large_lie,
    "robust mean: Sybils report the accuracy that moves the decision most": best_lie,
}


def withstood(rule: Withstands) -> int:
    """The largest number of Sybils that a rule withstands with every seed."""
    for sybils in range(1, DEVICES):
        if not all(rule(sybils, seed) for seed in SEEDS):
            return sybils - 1
    return DEVICES


def table() -> str:
    """The table of the documentation."""
    lines = ["| rule and lie | Sybils withstood, of 100 devices |", "|---|---|"]
    lines += [f"| {name} | {withstood(rule)} |" for name, rule in RULES.items()]
    return "\n".join(lines)


def _honest(sybils: int, seed: int) -> list[DeviceResult]:
    rng = random.Random(f"sybils {seed}")  # noqa: S311  # chance, not a secret
    return [
        _result(
            f"honest-{index}",
            examples=rng.uniform(10, 1000),
            norm=rng.uniform(0.5, 2.0),
            metrics={"accuracy": rng.gauss(ACCURACY, SPREAD)},
        )
        for index in range(DEVICES - sybils)
    ]


def _result(
    device: str,
    *,
    examples: float = 500.0,
    norm: float = 1.0,
    metrics: dict[str, float] | None = None,
) -> DeviceResult:
    return DeviceResult(
        device=device,
        node_id=0,
        message_id=device,
        status="ok",
        examples=examples,
        norm=norm,
        metrics=metrics or {"accuracy": ACCURACY},
    )


def _refuses_sybils(
    sybils: int,
    seed: int,
    *,
    examples: float = 500.0,
    norm: float = 1.0,
    metrics: dict[str, float] | None = None,
) -> bool:
    """Whether exactly the Sybils are refused."""
    lies = [
        _result(f"sybil-{index}", examples=examples, norm=norm, metrics=metrics)
        for index in range(sybils)
    ]
    policy = PhasePolicy(available=(), checked=True)
    judged = Reviewer("train", policy, 100.0).review([*_honest(sybils, seed), *lies])
    return all((item.status == "ok") == item.device.startswith("honest") for item in judged)


def _moved(sybils: int, seed: int, lie: float) -> float:
    """How far the decision moves from that of the honest devices alone."""
    honest = _honest(sybils, seed)
    values = [float(result.metrics["accuracy"]) for result in honest]
    weights = [result.examples for result in honest]
    # The count that weighs most: a Sybil reports as many as the limit allows.
    moved = robust_mean([*values, *[lie] * sybils], [*weights, *[50_000.0] * sybils])
    return abs(moved - robust_mean(values, weights))


if __name__ == "__main__":
    print(table())  # noqa: T201  # the command's output
