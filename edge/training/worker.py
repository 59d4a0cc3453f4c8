"""The training subprocess: runs an app's ClientApp, one job a frame.

``python -m edge.training.worker`` reads :class:`WorkerJob` frames (MessagePack) from standard
input and writes :class:`WorkerResult` frames, until standard input ends. What the app prints goes
to standard error. Flower is imported here and not in the agent, which stays small.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from edge.files import disk_code
from edge.frames import read_frame, take_over_stdout, write_frame
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import ConfigValue, ObjectRef
from edge.protocol.records import (
    Records,
    decode_records,
    decode_skeleton,
    encode_skeleton,
    merge,
    write_records,
)
from edge.training.app_bundle import AppError
from edge.training.app_state import StoredState
from edge.training.app_traceback import failure_text
from edge.typed import from_msgpack

if TYPE_CHECKING:
    from flwr.app import Context

INLINE_LIMIT = 2048
"""Bytes of a skeleton, escaped as in the reply message, that travel inside the reply."""
_REASON_LIMIT = 900


class WorkerJob(msgspec.Struct, kw_only=True):
    """One call of the app. Paths are files that the agent and the worker share."""

    app: str
    """The app's folder."""
    client_app: str
    """``module:attribute`` of the ClientApp."""
    kind: str
    """Flower's message type, such as ``train``."""
    message_id: str
    flower_run_id: int
    node_id: int
    node_config: dict[str, ConfigValue]
    run_config: dict[str, ConfigValue]
    content: str
    """The record skeleton."""
    arrays_path: str
    """File with the arrays, or empty."""
    update_path: str
    """Where the worker writes an answer that has arrays or is large."""
    group_id: str = ""
    """Flower's label of the messages that belong together."""
    state_path: str = ""
    """File that keeps ``context.state``; empty: the state is lost with this process."""


class WorkerResult(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The result of a job: ``content`` when it is small and has no arrays, else ``update``."""

    ok: bool
    reason: str = ""
    code: str = ""
    """A reason code of :data:`edge.protocol.errors.DEVICE_CODES` when not ``ok``."""
    content: str = ""
    update: ObjectRef | None = None
    """Digest and size of the file at ``update_path``."""
    work_seconds: float = 0.0


class ClientRunner:
    """Runs jobs. Keeps the loaded app and its context, so that the next job starts at once."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[str, str], object] = {}
        self._contexts: dict[tuple[int, int, str], tuple[Context, StoredState | None]] = {}

    def run(self, job: WorkerJob) -> WorkerResult:
        """Run the app. Whatever it raises or returns becomes a result, with the reason."""
        started = time.monotonic()
        try:
            answer = self._call(job)
            seconds = time.monotonic() - started
            result = _result(answer, Path(job.update_path))
        except AppError as error:
            return WorkerResult(ok=False, code="app-load", reason=str(error))
        except ProtocolError as error:
            return WorkerResult(ok=False, code=error.code, reason=str(error)[:_REASON_LIMIT])
        except MemoryError:
            return WorkerResult(ok=False, code="out-of-memory", reason="the app ran out of memory")
        except Exception as error:  # the app's own code may raise anything
            reason = failure_text(error, Path(job.app))
            return WorkerResult(ok=False, code="app-error", reason=reason)
        result.work_seconds = seconds
        return result

    def _call(self, job: WorkerJob) -> Records:
        # Flower takes seconds and 100 MB to import: only this process pays for it.
        from edge.training import flower_compat

        client = self._client(job)
        skeleton = decode_skeleton(job.content)
        file = MappedFile(Path(job.arrays_path)) if job.arrays_path else None
        arrays = decode_records(file.content).arrays if file else {}
        content = flower_compat.to_recorddict(
            merge(skeleton, arrays), file.forget if file else _nothing
        )
        flower_compat.set_identity(job.flower_run_id, job.node_id)
        message = flower_compat.incoming_message(
            content,
            kind=job.kind,
            message_id=job.message_id,
            run_id=job.flower_run_id,
            node_id=job.node_id,
            group_id=job.group_id,
        )
        context, stored = self._context(job)
        try:
            answer = flower_compat.call_client(client, message, context)
        finally:
            # An app may have changed its state before it raised, and the next call goes on from it.
            if stored is not None:
                stored.save(flower_compat.from_recorddict(context.state))
        return flower_compat.from_recorddict(answer)

    def _client(self, job: WorkerJob) -> object:
        from flwr.clientapp import ClientApp

        from edge.training.app_modules import forget_modules, load_component

        key = (job.app, job.client_app)
        if key not in self._loaded:
            # Two versions of an app have the same module names: keep one of them at a time.
            forget_modules(Path(job.app), job.client_app)
            self._loaded = {key: load_component(Path(job.app), job.client_app, ClientApp)}
            # What was imported stays: the collection after each job need not look at it.
            gc.collect()
            gc.freeze()
        return self._loaded[key]

    def _context(self, job: WorkerJob) -> tuple[Context, StoredState | None]:
        """Return the run's context, whose state is the one that was last stored."""
        from flwr.app import Context, RecordDict

        from edge.training.flower_compat import to_recorddict

        key = (job.flower_run_id, job.node_id, job.state_path)
        known = self._contexts.get(key)
        if known is not None and (known[1] is None or known[1].is_current()):
            return known
        stored = StoredState(Path(job.state_path)) if job.state_path else None
        context = Context(
            run_id=job.flower_run_id,
            node_id=job.node_id,
            node_config=dict(job.node_config),
            state=to_recorddict(stored.load()) if stored else RecordDict(),
            run_config=dict(job.run_config),
        )
        # Of one run at a time: a run that is over would hold its state in memory for nothing.
        self._contexts = {key: (context, stored)}
        return context, stored


class MappedFile:
    """A file's content without reading it: the system loads what is used, and may drop it.

    The agent never writes to a file in its cache; it replaces or removes it.
    """

    def __init__(self, file: Path) -> None:
        self._map: mmap.mmap | None = None
        self.content = memoryview(b"")
        with file.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size:
                self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
                self.content = memoryview(self._map)

    def forget(self) -> None:
        """Take what was read out of this process's memory; reading it again loads it again."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def _nothing() -> None:
    """Forget nothing: there is no file."""


def _result(answer: Records, update: Path) -> WorkerResult:
    """Return a small answer, or write a large one to ``update``. Raises ProtocolError."""
    if not any(answer.arrays.values()):
        text = encode_skeleton(answer)
        if len(msgspec.json.encode(text)) <= INLINE_LIMIT:
            return WorkerResult(ok=True, content=text)
    try:
        with update.open("wb") as stream:
            name, size = write_records(answer, stream)
    except OSError as error:
        reason = f"the update cannot be stored: {error.strerror}"
        return WorkerResult(ok=False, code=disk_code(error), reason=reason)
    return WorkerResult(ok=True, update=ObjectRef(digest=name, size=size))


def serve(jobs: BinaryIO, results: BinaryIO) -> None:
    """Run jobs, one a frame, until their stream ends."""
    runner = ClientRunner()
    while (body := read_frame(jobs)) is not None:
        result = runner.run(from_msgpack(body, type=WorkerJob))
        write_frame(results, msgspec.msgpack.encode(result))
        _tidy()


def _tidy() -> None:
    """Give back what the last job held, while the agent uploads its update.

    Messages and replies refer to each other: left to the collector, two models of earlier jobs lie
    beside those of the next.
    """
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def main() -> int:
    """Serve jobs until standard input ends."""
    frames = take_over_stdout()
    serve(sys.stdin.buffer, frames)
    return 0


if __name__ == "__main__":
    sys.exit(main())
