"""``python -m fl_runtime.server.apps.check_app FOLDER STRATEGY PARAMETERS``: can this app run?

A process of its own, because checking imports the app's modules. It prints one sentence and exits
with 2 when the app cannot run.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from flwr.clientapp import ClientApp

from edge.protocol.messages import ConfigValue
from edge.training.app_bundle import AppError, load_app
from edge.training.app_modules import load_component
from fl_runtime.run.errors import RunFailed
from fl_runtime.server.apps.server_app import server_app_of
from fl_runtime.server.rounds.strategies import build


def check(folder: Path, strategy: str, parameters: Mapping[str, ConfigValue]) -> None:
    """Import both components and build the strategy; raises AppError or RunFailed."""
    if strategy:
        build(strategy, parameters, devices=2)
    app = load_app(folder)
    load_component(app.folder, app.client_app, ClientApp)
    server_app_of(app)


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 when the app can run, 2 when it cannot."""
    folder, strategy, parameters = arguments
    try:
        check(Path(folder), strategy, msgspec.json.decode(parameters))
    except (AppError, RunFailed) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    # The caller shows our one sentence, and not what libraries log.
    logging.disable()
    sys.exit(main(sys.argv[1:4]))
