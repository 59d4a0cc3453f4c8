"""Carries out one command: fetches what it names, runs the app, uploads the update."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.agent.order_gate import GrantedCommand
from edge.agent.renewal import Renewals
from edge.config import DeviceConfig
from edge.errors import CodedError
from edge.files import disk_code
from edge.logs import event
from edge.memory import usable_memory
from edge.object_transfer import ObjectError, Objects
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import Command, ConfigValue, ObjectRef, Reply, Timing
from edge.protocol.names import check_digest
from edge.protocol.orders import check_content
from edge.protocol.records import decode_skeleton
from edge.protocol.text import parse_json, printable
from edge.training.app_bundle import AppError, load_app
from edge.training.app_state import state_file, sweep_states
from edge.training.worker import WorkerJob, WorkerResult
from edge.training.worker_process import Workers
from edge.transports import TransportError

logger = logging.getLogger(__name__)

_COPIES = 2
"""The fewest copies of the weights that training can hold: those that came, and the update."""
REASON_LIMIT = 400
"""Characters of a failure's reason: at four bytes each, they still fit into a message of 4 KB."""


class CommandRefused(CodedError):
    """A command that this device does not run; code and text go into the reply."""


@dataclass
class _Deadline:
    """Counts a command's seconds from its receipt."""

    command: Command
    received: float
    monotonic: Callable[[], float]

    def left(self) -> float:
        seconds = self.command.seconds - (self.monotonic() - self.received)
        if seconds <= 0:
            raise CommandRefused("deadline", "the command's deadline had passed")
        return seconds


@dataclass(frozen=True)
class _Inputs:
    """What a command names, on this device's disk."""

    content: str
    arrays: str
    downloaded: int


