"""The device's agent: heartbeats, takes commands, has them run, replies.

A light process (no torch, no flwr): the app runs in a worker of its own. Every command it can
read is answered once, with a result or a reason; a repeated command gets the same answer again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge import logs
from edge.agent.facts import free_memory, power, uptime
from edge.agent.jobs import Jobs
from edge.agent.shadow import parse_shadow
from edge.agent.signals import until_signal
from edge.agent.spool import Spool
from edge.config import DeviceConfig, load_config, of_component
from edge.identity.credentials import issued_at
from edge.identity.trust import Trust
from edge.object_transfer import HttpObjects, ObjectError, Objects, disk_code
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import (
    CLAIMED_LIMIT,
    Claim,
    Command,
    ConfigValue,
    Heartbeat,
    Reply,
    Timing,
    decode,
    decode_order,
    seal,
)
from edge.protocol.names import check_digest, is_digest, topic
from edge.protocol.records import Records, decode_skeleton, encode_skeleton
from edge.protocol.signed import Manifest, SignedManifest, command_text
from edge.serving.model_store import Installed, ModelRefused, ModelStore, metric_of
from edge.serving.socket_server import PredictSocket
from edge.serving.statistics import serving, sweep
from edge.training.app_bundle import AppError, load_app
from edge.training.worker import Job, Outcome
from edge.training.worker_process import WorkerProcess, Workers
from edge.transports import Transport, TransportError

logger = logging.getLogger(__name__)

REASON_LIMIT = 400
"""Characters of a failure's reason: four bytes each still leave room in a message of 4 KB."""
TEST_SECONDS = 300.0
"""How long a model's test on the device may take."""
TEST_CONTENT = encode_skeleton(
    Records(configs={"config": {"server-round": 0}}, order=("arrays", "config"))
)
CERTIFICATE_CHECK_SECONDS = 3600.0
WAITING_COMMANDS = 4
"""Commands held while one runs. More than that is a flood: the newest are dropped."""


