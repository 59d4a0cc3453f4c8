"""``mledgeops-fleet CONFIG...``: many agents in one process, for simulation and the local cloud.

Each device has its own certificate, connection and folders. They share the event loop, the network
threads and a bounded pool of workers. The process ends when its standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from awscrt import io

from edge import logs
from edge.agent.agent import Agent
from edge.agent.heartbeat import last_will
from edge.agent.signals import until_signal
from edge.config import ConfigError, DeviceConfig, load_config
from edge.identity.credentials import recover_credentials
from edge.identity.trust import trusted_addresses
from edge.object_transfer import HttpObjects
from edge.training.worker_pool import WORKERS, WorkerPool
from edge.transports import Handler, TransportError
from edge.transports.mqtt import MqttTransport

logger = logging.getLogger(__name__)

CONNECTING = 16
"""Devices that connect at once: each has a TLS handshake, and 1,000 together would all be late."""

WRITING = 32
"""Devices that write to the disk at once: a file system syncs many files in the time of one."""


async def serve_fleet(configs: list[DeviceConfig], workers: int = WORKERS) -> None:
    """Run all devices until cancelled. One that cannot connect is logged and left out."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(WRITING, thread_name_prefix="disk"))
    group = io.EventLoopGroup(1)
    bootstrap = io.ClientBootstrap(group, io.DefaultHostResolver(group))
    pool, turns = WorkerPool(workers), asyncio.Semaphore(CONNECTING)
    try:
        async with asyncio.TaskGroup() as tasks:
            for config in configs:
                transport = _InTurn(config, bootstrap, turns)
                tasks.create_task(_serve_device(config, transport, pool))
    finally:
        await pool.stop()


class _InTurn(MqttTransport):
    """A transport that waits for its turn to connect."""

    def __init__(
        self, config: DeviceConfig, bootstrap: io.ClientBootstrap, turns: asyncio.Semaphore
    ) -> None:
        super().__init__(config, will=last_will(config), bootstrap=bootstrap)
        self._turns = turns

    async def connect(self, topics: list[str], handler: Handler) -> None:
        """See MqttTransport. The time of waiting does not count."""
        async with self._turns:
            await super().connect(topics, handler)


async def _serve_device(config: DeviceConfig, transport: MqttTransport, pool: WorkerPool) -> None:
    objects = HttpObjects(config.cache_dir, trusted_addresses(config))
    agent = Agent(config, transport, objects, pool.for_device(config.worker_env))
    try:
        await agent.run()
    except TransportError as error:
        logs.event(
            logger, "device-left-out", logging.ERROR, device=config.device, reason=str(error)
        )


async def _until_input_ends() -> None:
    """Return when the parent is gone: it holds the other end of standard input."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    await reader.read()


async def _main(configs: list[DeviceConfig], workers: int) -> None:
    devices = asyncio.ensure_future(serve_fleet(configs, workers))
    parent = asyncio.ensure_future(_until_input_ends())
    try:
        await asyncio.wait({devices, parent}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        devices.cancel()
        parent.cancel()
        await asyncio.gather(devices, parent, return_exceptions=True)


def main() -> int:
    """``python -m edge.agent.fleet CONFIG...``: exit 2 for a bad configuration."""
    parser = argparse.ArgumentParser(
        prog="mledgeops-fleet", description="Many devices in one process."
    )
    parser.add_argument(
        "configs", type=Path, nargs="+", help="configuration files, one for each device"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=WORKERS,
        help=f"training processes at most, for all devices together (default {WORKERS})",
    )
    options = parser.parse_args()
    if options.workers < 1:
        parser.error("--workers must be at least 1")
    logs.set_up()
    try:
        configs = [load_config(file, recover_credentials) for file in options.configs]
    except ConfigError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    asyncio.run(until_signal(_main(configs, options.workers)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
