"""Sends the commands of a phase: one to each device, and again to those that stay silent."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from edge.logs import event
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import COMMAND_LIMIT, Claim, Command, ObjectRef
from edge.protocol.records import digest
from fl_runtime.run.concurrency import Concurrency
from fl_runtime.run.keys import arrays_key, command_key, content_key, reply_key, update_key
from fl_runtime.run.messages import DeviceResult, OrderKey, PhaseRequest, Target, failure
from fl_runtime.run.order_keys import sign_order
from fl_runtime.run.ports import Clock, Commands, ObjectStore

logger = logging.getLogger(__name__)

PARALLEL = 4
"""Commands sent at once."""
CONTENT_LIMIT = 1024
"""Longest record skeleton, in characters, that travels inside a command. A longer one is stored as
an object that all devices share.
"""


@dataclass(frozen=True)
class _Part:
    """What a command carries."""

    content: str
    """Empty when it is stored as an object."""
    reference: ObjectRef | None
    arrays: ObjectRef | None
    key: OrderKey


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
        self._parts: list[_Part] = []

    def send(self, waiting: Mapping[str, Target], seconds: float) -> list[DeviceResult]:
        """Send a command to each target, which then has ``seconds``. Returns the failures of those
        that it could not be sent to.
        """
        request = self._request
        # Anew for each repetition: an address ends with the credentials that signed it.
        self._parts = [
            self._part(request.content, request.arrays, request.key),
            *(self._part(other.content, other.arrays, other.key) for other in request.others),
        ]
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

    def _part(self, content: str, arrays: ObjectRef | None, key: OrderKey) -> _Part:
        """What devices get, with addresses that they share."""
        request = self._request
        if arrays is not None:
            url = self._objects.url_to_get(arrays_key(request.run, arrays.digest), request.seconds)
            arrays = ObjectRef(arrays.digest, arrays.size, url)
        if len(content) <= CONTENT_LIMIT:
            return _Part(content, None, arrays, key)
        data = content.encode()
        name = content_key(request.run, digest(data))
        self._objects.put(name, data)
        url = self._objects.url_to_get(name, request.seconds)
        return _Part("", ObjectRef(digest(data), len(data), url), arrays, key)

    def _send(self, target: Target, seconds: float) -> None:
        request = self._request
        upload = self._objects.url_to_put(
            update_key(request.run, request.phase, target.device),
            request.seconds,
            request.size_limit,
        )
        part = self._parts[target.content]
        command = self._command(target, part, upload, seconds)
        payload = sign_order(command, part.key)
        # Presigned URLs with session tokens are long: two of them can exceed the limit.
        if len(payload) > COMMAND_LIMIT:
            payload = sign_order(self._claim(command), part.key)
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

    def _command(self, target: Target, part: _Part, upload: str, seconds: float) -> Command:
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
            group_id=target.group_id,
            content=part.content,
            content_ref=part.reference,
            arrays=part.arrays,
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
