"""Sends the commands of a phase: one to each device, and again to those that stay silent."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import msgspec

from edge.logs import event
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import COMMAND_LIMIT, Claim, Command, ObjectRef
from edge.protocol.records import digest
from fl_runtime.run.concurrency import Concurrency
from fl_runtime.run.keys import arrays_key, command_key, content_key, reply_key, update_key
from fl_runtime.run.messages import DeviceResult, PhaseRequest, Target, failure
from fl_runtime.run.order_keys import sign_order
from fl_runtime.run.ports import Clock, Commands, ObjectStore

logger = logging.getLogger(__name__)

PARALLEL = 4
"""Commands sent at once."""
CONTENT_LIMIT = 1024
"""Longest record skeleton, in characters, that travels inside a command. A longer one is stored as
an object that all devices share.
"""


class CommandSender:
    """Signs and sends the commands of one phase. A device answers a repeated command from memory,
    so nothing is trained twice. ``now``: Unix seconds.
    """

    def __init__(
        self,
        commands: Commands,
        objects: ObjectStore,
        request: PhaseRequest,
        concurrency: Concurrency,
        now: Clock,
    ) -> None:
        self._commands = commands
        self._objects = objects
        self._request = request
        self._concurrency = concurrency
        self._now = now
        self._issued = 0
        self._arrays, self._content = self._references()

    def send(self, waiting: Mapping[str, Target], seconds: float) -> list[DeviceResult]:
        """Send a command to each target, which then has ``seconds``. Returns the failures of those
        that it could not be sent to.
        """
        # A command that is sent again is issued later, even where the clock was set back: devices
        # take it for a captured one otherwise.
        self._issued = max(int(self._now() * 1000), self._issued + 1)

        def sent(target: Target) -> DeviceResult | None:
            try:
                self._send(target, seconds)
            except Exception as error:  # noqa: BLE001  # whatever it is, the others get theirs
                return _not_sent(target, error)
            return None

        # A publish takes about 10 ms: in sequence, the last of many devices would start late.
        failed = self._concurrency.each(sent, list(waiting.values()), PARALLEL)
        return [result for result in failed if result is not None]

    def _references(self) -> tuple[ObjectRef | None, ObjectRef | None]:
        """(arrays, content): the objects that all devices share, presigned once for the phase.
        Content that fits into the command is None.
        """
        request = self._request
        arrays = request.arrays
        if arrays is not None:
            url = self._objects.url_to_get(arrays_key(request.run, arrays.digest), request.seconds)
            arrays = ObjectRef(arrays.digest, arrays.size, url)
        if len(request.content) <= CONTENT_LIMIT:
            return arrays, None
        data = request.content.encode()
        key = content_key(request.run, digest(data))
        self._objects.put(key, data)
        return arrays, ObjectRef(
            digest(data), len(data), self._objects.url_to_get(key, request.seconds)
        )

    def _send(self, target: Target, seconds: float) -> None:
        request = self._request
        upload = self._objects.url_to_put(
            update_key(request.run, request.phase, target.device),
            request.seconds,
            request.size_limit,
        )
        command = self._command(target, upload, seconds)
        payload = sign_order(command, request.key)
        # Presigned URLs with session tokens are long: two of them can exceed the limit.
        if len(payload) > COMMAND_LIMIT:
            payload = sign_order(self._claim(command), request.key)
        if len(payload) > COMMAND_LIMIT:
            raise ProtocolError(
                "too-long", f"its order takes {len(payload)} bytes; the limit is {COMMAND_LIMIT}"
            )
        self._commands.send(request.fleet, target.device, payload, seconds)

    def _claim(self, command: Command) -> Claim:
        """Store a command; returns the claim for it."""
        data = msgspec.json.encode(command)
        key = command_key(command.run, digest(data))
        self._objects.put(key, data)
        url = self._objects.url_to_get(key, self._request.seconds)
        return Claim(
            device=command.device,
            issued=command.issued,
            message_id=command.message_id,
            command=ObjectRef(digest(data), len(data), url),
            seconds=command.seconds,
        )

    def _command(self, target: Target, upload: str, seconds: float) -> Command:
        request = self._request
        return Command(
            device=target.device,
            issued=self._issued,
            run=request.run,
            phase=request.phase,
            server_round=request.server_round,
            kind=request.kind,
            message_id=target.message_id,
            reply_key=reply_key(request.run, request.phase, request.cohort),
            app=request.app,
            seconds=seconds,
            flower_run_id=request.flower_run_id,
            node_id=target.node_id,
            content="" if self._content else request.content,
            content_ref=self._content,
            arrays=self._arrays,
            upload_url=upload,
            run_config=request.run_config,
        )


def _not_sent(target: Target, error: Exception) -> DeviceResult:
    event(
        logger,
        "command-not-sent",
        logging.WARNING,
        device=target.device,
        reason=str(error),
    )
    return failure(target, "not-sent", f"the command could not be sent: {error}")
