"""``mledgeops-agent CONFIG``, also ``python -m edge.agent``: the agent of one device.

The entry point: it builds transport, object store and worker, and hands them to the agent.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from edge import logs
from edge.agent.agent import Agent
from edge.agent.heartbeat import last_will
from edge.agent.signals import until_signal
from edge.config import DeviceConfig, component_config, load_config
from edge.errors import MLEdgeOpsError
from edge.files import write_atomically
from edge.identity.credentials import recover_credentials
from edge.identity.trust import Trust, trusted_addresses
from edge.object_transfer import HttpObjects
from edge.training.worker_process import WorkerProcess
from edge.transports import Transport


async def serve(config: DeviceConfig) -> None:
    """Run one device until cancelled. Raises TransportError when it cannot connect."""
    objects = HttpObjects(config.cache_dir, trusted_addresses(config))
    await Agent(config, _transport(config), objects, WorkerProcess(config.worker_env)).run()


def _transport(config: DeviceConfig) -> Transport:
    # A device loads only the client library that it uses: memory is short.
    if config.transport == "greengrass":
        from edge.transports.greengrass import GreengrassTransport

        return GreengrassTransport()
    from edge.transports.mqtt import MqttTransport

    return MqttTransport(config, will=last_will(config))


def _parser() -> argparse.ArgumentParser:
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
    parser.add_argument(
        "--heartbeat-seconds",
        type=float,
        default=30.0,
        help="with --greengrass: seconds between heartbeats",
    )
    parser.add_argument(
        "--node-config",
        default="{}",
        help="with --greengrass: a JSON object, which the app finds in context.node_config",
    )
    parser.add_argument(
        "--trust",
        default="",
        help="with --greengrass: a JSON object, the public keys that this device trusts",
    )
    return parser


def _config(options: argparse.Namespace) -> DeviceConfig:
    if options.config is not None:
        config = load_config(options.config, recover_credentials)
    else:
        config = component_config(
            os.environ.get("AWS_IOT_THING_NAME", ""),
            options.fleet,
            options.home,
            options.heartbeat_seconds,
            options.node_config,
        )
    if options.trust:
        config.trust_file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(config.trust_file, options.trust.encode(), durable=True)
    Trust.of(config.trust_file)  # a malformed file is a bad configuration: say so before connecting
    return config


def main() -> int:
    """Run the agent: exit 2 for a bad configuration, 1 when it cannot connect."""
    parser = _parser()
    options = parser.parse_args()
    if options.greengrass == (options.config is not None):
        parser.error("give either a configuration file or --greengrass")
    logs.set_up()
    try:
        asyncio.run(until_signal(serve(_config(options))))
    except MLEdgeOpsError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
