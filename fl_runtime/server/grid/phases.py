"""Carries out phases: uploads a message's content once, asks all cohorts, gathers the replies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

from flwr.app import Message

from fl_runtime.cohort.kept import KeptUpdates
from fl_runtime.run.cohorts import Cohort
from fl_runtime.run.concurrency import THREADS, Concurrency
from fl_runtime.run.keys import phase_id
from fl_runtime.run.messages import DeviceResult, PhaseRequest
from fl_runtime.run.metric_rules import MetricRules
from fl_runtime.run.ports import Clock, ObjectStore
from fl_runtime.run.records import PhaseStats
from fl_runtime.run.signing import Signer
from fl_runtime.run.spec import RunSpec
from fl_runtime.server.grid.cohort_means import CohortMean
from fl_runtime.server.grid.contents import PhaseContents, round_of, upload_contents
from fl_runtime.server.grid.fan_out import CohortBackend
from fl_runtime.server.grid.flower_compat import name_message
from fl_runtime.server.grid.gather import gather, results_of
from fl_runtime.server.grid.phase_policy import PhasePolicy
from fl_runtime.server.grid.replies import PhaseReplies
from fl_runtime.server.grid.requests import Phase, RequestBuilder
from fl_runtime.server.grid.review import Reviewer
from fl_runtime.server.grid.weights import WeightStore


class PhaseExecutor:
    """Executes the phases of one run and keeps their statistics until they are taken."""

    def __init__(
        self,
        spec: RunSpec,
        cohorts: Sequence[Cohort],
        backend: CohortBackend,
        objects: ObjectStore,
        *,
        clock: Clock,
        signer: Signer,
        concurrency: Concurrency = THREADS,
        now: Clock = time.time,
        rules: MetricRules | None = None,
        kept: KeptUpdates | None = None,
    ) -> None:
        """``kept``: the updates that cohorts in this process have read, if there are any."""
        self._kept = kept
        self.spec = spec
        self.cohorts = cohorts
        self.members = tuple(member for cohort in cohorts for member in cohort.members)
        self.weights = WeightStore(objects, spec.run)
        self.concurrency = concurrency
        self.stats: list[PhaseStats] = []
        """Of the phases since :meth:`take_stats` was called."""
        self._device_names = {member.node_id: member.device for member in self.members}
        self._backend = backend
        self._objects = objects
        self._clock = clock
        self._requests = RequestBuilder(
            spec, cohorts, signer, now, concurrency, rules or MetricRules()
        )
        self._sequence = 0
        self._lock = threading.Lock()

    @property
    def sequence(self) -> int:
        """Number of phases so far. It is part of their names."""
        return self._sequence

    def resume_at(self, sequence: int) -> None:
        """Name the next phases as the server before would have named them.

        Devices that have answered such a phase send their answer again and do not train twice.
        """
        self._sequence = sequence

    def device(self, node_id: int) -> str:
        """The device behind a Flower node id."""
        return self._device_names[node_id]

    def take_stats(self) -> list[PhaseStats]:
        """The statistics of the phases since the last call."""
        taken, self.stats = self.stats, []
        return taken

    def begin(self, messages: Sequence[Message], policy: PhasePolicy, seconds: float) -> Phase:
        """Name the messages of one phase and upload what they carry; nothing is sent yet.

        They are of one kind, and each goes to another device.
        """
        contents = upload_contents(messages, self.weights)
        stats = self._stats_of(messages, contents)
        by_node = {message.metadata.dst_node_id: message for message in messages}
        for node_id, message in by_node.items():
            name_message(message, f"{self.spec.run}.{stats.phase}.{self.device(node_id)}")
        return Phase(
            stats=stats, contents=contents, messages=by_node, policy=policy, seconds=seconds
        )

    def carry_out(
        self, phase: Phase, on_reply: Callable[[Message], None] | None = None
    ) -> list[Message]:
        """Send a phase's messages, and return the replies ordered by node id.

        A device that stays silent for the phase's time gives an error reply. ``on_reply`` gets each
        reply as soon as it is final: at once where they are neither judged nor folded.
        """
        stats = phase.stats
        requests = self._requests.build(phase)
        reader = PhaseReplies(self._objects, phase.messages, stats, self._kept)
        started, replies = self._clock(), []
        for item, request in self._events(requests, phase):
            reply = reader.read(item, request)
            if reply is not None:
                replies.append(reply)
                if on_reply is not None:
                    on_reply(reply)
        stats.seconds = self._clock() - started
        # A run's records, too, must not depend on who answered first.
        stats.results.sort(key=lambda result: result.device)
        self.stats.append(stats)
        # A sum of floats depends on its order: sorted, a run's result does not depend on who
        # answered first.
        return sorted(replies, key=lambda reply: reply.metadata.src_node_id)

    def _events(
        self, requests: Sequence[PhaseRequest], phase: Phase
    ) -> Iterator[tuple[DeviceResult | CohortMean, PhaseRequest]]:
        if not phase.policy.checked and not any(request.fold for request in requests):
            return results_of(self._backend, requests, self.concurrency)
        reviewer = Reviewer(phase.stats.kind, phase.policy, self.spec.weight_limit)
        return gather(self._backend, requests, reviewer.review, self.concurrency)

    def _stats_of(self, messages: Sequence[Message], contents: PhaseContents) -> PhaseStats:
        server_round, kind = round_of(messages), messages[0].metadata.message_type
        with self._lock:  # an app may send from several threads
            self._sequence += 1
            name = phase_id(server_round, kind, self._sequence, contents.digest)
        return PhaseStats(name, kind, server_round)
