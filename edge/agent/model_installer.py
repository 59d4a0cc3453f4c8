"""Installs a model for an IoT job: tests it with the app, switches, and reports the result."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import msgspec

from edge.agent.execution import CommandRefused, app_folder
from edge.agent.heartbeat import HeartbeatSender
from edge.config import DeviceConfig
from edge.protocol.records import Records, decode_skeleton, encode_skeleton
from edge.protocol.signed import Manifest, SignedManifest
from edge.serving.model_store import Installed, ModelRefused, ModelStore, metric_of
from edge.training.app_bundle import AppError, load_app
from edge.training.worker import WorkerJob
from edge.training.worker_process import Workers
from edge.transports import Transport, TransportError

TEST_SECONDS = 300.0
"""How long the test of a model may take."""
_TEST_CONTENT = encode_skeleton(
    Records(configs={"config": {"server-round": 0}}, order=("arrays", "config"))
)
_REASON_LIMIT = 200


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
                done = await self._models.install(signed, self._test)
            except ModelRefused as error:
                reason = f"{error.code}: {error}"[:_REASON_LIMIT]
                await self._report({"state": "failed", "reason": reason})
                raise
        version = done.model_version if done.state == "active" else None
        await self._report({"version": version, "state": done.state, "reason": None})
        await self._heartbeats.publish()
        return done

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
        metrics = next(iter(decode_skeleton(result.content).metrics.values()), {})
        return metric_of(metrics, manifest.metric)
