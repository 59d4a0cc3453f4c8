"""The process that runs a ClientApp, apart from the agent: its crash never takes the agent down.

Frames on standard input and output: four bytes of length, then MessagePack. Whatever the app
prints goes to standard error. The process ends when its standard input does.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import BinaryIO

import msgspec

from edge.object_transfer import disk_code
from edge.protocol.messages import ObjectRef
from edge.protocol.records import (
    decode_records,
    decode_skeleton,
    digest,
    encode_records,
    encode_skeleton,
    merge,
)

INLINE_LIMIT = 2048
"""Bytes of a skeleton, escaped as it is inside the reply message, that still travels there."""


class Job(msgspec.Struct, kw_only=True):
    """One call of the app. Paths are files of the agent's."""

    app: str
    client_app: str
    kind: str
    message_id: str
    flower_run_id: int
    node_id: int
    node_config: dict[str, bool | int | float | str]
    run_config: dict[str, bool | int | float | str]
    content: str
    arrays_path: str
    update_path: str


class Outcome(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What came of a job: ``content`` when small and without arrays, else a file at
    ``update_path``.
    """

    ok: bool
    reason: str = ""
    code: str = ""
    content: str = ""
    update: ObjectRef | None = None
    work_seconds: float = 0.0


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next frame, or None at the end of the stream."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    body = stream.read(int.from_bytes(head, "big"))
    return body if body is not None and len(body) == int.from_bytes(head, "big") else None


def write_frame(stream: BinaryIO, body: bytes) -> None:
    """Write one frame and flush."""
    stream.write(len(body).to_bytes(4, "big") + body)
    stream.flush()


def frames_out() -> BinaryIO:
    """A private copy of standard output, which then points at standard error: what an app prints
    must not corrupt the frames.
    """
    frames = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return frames


class Runner:
    """Holds the loaded app and its context, so that a second command starts at once."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[str, str], object] = {}
        self._contexts: dict[tuple[int, int], object] = {}

    def run(self, job: Job) -> Outcome:
        """Run the app; whatever it raises becomes an outcome with the reason."""
        from edge.training import flower_compat
        from edge.training.app_bundle import AppError

        started = time.monotonic()
        try:
            client = self._client(job)
            skeleton = decode_skeleton(job.content)
            arrays = (
                decode_records(Path(job.arrays_path).read_bytes()).arrays if job.arrays_path else {}
            )
            content = flower_compat.to_recorddict(merge(skeleton, arrays))
            flower_compat.set_identity(job.flower_run_id, job.node_id)
            message = flower_compat.incoming_message(
                content,
                kind=job.kind,
                message_id=job.message_id,
                run_id=job.flower_run_id,
                node_id=job.node_id,
            )
            answer = flower_compat.from_recorddict(
                flower_compat.call_client(client, message, self._context(job))
            )
        except AppError as error:
            return Outcome(ok=False, code="app-load", reason=str(error))
        except MemoryError:
            return Outcome(ok=False, code="out-of-memory", reason="the app ran out of memory")
        except Exception as error:  # the app's own code: every failure becomes a reply
            return Outcome(
                ok=False, code="app-error", reason=f"{type(error).__name__}: {error}"[:900]
            )
        seconds = time.monotonic() - started
        text = encode_skeleton(answer)
        if not any(answer.arrays.values()) and len(msgspec.json.encode(text)) <= INLINE_LIMIT:
            return Outcome(ok=True, content=text, work_seconds=seconds)
        blob = encode_records(answer)
        try:
            Path(job.update_path).write_bytes(blob)
        except OSError as error:
            return Outcome(
                ok=False,
                code=disk_code(error),
                reason=f"the update cannot be stored: {error.strerror}",
                work_seconds=seconds,
            )
        return Outcome(
            ok=True, update=ObjectRef(digest=digest(blob), size=len(blob)), work_seconds=seconds
        )

    def _client(self, job: Job) -> object:
        from flwr.clientapp import ClientApp

        from edge.training.app_modules import load_component

        key = (job.app, job.client_app)
        if key not in self._loaded:
            self._loaded[key] = load_component(Path(job.app), job.client_app, ClientApp)
        return self._loaded[key]

    def _context(self, job: Job) -> object:
        """A run's context lives as long as this process, as under a SuperNode."""
        from flwr.app import Context, RecordDict

        key = (job.flower_run_id, job.node_id)
        if key not in self._contexts:
            self._contexts = {
                key: Context(
                    run_id=job.flower_run_id,
                    node_id=job.node_id,
                    node_config=dict(job.node_config),
                    state=RecordDict(),
                    run_config=dict(job.run_config),
                )
            }
        return self._contexts[key]


def main() -> int:
    """Serve jobs until standard input ends."""
    frames = frames_out()
    runner = Runner()
    while (body := read_frame(sys.stdin.buffer)) is not None:
        outcome = runner.run(msgspec.msgpack.decode(body, type=Job))
        write_frame(frames, msgspec.msgpack.encode(outcome))
    return 0


if __name__ == "__main__":
    sys.exit(main())
