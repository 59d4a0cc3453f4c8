"""Phase requests to cohorts, from one phase's messages and policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
from flwr.app import Message

from edge.protocol.orders import Grant, content_digest
from fl_runtime.run.cohorts import Cohort, Member, flower_run_id
from fl_runtime.run.concurrency import Concurrency
from fl_runtime.run.messages import EXAMPLES, OrderKey, OtherContent, PhaseRequest, Target
from fl_runtime.run.metric_rules import MetricRules
from fl_runtime.run.order_keys import new_key_pair, order_key
from fl_runtime.run.ports import Clock
from fl_runtime.run.records import PhaseStats
from fl_runtime.run.signing import Signer
from fl_runtime.run.spec import RunSpec
from fl_runtime.server.grid.contents import PhaseContents
from fl_runtime.server.grid.phase_policy import Expectation, PhasePolicy
from fl_runtime.server.grid.weights import PhaseContent

NORM_FACTOR = 10.0
"""An update is an outlier when its change is this many times as large as usual."""
FOLDED_KINDS = ("train", "evaluate")
"""Message types that cohorts may fold; a suffixed type (``train.my_function``) is the app's own."""
UNCHECKED_LIMIT_BYTES = 2**31
GRANT_MARGIN_SECONDS = 300.0
"""How far the clocks of a server and its proxies may differ. AWS refuses requests with more:
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
"""
PARALLEL_GRANTS = 8
"""KMS takes about 10 ms for a signature."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase about to be sent."""

    stats: PhaseStats
    contents: PhaseContents
    messages: Mapping[int, Message]
    """By node id, each with its message id."""
    policy: PhasePolicy
    seconds: float
    """The time that devices have."""


class RequestBuilder:
    """Builds and signs the phase requests of one run."""

    def __init__(
        self,
        spec: RunSpec,
        cohorts: Sequence[Cohort],
        signer: Signer,
        now: Clock,
        concurrency: Concurrency,
        rules: MetricRules,
    ) -> None:
        self._spec = spec
        self._rules = rules
        self._cohorts = cohorts
        self._sign = signer
        self._now = now
        self._concurrency = concurrency
        self._run_config = msgspec.json.encode(spec.run_config).decode()

    def build(self, phase: Phase) -> list[PhaseRequest]:
        """One request for each cohort that has a device to ask, with a key for each content that
        the cohort's devices get.
        """
        asked = [cohort for cohort in self._cohorts if _asked(cohort, phase)]
        wanted = [(cohort, at) for cohort in asked for at in _contents_of(cohort, phase)]

        def key(of: tuple[Cohort, int]) -> tuple[str, int, OrderKey]:
            cohort, at = of
            return cohort.cohort, at, self._key(phase, cohort, phase.contents.different[at])

        keys: dict[str, dict[int, OrderKey]] = {cohort.cohort: {} for cohort in asked}
        for name, at, made in self._concurrency.each(key, wanted, PARALLEL_GRANTS):
            keys[name][at] = made
        requests = [self._request(phase, cohort, keys[cohort.cohort]) for cohort in asked]
        return sorted(requests, key=lambda request: request.cohort)

    def _key(self, phase: Phase, cohort: Cohort, content: PhaseContent) -> OrderKey:
        """A new key for one cohort, and the grant that says what it is good for."""
        private, public = new_key_pair()
        grant = Grant(
            run=self._spec.run,
            phase=phase.stats.phase,
            kind=phase.stats.kind,
            fleet=self._spec.fleet,
            cohort=cohort.cohort,
            app=self._spec.app,
            arrays=content.arrays_digest,
            content=content_digest(content.skeleton, self._run_config),
            key=public,
            expires=int((self._now() + phase.seconds + GRANT_MARGIN_SECONDS) * 1000),
        )
        return order_key(grant, private, self._sign)

    def _request(self, phase: Phase, cohort: Cohort, keys: dict[int, OrderKey]) -> PhaseRequest:
        policy, stats, contents = phase.policy, phase.stats, phase.contents
        first, *others = _contents_of(cohort, phase)
        targets = self._targets(cohort, phase, [first, *others])
        # Updates can be measured and averaged only against one model that all devices got.
        same = contents.arrays is not None
        any_shape = stats.kind in policy.any_shape
        expected = policy.expected.get(stats.kind, Expectation())
        wanted = sum(target.node_id not in policy.over_selected for target in targets)
        return PhaseRequest(
            run=self._spec.run,
            fleet=self._spec.fleet,
            cohort=cohort.cohort,
            phase=stats.phase,
            server_round=stats.server_round,
            kind=stats.kind,
            app=self._spec.app,
            targets=targets,
            content=contents.different[first].skeleton,
            arrays=contents.different[first].arrays,
            seconds=phase.seconds,
            flower_run_id=flower_run_id(self._spec.run),
            run_config=self._run_config,
            key=keys[first],
            others=[
                OtherContent(
                    contents.different[at].skeleton, contents.different[at].arrays, keys[at]
                )
                for at in others
            ],
            fold=policy.fold_by is not None and stats.kind in FOLDED_KINDS,
            weighted_by=policy.fold_by or EXAMPLES,
            specs=contents.specs if policy.checked and not any_shape else None,
            size_limit=_size_limit(contents, policy, any_shape=any_shape),
            any_shape=any_shape,
            any_metrics=stats.kind in policy.any_metrics,
            checked=policy.checked,
            # 0: wait for all. A cohort without over-selected devices has nothing to end early.
            enough=wanted if wanted < len(targets) else 0,
            norm_limit=policy.norm_limit if same else 0.0,
            norm_factor=NORM_FACTOR if same else 0.0,
            layout=expected.layout,
            metric_names=self._rules.names.get(stats.kind),
            ranges=dict(self._rules.ranges),
        )

    def _targets(self, cohort: Cohort, phase: Phase, order: list[int]) -> list[Target]:
        expected = phase.policy.expected.get(phase.stats.kind, Expectation())
        usual = expected.median_examples
        return [
            Target(
                member.device,
                member.node_id,
                phase.messages[member.node_id].metadata.message_id,
                weight_limit(self._spec.weight_limit, usual, expected.examples.get(member.device)),
                order.index(phase.contents.by_node[member.node_id]),
                phase.messages[member.node_id].metadata.group_id,
            )
            for member in _asked(cohort, phase)
        ]


def _asked(cohort: Cohort, phase: Phase) -> list[Member]:
    return [member for member in cohort.members if member.node_id in phase.messages]


def _contents_of(cohort: Cohort, phase: Phase) -> list[int]:
    """Indices of the contents that the cohort's devices get."""
    return sorted({phase.contents.by_node[member.node_id] for member in _asked(cohort, phase)})


def weight_limit(factor: float, median: float, own: float | None) -> float:
    """Largest example count that counts; 0: any.

    Args:
        factor: The run's ``weight_limit``.
        median: Of the example counts of all devices; 0: not known.
        own: The device's largest count in earlier rounds.

    """
    known = [count for count in (median, own or 0.0) if count > 0]
    return factor * min(known) if known else 0.0


def _size_limit(contents: PhaseContents, policy: PhasePolicy, *, any_shape: bool) -> int:
    """Bytes of an update: twice the model and 1 MiB where it must have the model's layout."""
    if contents.largest is None or not policy.checked:
        return UNCHECKED_LIMIT_BYTES
    if any_shape:
        return min(contents.largest * 8 + 2**26, UNCHECKED_LIMIT_BYTES)
    return contents.largest * 2 + 2**20