class CommandExecution:
    """Answers commands.

    Args:
        config: The device.
        objects: Where weights are downloaded from and updates are uploaded to.
        workers: Runs the app.
        monotonic: Seconds, including suspend.
        now: Unix time.
        memory: MiB that a worker could use; 0: not known.

    """

    def __init__(
        self,
        config: DeviceConfig,
        objects: Objects,
        workers: Workers,
        monotonic: Callable[[], float],
        now: Callable[[], float] = time.time,
        memory: Callable[[], int] = usable_memory,
    ) -> None:
        self._config = config
        self._objects = objects
        self._workers = workers
        self._monotonic = monotonic
        self._now = now
        self._memory = memory
        self.renewals = Renewals(monotonic)
        """Takes the repetitions of the command that is under way."""
        # A worker that is warm holds some of it, and uses that again.
        self._memory_at_start = memory()

    async def answer(self, granted: GrantedCommand, received: float) -> Reply:
        """Carry out a command, and return its result or the reason of its failure.

        Args:
            granted: The command, and what its server has granted.
            received: When it came, by the monotonic clock.

        """
        command = granted.command
        self.renewals.begin(command, received)
        try:
            return await self._run(granted, _Deadline(command, received, self._monotonic))
        except (CommandRefused, ObjectError, ProtocolError) as error:
            return _failure(command, error.code, str(error))
        except OSError as error:
            return _failure(command, disk_code(error), str(error))
        except (ValueError, AppError, TransportError) as error:
            return _failure(command, "device-error", str(error))
        except Exception as error:  # noqa: BLE001  # the server learns of a fault of ours, too
            return _failure(command, "device-error", f"{type(error).__name__}: {error}")
        finally:
            self.renewals.end()

    async def _run(self, granted: GrantedCommand, deadline: _Deadline) -> Reply:
        command = granted.command
        folder, started = app_folder(self._config, command.app), self._monotonic()
        self._check_memory(command)
        inputs = await self._fetch(granted, deadline)
        fetched = self._monotonic()
        update = self._config.cache_dir / "update.out"
        # The worker gets the time that is left, and the upload what the worker leaves.
        job = self._job(command, folder, inputs, update)
        result = await self._workers.run(job, deadline.left())
        if not result.ok:
            timing = Timing(fetched - started, result.work_seconds, 0.0)
            return _failure(command, result.code, result.reason, timing)
        worked = self._monotonic()
        if result.update is not None:
            await self.renewals.with_address(
                lambda at: self._objects.put(at.upload_url, update, deadline.left()), deadline.left
            )
            update.unlink(missing_ok=True)
        timing = Timing(fetched - started, worked - fetched, self._monotonic() - worked)
        return _success(command, result, timing, inputs.downloaded)

    def _check_memory(self, command: Command) -> None:
        """Refuse weights before they are fetched that no training could hold here."""
        size = (command.arrays.size if command.arrays else 0) >> 20
        usable = max(self._memory(), self._memory_at_start)
        if usable and size * _COPIES > usable:
            raise CommandRefused(
                "out-of-memory",
                f"the weights take {size} MiB, and an app holds them and its update at the same"
                f" time; this device has {usable} MiB of memory for it",
            )

    async def _fetch(self, granted: GrantedCommand, deadline: _Deadline) -> _Inputs:
        command = granted.command
        content, arrays, downloaded = command.content, "", 0
        if command.content_ref is not None:
            path, size = await self._download(
                command.content_ref, lambda at: at.content_ref, deadline
            )
            content, downloaded = path.read_text(), downloaded + size
        check_content(granted.grant, content, command.run_config)
        decode_skeleton(content)
        if command.arrays is not None:
            path, size = await self._download(command.arrays, lambda at: at.arrays, deadline)
            arrays, downloaded = str(path), downloaded + size
        return _Inputs(content, arrays, downloaded)

    async def _download(
        self, ref: ObjectRef, again: Callable[[Command], ObjectRef | None], deadline: _Deadline
    ) -> tuple[Path, int]:
        """Fetch an object. ``again``: where a repetition of the command has it."""
        return await self.renewals.with_address(
            lambda at: self._objects.fetch(again(at) or ref, deadline.left()), deadline.left
        )

    def _job(self, command: Command, folder: Path, inputs: _Inputs, update: Path) -> WorkerJob:
        app = load_app(folder)
        return WorkerJob(
            app=str(folder),
            client_app=app.client_app,
            kind=command.kind,
            message_id=command.message_id,
            flower_run_id=command.flower_run_id,
            node_id=command.node_id,
            node_config=self._config.node_config,
            run_config={**app.config, **_overrides(command)},
            content=inputs.content,
            arrays_path=inputs.arrays,
            update_path=str(update),
            group_id=command.group_id,
            state_path=str(self._state_of(command)),
        )

    def _state_of(self, command: Command) -> Path:
        """The file of the run's state. With a new run, those of old ones go."""
        folder = self._config.state_dir
        file = state_file(folder, command.run, command.app)
        if not file.exists():
            sweep_states(folder, self._now())
        return file


def app_folder(config: DeviceConfig, digest: str) -> Path:
    """Return the folder of an installed app. Raises CommandRefused ``app-missing``."""
    folder = config.apps_dir / check_digest(digest)
    if not folder.is_dir():
        raise CommandRefused(
            "app-missing", f"the app {digest[:12]} is not installed on this device"
        )
    return folder


def _overrides(command: Command) -> dict[str, ConfigValue]:
    """Return the run's changes to the app's configuration. Raises ProtocolError."""
    found: dict[str, ConfigValue] = parse_json(
        command.run_config, dict[str, ConfigValue], "the run configuration"
    )
    return found


def _success(command: Command, result: WorkerResult, timing: Timing, downloaded: int) -> Reply:
    return Reply(
        run=command.run,
        phase=command.phase,
        message_id=command.message_id,
        status="ok",
        content=result.content,
        update=result.update,
        timing=timing,
        bytes_down=downloaded,
    )


def _failure(command: Command, code: str, reason: str, timing: Timing = Timing()) -> Reply:
    event(
        logger,
        "command-failed",
        logging.WARNING,
        run=command.run,
        phase=command.phase,
        code=code,
        reason=reason,
    )
    return Reply(
        run=command.run,
        phase=command.phase,
        message_id=command.message_id,
        status="error",
        code=code[:40],
        reason=printable(reason, REASON_LIMIT),
        timing=timing,
    )
