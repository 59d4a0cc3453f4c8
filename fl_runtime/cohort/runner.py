"""One cohort's part of a phase: command each device, gather replies, check them, fold or pass on.

Runs in a proxy task, or inside the server for small fleets. Imports neither flwr nor torch, so a
proxy starts in a second.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Iterator

from botocore.exceptions import BotoCoreError, ClientError

from edge.logs import event
from edge.protocol.records import Records
from fl_runtime.cohort.command_sender import CommandSender
from fl_runtime.cohort.fold import Fold, is_expected
from fl_runtime.cohort.kept import KeptUpdates
from fl_runtime.cohort.norm_filter import NormFilter
from fl_runtime.cohort.updates import ReplyChecker, read_again
from fl_runtime.run import blocking
from fl_runtime.run.concurrency import THREADS, Answer, Concurrency
from fl_runtime.run.keys import reply_key
from fl_runtime.run.messages import (
    DeviceResult,
    PhaseDone,
    PhaseEvent,
    PhaseRequest,
    Target,
    failure,
    over_selected,
)
from fl_runtime.run.ports import Clock, Commands, ObjectStore, Replies, Sleep, StoredReply

logger = logging.getLogger(__name__)

POLL_SECONDS = (0.05, 0.5)
"""Shortest and longest wait between two reads of the replies table."""
POLL_BACKOFF = 1.3
PAUSE_PER_READ = 3.0
"""A pause is at least so many times as long as the read before it: the replies of many devices take
a while to read, each time all of them (docs/decisions/0041).
"""
PARALLEL = 4
"""Updates downloaded and decoded at once: bounds the memory used beside the mean itself."""
RESENDS = 3
"""How often a silent device gets its command again, in a phase of less than 40 minutes: it may have
rebooted, or never received it. A device answers a repeated command from memory, so nothing is
trained twice.
"""
RESEND_SECONDS = (2.0, 600.0)
"""Shortest and longest time between two. The addresses in a command end with the credentials that
signed them, which have ten minutes or more: a device with a longer one waits for the next.
"""

_Batch = list[tuple[StoredReply, Target]]
_Checked = tuple[DeviceResult, Records | None]


class CohortRunner:
    """Carries out phase requests for one cohort."""

    def __init__(
        self,
        commands: Commands,
        replies: Replies,
        objects: ObjectStore,
        *,
        clock: Clock,
        sleep: Sleep,
        now: Clock = time.time,
        stopped: Callable[[], bool] = lambda: False,
        blocked: Callable[[], Container[str]] = tuple,
        concurrency: Concurrency = THREADS,
    ) -> None:
        """``blocked``: the devices that are shut out, read anew at each call."""
        self._commands = commands
        self._replies = replies
        self._objects = objects
        self._clock = clock
        self._sleep = sleep
        self._now = now
        self._stopped = stopped
        self._blocked = blocked
        self._concurrency = concurrency
        self.kept = KeptUpdates()
        """Updates that were read, for who needs them once more."""

    def run(self, request: PhaseRequest) -> Iterator[PhaseEvent]:
        """Yield one DeviceResult for each target, the fold if asked for, then PhaseDone. Never
        raises for what a device does.
        """
        if request.accepted:
            yield from fold_again(self._objects, request, self._concurrency, self.kept)
            return
        began = self._clock()
        phase = _Phase(request, self._objects, self._concurrency, self.kept)
        sender = CommandSender(self._commands, self._objects, request, self._concurrency, self._now)
        waiting = {target.device: target for target in request.targets}
        yield from self._shut_out(waiting)
        for failed in sender.send(waiting, request.seconds):
            del waiting[failed.device]
            yield failed
        for batch, blocked in self._await_replies(request, waiting, began, sender):
            yield from (_blocked(target) for _, target in batch if target.device in blocked)
            yield from phase.accept([pair for pair in batch if pair[1].device not in blocked])
            if phase.has_enough:
                break
        for target in waiting.values():
            yield (
                over_selected(target)
                if phase.has_enough
                else failure(target, "no-reply", f"no reply within {request.seconds:.0f} s")
            )
        yield from phase.fold.finish()
        yield PhaseDone(request.phase)

    def _shut_out(self, waiting: dict[str, Target]) -> Iterator[DeviceResult]:
        """Take the blocked devices out of ``waiting``; yields their failures."""
        blocked = self._blocked()
        for device in [device for device in waiting if device in blocked]:
            yield _blocked(waiting.pop(device))

    def _await_replies(
        self,
        request: PhaseRequest,
        waiting: dict[str, Target],
        began: float,
        sender: CommandSender,
    ) -> Iterator[tuple[_Batch, Container[str]]]:
        """Yield the first reply of each target, taking it out of ``waiting``, until all have
        replied, time is up or the run is stopped; with each batch the devices that are blocked.

        A table that cannot be read is read again at the next poll: it costs time, not the run.
        """
        deadline = began + request.seconds
        shortest, longest = RESEND_SECONDS
        resend_every = min(max(request.seconds / (RESENDS + 1), shortest), longest)
        pause, resend_at = POLL_SECONDS[0], began + resend_every
        while waiting and (now := self._clock()) < deadline and not self._stopped():
            if now >= resend_at and (blocked := _or_later(self._blocked)) is not None:
                resend_at = now + resend_every
                asked = {name: at for name, at in waiting.items() if name not in blocked}
                _resend(sender, asked, deadline - now)
            asked_at = self._clock()
            batch = self._new_replies(request, waiting)
            reading = self._clock() - asked_at
            # Asked before the replies count as taken: a batch is not lost with a failed question.
            if batch and (blocked := _or_later(self._blocked)) is not None:
                for _, target in batch:
                    del waiting[target.device]
                yield batch, blocked
            # Replies come in bursts: poll quickly after one, and back off while none arrives.
            pause = POLL_SECONDS[0] if batch else min(pause * POLL_BACKOFF, POLL_SECONDS[1])
            if waiting:
                self._sleep(min(max(pause, PAUSE_PER_READ * reading), POLL_SECONDS[1]))

    def _new_replies(self, request: PhaseRequest, waiting: dict[str, Target]) -> _Batch:
        """New replies of the waiting devices. Rows of other devices, and of those that have replied
        already, are ignored.
        """
        key = reply_key(request.run, request.phase, request.cohort)
        found = {
            reply.device: (reply, waiting[reply.device])
            for reply in _or_later(lambda: self._replies.read(key)) or ()
            if reply.device in waiting and reply.fleet == request.fleet
        }
        return list(found.values())


def _or_later(ask: Callable[[], Answer]) -> Answer | None:
    """The service's answer; None when it gives none, after the client's own retries."""
    try:
        return ask()
    except (ClientError, BotoCoreError) as error:
        event(logger, "service-refuses", logging.WARNING, reason=str(error))
        return None


def _blocked(target: Target) -> DeviceResult:
    return failure(target, blocking.CODE, blocking.REASON)


def _resend(sender: CommandSender, waiting: dict[str, Target], seconds: float) -> None:
    """Repeat the commands; one that cannot be sent now was sent before, so it is no failure yet."""
    for failed in _or_later(lambda: sender.send(waiting, seconds)) or ():
        event(
            logger,
            "command-not-repeated",
            logging.WARNING,
            device=failed.device,
            reason=failed.reason,
        )


class _Phase:
    """What becomes of the replies of one phase."""

    def __init__(
        self,
        request: PhaseRequest,
        objects: ObjectStore,
        concurrency: Concurrency,
        kept: KeptUpdates,
    ) -> None:
        self._request = request
        self._concurrency = concurrency
        self._filter = NormFilter(objects, request)
        self._kept = kept
        self._checker = ReplyChecker(objects, request, self._filter, kept)
        self._accepted = 0
        self.fold = Fold(request.phase, request.weighted_by)

    @property
    def has_enough(self) -> bool:
        """Whether as many valid replies came as the phase needs (over-selection)."""
        return bool(self._request.enough) and self._accepted >= self._request.enough

    def accept(self, batch: _Batch) -> Iterator[DeviceResult]:
        """Read a batch of replies; yields the results that are final already."""
        target_of = {target.device: target for _, target in batch}

        def check(pair: tuple[StoredReply, Target]) -> _Checked:
            return self._checker.check(*pair)

        for result, records in self._concurrency.each(check, batch, PARALLEL):
            if result.status == "ok" and self.has_enough:
                yield over_selected(target_of[result.device])
                continue
            expected = result.status == "ok" and is_expected(
                self._request, result, target_of[result.device]
            )
            # What is not expected must not end the phase before the others have answered.
            self._accepted += expected or (result.status == "ok" and self._request.layout is None)
            if records is None or not expected or self._filter.is_unjudged:
                yield result
            else:
                self._kept.take(self._request, result.device, result.update)
                yield self.fold.add(result, records)


def fold_again(
    objects: ObjectStore, request: PhaseRequest, concurrency: Concurrency, kept: KeptUpdates
) -> Iterator[PhaseEvent]:
    """Fold the updates that the server accepted after it had seen those of all cohorts.

    What was not kept is read again: to keep all would take a model's disk space for each device.
    """
    fold = Fold(request.phase, request.weighted_by)

    def read(result: DeviceResult) -> _Checked:
        return read_again(objects, request, result, kept)

    for result, records in concurrency.each(read, request.accepted, PARALLEL):
        yield result if records is None else fold.add(result, records)
    yield from fold.finish()
    yield PhaseDone(request.phase)
