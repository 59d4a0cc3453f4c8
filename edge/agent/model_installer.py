"""Installs a model for an IoT job: tests it with the app, switches, and reports the result."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import msgspec

from edge.agent.execution import CommandRefused, app_folder
from edge.agent.heartbeat import HeartbeatSender
from edge.config import DeviceConfig
from edge.files import disk_code
from edge.object_transfer import ObjectError
from edge.protocol.errors import ProtocolError
from edge.protocol.records import Records, decode_records, decode_skeleton, encode_skeleton
from edge.protocol.signed import Manifest, SignedManifest
from edge.protocol.text import printable
from edge.serving.model_store import Installed, ModelRefused, ModelStore, metric_of
from edge.training.app_bundle import AppError, load_app
from edge.training.worker import WorkerJob, WorkerResult
from edge.training.worker_process import Workers
from edge.transports import Transport, TransportError

TEST_SECONDS = 300.0
"""How long the test of a model may take."""
_TEST_CONTENT = encode_skeleton(
    Records(configs={"config": {"server-round": 0}}, order=("arrays", "config"))
)
_REASON_LIMIT = 200
_REPORT_LIMIT = 16 * 2**20


class ModelInstaller:
    """Installs models between commands.

    Args:
        config: The device.
        transport: Reports to the device's shadow.
        models: Where models are installed.
        workers: Runs the app that tests a model.
        heartbeats: Reports the new model at once.
        worker: Held while the worker is in use: it runs one job at a time.

    """

    def __init__(
        self,
        config: DeviceConfig,
        transport: Transport,
        models: ModelStore,
        workers: Workers,
        heartbeats: HeartbeatSender,
        worker: asyncio.Lock,
    ) -> None:
        self._config = config
        self._transport = transport
        self._models = models
        self._workers = workers
        self._heartbeats = heartbeats
        self._worker = worker

    async def install(self, signed: SignedManifest) -> Installed:
        """Install a model. Raises ModelRefused, after reporting it to the shadow."""
        async with self._worker:
            try:
                done = await self._install(signed)
            except ModelRefused as error:
                reason = printable(f"{error.code}: {error}", _REASON_LIMIT)
                await self._report({"state": "failed", "reason": reason})
                raise
        version = done.model_version if done.state == "active" else None
        await self._report({"version": version, "state": done.state, "reason": None})
        await self._heartbeats.publish()
        return done

    async def _install(self, signed: SignedManifest) -> Installed:
        """Turn every failure into a refusal: it is answered, and the agent goes on."""
        try:
            return await self._models.install(signed, self._test)
        except ModelRefused:
            raise
        except (ObjectError, ProtocolError) as error:
            raise ModelRefused(error.code, str(error)) from error
        except OSError as error:
            raise ModelRefused(disk_code(error), str(error)) from error
        except Exception as error:
            raise ModelRefused("device-error", f"{type(error).__name__}: {error}") from error

    async def _report(self, model: dict[str, str | None]) -> None:
        """Write to the shadow's reported state, where None removes a field."""
        with contextlib.suppress(TransportError):
            await self._transport.publish(
                f"$aws/things/{self._config.device}/shadow/update",
                msgspec.json.encode({"state": {"reported": {"model": model}}}),
            )

    async def _test(self, manifest: Manifest, weights: Path) -> float:
        """Measure a model's metric by the app's own evaluation, on this device's data."""
        try:
            folder = app_folder(self._config, manifest.app)
            app = load_app(folder)
        except (CommandRefused, AppError) as error:
            raise ModelRefused("app-missing", str(error)) from error
        job = WorkerJob(
            app=str(folder),
            client_app=app.client_app,
            kind="evaluate",
            message_id=f"test-{manifest.digest[:12]}",
            flower_run_id=int(manifest.app[:12], 16),
            node_id=0,
            node_config=self._config.node_config,
            run_config=dict(app.config),
            content=_TEST_CONTENT,
            arrays_path=str(weights),
            update_path=str(self._config.cache_dir / "test.out"),
        )
        result = await self._workers.run(job, TEST_SECONDS)
        if not result.ok:
            raise ModelRefused(result.code, result.reason)
        metrics = next(iter(_report_of(result, job).metrics.values()), {})
        return metric_of(metrics, manifest.metric)


def _report_of(result: WorkerResult, job: WorkerJob) -> Records:
    """Return what the app reported: in the result, or in a file when it is longer or has arrays."""
    if result.update is None:
        return decode_skeleton(result.content)
    file = Path(job.update_path)
    try:
        if result.update.size > _REPORT_LIMIT:
            raise ModelRefused("too-large", f"The app reports {result.update.size} bytes.")
        return decode_records(file.read_bytes())
    finally:
        file.unlink(missing_ok=True)
