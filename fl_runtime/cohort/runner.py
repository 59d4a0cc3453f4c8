"""One cohort's part of a phase: command each device, gather replies, check, fold or pass on.

Runs in a proxy task, or inside the server for small fleets; the same code. Needs neither flwr nor
torch, so a proxy starts in a second.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

from edge.logs import event
from edge.protocol.errors import DEVICE_CODES, OTHER_CODE, ProtocolError
from edge.protocol.messages import ObjectRef, Reply, decode
from edge.protocol.records import Records, decode_skeleton
from fl_runtime.cohort.aggregation import UpdateCheck
from fl_runtime.cohort.command_sender import Sending
from fl_runtime.cohort.fold import Fold, Gate
from fl_runtime.cohort.updates import changed_meanwhile, read_update
from fl_runtime.run.keys import reply_key
from fl_runtime.run.messages import (
    DeviceResult,
    Event,
    PhaseDone,
    PhaseRequest,
    Target,
    failure,
    spare,
)
from fl_runtime.run.ports import (
    Clock,
    Commands,
    ObjectMissing,
    ObjectStore,
    Replies,
    Sleep,
    StoredReply,
)

logger = logging.getLogger(__name__)

POLL_SECONDS = (0.05, 0.5)
"""First and longest wait between two looks at the replies table."""
PARALLEL = 4
"""Updates downloaded and decoded at once: bounds the memory above the mean itself."""
RESENDS = 3
"""A silent device gets its command again, so many times in a phase: it may have rebooted, or never
got it. It answers
a repeated command from memory, so nothing is trained twice."""
RESEND_LEAST_SECONDS = 2.0


class CohortRunner:
    """Carries out phase requests."""

    def __init__(
        self,
        commands: Commands,
        replies: Replies,
        objects: ObjectStore,
        *,
        clock: Clock,
        sleep: Sleep,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._commands = commands
        self._replies = replies
        self._objects = objects
        self._clock = clock
        self._sleep = sleep
        self._stopped = stopped

    def run(self, request: PhaseRequest) -> Iterator[Event]:
        """Yield one DeviceResult a target, the fold if asked for, then PhaseDone. Never raises for
        a device.
        """
        began = self._clock()
        gate = Gate(self._objects, request)
        fold = Fold(request.phase, request.weighted_by)
        counted = 0
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix=request.cohort) as pool:
            phase = Sending(self._commands, self._objects, request, pool)
            target_of = {target.device: target for target in request.targets}
            waiting = dict(target_of)
            for failed in phase.send(waiting, request.seconds):
                del waiting[failed.device]
                yield failed
            for batch in self._await(request, waiting, began, phase):
                for opened in as_completed(
                    [pool.submit(self._open, request, gate, *pair) for pair in batch]
                ):
                    result, records = opened.result()
                    if result.status == "ok" and request.enough and counted == request.enough:
                        result, records = spare(target_of[result.device]), None
                    counted += result.status == "ok"
                    if result.status == "ok" and gate.holds:
                        gate.hold(result)
                    elif records is None:
                        yield result
                    else:
                        fold.add(result, records)
                if request.enough and counted >= request.enough:
                    break
            yield from self._pass_on(request, gate, fold, pool)
        over = bool(request.enough and counted >= request.enough)
        for target in waiting.values():
            yield (
                spare(target)
                if over
                else failure(target, "no-reply", f"no reply within {request.seconds:.0f} s")
            )
        yield from fold.finish()
        yield PhaseDone(request.phase)

    def _pass_on(
        self, request: PhaseRequest, gate: Gate, fold: Fold, pool: ThreadPoolExecutor
    ) -> Iterator[DeviceResult]:
        """What the gate held back: the odd ones as failures, the others as results or into the fold
        (they are read once more).
        """
        held, odd = gate.release()
        yield from odd
        if not request.fold:
            yield from held
            return
        for at in range(0, len(held), PARALLEL):
            part = held[at : at + PARALLEL]
            for result, records in pool.map(lambda held: self._read_again(request, held), part):
                if records is None:
                    yield result
                else:
                    fold.add(result, records)

    def _await(
        self, request: PhaseRequest, waiting: dict[str, Target], began: float, phase: Sending
    ) -> Iterator[list[tuple[StoredReply, Target]]]:
        """Yield each target's first reply, removing it from ``waiting``, until all came or time is
        up.
        """
        key = reply_key(request.run, request.phase, request.cohort)
        every = max(request.seconds / (RESENDS + 1), RESEND_LEAST_SECONDS)
        pause, again = POLL_SECONDS[0], began + every
        while waiting and (now := self._clock()) < began + request.seconds and not self._stopped():
            if now >= again:
                again = now + every
                for failed in phase.send(waiting, began + request.seconds - now):
                    event(
                        logger,
                        "command-not-repeated",
                        logging.WARNING,
                        device=failed.device,
                        reason=failed.reason,
                    )
            # A row of a device that was not asked, or that was read before, is left alone.
            batch = [
                (reply, waiting.pop(reply.device))
                for reply in self._replies.read(key)
                if reply.device in waiting and reply.fleet == request.fleet
            ]
            if batch:
                yield batch
            pause = POLL_SECONDS[0] if batch else min(pause * 1.3, POLL_SECONDS[1])
            if waiting:
                self._sleep(pause)

    def _open(
        self, request: PhaseRequest, gate: Gate, stored: StoredReply, target: Target
    ) -> tuple[DeviceResult, Records | None]:
        """Parse, download, check. Whatever is wrong with it becomes a result with a reason code."""
        try:
            reply = decode(stored.body, Reply)
            if (reply.run, reply.phase, reply.message_id) != (
                request.run,
                request.phase,
                target.message_id,
            ):
                raise ProtocolError("foreign", "the reply answers another message")
            up = len(stored.body) + (reply.update.size if reply.update else 0)
            if reply.status == "error":
                code = reply.code if reply.code in DEVICE_CODES else OTHER_CODE
                return failure(target, code, reply.reason, reply.timing, up, reply.bytes_down), None
            records = (
                self._read(request, target.device, reply.update)
                if reply.update
                else decode_skeleton(reply.content)
            )
            metrics = next(iter(records.metrics.values()), {})
            if request.checked:
                specs = request.specs if request.kind.startswith("train") else None
                UpdateCheck(weighted_by=request.weighted_by, arrays=specs).weight_of(records)
            norm = gate.check(records)
        except ProtocolError as error:
            return failure(target, error.code, str(error)), None
        except ObjectMissing as error:
            return failure(target, "update-missing", str(error)), None
        result = DeviceResult(
            device=target.device,
            node_id=target.node_id,
            message_id=target.message_id,
            status="ok",
            metrics=metrics,
            norm=norm,
            content="" if request.fold else reply.content,
            update=reply.update,
            timing=reply.timing,
            bytes_up=up,
            bytes_down=reply.bytes_down,
        )
        return result, records if request.fold else None

    def _read_again(
        self, request: PhaseRequest, result: DeviceResult
    ) -> tuple[DeviceResult, Records | None]:
        """The records of a result that was held back. Its device may have written over them
        meanwhile.
        """
        try:
            return result, self._read(request, result.device, result.update)
        except (ProtocolError, ObjectMissing) as error:
            return changed_meanwhile(result, error), None

    def _read(self, request: PhaseRequest, device: str, update: ObjectRef | None) -> Records:
        """Download and decode a device's update; raises ProtocolError or ObjectMissing."""
        if update is None:
            raise ProtocolError("malformed", "the reply names no update")
        if update.size > request.size_limit:
            raise ProtocolError("too-large", f"the update claims {update.size} bytes")
        return read_update(self._objects, request, device, update)