class CommandRefused(Exception):
    """A command this device will not run; ``code`` and text go into the reply."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def last_will(config: DeviceConfig) -> tuple[str, bytes]:
    """Topic and payload that the broker publishes when the device drops."""
    return topic(config.fleet, config.device, "heartbeat"), seal(Heartbeat(state="offline"))


class Agent:
    """One device. Wire it with a transport, an object store and a worker; then ``await run()``."""

    def __init__(
        self,
        config: DeviceConfig,
        transport: Transport,
        objects: Objects,
        workers: Workers,
        *,
        monotonic: Callable[[], float] = uptime,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._transport = transport
        self._objects = objects
        self._workers = workers
        self._monotonic = monotonic
        self._now = now
        self._certificate_after = 0.0
        self._look_at_certificate = asyncio.Event()
        self._commands: asyncio.Queue[tuple[Command | Claim, float]] = asyncio.Queue(
            WAITING_COMMANDS
        )
        self._shadows: asyncio.Queue[bytes] = asyncio.Queue(WAITING_COMMANDS)
        self._trust = Trust.of(config.trust_file)
        self._models = ModelStore(config.models_dir, objects, self._trust, config.fleet, now)
        self._predictions = PredictSocket(Path(config.home), config.worker_env)
        self._jobs = Jobs(transport, config.device, self._install)
        self._working = asyncio.Lock()
        self._spool = Spool(config.spool_dir)
        self._boot = secrets.token_hex(8)
        self._busy = False
        self._command_topic = topic(config.fleet, config.device, "command")
        self._reply_topic = topic(config.fleet, config.device, "reply")
        self._shadow_topic = f"$aws/things/{config.device}/shadow"

    async def run(self) -> None:
        """Connect and serve until cancelled; raises TransportError when it cannot connect."""
        topics = [
            self._command_topic,
            f"{self._shadow_topic}/update/delta",
            f"{self._shadow_topic}/get/accepted",
            *self._jobs.topics,
        ]
        await self._transport.connect(topics, self._receive)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._serve())
                group.create_task(self._beat())
                group.create_task(self._follow_shadow())
                group.create_task(self._jobs.run())
                group.create_task(self._keep_certificate_young())
                group.create_task(self._predictions.run())
        finally:
            await self._workers.stop()
            with contextlib.suppress(TransportError, asyncio.CancelledError):
                await self._transport.publish(*last_will(self._config))
            await self._transport.close()

    def installed_apps(self) -> list[str]:
        """Digests of the apps in the apps folder."""
        folder = self._config.apps_dir
        return (
            sorted(path.name for path in folder.iterdir() if is_digest(path.name))[:50]
            if folder.is_dir()
            else []
        )

    def _receive(self, source: str, payload: bytes) -> None:
        """Called for each message; must not block."""
        if self._jobs.receive(source, payload):
            return
        if source != self._command_topic:
            # the shadow is asked for again at the next change
            with contextlib.suppress(asyncio.QueueFull):
                self._shadows.put_nowait(payload)
            return
        try:
            self._commands.put_nowait((decode_order(payload), self._monotonic()))
        except ProtocolError as error:
            logs.event(
                logger, "command-refused", logging.WARNING, code=error.code, reason=str(error)
            )
        except asyncio.QueueFull:
            logs.event(
                logger,
                "command-refused",
                logging.WARNING,
                code="flood",
                reason="too many commands at once",
            )

    async def _beat(self) -> None:
        while True:
            if await self._publish_heartbeat():
                await self._send_spooled()
            await asyncio.sleep(self._config.heartbeat_seconds)

    async def _send_spooled(self) -> None:
        """Replies that a lost connection or a reboot kept back. Those of rounds that are over count
        for nothing, and harm nothing.
        """
        for entry in self._spool.unsent():
            await self._publish_reply(entry.message_id, entry.payload)

    async def _publish_reply(self, message_id: str, payload: bytes) -> None:
        try:
            await self._transport.publish(self._reply_topic, payload)
            self._spool.sent(message_id)
        except TransportError as error:
            logs.event(
                logger, "reply-waits", logging.WARNING, message=message_id, reason=str(error)
            )

    async def _publish_heartbeat(self) -> bool:
        try:
            await self._transport.publish(
                topic(self._config.fleet, self._config.device, "heartbeat"), self._heartbeat()
            )
        except TransportError as error:
            logs.event(logger, "heartbeat-lost", logging.WARNING, reason=str(error))
            return False
        return True

    def _heartbeat(self) -> bytes:
        active, folder = self._models.active(), self._config.serving_dir
        sweep(folder, active.sequence)
        beat = Heartbeat(
            state="busy" if self._busy else "idle",
            boot=self._boot,
            apps=self.installed_apps(),
            power=power(),
            free_memory=free_memory(),
            labels=self._config.labels,
            model=active.manifest.model_version if active.manifest else "",
            since=active.since if active.manifest else 0.0,
            serving=serving(folder, active.sequence) if active.manifest else None,
        )
        try:
            return seal(beat)
        except (
            ProtocolError
        ):  # too long, with many apps: better heard of without its statistics than not at all
            return seal(msgspec.structs.replace(beat, serving=None))

    async def _serve(self) -> None:
        while True:
            order, received = await self._commands.get()
            command = await self._claimed(order) if isinstance(order, Claim) else order
            if command is None:
                continue
            payload = self._spool.get(command.message_id)
            if payload is None:
                self._busy = True
                async with self._working:
                    payload = seal(await self._answer(command, received), command.reply_key)
                self._busy = False
                self._spool.keep(command.message_id, payload)
            await self._publish_reply(command.message_id, payload)

    async def _claimed(self, claim: Claim) -> Command | None:
        """The command behind a claim check; without it nobody can be answered, so failure is only
        logged.
        """
        try:
            path, _ = await self._objects.fetch(claim.command, claim.seconds)
            return decode(path.read_bytes(), Command, CLAIMED_LIMIT)
        except (ObjectError, ProtocolError, OSError) as error:
            logs.event(logger, "command-refused", logging.WARNING, code="claim", reason=str(error))
            return None

    async def _answer(self, command: Command, received: float) -> Reply:
        try:
            return await self._run(command, received)
        except (CommandRefused, ObjectError, ProtocolError) as error:
            return self._failure(command, error.code, str(error))
        except OSError as error:
            return self._failure(command, disk_code(error), str(error))
        except (ValueError, AppError, TransportError) as error:
            return self._failure(command, "device-error", str(error))

    async def _run(self, command: Command, received: float) -> Reply:
        def left() -> float:
            seconds = command.seconds - (self._monotonic() - received)
            if seconds <= 0:
                raise CommandRefused("deadline", "the command's deadline had passed")
            return seconds

        app, started, down, arrays = self._app(command.app), self._monotonic(), 0, ""
        content = command.content
        if command.content_ref is not None:
            path, size = await self._objects.fetch(command.content_ref, left())
            content, down = path.read_text(), down + size
        # Before anything of it is used: which weights, which app, which settings.
        self._trust.check("commands", command_text(command, content), command.signature)
        decode_skeleton(content)
        if command.arrays is not None:
            path, size = await self._objects.fetch(command.arrays, left())
            arrays, down = str(path), down + size
        fetched = self._monotonic()
        update = self._config.cache_dir / "update.out"
        outcome = await self._workers.run(self._job(command, app, content, arrays, update), left())
        if not outcome.ok:
            return self._failure(
                command,
                outcome.code,
                outcome.reason,
                Timing(fetched - started, outcome.work_seconds, 0.0),
            )
        worked = self._monotonic()
        if outcome.update is not None:
            await self._objects.put(command.upload_url, update, left())
            update.unlink(missing_ok=True)
        return self._success(
            command,
            outcome,
            Timing(fetched - started, worked - fetched, self._monotonic() - worked),
            down,
        )

    def _job(self, command: Command, folder: Path, content: str, arrays: str, update: Path) -> Job:
        app = load_app(folder)
        return Job(
            app=str(folder),
            client_app=app.client_app,
            kind=command.kind,
            message_id=command.message_id,
            flower_run_id=command.flower_run_id,
            node_id=command.node_id,
            node_config=self._config.node_config,
            run_config={**app.config, **_overrides(command)},
            content=content,
            arrays_path=arrays,
            update_path=str(update),
        )

    def _app(self, digest: str) -> Path:
        folder = self._config.apps_dir / check_digest(digest)
        if not folder.is_dir():
            raise CommandRefused(
                "app-missing", f"the app {digest[:12]} is not installed on this device"
            )
        return folder

    def _success(self, command: Command, outcome: Outcome, timing: Timing, down: int) -> Reply:
        return Reply(
            run=command.run,
            phase=command.phase,
            message_id=command.message_id,
            status="ok",
            content=outcome.content,
            update=outcome.update,
            timing=timing,
            bytes_down=down,
        )

    def _failure(
        self, command: Command, code: str, reason: str, timing: Timing = Timing()
    ) -> Reply:
        logs.event(
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
            code=code,
            reason=reason[:REASON_LIMIT],
            timing=timing,
        )

    async def _follow_shadow(self) -> None:
        """Ask once for the shadow, then act on each change; a failed fetch is reported, never
        fatal.
        """
        with contextlib.suppress(TransportError):
            await self._transport.publish(f"{self._shadow_topic}/get", b"{}")
        while True:
            payload = await self._shadows.get()
            try:
                desired = parse_shadow(payload)
            except msgspec.DecodeError as error:
                logs.event(logger, "shadow-refused", logging.WARNING, reason=str(error))
                continue
            if desired.certificate_after is not None:
                self._certificate_after = desired.certificate_after
                self._look_at_certificate.set()

    async def _keep_certificate_young(self) -> None:
        """Renew the certificate when it is old, or when the shadow wants a younger one. Never in
        the middle of a command.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look_at_certificate.wait(), CERTIFICATE_CHECK_SECONDS)
            self._look_at_certificate.clear()
            if not self._certificate_is_old():
                continue
            while self._busy or not self._commands.empty():
                await asyncio.sleep(1.0)
            try:
                await self._transport.renew()
                logs.event(logger, "certificate-renewed", device=self._config.device)
            except (TransportError, OSError) as error:
                logs.event(logger, "certificate-not-renewed", logging.ERROR, reason=str(error))

    def _certificate_is_old(self) -> bool:
        if not self._config.provisioning_template or not self._config.certificate:
            return False
        issued = issued_at(Path(self._config.certificate)).timestamp()
        return (
            issued < self._certificate_after
            or self._now() - issued > self._config.rotate_days * 86_400
        )

    async def _install(self, signed: SignedManifest) -> Installed:
        """Take a model into use, between commands; report it, by the shadow and at once in a
        heartbeat.
        """
        async with self._working:
            try:
                done = await self._models.install(signed, self._test)
            except ModelRefused as error:
                await self._report_model(
                    {"state": "failed", "reason": f"{error.code}: {error}"[:200]}
                )
                raise
        await self._report_model(
            {
                "version": done.model_version if done.state == "active" else None,
                "state": done.state,
                "reason": None,
            }
        )
        await self._publish_heartbeat()
        return done

    async def _report_model(self, state: dict[str, str | None]) -> None:
        with contextlib.suppress(TransportError):
            await self._transport.publish(
                f"{self._shadow_topic}/update",
                msgspec.json.encode({"state": {"reported": {"model": state}}}),
            )

    async def _test(self, manifest: Manifest, weights: Path) -> float:
        """A model's metric by the app's own evaluation, on the data this device has now."""
        try:
            folder = self._app(manifest.app)
            app = load_app(folder)
        except (CommandRefused, AppError) as error:
            raise ModelRefused("app-missing", str(error)) from error
        job = Job(
            app=str(folder),
            client_app=app.client_app,
            kind="evaluate",
            message_id=f"test-{manifest.digest[:12]}",
            flower_run_id=int(manifest.app[:12], 16),
            node_id=0,
            node_config=self._config.node_config,
            run_config=dict(app.config),
            content=TEST_CONTENT,
            arrays_path=str(weights),
            update_path=str(self._config.cache_dir / "test.out"),
        )
        outcome = await self._workers.run(job, TEST_SECONDS)
        if not outcome.ok:
            raise ModelRefused(outcome.code, outcome.reason)
        return metric_of(
            next(iter(decode_skeleton(outcome.content).metrics.values()), {}), manifest.metric
        )


