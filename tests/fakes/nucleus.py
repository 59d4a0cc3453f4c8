"""A stand-in for the Greengrass nucleus: its IPC (event-stream RPC on a Unix socket), as far as
MQTT goes through it.

It speaks to AWS's own client library and to a real broker, asks the recipe's ``accessControl``
before anything passes,
and has the limits that were measured on nucleus-lite: 4.9 KB in (more is dropped in silence), 7 KB
out, ten unacknowledged.
Framing: https://awslabs.github.io/aws-c-event-stream/, operations: the model in
awsiot.greengrasscoreipc.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fnmatch
import json
import struct
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.greengrass.recipe import NUCLEUS_CONFIGURATION

MESSAGE, ERROR, CONNECT, CONNECT_ACK = 0, 1, 4, 5
ACCEPTED, TERMINATE = 1, 2
IN_LIMIT, OUT_LIMIT, AT_ONCE = 4_900, 7_000, 10
PUBLISH, SUBSCRIBE = "aws.greengrass#PublishToIoTCore", "aws.greengrass#SubscribeToIoTCore"


def frame(headers: dict[str, int | str], payload: bytes = b"") -> bytes:
    """One event-stream message: prelude, headers, payload, each half with its CRC."""
    block = b""
    for name, value in headers.items():
        block += struct.pack(">B", len(name)) + name.encode()
        block += (
            struct.pack(">Bi", 4, value)
            if isinstance(value, int)
            else struct.pack(">BH", 7, len(value.encode())) + value.encode()
        )
    prelude = struct.pack(">II", 16 + len(block) + len(payload), len(block))
    body = prelude + struct.pack(">I", zlib.crc32(prelude)) + block + payload
    return body + struct.pack(">I", zlib.crc32(body))


async def read_frame(reader: asyncio.StreamReader) -> tuple[dict[str, Any], bytes]:
    """The next message; raises IncompleteReadError at the end."""
    prelude = await reader.readexactly(12)
    total, size, crc = struct.unpack(">III", prelude)
    assert crc == zlib.crc32(prelude[:8])
    rest = await reader.readexactly(total - 12)
    assert struct.unpack(">I", rest[-4:])[0] == zlib.crc32(prelude + rest[:-4])
    headers, at = {}, 0
    while at < size:
        length = rest[at]
        name, kind, at = (
            rest[at + 1 : at + 1 + length].decode(),
            rest[at + 1 + length],
            at + 2 + length,
        )
        if kind == 4:
            headers[name], at = struct.unpack_from(">i", rest, at)[0], at + 4
        else:
            text = struct.unpack_from(">H", rest, at)[0]
            headers[name], at = rest[at + 2 : at + 2 + text].decode(), at + 2 + text
    return headers, rest[size:-4]


@dataclass
class Nucleus:
    """One core with one component. ``broker``: a connected transport of the core's own; ``recipe``:
    the component's.
    """

    broker: Any
    recipe: dict[str, Any]
    thing: str
    configuration: Mapping[str, Any] = field(default_factory=lambda: NUCLEUS_CONFIGURATION)
    """The nucleus component's own, as its deployment sets it."""
    token: str = "component-token"
    dropped: int = 0
    refused: list[str] = field(default_factory=list)
    most_at_once: int = 0
    _at_once: int = 0
    _listeners: list[tuple[str, int, asyncio.StreamWriter]] = field(default_factory=list)

    async def serve(self, socket: Path) -> asyncio.Server:
        """Listen; the environment of :meth:`environment` leads a component here."""
        return await asyncio.start_unix_server(self._client, path=str(socket))

    def environment(self, socket: Path) -> dict[str, str]:
        """What a nucleus sets for its components."""
        return {
            "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": str(socket),
            "SVCUID": self.token,
            "AWS_IOT_THING_NAME": self.thing,
        }

    def allows(self, operation: str, topic: str) -> bool:
        """The recipe's accessControl, with its variables filled in where that is switched on."""
        groups = self.recipe["ComponentConfiguration"]["DefaultConfiguration"]["accessControl"][
            "aws.greengrass.ipc.mqttproxy"
        ].values()
        interpolates = self.configuration.get("interpolateComponentConfiguration", False)
        patterns = [
            r.replace("{iot:thingName}", self.thing) if interpolates else r
            for g in groups
            if operation in g["operations"]
            for r in g["resources"]
        ]
        return any(fnmatch.fnmatchcase(topic, pattern) for pattern in patterns)

    def deliver(self, topic: str, payload: bytes) -> None:
        """A message from the broker: to who subscribed, unless it is too long."""
        if len(payload) > IN_LIMIT:
            self.dropped += 1
            return
        body = json.dumps(
            {"message": {"topicName": topic, "payload": base64.b64encode(payload).decode()}}
        ).encode()
        for pattern, stream, writer in self._listeners:
            if pattern == topic:
                writer.write(
                    frame(
                        {
                            ":message-type": MESSAGE,
                            ":message-flags": 0,
                            ":stream-id": stream,
                            "service-model-type": "aws.greengrass#IoTCoreMessage",
                            ":content-type": "application/json",
                        },
                        body,
                    )
                )

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        headers, payload = await read_frame(reader)
        accepted = (
            headers[":message-type"] == CONNECT and json.loads(payload)["authToken"] == self.token
        )
        writer.write(
            frame(
                {
                    ":message-type": CONNECT_ACK,
                    ":message-flags": ACCEPTED if accepted else 0,
                    ":stream-id": 0,
                }
            )
        )
        tasks = set()
        try:
            while accepted:
                headers, payload = await read_frame(reader)
                if headers.get("operation"):
                    task = asyncio.ensure_future(self._answer(headers, json.loads(payload), writer))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
        except asyncio.IncompleteReadError:
            pass
        finally:
            self._listeners = [entry for entry in self._listeners if entry[2] is not writer]
            writer.close()

    async def _answer(
        self, headers: dict[str, Any], request: dict[str, Any], writer: asyncio.StreamWriter
    ) -> None:
        operation, stream, topic = headers["operation"], headers[":stream-id"], request["topicName"]

        def reply(kind: int, flags: int, model: str, body: dict[str, Any]) -> None:
            writer.write(
                frame(
                    {
                        ":message-type": kind,
                        ":message-flags": flags,
                        ":stream-id": stream,
                        "service-model-type": model,
                        ":content-type": "application/json",
                    },
                    json.dumps(body).encode(),
                )
            )

        def refuse(error: str, message: str) -> None:
            self.refused.append(f"{operation} {topic}")
            reply(ERROR, TERMINATE, f"aws.greengrass#{error}", {"message": message})

        if not self.allows(operation, topic):
            return refuse("UnauthorizedError", f"not allowed: {topic}")
        if operation == SUBSCRIBE:
            self._listeners.append((topic, stream, writer))
            return reply(MESSAGE, 0, "aws.greengrass#SubscribeToIoTCoreResponse", {})
        payload = base64.b64decode(request["payload"])
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if len(payload) > OUT_LIMIT or self._at_once > AT_ONCE:
                return refuse(
                    "ServiceError", "the message is too long, or too many are unacknowledged"
                )
            await self.broker.publish(topic, payload)
            return reply(MESSAGE, TERMINATE, "aws.greengrass#PublishToIoTCoreResponse", {})
        finally:
            self._at_once -= 1


@contextlib.asynccontextmanager
async def core(
    folder: Path, broker: Any, recipe: dict[str, Any], thing: str = "press-1"
) -> AsyncIterator[tuple[Nucleus, Path]]:
    """A core device: its nucleus, and the socket on which it serves components."""
    nucleus, socket = Nucleus(broker, recipe, thing), folder / "ipc.socket"
    server = await nucleus.serve(socket)
    try:
        yield nucleus, socket
    finally:
        server.close()