def _overrides(command: Command) -> dict[str, ConfigValue]:
    """The run's changes to the app's own configuration."""
    try:
        return msgspec.json.decode(command.run_config, type=dict[str, ConfigValue])
    except msgspec.DecodeError as error:
        raise CommandRefused("malformed", f"the run configuration is malformed: {error}") from error


async def serve(config: DeviceConfig) -> None:
    """Run one device until cancelled, over its own connection or the Greengrass nucleus's."""
    transport: Transport
    if config.transport == "greengrass":
        from edge.transports.greengrass import GreengrassTransport

        transport = GreengrassTransport()
    else:
        from edge.transports.mqtt import MqttTransport

        transport = MqttTransport(config, will=last_will(config))
    await Agent(
        config, transport, HttpObjects(config.cache_dir), WorkerProcess(config.worker_env)
    ).run()


def main() -> int:
    """``mledgeops-agent CONFIG``: exit 2 for a bad configuration, 1 when it cannot connect."""
    parser = argparse.ArgumentParser(prog="mledgeops-agent", description="The agent of one device.")
    parser.add_argument("config", type=Path, nargs="?", help="the device's configuration file")
    parser.add_argument(
        "--greengrass",
        action="store_true",
        help="run as a Greengrass component, without a configuration file",
    )
    parser.add_argument("--fleet", default="default", help="with --greengrass: the device's fleet")
    parser.add_argument(
        "--home", default="data", help="with --greengrass: folder for apps, cache and models"
    )
    parser.add_argument("--heartbeat-seconds", type=float, default=30.0, help="with --greengrass")
    parser.add_argument(
        "--node-config",
        default="{}",
        help="with --greengrass: a JSON object, what the app finds in context.node_config",
    )
    parser.add_argument(
        "--trust",
        default="",
        help="with --greengrass: a JSON object, the keys that this device believes",
    )
    options = parser.parse_args()
    if options.greengrass == (options.config is not None):
        parser.error("give either a configuration file or --greengrass")
    logs.set_up()
    try:
        given = (options.fleet, options.home, options.heartbeat_seconds, options.node_config)
        config = load_config(options.config) if options.config else of_component(*given)
        if options.trust:
            config.trust_file.parent.mkdir(parents=True, exist_ok=True)
            config.trust_file.write_text(options.trust)
        Trust.of(config.trust_file)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        asyncio.run(until_signal(serve(config)))
    except TransportError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
